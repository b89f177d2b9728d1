"""What is trained on: arrays by name, where they come from, and what is asked about them."""
