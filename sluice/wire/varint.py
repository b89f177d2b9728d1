"""Protobuf's numbers of variable length: seven bits a byte, the lowest first.

Written here because protobuf's package (7.36.2) has no public function for them: what it has is
private (`google.protobuf.internal.decoder._DecodeVarint`), and answers bytes that were cut short
with an IndexError.
"""

from functools import lru_cache

_DELIMITED = 2  # the wire type of strings, bytes and messages


def encode_varint(number: int) -> bytes:
    r"""The bytes of a number that is not negative.

    >>> encode_varint(300)
    b'\xac\x02'
    """
    if number <= 0x7F:
        return bytes((number,))
    encoded = bytearray()
    while number > 0x7F:
        encoded.append(number & 0x7F | 0x80)
        number >>= 7
    encoded.append(number)
    return bytes(encoded)


def read_varint(data: bytes | memoryview, start: int, most: int = 5) -> tuple[int, int]:
    r"""The number at `start`, and where it ends. Raises ValueError for more than `most` bytes.

    >>> read_varint(b"\xac\x02...", 0)
    (300, 2)
    """
    number = 0
    for position in range(start, min(start + most, len(data))):
        number |= (data[position] & 0x7F) << 7 * (position - start)
        if data[position] < 0x80:
            return number, position + 1
    raise ValueError(f"expected a number of at most {most} bytes at byte {start}; it does not end")


@lru_cache(1024)
def head(number: int, size: int) -> bytes:
    r"""The tag of field `number` and the length `size`, before a value whose length is given.

    >>> head(1, 300)
    b'\n\xac\x02'
    """
    return encode_varint(number << 3 | _DELIMITED) + encode_varint(size)
