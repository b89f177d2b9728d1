"""The access log: one line a request, as text or JSON, on standard error.

Not through `logging`: a line there costs more than a small request's JSON, and a write each.
"""

import contextlib
import json
import os
import sys
import time
from collections.abc import Iterable
from functools import lru_cache

import orjson

from service.gateway.caller import Caller
from service.gateway.dates import utc
from service.gateway.exchange import Exchange

# What a client sent may not end a line, or talk to a terminal.
# Ends of lines and directions of writing, by which Unicode does the same.
_BEYOND_LATIN = (0x200E, 0x200F, *range(0x2028, 0x202F), *range(0x2066, 0x206A))
_IN_FOUR = {code: f"\\u{code:04x}" for code in (*range(127, 160), *_BEYOND_LATIN)}
_CONTROL = _IN_FOUR | {code: f"\\x{code:02x}" for code in (*range(32), *range(127, 160))}
_CONTROL_IN_JSON = _IN_FOUR  # orjson escapes the rest

_TEXT = (
    "%s %s %s %s %s %s %.1fms dialect=%s model=%s version=%s signature=%s rows=%d joined=%d "
    "in=%d out=%d decode=%.1fms queued=%.1fms upstream=%.1fms"
)

_at = lru_cache(1)(utc)  # many lines are of one second


class AccessLog:
    """`form` is text, json or off."""

    def __init__(self, form: str) -> None:
        self._format = {"text": _text, "json": _json, "off": None}[form]

    def write(self, observed: Iterable[tuple[Exchange, Caller]]) -> None:
        """A line for each, all at once; none where they cannot be written."""
        if self._format is None:
            return
        text = "".join([self._format(exchange, caller) for exchange, caller in observed])
        # On a full disk, or where whoever read them has gone, requests and scrapes are answered.
        with contextlib.suppress(OSError):
            sys.stderr.flush()
            os.write(sys.stderr.fileno(), text.encode("utf-8", "backslashreplace"))


def _text(exchange: Exchange, caller: Caller) -> str:
    line = _TEXT % (
        _now(),
        exchange.client,
        _word(exchange.request_id),
        exchange.method,
        _word(exchange.path),
        exchange.status,
        exchange.seconds * 1e3,
        exchange.dialect,
        exchange.model or "-",
        "-" if caller.version is None else caller.version,
        caller.signature or "-",
        caller.rows,
        caller.joined,
        exchange.bytes_in,
        exchange.bytes_out,
        caller.decode_s * 1e3,
        caller.queued_s * 1e3,
        caller.upstream_s * 1e3,
    )
    ids = caller.trace.ids
    if ids:
        line = f"{line} trace_id={ids[0]} span_id={ids[1]}"
    if caller.cache:
        line = f"{line} cache={caller.cache}"
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
    ids = caller.trace.ids
    if ids:
        entry["trace_id"], entry["span_id"] = ids
    if caller.cache:
        entry["cache"] = caller.cache
    if exchange.reason:
        entry["reason"] = exchange.reason
    try:
        line = orjson.dumps(entry).decode()
    except TypeError:  # half a character, which a client's JSON can hold and UTF-8 cannot
        line = json.dumps(entry)
    return (line if line.isprintable() else line.translate(_CONTROL_IN_JSON)) + "\n"


def _word(text: str) -> str:
    """A client's text as one word of a line: a space would make it several."""
    return text.replace(" ", "\\x20") if " " in text else text


def _now() -> str:
    return _at(int(time.time()))
