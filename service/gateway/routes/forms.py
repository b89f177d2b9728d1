"""multipart/form-data, read by Werkzeug's decoder into memory: nothing is spooled to a disk.

Not by its FormDataParser: that makes text of every part without a file name, which C#'s and Go's
writers leave out where they are not told one, and puts a character of its own for bytes that are
no text.
"""

import base64
import quopri
from collections.abc import Callable, Iterator
from typing import NamedTuple

from werkzeug.http import parse_options_header
from werkzeug.sansio.multipart import Data, Epilogue, Event, Field, File, MultipartDecoder, NeedData

from service.gateway.decode.foreign import door
from service.gateway.decode.magic import kind_by_bytes
from service.gateway.errors import MalformedRequest, shown
from service.gateway.http import HttpRequest

# A part's own encoding, which RFC 7578 has given up and older libraries still write.
_TRANSFER_ENCODINGS: dict[str, Callable[[bytes], bytes]] = {
    "": bytes,
    "7bit": bytes,
    "8bit": bytes,
    "binary": bytes,
    "base64": lambda text: base64.b64decode(b"".join(text.split()), validate=True),
    "quoted-printable": quopri.decodestring,
}
_LONGEST_BOUNDARY = 70
MAX_PARTS = 10_000


class Part(NamedTuple):
    """A field of a form; `name` is "" where it has none."""

    name: str
    is_file: bool
    content: bytes


@door("The form")
def read_form(request: HttpRequest) -> tuple[dict[str, list[bytes]], dict[str, list[str]]]:
    """The files and the texts of a form by the names of their fields, each in its order; a part
    without a name has the name "". Raises MalformedRequest."""
    files: dict[str, list[bytes]] = {}
    texts: dict[str, list[str]] = {}
    for part in _parts(request.body, _boundary(request)):
        if part.is_file:
            files.setdefault(part.name, []).append(part.content)
        else:
            texts.setdefault(part.name, []).append(_text(part))
    return files, texts


def _boundary(request: HttpRequest) -> bytes:
    """The header's, else what the body begins with: scripts that write the header by hand have no
    other place to know it from."""
    _, options = parse_options_header(request.headers.get("content-type", ""))
    if options.get("boundary"):
        return options["boundary"].encode("latin-1", "replace")
    first, end, _ = request.body[: _LONGEST_BOUNDARY + 4].partition(b"\r\n")
    if end and first.startswith(b"--"):
        return first[2:]
    raise MalformedRequest(
        "The form's Content-Type names no boundary, and its body begins with none; let the client "
        "library write that header (curl: -F, without -H 'Content-Type: ...')"
    )


def _parts(body: bytes, boundary: bytes) -> Iterator[Part]:
    decoder = MultipartDecoder(boundary)
    decoder.receive_data(body)
    decoder.receive_data(None)
    head: Field | File | None = None
    content: list[bytes] = []
    count = 0
    while not isinstance(event := _next_event(decoder), Epilogue | NeedData):
        if isinstance(event, Field | File):
            head, content, count = event, [], count + 1
            if count > MAX_PARTS:
                raise MalformedRequest(
                    f"The form has more than {MAX_PARTS} fields; send fewer rows in one request"
                )
        elif isinstance(event, Data) and head is not None:
            content.append(event.data)
            if not event.more_data:
                yield _part(head, b"".join(content))


def _next_event(decoder: MultipartDecoder) -> Event:
    try:
        return decoder.next_event()
    except ValueError as error:
        raise MalformedRequest(f"The body is not a multipart form: {shown(str(error))}") from error


def _part(head: Field | File, content: bytes) -> Part:
    name, encoding = head.name or "", head.headers.get("content-transfer-encoding", "")
    undo = _TRANSFER_ENCODINGS.get(encoding.strip().lower())
    if undo is None:
        raise MalformedRequest(
            f'The field "{shown(name)}" has the Content-Transfer-Encoding "{shown(encoding)}", '
            "which is not read; send it without"
        )
    try:
        content = undo(content)
    except ValueError as error:
        raise MalformedRequest(
            f'The field "{shown(name)}" is not the {encoding} that it is said to be: {error}'
        ) from error
    is_file = isinstance(head, File) or kind_by_bytes(content) is not None
    return Part(name, is_file, content)


def _text(part: Part) -> str:
    try:
        return part.content.decode()
    except UnicodeDecodeError as error:
        raise MalformedRequest(
            f'The field "{shown(part.name)}" has no file name and is no text in UTF-8: {error}'
        ) from error
