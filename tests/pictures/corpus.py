"""Pictures as cameras, scanners, browsers and old programs write them, made here byte by byte.

All show `PHOTO`, or `BLOCKS` where a file has few colours, upright once it is read as
docs/contract.md says. What Pillow cannot write is put together from the format's own parts.
"""

import io
import itertools
import struct
import zlib
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from PIL import Image

HEIGHT, WIDTH = 16, 24
_ROWS, _COLUMNS = np.mgrid[:HEIGHT, :WIDTH]
# No two corners alike, and smooth, so that lossy formats keep it. [H, W, 3]
PHOTO = np.stack([20 + 9 * _COLUMNS, 15 + 14 * _ROWS, 220 - 8 * _COLUMNS], -1).astype(np.uint8)
# Numbers of colours [H, W], of which the first corner is 0.
BLOCKS = (2 * (_ROWS >= 4) + (_COLUMNS >= 16)).astype(np.uint8)
COLOURS = np.array([(200, 30, 40), (20, 180, 60), (0, 0, 0), (90, 110, 250)], np.uint8)
FLAT = COLOURS[BLOCKS]
GREY = np.asarray(Image.fromarray(PHOTO).convert("L"))
# How a camera on its side stores the upright picture, by the number of EXIF's orientation.
STORED = {
    1: lambda upright: upright,
    2: lambda upright: upright[:, ::-1],
    3: lambda upright: upright[::-1, ::-1],
    4: lambda upright: upright[::-1],
    5: lambda upright: upright.swapaxes(0, 1),
    6: lambda upright: upright.swapaxes(0, 1)[::-1],
    7: lambda upright: upright.swapaxes(0, 1)[::-1, ::-1],
    8: lambda upright: upright.swapaxes(0, 1)[:, ::-1],
}


class Picture(NamedTuple):
    """shows: what every way must see, uint8 [H, W, 3]; a text that is in every refusal; or None,
    where the file is damaged and each way refuses it in its own words."""

    name: str
    data: bytes
    shows: np.ndarray | str | None


def corpus() -> Iterator[Picture]:
    yield from _jpegs()
    yield from _pngs()
    yield from _bmps()
    yield from _gifs()
    yield from _webps()
    yield from _others()


def saved(pixels: np.ndarray, kind: str, **options: object) -> bytes:
    """A file that Pillow writes of uint8 pixels [H, W] or [H, W, C]."""
    buffer = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(pixels)).save(buffer, kind, **options)
    return buffer.getvalue()


def tiff_block(orientation: int, order: str = "<", kind: int = 3, before: int = 2) -> bytes:
    """EXIF's block with `before` other tags and the orientation, as a SHORT (3) or LONG (4)."""
    tags = [
        struct.pack(order + "HHII", 0x0100 + each, 4, 1, 7) for each in range(before)
    ]  # smaller numbers stand first
    value = struct.pack(order + ("HH" if kind == 3 else "I"), *(orientation, 0)[: 5 - kind])
    tags.append(struct.pack(order + "HHI", 0x0112, kind, 1) + value)
    mark = b"II*\0" if order == "<" else b"MM\0*"
    head = mark + struct.pack(order + "IH", 8, len(tags))
    return head + b"".join(tags) + bytes(4)


def segment(marker: int, content: bytes) -> bytes:
    return struct.pack(">BBH", 0xFF, marker, len(content) + 2) + content


def with_segments(jpeg: bytes, *segments: bytes) -> bytes:
    """Between SOI and what Pillow wrote."""
    return jpeg[:2] + b"".join(segments) + jpeg[2:]


def exif(orientation: int, **options: object) -> bytes:
    return segment(0xE1, b"Exif\0\0" + tiff_block(orientation, **options))


