"""Request bodies to named arrays. Pure functions: no HTTP, no model server."""
