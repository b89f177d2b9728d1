"""What a body is by its first bytes: clients name no Content-Type, or the one of a form."""

from sluice.pictures.formats import foreign, format_of

IMAGE = "image"
NPY, NPZ, FORM = "application/x-npy", "application/x-npz", "multipart/form-data"
_MARKS = {b"\x93NUMPY": NPY, b"PK\x03\x04": NPZ}
_FORM_FIELD = b"content-disposition:"  # `attachment` where curl is told another Content-Type
_HEAD_BYTES = 1024


def kind_by_bytes(body: bytes) -> str | None:
    r"""IMAGE, NPY, NPZ or FORM; None for what does not begin as one of them.

    >>> kind_by_bytes(b"\x89PNG\r\n\x1a\n"), kind_by_bytes(b'{"instances": []}')
    ('image', None)
    """
    # SVG is XML, as much else is that is sent by mistake.
    if format_of(body) or (foreign(body) and not body.startswith(b"<")):
        return IMAGE
    for mark, kind in _MARKS.items():
        if body.startswith(mark):
            return kind
    if body.startswith(b"--") and _FORM_FIELD in body[:_HEAD_BYTES].lower():
        return FORM
    return None


def kind_of(body: bytes, content_type: str) -> str | None:
    """The same, and by the content type where the bytes do not tell; None for JSON, which is what
    everything else is taken for, as curl's `-d` names no JSON either.

    >>> kind_of(b"not a picture", "image/png"), kind_of(b'{"inputs": 1}', "image/png")
    ('image', None)
    """
    if body.startswith(b"{"):
        return None
    if found := kind_by_bytes(body):
        return found
    if content_type.startswith("image/"):
        return IMAGE
    return content_type if content_type in (NPY, NPZ, FORM) else None