def _jpegs() -> Iterator[Picture]:
    fine = {"quality": 100, "subsampling": 0}
    plain = saved(PHOTO, "JPEG", **fine)
    yield Picture("jpeg", plain, PHOTO)
    yield Picture("jpeg 4:2:0", saved(PHOTO, "JPEG", quality=98, subsampling=2), PHOTO)
    yield Picture("jpeg progressive", saved(PHOTO, "JPEG", progressive=True, **fine), PHOTO)
    yield Picture("jpeg grey", saved(GREY, "JPEG", **fine), _as_rgb(GREY))
    yield Picture("jpeg RGB", saved(PHOTO, "JPEG", quality=100, keep_rgb=True), PHOTO)
    cmyk = np.concatenate([255 - PHOTO, np.zeros_like(PHOTO[..., :1])], -1)
    buffer = io.BytesIO()
    Image.fromarray(cmyk, "CMYK").save(buffer, "JPEG", **fine)
    adobe = buffer.getvalue()
    yield Picture("jpeg CMYK", adobe, PHOTO)
    at = adobe.index(b"Adobe") + 11
    assert adobe[at] == 0  # no transform, which 2 makes YCCK: these numbers then mean others
    ycck = adobe[:at] + b"\2" + adobe[at + 1 :]
    yield Picture("jpeg YCCK", ycck, np.asarray(Image.open(io.BytesIO(ycck)).convert("RGB")))
    buffer = io.BytesIO()
    Image.fromarray(255 - cmyk, "CMYK").save(buffer, "JPEG", **fine)
    unmarked = buffer.getvalue()
    start = unmarked.index(b"\xff\xee")
    unmarked = unmarked[:start] + unmarked[start + 16 :]
    yield Picture("jpeg CMYK without Adobe's mark", unmarked, PHOTO)
    for number, order in itertools.product(STORED, "<>"):
        stored = saved(STORED[number](PHOTO), "JPEG", **fine)
        name = f"jpeg turned {number}, {'II' if order == '<' else 'MM'}"
        yield Picture(name, with_segments(stored, exif(number, order=order)), PHOTO)
    stored = saved(STORED[6](PHOTO), "JPEG", **fine)
    grey = saved(STORED[8](GREY), "JPEG", **fine)
    xmp = segment(0xE1, b"http://ns.adobe.com/xap/1.0/\0<x tiff:Orientation='3'/>")
    turned = with_segments(stored, exif(6))
    yield Picture("jpeg grey, turned", with_segments(grey, exif(8)), _as_rgb(GREY))
    yield Picture("jpeg turned, LONG", with_segments(stored, exif(6, kind=4)), PHOTO)
    yield Picture("jpeg turned, XMP first", with_segments(stored, xmp, exif(6)), PHOTO)
    yield Picture("jpeg turned, two EXIFs", with_segments(stored, exif(6), exif(3)), PHOTO)
    yield Picture(
        "jpeg turned, after a comment", stored[:2] + segment(0xFE, b"x") + turned[2:], PHOTO
    )
    behind = stored[:20] + exif(6) + stored[20:]
    assert stored[2:4] == b"\xff\xe0" and behind[20:22] == b"\xff\xe1"
    yield Picture("jpeg turned, after JFIF", behind, PHOTO)
    yield Picture("jpeg turned, fill bytes", stored[:2] + b"\xff\xff" + turned[2:], PHOTO)
    yield Picture("jpeg XMP alone turns nothing", with_segments(plain, xmp), PHOTO)
    for number in (0, 9, 257):
        yield Picture(f"jpeg turned {number}", with_segments(plain, exif(number)), PHOTO)
    yield Picture(
        "jpeg EXIF cut off", with_segments(plain, exif(6)[:2] + b"\0\x14" + exif(6)[4:22]), PHOTO
    )
    lost = segment(0xE1, b"Exif\0\0II*\0\xff\xff\xff\xff")
    yield Picture("jpeg EXIF points away", with_segments(plain, lost), PHOTO)
    many = segment(0xE1, b"Exif\0\0II*\0\x08\0\0\0\xff\xff")
    yield Picture("jpeg EXIF of 65535 tags", with_segments(plain, many), PHOTO)
    yield Picture(
        "jpeg EXIF of zeros", with_segments(plain, segment(0xE1, b"Exif\0\0" + bytes(30))), PHOTO
    )
    several = with_segments(plain, segment(0xE2, b"MPF\0" + bytes(40))) + turned
    yield Picture("jpeg MPF, the second turned", several, PHOTO)
    profile = segment(0xE2, b"ICC_PROFILE\0\1\1" + bytes(200))
    yield Picture("jpeg ICC profile", with_segments(plain, profile), PHOTO)
    yield Picture("jpeg trailing bytes", plain + b"\0" * 999, PHOTO)
    yield Picture("jpeg cut in half", plain[: len(plain) // 2], None)
    yield Picture("jpeg head alone", plain[:30], None)


def png_chunk(name: bytes, content: bytes) -> bytes:
    checksum = zlib.crc32(name + content)
    return struct.pack(">I", len(content)) + name + content + struct.pack(">I", checksum)


def png(
    samples: np.ndarray, depth: int, colour: int, *chunks: bytes, interlaced: bool = False
) -> bytes:
    """Samples [H, W, C] below 2**depth, of PNG's colour type; chunks stand before the pixels."""
    height, width = samples.shape[:2]
    adam7 = [(0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2)]
    passes = [*adam7, (0, 1, 1, 2)] if interlaced else [(0, 0, 1, 1)]
    lines = b""
    for left, top, right, down in passes:
        for row in samples[top::down, left::right].reshape(-1, samples[0, left::right].size):
            bits = np.unpackbits(row.astype(">u2").view(np.uint8)).reshape(-1, 16)[:, 16 - depth :]
            lines += b"\0" + np.packbits(bits).tobytes()
    head = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, interlaced)
    return (
        b"\x89PNG\r\n\x1a\n"
        + png_chunk(b"IHDR", head)
        + b"".join(chunks)
        + png_chunk(b"IDAT", zlib.compress(lines))
        + png_chunk(b"IEND", b"")
    )


GREY_TYPE, RGB_TYPE, PALETTE_TYPE, GREY_ALPHA_TYPE, RGB_ALPHA_TYPE = 0, 2, 3, 4, 6
_ALPHA = np.clip(10 * _COLUMNS, 0, 255)[..., np.newaxis]  # from clear on the left to 230


def _over_white(pixels: np.ndarray, alpha: np.ndarray) -> np.ndarray:
    """pixels, alpha: 0..255"""
    return np.round((pixels * alpha + 255.0 * (255 - alpha)) / 255).astype(np.uint8)


def _as_rgb(grey: np.ndarray) -> np.ndarray:
    return np.repeat(grey[..., np.newaxis], 3, -1)


def _pngs() -> Iterator[Picture]:
    grey, photo = GREY[..., np.newaxis], PHOTO.astype(int)
    low = np.arange(HEIGHT * WIDTH).reshape(HEIGHT, WIDTH, 1) % 256  # what 16 bits have below 8
    palette = png_chunk(b"PLTE", COLOURS.tobytes())
    blocks = BLOCKS[..., np.newaxis]
    for interlaced in (False, True):
        tail = ", interlaced" if interlaced else ""
        for depth in (1, 2, 4, 8, 16):
            few = grey.astype(int) * 256 + low if depth == 16 else grey.astype(int) >> 8 - depth
            shown = few >> 8 if depth == 16 else few * 255 // (2**depth - 1)
            yield Picture(
                f"png grey {depth}{tail}",
                png(few, depth, GREY_TYPE, interlaced=interlaced),
                np.repeat(shown, 3, -1).astype(np.uint8),
            )
        for depth in (2, 4, 8):
            yield Picture(
                f"png palette {depth}{tail}",
                png(blocks, depth, PALETTE_TYPE, palette, interlaced=interlaced),
                FLAT,
            )
        for depth in (8, 16):
            wide = (lambda x: x * 256 + low) if depth == 16 else (lambda x: x)
            yield Picture(
                f"png RGB {depth}{tail}",
                png(wide(photo), depth, RGB_TYPE, interlaced=interlaced),
                PHOTO,
            )
            yield Picture(
                f"png grey alpha {depth}{tail}",
                png(
                    wide(np.concatenate([grey.astype(int), _ALPHA], -1)),
                    depth,
                    GREY_ALPHA_TYPE,
                    interlaced=interlaced,
                ),
                _over_white(_as_rgb(GREY), _ALPHA),
            )
            yield Picture(
                f"png RGB alpha {depth}{tail}",
                png(
                    wide(np.concatenate([photo, _ALPHA], -1)),
                    depth,
                    RGB_ALPHA_TYPE,
                    interlaced=interlaced,
                ),
                _over_white(PHOTO, _ALPHA),
            )
    yield from _pngs_with_chunks(palette, blocks, grey, photo, low)


def _pngs_with_chunks(
    palette: bytes, blocks: np.ndarray, grey: np.ndarray, photo: np.ndarray, low: np.ndarray
) -> Iterator[Picture]:
    one_bit = png_chunk(b"PLTE", COLOURS[:2].tobytes())
    yield Picture("png palette 1", png(blocks % 2, 1, PALETTE_TYPE, one_bit), COLOURS[BLOCKS % 2])
    alphas = np.array([255, 0, 128, 255])
    clear = png(blocks, 8, PALETTE_TYPE, palette, png_chunk(b"tRNS", bytes(alphas.tolist())))
    yield Picture(
        "png palette, transparent", clear, _over_white(FLAT, alphas[BLOCKS][..., np.newaxis])
    )
    for depth, colour, samples, shown in (
        (8, GREY_TYPE, grey.astype(int), _as_rgb(GREY)),
        (8, RGB_TYPE, photo, PHOTO),
        (16, GREY_TYPE, grey.astype(int) * 256 + low, _as_rgb(GREY)),
        (16, RGB_TYPE, photo * 256 + low, PHOTO),
        (4, GREY_TYPE, grey.astype(int) >> 4, _as_rgb((GREY >> 4) * 17)),
    ):
        key = samples[5, 5]
        expected = shown.copy()
        expected[(samples == key).all(-1)] = 255
        yield Picture(
            f"png {'RGB' if colour else 'grey'} {depth}, one colour transparent",
            png(samples, depth, colour, png_chunk(b"tRNS", key.astype(">u2").tobytes())),
            expected,
        )
    for number in STORED:
        turn = png_chunk(b"eXIf", tiff_block(number, ">"))
        yield Picture(f"png turned {number}", png(STORED[number](photo), 8, RGB_TYPE, turn), PHOTO)
    both = np.concatenate([photo, _ALPHA], -1)
    turn = png_chunk(b"eXIf", tiff_block(6))
    yield Picture(
        "png turned, alpha",
        png(STORED[6](both), 8, RGB_ALPHA_TYPE, turn),
        _over_white(PHOTO, _ALPHA),
    )
    plain = png(photo, 8, RGB_TYPE)
    end = plain.index(b"IEND") - 4
    yield Picture(
        "png eXIf after the pixels turns nothing", plain[:end] + turn + plain[end:], PHOTO
    )
    text = png_chunk(b"iTXt", b"XML:com.adobe.xmp\0\0\0\0\0<x tiff:Orientation='6'/>")
    yield Picture("png XMP turns nothing", png(photo, 8, RGB_TYPE, text), PHOTO)
    for name, content in (
        (b"gAMA", struct.pack(">I", 100_000)),
        (b"sRGB", b"\0"),
        (b"pHYs", struct.pack(">IIB", 1, 3, 0)),
        (b"bKGD", bytes(6)),
        (b"iCCP", b"x\0\0" + zlib.compress(bytes(200))),
    ):
        yield Picture(
            f"png {name.decode()}", png(photo, 8, RGB_TYPE, png_chunk(name, content)), PHOTO
        )
    frames = [Image.fromarray(PHOTO), Image.fromarray(255 - PHOTO)]
    buffer = io.BytesIO()
    frames[0].save(buffer, "PNG", save_all=True, append_images=frames[1:])
    yield Picture("png animated", buffer.getvalue(), PHOTO)
    buffer = io.BytesIO()
    frames[0].save(buffer, "PNG", save_all=True, append_images=frames[1:], default_image=True)
    yield Picture("png animated, with a picture of its own", buffer.getvalue(), PHOTO)
    yield Picture("png trailing bytes", plain + b"\0" * 999, PHOTO)
    yield Picture("png cut in half", plain[: len(plain) // 2], None)
    yield Picture("png head alone", plain[:40], None)


def bmp(
    rows: list[bytes],
    depth: int,
    *,
    palette: bytes = b"",
    compression: int = 0,
    masks: bytes = b"",
    top_down: bool = False,
    header: int = 40,
) -> bytes:
    """Rows from the top, each packed already; a header of 12, 40, 108 or 124 bytes."""
    lines = rows if top_down or compression in (1, 2) else rows[::-1]
    content = (
        b"".join(line + bytes(-len(line) % 4) for line in lines)
        if compression not in (1, 2)
        else b"".join(lines)
    )
    height = -HEIGHT if top_down else HEIGHT
    if header == 12:
        info = struct.pack("<IHHHH", 12, WIDTH, HEIGHT, 1, depth)
    else:
        colours = len(palette) // 4
        info = struct.pack(
            "<IiiHHIIiiII",
            header,
            WIDTH,
            height,
            1,
            depth,
            compression,
            len(content),
            1,
            1,
            colours,
            0,
        )
        if header > 40:
            info += masks.ljust(16, b"\0") + b"BGRs" + bytes(header - 60)
            masks = b""
    start = 14 + len(info) + len(masks) + len(palette)
    return (
        b"BM"
        + struct.pack("<IHHI", start + len(content), 0, 0, start)
        + info
        + masks
        + palette
        + content
    )


def _bmps() -> Iterator[Picture]:
    bgr = PHOTO[..., ::-1]
    palette = b"".join(bytes([b, g, r, 0]) for r, g, b in COLOURS.tolist())
    eight = [row.tobytes() for row in BLOCKS]
    four = [bytes(a << 4 | b for a, b in row.reshape(-1, 2)) for row in BLOCKS]
    one = [np.packbits(row % 2).tobytes() for row in BLOCKS]
    rgb = [row.tobytes() for row in bgr]
    quads = [np.concatenate([row, np.full((WIDTH, 1), 0, np.uint8)], -1).tobytes() for row in bgr]
    for top_down in (False, True):
        tail = ", top down" if top_down else ""
        yield Picture(f"bmp 24{tail}", bmp(rgb, 24, top_down=top_down), PHOTO)
        yield Picture(f"bmp 32{tail}", bmp(quads, 32, top_down=top_down), PHOTO)
        yield Picture(f"bmp 8{tail}", bmp(eight, 8, palette=palette, top_down=top_down), FLAT)
    yield Picture("bmp 8, 256 colours", bmp(eight, 8, palette=palette.ljust(1024, b"\0")), FLAT)
    grey = b"".join(bytes([n, n, n, 0]) for n in range(256))
    yield Picture(
        "bmp 8, grey", bmp([row.tobytes() for row in GREY], 8, palette=grey), _as_rgb(GREY)
    )
    yield Picture("bmp 4", bmp(four, 4, palette=palette), FLAT)
    yield Picture("bmp 1", bmp(one, 1, palette=palette[:8]), COLOURS[BLOCKS % 2])
    for header in (108, 124):
        yield Picture(f"bmp 24, header of {header}", bmp(rgb, 24, header=header), PHOTO)
        yield Picture(
            f"bmp 8, header of {header}", bmp(eight, 8, palette=palette, header=header), FLAT
        )
    masks = struct.pack("<III", 0xFF0000, 0xFF00, 0xFF)
    clear = [np.concatenate([row, np.full((WIDTH, 1), 77, np.uint8)], -1).tobytes() for row in bgr]
    yield Picture("bmp 32, masks", bmp(quads, 32, compression=3, masks=masks), PHOTO)
    with_alpha = masks + struct.pack("<I", 0xFF000000)
    yield Picture(
        "bmp 32, alpha", bmp(clear, 32, compression=3, masks=with_alpha, header=124), PHOTO
    )
    swapped = struct.pack("<IIII", 0xFF, 0xFF00, 0xFF0000, 0xFF000000)
    rgba = [np.concatenate([row, np.full((WIDTH, 1), 77, np.uint8)], -1).tobytes() for row in PHOTO]
    yield Picture(
        "bmp 32, masks swapped", bmp(rgba, 32, compression=3, masks=swapped, header=124), PHOTO
    )
    r, g, b = (PHOTO[..., each].astype(np.uint16) for each in range(3))
    fives = (r >> 3) << 10 | (g >> 3) << 5 | b >> 3
    shown = np.stack([(each >> 3) * 255 // 31 for each in (r, g, b)], -1).astype(np.uint8)
    yield Picture("bmp 16", bmp([row.astype("<u2").tobytes() for row in fives], 16), shown)
    sixes = (r >> 3) << 11 | (g >> 2) << 5 | b >> 3
    shown = np.stack([(r >> 3) * 255 // 31, (g >> 2) * 255 // 63, (b >> 3) * 255 // 31], -1)
    yield Picture(
        "bmp 16, 5-6-5",
        bmp(
            [row.astype("<u2").tobytes() for row in sixes],
            16,
            compression=3,
            masks=struct.pack("<III", 0xF800, 0x7E0, 0x1F),
        ),
        shown.astype(np.uint8),
    )
    runs = [b"".join(bytes([1, n]) for n in row) + b"\0\0" for row in BLOCKS[::-1]]
    yield Picture("bmp 8, RLE", bmp([*runs, b"\0\1"], 8, palette=palette, compression=1), FLAT)
    runs = [b"".join(bytes([1, n << 4]) for n in row) + b"\0\0" for row in BLOCKS[::-1]]
    yield Picture("bmp 4, RLE", bmp([*runs, b"\0\1"], 4, palette=palette, compression=2), FLAT)
    old = b"".join(bytes([b, g, r]) for r, g, b in COLOURS.tolist())
    yield Picture("bmp 24, OS/2", bmp(rgb, 24, header=12), PHOTO)
    yield Picture("bmp 8, OS/2", bmp(eight, 8, palette=old.ljust(768, b"\0"), header=12), FLAT)
    plain = bmp(rgb, 24)
    yield Picture("bmp trailing bytes", plain + b"\0" * 999, PHOTO)
    yield Picture("bmp cut in half", plain[: len(plain) // 2], None)
    yield Picture("bmp head alone", plain[:40], None)


def _gif(frames: list[np.ndarray], **options: object) -> bytes:
    images = []
    for numbers in frames:
        image = Image.fromarray(numbers, "P")
        image.putpalette(COLOURS.tobytes())
        images.append(image)
    buffer = io.BytesIO()
    images[0].save(
        buffer, "GIF", save_all=True, append_images=images[1:], optimize=False, **options
    )
    return buffer.getvalue()


def _gifs() -> Iterator[Picture]:
    plain = _gif([BLOCKS])
    yield Picture("gif", plain, FLAT)
    yield Picture("gif not interlaced", _gif([BLOCKS], interlace=0), FLAT)
    clear = FLAT.copy()
    clear[BLOCKS == 1] = 255
    yield Picture("gif transparent", _gif([BLOCKS], transparency=1), clear)
    yield Picture(
        "gif transparent, background", _gif([BLOCKS], transparency=1, background=3), clear
    )
    moving = [BLOCKS, BLOCKS[::-1], BLOCKS[:, ::-1]]
    yield Picture("gif animated", _gif(moving), FLAT)
    yield Picture("gif animated, transparent", _gif(moving, transparency=1, disposal=2), clear)
    yield Picture("gif with a comment", _gif([BLOCKS], comment=b"\x2c" * 700), FLAT)
    table = 3 << (plain[10] & 7) + 1
    at = plain.index(b"\x2c", 13 + table)
    local = bytearray(
        plain[:13] + plain[13 + table : at + 10] + plain[13 : 13 + table] + plain[at + 10 :]
    )
    local[10] &= 0x7F
    local[at - table + 9] |= 0x80 | plain[10] & 7
    yield Picture("gif local colours", bytes(local), FLAT)
    small = _gif([BLOCKS[3:13, 6:20]])
    at = small.index(b"\x2c\0\0\0\0", 13)
    part = bytearray(small)
    part[6:10] = struct.pack("<HH", WIDTH, HEIGHT)
    part[at + 1 : at + 5] = struct.pack("<HH", 6, 3)
    framed = np.full_like(FLAT, 255)
    framed[3:13, 6:20] = FLAT[3:13, 6:20]
    yield Picture("gif frame within its screen", bytes(part), framed)
    beyond = bytearray(plain)
    beyond[6:10] = struct.pack("<HH", 10, 10)
    yield Picture("gif frame larger than its screen", bytes(beyond), FLAT)
    yield Picture("gif 87a", b"GIF87a" + plain[6:], FLAT)
    yield Picture("gif trailing bytes", plain + b"\0" * 999, FLAT)
    yield Picture("gif without its last byte", plain[:-1], FLAT)
    yield Picture("gif cut in half", plain[:-20], None)
    yield Picture("gif head alone", plain[:20], None)


def _webps() -> Iterator[Picture]:
    lossless = saved(PHOTO, "WEBP", lossless=True)
    yield Picture("webp lossless", lossless, PHOTO)
    yield Picture(
        "webp lossy", saved(PHOTO, "WEBP", quality=100), _read(saved(PHOTO, "WEBP", quality=100))
    )
    both = np.concatenate([PHOTO, _ALPHA.astype(np.uint8)], -1)
    clear = saved(both, "WEBP", lossless=True, exact=True)
    yield Picture("webp alpha", clear, _over_white(PHOTO, _ALPHA))
    lossy = saved(both, "WEBP", quality=100)
    seen = _read(lossy, "RGBA").astype(int)
    yield Picture("webp lossy, alpha", lossy, _over_white(seen[..., :3], seen[..., 3:]))
    for number in STORED:
        block = {"exif": tiff_block(number)}
        data = saved(STORED[number](PHOTO), "WEBP", lossless=True, **block)
        yield Picture(f"webp turned {number}", data, PHOTO)
    yield Picture(
        "webp turned, Exif's mark",
        saved(STORED[6](PHOTO), "WEBP", lossless=True, exif=b"Exif\0\0" + tiff_block(6)),
        PHOTO,
    )
    yield Picture("webp ICC", saved(PHOTO, "WEBP", lossless=True, icc_profile=bytes(200)), PHOTO)
    buffer = io.BytesIO()
    frames = [Image.fromarray(PHOTO), Image.fromarray(255 - PHOTO)]
    frames[0].save(buffer, "WEBP", save_all=True, append_images=frames[1:], lossless=True)
    yield Picture("webp animated", buffer.getvalue(), PHOTO)
    yield Picture("webp trailing bytes", lossless + b"\0" * 999, PHOTO)
    yield Picture("webp cut in half", lossless[: len(lossless) // 2], None)
    yield Picture("webp head alone", lossless[:20], None)


def _read(data: bytes, mode: str = "RGB") -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(data)).convert(mode))


def _others() -> Iterator[Picture]:
    yield Picture("tiff", saved(PHOTO, "TIFF"), "a TIFF file")
    yield Picture("tiff, MM", b"MM\0*\0\0\0\x08" + bytes(40), "a TIFF file")
    yield Picture("avif", saved(PHOTO, "AVIF"), "an AVIF file")
    yield Picture("heic", b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + bytes(40), "an HEIC file")
    yield Picture("heif", b"\0\0\0\x18ftypmif1\0\0\0\0mif1heic" + bytes(40), "an HEIC file")
    yield Picture("jpeg 2000", saved(PHOTO, "JPEG2000"), "a JPEG 2000 file")
    yield Picture("jpeg xl", b"\xff\x0a" + bytes(40), "a JPEG XL file")
    yield Picture("jpeg xl, boxed", b"\0\0\0\x0cJXL \r\n\x87\n" + bytes(40), "a JPEG XL file")
    yield Picture("psd", b"8BPS\0\1" + bytes(40), "a Photoshop file")
    yield Picture("ico", saved(PHOTO, "ICO"), "an ICO file")
    yield Picture("pdf", b"%PDF-1.7\n" + bytes(40), "a PDF file")
    yield Picture("svg", b'<svg xmlns="http://www.w3.org/2000/svg"/>', "an SVG file")
    yield Picture("svg, xml", b'<?xml version="1.0"?>\n<svg/>', "an SVG or")
    yield Picture(
        "text", b"a picture of a cat", "expected an image (JPEG, PNG, GIF, BMP, WebP), got "
    )
    yield Picture("empty", b"", "expected an image (JPEG, PNG, GIF, BMP, WebP), got ")
