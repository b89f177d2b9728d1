"""From a built model and its data to trained weights and the curves that led there."""
