"""What can go wrong with a request, named by cause. Knows neither HTTP nor gRPC.

    ClientError
    ├── BadRequest            it will fail again; the message, mostly the server's, says why
    │   └── TooLarge          more bytes, or more pixels, than the server takes
    ├── NotAllowed            the server wants credentials, or others
    ├── NotFound              no such model, or no such version of it
    ├── TryLater              worth another attempt, which the client makes by itself
    │   ├── Unavailable       no connection, or the server is starting or stopping
    │   └── Overloaded        the server has too much to do, or lets you ask only so often
    ├── DeadlineExceeded      no answer within `timeout_s`, or within the server's own limit
    ├── Cancelled             the call was ended before its answer came
    ├── NotSupported          this server does not offer that
    └── ServerFailed          a fault of the server's own
        └── BadReply          an answer that cannot be read

A file that cannot be read raises the OSError that `open` gives; what is not the URL of a server,
ValueError.
"""


class ClientError(Exception):
    """The root. `str(error)` says what went wrong; `code` is the HTTP status or the gRPC status's
    name, and "" where no server has answered."""

    def __init__(self, message: str, code: str = "") -> None:
        super().__init__(message)
        self.code = code


class BadRequest(ClientError):
    """A name, a dtype, a shape or a value does not fit the model."""


class TooLarge(BadRequest):
    """The request or the answer is over a limit of size; send fewer rows."""


class NotAllowed(ClientError):
    """Missing or wrong credentials; see `api_key` of the client."""


class NotFound(ClientError):
    """The server has no such model, version or page."""


class TryLater(ClientError):
    """The request may be right; the server did not take it. `retry_after_s` is what it asked to
    wait for, 0 where it did not say."""

    def __init__(self, message: str, code: str = "", retry_after_s: float = 0) -> None:
        super().__init__(message, code)
        self.retry_after_s = retry_after_s


class Unavailable(TryLater):
    """Nobody answers there, or the model server behind does not."""


class Overloaded(TryLater):
    """Queues, threads or memory are used up, or a limit of requests is reached."""


class DeadlineExceeded(ClientError):
    """It took too long. Never tried again: the first attempt may still be running."""


class Cancelled(ClientError):
    """The server, or a proxy before it, gave the call up."""


class NotSupported(ClientError):
    """The server, or its protocol, has no such operation."""


class ServerFailed(ClientError):
    """The server could not answer, for a reason that is not the request's."""


class BadReply(ServerFailed):
    """The answer breaks the protocol: perhaps something other than Sluice or TensorFlow Serving is
    there."""
