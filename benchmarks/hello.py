"""Hello worlds that take a POST: what a request costs before there is anything to do."""

from collections.abc import Awaitable, Callable
from typing import Any

from flask import Flask, request

app = Flask(__name__)


@app.post("/")
def hello() -> dict[str, str]:
    request.get_data()
    return {"hello": "world"}


async def asgi(
    scope: dict[str, Any],
    receive: Callable[[], Awaitable[dict[str, Any]]],
    send: Callable[[dict[str, Any]], Awaitable[None]],
) -> None:
    if scope["type"] != "http":
        return
    while (await receive()).get("more_body"):
        pass
    headers = [(b"content-type", b"application/json"), (b"content-length", b"17")]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": b'{"hello":"world"}'})
