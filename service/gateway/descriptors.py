"""Descriptors of a worker, and the connections that may take them."""

import resource
from typing import NamedTuple

from service.gateway.settings import Settings

MOST_FILES = 65536  # where the system sets no bound
SPARE_FILES = 64  # that are not a client's
# Of the rest: gRPC's clients need one connection each, whatever they ask, HTTP's one a request.
GRPC_SHARE = 1 / 4


class Connections(NamedTuple):
    """How many a worker may have open of each kind."""

    http: int
    grpc: int


def room_for(settings: Settings) -> Connections:
    """In this process, which from now on may have as many descriptors as it may ask for."""
    files = _raise_file_limit() - SPARE_FILES
    grpc = min(settings.grpc_max_connections, int(files * GRPC_SHARE)) if settings.grpc_port else 0
    return Connections(files - grpc, grpc)


def _raise_file_limit() -> int:
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = MOST_FILES if hard == resource.RLIM_INFINITY else hard
    resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
    return wanted
