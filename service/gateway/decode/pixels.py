"""An image file to the pixels that a model declares, for models whose graph does not decode files.

Values stay 0..255, as the contract has them; alpha is dropped and grey is spread or made as
TensorFlow's own decoder does, so that a model answers the same by this way as by its graph.
"""

import io
from collections.abc import Callable

import numpy as np
from PIL import Image, ImageOps

from service.gateway.errors import InvalidInput, shown
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
    """[H, W, C] in `spec`'s dtype; turned upright by EXIF, resized where H and W are declared.

    `data` has passed `images.check_image`; InvalidInput where its pixels turn out to be damaged.
    """
    assert spec.shape is not None
    _, height, width, channels = spec.shape
    assert channels is not None
    try:
        with Image.open(io.BytesIO(data)) as image:
            if width and height:
                # A JPEG can be decoded at 1/2, 1/4 or 1/8, never below this in either direction;
                # a square, since EXIF may turn it by a quarter.
                image.draft(MODES[channels], (max(width, height),) * 2)
            upright = ImageOps.exif_transpose(image).convert(MODES[channels])
    except Exception as error:  # whatever a plug-in of Pillow's raises for its format
        raise InvalidInput(
            spec.name, "a whole image", f"a damaged one ({shown(str(error))})", at
        ) from error
    if width and height and upright.size != (width, height):
        upright = RESIZES[resize](upright, (width, height))
    pixels = np.asarray(upright, spec.dtype)
    return pixels if pixels.ndim == 3 else pixels[:, :, np.newaxis]
