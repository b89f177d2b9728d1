"""The files that flags name: protos in text form.

protobuf's text_format reads them; this is where its ParseError, which does not name the file, and
the two other errors that a file can give become one that does.
"""

from pathlib import Path
from typing import TypeVar

from google.protobuf import text_format
from google.protobuf.message import Message

from service.modelserver.errors import StartError

Proto = TypeVar("Proto", bound=Message)


def read_text_proto(path: str, message: Proto) -> Proto:
    """Fill `message` from the file. Raises StartError with the line at fault."""
    try:
        text_format.Parse(Path(path).read_text(), message)
    except (OSError, UnicodeDecodeError, text_format.ParseError) as error:
        raise StartError(f"Invalid protobuf file: '{path}': {error}") from error
    return message
