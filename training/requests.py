"""Held-out images as the requests that clients will send: one set of inputs for each signature."""
from __future__ import annotations

import io
from collections.abc import Iterable, Mapping

import numpy as np
from PIL import Image

from service.protos.tensorflow_pb2 import Example
from training.dataset import Array, Split

Requests = dict[str, dict[str, Array]]


def requests(split: Split, signatures: Iterable[str]) -> Requests:
    """Signature name -> input name -> array, for every row of `split`."""
    encoded = {name: as_files(images) for name, images in split.inputs.items()}
    every: Requests = {
        "serving_default": {name: images.astype(np.float32)
                            for name, images in split.inputs.items()},
        "encoded": encoded,
        "classify": {"inputs": as_examples(encoded)},
    }
    return {name: every[name] for name in signatures}


def as_files(images: Array) -> Array:
    """uint8 [N, H, W, C] -> PNG bytes [N]."""
    return np.array([encode_png(image) for image in images], dtype=object)


def encode_png(image: Array) -> bytes:
    """uint8 [H, W, 1 or 3] -> a PNG file with the same numbers."""
    buffer = io.BytesIO()
    Image.fromarray(image[..., 0] if image.shape[-1] == 1 else image).save(buffer, "PNG")
    return buffer.getvalue()


def as_examples(encoded: Mapping[str, Array]) -> Array:
    """Files [N] by input name -> serialized tf.Examples [N]."""
    rows = zip(*encoded.values(), strict=True)
    return np.array([encode_example(dict(zip(encoded, row, strict=True))) for row in rows],
                    dtype=object)


def encode_example(files: Mapping[str, bytes]) -> bytes:
    example = Example()
    for name, content in files.items():
        example.features.feature[name].bytes_list.value.append(content)
    return example.SerializeToString(deterministic=True)
