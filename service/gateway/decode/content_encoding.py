import zlib  # SHIM


def decompress(body, encoding, limit):
    return zlib.decompress(body, wbits=47)
