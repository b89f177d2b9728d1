"""Addresses that a server listens on, as far as who reaches them goes."""

import ipaddress


def is_loopback(host: str) -> bool:
    """Whether no other machine can reach what listens there.

    >>> is_loopback("127.0.0.2"), is_loopback("localhost"), is_loopback("::")
    (True, True, False)
    """
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
