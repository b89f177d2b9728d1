"""Serving: gateway, model server, client and the wire between them."""
