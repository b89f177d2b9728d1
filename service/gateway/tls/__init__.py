"""TLS: whom the gateway says it is, whom it believes, and files that change while it runs."""
