"""Serving: the gateway, the embedded model server, `sluice up`, and the `sluice` command."""
