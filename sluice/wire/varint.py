"""Protobuf's numbers of variable length: seven bits a byte, the lowest first."""


def encode_varint(number: int) -> bytes:
    encoded = bytearray()
    while number > 0x7F:
        encoded.append(number & 0x7F | 0x80)
        number >>= 7
    encoded.append(number)
    return bytes(encoded)


def read_varint(data: bytes | memoryview, start: int, most: int = 5) -> tuple[int, int]:
    """The number at `start`, and where it ends. Raises ValueError for more than `most` bytes."""
    number = 0
    for position in range(start, min(start + most, len(data))):
        number |= (data[position] & 0x7F) << 7 * (position - start)
        if data[position] < 0x80:
            return number, position + 1
    raise ValueError(f"no number ends within {most} bytes of byte {start}")
