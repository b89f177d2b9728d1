"""One blueprint for each dialect; each turns its requests into the same five lines."""
