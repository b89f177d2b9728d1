"""What can go wrong with a request, named by cause. Knows neither HTTP nor gRPC.

GatewayError
├── RequestError                 the client's to mend
│   ├── MalformedRequest         the body or the path is not what it claims to be
│   │   ├── UnsupportedMediaType
│   │   ├── BodyTimeout          the rest of the body did not come
│   │   └── PayloadTooLarge
│   ├── InvalidInput             one named input: expected this, got that, here
│   │   └── InputTooLarge        decoding it would take more memory than is allowed
│   ├── UnknownInput             an input the signature does not have, or lacks
│   ├── UnknownSignature
│   ├── UnknownLabel
│   ├── UnbatchedOutput          the row format cannot carry this output
│   ├── NotText                  JSON cannot carry this output's bytes
│   ├── NotAcceptable            no form that the client accepts can carry the answer
│   └── RejectedByModel          the model server or the model itself refused the values
├── Unauthenticated              no key, or none that is known here
├── Forbidden                    the key is not for that
├── RateLimited                  the caller asks more, or more often, than it may
├── NotFound
│   └── ModelNotFound            no such model, or no such version of it
├── Busy                         no place for another request now
│   └── ShuttingDown
├── DeadlineExceeded             the time that the request had is over
└── ModelServerError             the operator's to mend
    ├── ModelServerUnavailable
    ├── ModelServerOverloaded
    ├── NotImplementedByServer
    └── ModelServerFailed        anything else that it answered
"""

from collections.abc import Iterable
from typing import Any

from sluice.wire.nearest import nearest

MAX_SHOWN = 80  # characters of a client's text
MAX_LISTED = 20  # known names in a message


class GatewayError(Exception):
    """The root; `str(error)` is the sentence that the client reads."""


class RequestError(GatewayError):
    """The same request will fail again; the message says what to change."""


class MalformedRequest(RequestError):
    """The bytes cannot be read as what the content type, or the path, says they are."""


class UnsupportedMediaType(MalformedRequest):
    """A content type or content encoding that nothing here reads."""


class PayloadTooLarge(MalformedRequest):
    """The body is over SLUICE_MAX_BODY_BYTES, or another limit, of which `whose` tells."""

    def __init__(self, limit_bytes: int, whose: str = "") -> None:
        whose = whose or "(SLUICE_MAX_BODY_BYTES); send fewer instances per request"
        super().__init__(
            f"The request body is larger than the limit of {limit_bytes} bytes {whose}"
        )


class BodyTimeout(MalformedRequest):
    """The rest of the body did not come."""


class InvalidInput(RequestError):
    """An input whose value does not fit: `inputs.NAME[ at PLACE]: expected E, got G[ (hint)]`."""

    def __init__(self, name: str, expected: str, got: str, at: str = "", hint: str = "") -> None:
        place = f" at {at}" if at else ""
        advice = f" ({hint})" if hint else ""
        super().__init__(f"inputs.{name}{place}: expected {expected}, got {got}{advice}")
        self.name, self.at = name, at


class InputTooLarge(InvalidInput):
    """An image whose pixels would not fit the limit, however few bytes its file has."""


class UnknownInput(RequestError):
    """The names sent are not the names of the signature's inputs."""


class UnknownSignature(RequestError):
    """The model has no signature of that name."""


class UnknownLabel(RequestError):
    """The model has no version with that label."""


class UnbatchedOutput(RequestError):
    """Row format, and an output without one row for each instance."""


class NotText(RequestError):
    """An output whose strings are no text, asked for in a format that has nothing else."""


class NotAcceptable(RequestError):
    """The outputs do not fit into the one form that the client accepts, or their dtype not into
    its dialect."""


class RejectedByModel(RequestError):
    """The values passed every check here, and the model server answered that they are wrong."""


class Unauthenticated(GatewayError):
    """No key was shown where one is needed (`was_shown` says whether), or one that is not known,
    has expired, or was revoked."""

    def __init__(self, message: str, was_shown: bool = True) -> None:
        super().__init__(message)
        self.was_shown = was_shown


class Forbidden(GatewayError):
    """The key is not for this operation, or not for this model, whether there is one or not."""


class RateLimited(GatewayError):
    """More than the caller may ask: in a second, in a day, or at the same time. `retry_after_s`:
    when to come again. `standings` are its limits and what is left of them (access/account.py)."""

    def __init__(self, message: str, retry_after_s: int = 1, standings: Any = ()) -> None:
        super().__init__(message)
        self.retry_after_s, self.standings = retry_after_s, standings


class NotFound(GatewayError):
    """Nothing is there."""


class ModelNotFound(NotFound):
    """The model server serves no such model or version."""


class Busy(GatewayError):
    """The places, or the bytes, that are set for requests in flight are taken; or those before
    this one have waited so long that it would too. `retry_after_s`: when to come again."""

    def __init__(self, message: str, retry_after_s: int = 1) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s


class ShuttingDown(Busy):
    """The gateway is told to stop, and takes nothing more."""


class DeadlineExceeded(GatewayError):
    """No answer within the time the request had, in line or at the model server."""


class ModelServerError(GatewayError):
    """The request may be right; the model server did not answer it."""


class ModelServerUnavailable(ModelServerError):
    """No connection, or it is starting or stopping; worth a retry.

    `begun`: it may have begun the call, and may have died of it. `loading`: it is well, and loads
    the version that was asked.
    """

    def __init__(self, message: str, begun: bool = True, loading: bool = False) -> None:
        super().__init__(message)
        self.begun, self.loading = begun, loading


class ModelServerOverloaded(ModelServerError):
    """Its threads or its memory are used up; worth a retry after a pause."""


class NotImplementedByServer(ModelServerError):
    """The model server does not offer what was asked."""


class ModelServerFailed(ModelServerError):
    """An answer that means a fault of the model server's own."""


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """A closing remark that lists the known names, the nearest first: `; did you mean "x"? …`."""
    names = sorted(known)
    listing = ", ".join(f'"{each}"' for each in names[:MAX_LISTED]) or "none"
    if len(names) > MAX_LISTED:
        listing += f" and {len(names) - MAX_LISTED} more"
    meant = nearest(name, names) if len(names) > 1 else None
    if meant:
        return f'; did you mean "{meant}"? There are: {listing}'
    return f"; there is: {listing}" if len(names) < 2 else f"; there are: {listing}"


def shown(text: str) -> str:
    """A client's own text as a message may repeat it: one line of at most MAX_SHOWN characters."""
    short = text if len(text) <= MAX_SHOWN else f"{text[: MAX_SHOWN - 3]}..."
    return short if short.isprintable() else short.encode("unicode_escape").decode()
