"""Whose address it is that a request comes from, past the proxies that are trusted."""

import ipaddress
from collections.abc import Mapping
from functools import lru_cache
from urllib.parse import unquote

FORWARDED = "x-forwarded-for"
_HOMES = 64  # bits of an IPv6 address that tell one customer from another


def address_of(peer: str, headers: Mapping[str, str], proxies: int) -> str:
    """Of `peer`, as HTTP or gRPC has it; or where so many proxies stand before the gateway, what
    the outermost of them has seen. Each adds who it heard at the end of X-Forwarded-For, so what a
    client has written there itself stands before that, and is not read.

    An IPv6 address is that of its network of 64 bits, of which one client has as many as it likes.

    >>> address_of("ipv4:10.0.0.1:5000", {"x-forwarded-for": "6.6.6.6, 1.2.3.4"}, 1)
    '1.2.3.4'
    """
    seen = headers.get(FORWARDED) if proxies else None
    if seen:
        hops = seen.split(",")
        return _network(hops[-min(proxies, len(hops))].strip())
    return _network(peer)


@lru_cache(4096)
def _network(peer: str) -> str:
    """
    >>> _network("ipv6:%5B2001:db8::1%5D:5000"), _network("1.2.3.4:80"), _network("unix:")
    ('2001:db8::/64', '1.2.3.4', 'unix:')
    """
    text = unquote(peer).removeprefix("ipv4:").removeprefix("ipv6:")
    if text.startswith("["):
        text = text[1:].partition("]")[0]
    elif text.count(":") == 1:
        text = text.partition(":")[0]
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        return peer
    if isinstance(address, ipaddress.IPv6Address):
        if address.ipv4_mapped:
            return str(address.ipv4_mapped)
        return str(ipaddress.ip_network((address, _HOMES), strict=False))
    return str(address)
