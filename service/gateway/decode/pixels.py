"""An image file to the pixels that a model declares, for models whose graph does not decode files.

Values stay 0..255, and a picture is what docs/contract.md says, so that a model answers the same by
this way as by its graph.
"""

from collections.abc import Callable

import numpy as np
from PIL import Image, ImageOps

from service.gateway.errors import InvalidInput, shown
from sluice.pictures.decoding import Unreadable, decode, flattened
from sluice.wire.signature import TensorSpec
from sluice.wire.tensors import Array

MODES = {1: "L", 3: "RGB", 4: "RGBA"}  # Pillow's name for so many channels
Size = tuple[int, int]  # width, height

RESIZES: dict[str, Callable[[Image.Image, Size], Image.Image]] = {
    "stretch": lambda image, size: image.resize(size, Image.Resampling.BILINEAR),
    "fit": lambda image, size: ImageOps.pad(image, size, Image.Resampling.BILINEAR),
    "crop": lambda image, size: ImageOps.fit(image, size, Image.Resampling.BILINEAR),
}


def takes_pixels(spec: TensorSpec) -> bool:
    """Whether an input is a batch of images: [N, H, W, C] of real or whole numbers, C 1, 3 or 4."""
    return (
        spec.shape is not None
        and len(spec.shape) == 4
        and spec.shape[3] in MODES
        and spec.dtype.kind in "fiu"
    )


def decode_pixels(data: bytes, spec: TensorSpec, resize: str, at: str) -> Array:
    """[H, W, C] of uint8, or of `spec`'s dtype where that does not hold all of these; resized where
    H and W are declared. A C of 4 keeps alpha.

    `data` has passed `images.check_image`; InvalidInput where its pixels turn out to be damaged.
    """
    assert spec.shape is not None
    _, height, width, channels = spec.shape
    assert channels is not None
    try:
        # A square, since EXIF may turn it by a quarter.
        image = decode(data, max(width, height) if width and height else None)
    except Unreadable as error:
        raise damaged(spec.name, error, at) from error
    image = (image if channels == 4 else flattened(image)).convert(MODES[channels])
    if width and height and image.size != (width, height):
        image = RESIZES[resize](image, (width, height))
    pixels = np.asarray(image)
    if not np.can_cast(pixels.dtype, spec.dtype, "safe"):
        pixels = pixels.astype(spec.dtype)
    return pixels if pixels.ndim == 3 else pixels[:, :, np.newaxis]


def damaged(name: str, error: Unreadable, at: str) -> InvalidInput:
    return InvalidInput(name, "a whole image", f"a damaged one ({shown(str(error))})", at)
