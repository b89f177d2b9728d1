"""gRPC messages that came packed, which gRPC is told to hand over as they came, those that are read
in the event loop, and what tells which model one is about before it is read.

It would unpack them itself, sixty kB to sixty MB, before anybody is asked. Whether one is packed is
told by its first bytes, as gRPC does not say: in gzip's a message would have a wire type that there
is none of, in zlib's a field 15, which no message of ours has.
"""

import zlib

from service.gateway.decode.content_encoding import decompress
from service.gateway.errors import PayloadTooLarge
from sluice.wire.varint import read_varint

# Of a server: a message is left as it came.
AS_THEY_CAME = ("grpc.per_message_decompression", 0)
# Of what asks for no prediction: a name or two. 64 MB that say nothing take a second to read.
SMALL_BYTES = 1 << 16
BEGINNING_BYTES = 1 << 12  # in which a model's name is looked for
_GZIP = b"\x1f\x8b"
_ZLIB = 0x78  # deflate, of the window that gRPC has
_ZLIB_CHECK = 31  # what divides the first two bytes of zlib's
_EITHER = 32 + zlib.MAX_WBITS  # of the two, as zlib finds
_FIRST = b"\x0a"  # the tag of field 1 where it is a string or a message


def is_packed(message: bytes) -> bool:
    """
    >>> import gzip, zlib
    >>> [is_packed(each) for each in (gzip.compress(b"x"), zlib.compress(b"x"), b"\\x0a\\x00", b"")]
    [True, True, False, False]
    """
    return message.startswith(_GZIP) or _is_zlib(message)


def unpack(message: bytes, limit_bytes: int) -> bytes:
    """A message that is packed, as it is to be read. Raises PayloadTooLarge, MalformedRequest."""
    if message.startswith(_GZIP):
        return decompress(message, "gzip", limit_bytes)
    return decompress(message, "deflate", limit_bytes)


def beginning(message: bytes) -> bytes:
    r"""The fields 1 that a message begins with, packed or not: in all that are about a model they
    name it, and who writes a message writes its fields in order. b"" where none can be found.

    >>> beginning(b"\x0a\x01m\x12\x03..."), beginning(b"\x12\x03..."), beginning(b"\x0a\x03.")
    (b'\n\x01m', b'', b'')
    """
    head, end = message[:BEGINNING_BYTES], 0
    try:
        if is_packed(head):
            head = zlib.decompressobj(_EITHER).decompress(head, BEGINNING_BYTES)
        while head.startswith(_FIRST, end):
            size, start = read_varint(head, end + 1)
            if start + size > len(head):
                break
            end = start + size
    except (zlib.error, ValueError):  # whoever reads all of it says what is wrong
        pass
    return head[:end]


def small(message: bytes) -> bytes:
    """One that asks for no prediction, as it is to be read. Raises PayloadTooLarge,
    MalformedRequest."""
    too_large = PayloadTooLarge(SMALL_BYTES, "for what asks for no prediction")
    if len(message) > SMALL_BYTES:
        raise too_large
    if not is_packed(message):
        return message
    try:
        return unpack(message, SMALL_BYTES)
    except PayloadTooLarge:
        raise too_large from None


def _is_zlib(message: bytes) -> bool:
    head = message[:2]
    return head[:1] == bytes([_ZLIB]) and int.from_bytes(head, "big") % _ZLIB_CHECK == 0
