"""Every status of either protocol, and every failure of either library, has its exception."""

import re

import grpc
import httpx
import pytest

from service.gateway import error_responses
from service.gateway.errors import GatewayError, InvalidInput
from service.gateway.model_server import ERRORS as GATEWAY_ERRORS
from sluice.client import _grpc, _http, _http_messages, errors
from sluice.client._calls import IsReady, ListModels


def below(kind):
    """Every subclass of `kind`, in an order that no run changes."""
    found = set().union(*({each, *below(each)} for each in kind.__subclasses__()))
    return sorted(found, key=lambda each: each.__name__)


NOT_OK = [code for code in grpc.StatusCode if code is not grpc.StatusCode.OK]
STATUSES = {
    400: errors.BadRequest,
    401: errors.NotAllowed,
    403: errors.NotAllowed,
    404: errors.NotFound,
    405: errors.NotSupported,
    406: errors.BadRequest,
    408: errors.DeadlineExceeded,
    411: errors.BadRequest,
    413: errors.TooLarge,
    415: errors.BadRequest,
    429: errors.Overloaded,
    499: errors.Cancelled,
    500: errors.ServerFailed,
    501: errors.NotSupported,
    502: errors.Unavailable,
    503: errors.Unavailable,
    504: errors.DeadlineExceeded,
}


def answer(status, body=b'{"error": "why"}', **headers):
    return _http_messages.HttpReply(status, httpx.Headers(headers), body)


def test_the_tree_is_drawn_as_it_is():
    drawn = re.findall(r"(?:├|└)── (\w+)", errors.__doc__)
    assert sorted(drawn) == sorted(kind.__name__ for kind in below(errors.ClientError))


def test_every_status_of_the_gateway_is_known():
    assert set(error_responses.STATUS.values()) <= set(STATUSES)


@pytest.mark.parametrize("status", STATUSES)
def test_an_http_status_is_an_error_with_the_servers_words(status):
    error = _http_messages.error_of_status(answer(status))
    assert (type(error), str(error), error.code) == (STATUSES[status], "why", str(status))


@pytest.mark.parametrize("code", NOT_OK)
def test_a_grpc_status_is_the_error_that_the_gateway_makes_of_it(code):
    error = _grpc.error_of(ListModels(), Refusal(code, "why"))
    assert (str(error), error.code) == ("why", code.name)
    if isinstance(error, errors.NotAllowed):
        return  # a model server that wants credentials is a fault behind the gateway, 500
    if code is grpc.StatusCode.CANCELLED:  # the gateway knows that it has not: its server stops
        assert type(error) is errors.Cancelled
        return
    status = error_responses.status_of(GATEWAY_ERRORS[code]("why"))
    assert type(error) is type(_http_messages.error_of_status(answer(status)))


@pytest.mark.parametrize(
    "kind",
    [kind for kind in below(GatewayError) if set(kind.__mro__) & set(error_responses.STATUS)],
    ids=lambda kind: kind.__name__,
)
def test_an_error_of_the_gateway_is_the_same_over_http_and_grpc(kind):
    error = kind("x", "this", "that") if issubclass(kind, InvalidInput) else kind(1)
    over_http = _http_messages.error_of_status(answer(error_responses.status_of(error)))
    over_grpc = _grpc.error_of(
        ListModels(), Refusal(grpc.StatusCode[error_responses.grpc_code_of(error)], str(error))
    )
    assert isinstance(over_http, type(over_grpc))  # HTTP tells an image that is too large apart


def test_a_message_over_grpcs_limit_is_too_large():
    error = _grpc.error_of(
        ListModels(),
        Refusal(
            grpc.StatusCode.RESOURCE_EXHAUSTED, "SERVER: Received message larger than max (9 vs. 8)"
        ),
    )
    assert type(error) is errors.TooLarge


def test_a_server_that_knows_no_nameless_model_is_there():
    assert _grpc.error_of(IsReady(None), Refusal(grpc.StatusCode.NOT_FOUND, "")) is None
    assert isinstance(
        _grpc.error_of(IsReady("digits"), Refusal(grpc.StatusCode.NOT_FOUND, "")), errors.NotFound
    )


@pytest.mark.parametrize("kind", below(httpx.RequestError), ids=lambda kind: kind.__name__)
def test_every_failure_of_httpx_is_an_error(kind):
    error = _http.error_of_failure(kind("why"), "http://host:1", 2)
    assert isinstance(error, errors.ClientError)
    assert str(error).startswith("http://host:1: ")
    assert isinstance(error, errors.DeadlineExceeded) == issubclass(kind, httpx.TimeoutException)


@pytest.mark.parametrize(
    ("header", "seconds"), [("7", 7), ("", 0), ("Wed, 21 Oct 2026 07:28:00 GMT", 0), ("-1", 0)]
)
def test_retry_after(header, seconds):
    error = _http_messages.error_of_status(answer(429, **{"Retry-After": header}))
    assert error.retry_after_s == seconds


@pytest.mark.parametrize("body", [b"<h1>Not\n here</h1>", b'{"detail": 1}', b"[]", b"\xff", b""])
def test_a_page_that_is_no_error_document_is_quoted(body):
    message = str(_http_messages.error_of_status(answer(404, body)))
    assert message.startswith("HTTP status 404: ")
    assert "\n" not in message


@pytest.mark.parametrize("body", [b"<html>", b"[]", b"{}", b'{"models": 1, "status": "ready"}'])
def test_an_answer_of_something_else_is_a_bad_reply(body):
    with pytest.raises(errors.BadReply, match="cannot be read"):
        _http_messages.decode_reply(ListModels(), answer(200, body))


class Refusal(grpc.RpcError):
    """What a failed call raises."""

    def __init__(self, code, details):
        self.code, self.details = lambda: code, lambda: details
