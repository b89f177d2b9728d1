"""What a model computes, cheaper: its normalisations folded into the layers before them."""
