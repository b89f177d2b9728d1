"""The access log: one line a request, as text or JSON, on standard error.

Not through `logging`: a line there costs more than a small request's JSON, and a write each. The
lines of a tenth of a second are written together.
"""

import asyncio
import os
import sys
import time

import orjson

from service.gateway.caller import Caller
from service.gateway.exchange import Exchange

FLUSH_AFTER_S = 0.1
FLUSH_AT = 512  # lines
# What a client sent may not end a line, or talk to a terminal.
_CONTROL = {code: f"\\x{code:02x}" for code in (*range(32), *range(127, 160))}
_CONTROL_IN_JSON = {code: f"\\u{code:04x}" for code in range(127, 160)}  # orjson escapes the rest


class AccessLog:
    """`form` is text, json or off."""

    def __init__(self, form: str) -> None:
        self._format = {"text": _text, "json": _json, "off": None}[form]
        self._lines: list[str] = []
        self._timer: asyncio.TimerHandle | None = None

    def write(self, exchange: Exchange, caller: Caller) -> None:
        """Soon, where an event loop runs; at once elsewhere."""
        if self._format is None:
            return
        line = self._format(exchange, caller)
        try:
            loop = asyncio.get_running_loop()
        except RuntimeError:  # in a thread, of which there are many
            _write(line)
            return
        self._lines.append(line)
        if len(self._lines) >= FLUSH_AT:
            self.flush()
        elif self._timer is None:
            self._timer = loop.call_later(FLUSH_AFTER_S, self.flush)

    def flush(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._lines:
            text = "".join(self._lines)
            self._lines.clear()
            _write(text)


def _write(text: str) -> None:
    sys.stderr.flush()
    os.write(sys.stderr.fileno(), text.encode("utf-8", "backslashreplace"))


def _text(exchange: Exchange, caller: Caller) -> str:
    model = exchange.model or "-"
    version = "-" if caller.version is None else caller.version
    line = (
        f"{_now()} {exchange.client} {_word(exchange.request_id)} {exchange.method} "
        f"{_word(exchange.path)} "
        f"{exchange.status} {exchange.seconds * 1e3:.1f}ms dialect={exchange.dialect} "
        f"model={model} version={version} signature={caller.signature or '-'} rows={caller.rows} "
        f"joined={caller.joined} in={exchange.bytes_in} out={exchange.bytes_out} "
        f"decode={caller.decode_s * 1e3:.1f}ms queued={caller.queued_s * 1e3:.1f}ms "
        f"upstream={caller.upstream_s * 1e3:.1f}ms"
    )
    if exchange.reason:
        line = f'{line} reason="{exchange.reason}"'
    return (line if line.isprintable() else line.translate(_CONTROL)) + "\n"


def _json(exchange: Exchange, caller: Caller) -> str:
    entry = {
        "time": _now(),
        "client": exchange.client,
        "id": exchange.request_id,
        "method": exchange.method,
        "path": exchange.path,
        "status": exchange.status,
        "dialect": exchange.dialect,
        "model": exchange.model,
        "version": caller.version,
        "signature": caller.signature,
        "rows": caller.rows,
        "joined_rows": caller.joined,
        "bytes_in": exchange.bytes_in,
        "bytes_out": exchange.bytes_out,
        "seconds": round(exchange.seconds, 6),
        "decode_s": round(caller.decode_s, 6),
        "queued_s": round(caller.queued_s, 6),
        "upstream_s": round(caller.upstream_s, 6),
    }
    if exchange.reason:
        entry["reason"] = exchange.reason
    line = orjson.dumps(entry).decode()
    return (line if line.isprintable() else line.translate(_CONTROL_IN_JSON)) + "\n"


def _word(text: str) -> str:
    """A client's text as one word of a line: a space would make it several."""
    return text.replace(" ", "\\x20") if " " in text else text


_second = (0, "")


def _now() -> str:
    """RFC 3339 in UTC, to the second; formatted once for each."""
    global _second
    now = int(time.time())
    if now != _second[0]:
        _second = (now, time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(now)))
    return _second[1]
