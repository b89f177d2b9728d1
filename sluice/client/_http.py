"""The gateway over HTTP. The only module here that imports httpx."""

import asyncio
import ssl
import time
from collections.abc import Mapping
from os import PathLike
from typing import Any

import httpx

from sluice.client import errors
from sluice.client._calls import Call
from sluice.client._http_messages import HttpReply, decode_reply, encode_call

# By the nearest class above an exception of httpx's.
FAILURES: dict[type[Exception], type[errors.ClientError]] = {
    httpx.TimeoutException: errors.DeadlineExceeded,
    httpx.TransportError: errors.Unavailable,  # refused, reset, or closed while it was asked
    httpx.UnsupportedProtocol: errors.BadRequest,
    httpx.LocalProtocolError: errors.BadRequest,  # a header that HTTP cannot carry
    httpx.RequestError: errors.BadReply,  # a body that is not as it is said to be encoded
}


def error_of_failure(error: httpx.HTTPError, url: str, timeout_s: float) -> errors.ClientError:
    """For a request that got no answer."""
    kind = next(FAILURES[each] for each in type(error).__mro__ if each in FAILURES)
    if kind is errors.DeadlineExceeded:
        return kind(f"{url}: no answer within {timeout_s:.3g} s")
    return kind(f"{url}: {str(error) or type(error).__name__}")


class HttpTransport:
    """For threads."""

    def __init__(
        self, url: str, headers: Mapping[str, str], ca_file: str | PathLike[str] | None
    ) -> None:
        self._url = url
        self._http = httpx.Client(base_url=url, headers=dict(headers), verify=_verify(ca_file))

    def send(self, call: Call[Any], timeout_s: float) -> Any:
        request = encode_call(call)
        try:
            with self._http.stream(
                request.method,
                request.path,
                content=request.body or None,
                files=request.form or None,
                headers=request.headers,
                timeout=timeout_s,
            ) as response:
                body = _body_of(response, time.monotonic() + timeout_s)
        except httpx.HTTPError as error:
            raise error_of_failure(error, self._url, timeout_s) from error
        return decode_reply(call, HttpReply(response.status_code, response.headers, body))

    def close(self) -> None:
        self._http.close()


class AsyncHttpTransport:
    """For asyncio."""

    def __init__(
        self, url: str, headers: Mapping[str, str], ca_file: str | PathLike[str] | None
    ) -> None:
        self._url = url
        self._http = httpx.AsyncClient(
            base_url=url, headers=dict(headers), verify=_verify(ca_file), timeout=None
        )

    async def send(self, call: Call[Any], timeout_s: float) -> Any:
        request = encode_call(call)
        try:
            async with asyncio.timeout(timeout_s):
                response = await self._http.request(
                    request.method,
                    request.path,
                    content=request.body or None,
                    files=request.form or None,
                    headers=request.headers,
                )
        except TimeoutError as error:
            raise errors.DeadlineExceeded(
                f"{self._url}: no answer within {timeout_s:.3g} s"
            ) from error
        except httpx.HTTPError as error:
            raise error_of_failure(error, self._url, timeout_s) from error
        return decode_reply(
            call, HttpReply(response.status_code, response.headers, response.content)
        )

    async def close(self) -> None:
        await self._http.aclose()


def _verify(ca_file: str | PathLike[str] | None) -> ssl.SSLContext | bool:
    return True if ca_file is None else ssl.create_default_context(cafile=ca_file)


def _body_of(response: httpx.Response, deadline: float) -> bytes:
    """The body; httpx's own timeout starts anew with every piece of it."""
    pieces = []
    for piece in response.iter_bytes():
        pieces.append(piece)
        if time.monotonic() > deadline:
            raise httpx.ReadTimeout("the body is still coming")
    return b"".join(pieces)
