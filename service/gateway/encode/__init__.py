"""Named arrays to response bodies. Pure functions: no HTTP, no model server."""
