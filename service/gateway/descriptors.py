"""Descriptors of a worker, and the connections that may take them."""

import resource
from typing import NamedTuple

from service.gateway.settings import Settings
from service.gateway.variables import InvalidSetting

MOST_FILES = 65536  # where the system sets no bound
SPARE_FILES = 64  # that are not a client's
# Of the rest: gRPC's clients need one connection each, whatever they ask, HTTP's one a request.
GRPC_SHARE = 1 / 4


class Connections(NamedTuple):
    """How many a worker may have open of each kind."""

    http: int
    grpc: int


def check_descriptors(settings: Settings) -> None:
    """Raises InvalidSetting where they leave no room for a port's clients."""
    files = _most_files()
    room = _shared_out(files, settings)
    if room.http < 1 or (settings.grpc_port and room.grpc < 1):
        raise InvalidSetting(
            f"a process may have {files} descriptors here (`ulimit -Hn`), of which {SPARE_FILES} "
            "are no client's: allow it some hundreds"
        )


def room_for(settings: Settings) -> Connections:
    """In this process, which from now on may have as many descriptors as it may ask for."""
    files = _most_files()
    resource.setrlimit(resource.RLIMIT_NOFILE, (files, _hard_limit()))
    return _shared_out(files, settings)


def _shared_out(files: int, settings: Settings) -> Connections:
    left = files - SPARE_FILES
    grpc = min(settings.grpc_max_connections, int(left * GRPC_SHARE)) if settings.grpc_port else 0
    return Connections(left - grpc, grpc)


def _most_files() -> int:
    hard = _hard_limit()
    return MOST_FILES if hard == resource.RLIM_INFINITY else hard


def _hard_limit() -> int:
    return resource.getrlimit(resource.RLIMIT_NOFILE)[1]
