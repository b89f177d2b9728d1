"""Who may ask what of which model: held at the door, before a body is read, for every way in."""
