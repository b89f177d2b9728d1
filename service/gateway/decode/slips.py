"""What a body that cannot be read most likely is, and how it would have been sent right.

It makes messages; what is read as what is for `magic` to decide.
"""

import re
from collections.abc import Callable

from service.gateway.decode.magic import FORM, IMAGE, kind_by_bytes
from service.gateway.errors import MalformedRequest
from sluice.pictures.formats import format_of

_FILE = "send the file itself (curl: --data-binary @FILE; requests: data=open(FILE, 'rb'))"
_JSON = "send JSON (curl: -d '{...}'; requests: json=document)"
# How the base64 of a picture begins: PNG, JPEG, GIF, WebP.
_BASE64 = re.compile(rb"\s*(data:[\w/.+;=-]*,|iVBORw0KGgo|/9j/|R0lGOD|UklGR)")
_URL_ENCODED = re.compile(rb"[\w.%+\[\]-]{1,80}=[^\s{}\"&]*(&[\w.%+\[\]-]{1,80}=[^\s{}\"&]*)*")
_PATH = re.compile(rb"@?[^\n\r{}\"<>]{1,300}\.(png|jpe?g|gif|bmp|webp|json|npy|npz)\s*", re.I)
_WIDE = re.compile(rb"\xff\xfe|\xfe\xff|[\s{\[\"]\0|\0{1,3}[\s{\[\"]")  # UTF-16 and UTF-32
# What stands where JSON cannot be followed any further.
_PYTHONS = re.compile(r"'|None\b|True\b|False\b|array\(|tensor\(")
_NANS = re.compile(r"[-+]?(nan|inf|undefined)", re.I)
_SHOWN = 2000  # bytes that are looked through

_SLIPS: list[tuple[Callable[[bytes], object], str]] = [
    (lambda body: not body.strip(), f"it is empty; {_JSON}"),
    (
        lambda body: kind_by_bytes(body) == IMAGE,
        "it is a picture, which POST /v1/models/MODEL:predict takes",
    ),
    (
        lambda body: kind_by_bytes(body) == FORM,
        "it is a form, which POST /v1/models/MODEL:predict takes",
    ),
    (kind_by_bytes, "it is a numpy file, which POST /v1/models/MODEL:predict takes"),
    (
        lambda body: body.startswith(b"\x1f\x8b"),
        "it is packed by gzip; say so with the header Content-Encoding: gzip",
    ),
    (
        lambda body: re.match(rb"\x80[\2-\5]", body),
        f"it is a pickle of Python's, which is not read; {_JSON}",
    ),
    (
        _WIDE.match,
        "it is UTF-16 or UTF-32; send UTF-8",
    ),
    (_BASE64.match, f'it is a file in base64; {_FILE}, or {{"b64": "..."}} within JSON'),
    (lambda body: body.lstrip()[:1] == b"<", f"it is HTML or XML; {_JSON}"),
    (
        lambda body: body.lstrip().startswith((b'"{', b'"[')),
        "it is a string that holds JSON, which was encoded twice; send the document itself "
        "(requests: json=document, not json=json.dumps(document))",
    ),
    (
        lambda body: body.startswith(b"[object "),
        "it is JavaScript's text of an object; send JSON.stringify(document)",
    ),
    (_PATH.fullmatch, f"it is the name of a file; {_FILE}"),
    (_URL_ENCODED.fullmatch, f"it is a URL-encoded form; {_JSON}"),
]


def slip_in(body: bytes, rest: str = "") -> str | None:
    """In a few words, what `body` is in place of JSON; None where that is not known.

    rest: what stands where the JSON ends, if it begins as JSON.

    >>> print(slip_in(b"x=1&y=2"))
    it is a URL-encoded form; send JSON (curl: -d '{...}'; requests: json=document)
    """
    head = body[:_SHOWN]
    if found := next((said for is_so, said in _SLIPS if is_so(head)), None):
        return found
    if _PYTHONS.match(rest):
        return "it is as Python prints it; send what json.dumps writes (requests: json=document)"
    if _NANS.match(rest):
        return "JSON's numbers that are none are written NaN, Infinity and -Infinity"
    return None


def slip_in_file(data: bytes) -> str:
    """In a few words, what `data` is in place of a picture; "" where that is not known.

    >>> slip_in_file(b"iVBORw0KGgoAAAANSUhEUg==")
    'its base64; within JSON that is {"b64": "..."}'
    """
    head = data[:_SHOWN]
    if _BASE64.match(head):
        return 'its base64; within JSON that is {"b64": "..."}'
    if _PATH.fullmatch(head):
        return "the name of a file, not what is in it"
    return ""


def check_whole(picture: bytes) -> None:
    """Raises MalformedRequest for a picture that curl's `-d @FILE` has taken the line ends and zero
    bytes out of: no format does without the latter."""
    if format_of(picture) is None:
        return
    if b"\0" not in picture or (picture.startswith(b"\x89PNG") and picture[4:6] != b"\r\n"):
        raise MalformedRequest(
            "The picture has lost bytes on its way, as curl's -d takes line ends and zero bytes "
            "out; send it with --data-binary @FILE"
        )
