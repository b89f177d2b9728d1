"""What the bench of rollouts serves and asks: handwritten digits, without TensorFlow."""

import functools
from collections.abc import Iterator

import numpy as np
from clients import Request
from contenders import JSON_TYPE
from sklearn.datasets import load_digits

MODEL = "digits"
PATH = f"/v1/models/{MODEL}:predict"
SIZE, CLASSES = 8, 10
HELD_OUT = 400
NOISE = 4.0  # the deviation of a pixel, of 255: two good networks differ in no more for it

Pictures = tuple[np.ndarray, np.ndarray]


@functools.cache
def pictures() -> tuple[Pictures, Pictures]:
    """Of training and held out: uint8 [N,8,8,1] and classes [N]."""
    images, labels = load_digits(return_X_y=True)
    images = (images.reshape(-1, SIZE, SIZE, 1) * (255 / 16)).astype(np.uint8)
    order = np.random.default_rng(0).permutation(len(images))
    images, labels = images[order], labels[order]
    return (images[HELD_OUT:], labels[HELD_OUT:]), (images[:HELD_OUT], labels[:HELD_OUT])


def requests(seed: int) -> Iterator[Request]:
    """Without end, each of one picture that nobody has seen."""
    images, chance = pictures()[1][0].astype(np.float64), np.random.default_rng(seed)
    while True:
        image = images[chance.integers(len(images))]
        pixels = (image + chance.normal(0, NOISE, image.shape)).clip(0, 255).round().astype(int)
        yield f'{{"instances":[{pixels.tolist()}]}}'.encode(), JSON_TYPE
