"""Which kind of file it is, by its first bytes, and what to say of those that are not read."""

from typing import NamedTuple

Mark = tuple[tuple[int, bytes], ...]  # which bytes stand where

FORMATS: dict[str, Mark] = {
    "JPEG": ((0, b"\xff\xd8\xff"),),
    "PNG": ((0, b"\x89PNG"),),
    "GIF": ((0, b"GIF8"),),
    "BMP": ((0, b"BM"),),
    "WebP": ((0, b"RIFF"), (8, b"WEBP")),
}
EXPECTED = f"an image ({', '.join(FORMATS)})"


class Foreign(NamedTuple):
    """A kind of picture that is known and not read.

    >>> print(Foreign(((0, b"8BPS"),), "a Photoshop file", "save it as PNG or JPEG"))
    a Photoshop file (save it as PNG or JPEG)
    """

    mark: Mark
    what: str
    instead: str

    def __str__(self) -> str:
        return f"{self.what} ({self.instead})"


_SAVE = "save it as PNG or JPEG"
_PHONE = "save it as JPEG (on an iPhone: Settings, Camera, Formats, Most Compatible)"
_DRAW = "export it as PNG, in the size that it is looked at"

FOREIGN = (
    *(Foreign(((0, mark),), "a TIFF file", _SAVE) for mark in (b"II*\0", b"MM\0*", b"II+\0")),
    *(
        Foreign(((4, b"ftyp" + brand),), "an HEIC file", _PHONE)
        for brand in (b"heic", b"heix", b"hevc", b"heim", b"heis", b"mif1", b"msf1")
    ),
    *(Foreign(((4, b"ftyp" + brand),), "an AVIF file", _SAVE) for brand in (b"avif", b"avis")),
    Foreign(((4, b"jP  \r\n"),), "a JPEG 2000 file", _SAVE),
    Foreign(((0, b"\xff\x4f\xff\x51"),), "a JPEG 2000 file", _SAVE),
    Foreign(((0, b"\xff\x0a"),), "a JPEG XL file", _SAVE),
    Foreign(((4, b"JXL \r\n"),), "a JPEG XL file", _SAVE),
    Foreign(((0, b"8BPS"),), "a Photoshop file", _SAVE),
    Foreign(((0, b"\0\0\1\0"),), "an ICO file", _SAVE),
    Foreign(((0, b"%PDF"),), "a PDF file", "export the page as PNG"),
    Foreign(((0, b"<svg"),), "an SVG file", _DRAW),
    Foreign(((0, b"<?xml"),), "an SVG or another XML file", _DRAW),
)


def format_of(data: bytes) -> str | None:
    r"""A key of FORMATS, by the first bytes alone.

    >>> format_of(b"\x89PNG\r\n\x1a\n"), format_of(b"RIFF\0\0\0\0WEBPVP8 "), format_of(b"II*\0")
    ('PNG', 'WebP', None)
    """
    return next((name for name, mark in FORMATS.items() if _has(data, mark)), None)


def foreign(data: bytes) -> Foreign | None:
    r"""What it is if it is none of FORMATS, where that is known.

    >>> foreign(b"II*\0").what, foreign(b"a text")
    ('a TIFF file', None)
    """
    return next((each for each in FOREIGN if _has(data, each.mark)), None)


def _has(data: bytes, mark: Mark) -> bool:
    return all(data.startswith(part, at) for at, part in mark)
