"""One request and its answer, as the metrics and the access log see them."""

from typing import NamedTuple


class Exchange(NamedTuple):
    """A request that has been answered. `model` is "" where no such model is known."""

    dialect: str  # tfs, oip: over HTTP; tfs-grpc, oip-grpc; page for all else
    verb: str  # predict, infer, metadata ...; for a page its route
    model: str
    status: str  # HTTP's number, or gRPC's name
    method: str  # of HTTP; GRPC
    path: str
    client: str
    request_id: str
    bytes_in: int
    bytes_out: int
    seconds: float
    reason: str = ""  # of a refusal, as the client read it
