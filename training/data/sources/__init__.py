"""Where images come from: one module each, every one with a `load`."""
