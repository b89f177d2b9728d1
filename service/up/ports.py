"""Whether what is to be listened on can be: asked before anything is started, or trained."""

import errno
import socket
from collections.abc import Mapping

ANY = {"0.0.0.0": "127.0.0.1", "::": "::1"}


def port_problem(host: str, ports: Mapping[str, int]) -> str:
    """What stands in the way of listening on `ports`, by the option or variable that sets each;
    "" where nothing does.

    >>> port_problem("127.0.0.1", {"--http-port": 8080, "--grpc-port": 8080})
    '--http-port and --grpc-port are both 8080'
    """
    options: dict[int, str] = {}
    for option, port in ports.items():
        if port in options:
            return f"{options[port]} and {option} are both {port}"
        options[port] = option
        problem = _problem(host, port, option)
        if problem:
            return problem
    return ""


def dialled(host: str, port: int) -> str:
    """Where to reach what listens at `host`.

    >>> dialled("0.0.0.0", 80), dialled("::", 80), dialled("10.0.0.7", 80)
    ('127.0.0.1:80', '[::1]:80', '10.0.0.7:80')
    """
    reached = ANY.get(host, host)
    return f"[{reached}]:{port}" if ":" in reached else f"{reached}:{port}"


def _problem(host: str, port: int, option: str) -> str:
    # Of a name with both kinds of addresses the gateway takes the IPv4 one. Who follows the name,
    # as `sluice up` does itself, may come to the other first, and is not to find a stranger there.
    first, *others = [socket.AF_INET6] if ":" in host else [socket.AF_INET, socket.AF_INET6]
    try:
        _bind(host, port, first)
        for family in others:
            _bind_if_there(host, port, family)
    except socket.gaierror as error:
        return f"--host {host} is no address ({error.strerror})"
    except OSError as error:
        if error.errno == errno.EADDRNOTAVAIL:
            return f"--host {host} is no address of this machine"
        return (
            f"port {port} cannot be used at {host} ({error.strerror}): end what listens there, "
            f"or choose another with {option}"
        )
    return ""


def _bind_if_there(host: str, port: int, family: socket.AddressFamily) -> None:
    """As `_bind`, where this machine has such an address."""
    try:
        _bind(host, port, family)
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            raise


def _bind(host: str, port: int, family: socket.AddressFamily) -> None:
    """For a moment. Raises OSError."""
    address = socket.getaddrinfo(host, port, family, socket.SOCK_STREAM)[0][4]
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        probe.bind(address)
