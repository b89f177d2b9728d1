"""multipart/form-data, read by Werkzeug's parser into memory: nothing is spooled to a disk."""

import io
from typing import IO, Any

from werkzeug.formparser import FormDataParser
from werkzeug.http import parse_options_header

from service.gateway.errors import MalformedRequest
from service.gateway.http import HttpRequest

Fields = dict[str, list[Any]]


def read_form(request: HttpRequest) -> tuple[dict[str, list[bytes]], dict[str, list[str]]]:
    """The files and the texts of a form by the names of their fields, each in its order; a part
    without a name has the name "". Raises MalformedRequest."""
    kind, options = parse_options_header(request.headers.get("content-type", ""))
    if not options.get("boundary"):
        raise MalformedRequest(
            "The form's Content-Type names no boundary; let the client library write that header "
            "(curl: -F, without -H 'Content-Type: ...')"
        )
    size = len(request.body)
    parser = FormDataParser(_in_memory, max_form_memory_size=size, silent=False)
    try:
        _, form, files = parser.parse(io.BytesIO(request.body), kind, size, options)
    except ValueError as error:
        raise MalformedRequest(f"The body is not a multipart form: {error}") from error
    return (
        {name or "": [each.read() for each in files.getlist(name)] for name in files},
        {name or "": form.getlist(name) for name in form},
    )


def _in_memory(
    total_content_length: int | None,
    content_type: str | None,
    filename: str | None,
    content_length: int | None = None,
) -> IO[bytes]:
    del total_content_length, content_type, filename, content_length
    return io.BytesIO()
