"""What each setting of a recipe means, and which values it may have."""

import math
from dataclasses import dataclass

from sluice.wire.contract import OPTIMIZE

_MOST_PIXELS = 4096  # of a side
_WIDEST = 65_536


@dataclass(frozen=True)
class Bounds:
    """low, high: of a number, or of each of several. above: `low` itself is too low.

    >>> Bounds("", 0, 1, above=True).allowed
    'above 0, up to 1'
    """

    meaning: str
    low: float | None = None
    high: float | None = None
    above: bool = False
    choices: tuple[object, ...] = ()

    @property
    def allowed(self) -> str:
        """In words; "" where its type alone says it."""
        if self.choices:
            return " or ".join(map(str, self.choices))
        if self.low is None or self.high is None:
            return ""
        between = "above {}, up to {}" if self.above else "{} to {}"
        return between.format(*(f"{bound:,}" for bound in (self.low, self.high)))

    def holds(self, value: object) -> bool:
        if self.choices:
            return value in self.choices
        if isinstance(value, bool) or not isinstance(value, int | float):
            return True
        if self.low is None or self.high is None:
            return math.isfinite(value)
        # A NaN is in no range.
        return self.low <= value <= self.high and not (self.above and value == self.low)


_PREPROCESS = ("unit", "tf", "torch", "caffe", "none")

BOUNDS: dict[str, Bounds] = {
    "model": Bounds("the architecture, by its name in docs/models.md"),
    "limit": Bounds("training images to take, drawn by the seed; 0: all", 0, 100_000_000),
    "image_size": Bounds(
        "side in pixels that images are brought to; 0: as they are, a folder's 64", 0, _MOST_PIXELS
    ),
    "channels": Bounds("that a folder's images are brought to", choices=(1, 3)),
    "epochs": Bounds("how often training sees every image", 1, 100_000),
    "batch_size": Bounds("images of a step, over all devices together", 1, 1_000_000),
    "learning_rate": Bounds("AdamW's, at its peak", 0, 10, above=True),
    "beta_1": Bounds("AdamW's memory of the direction", 0, 0.9999),
    "weight_decay": Bounds("AdamW's", 0, 1),
    "shift": Bounds("augmentation: moved by up to this share of the height and width", 0, 0.5),
    "flip": Bounds("augmentation: left and right change places"),
    "patience": Bounds(
        "epochs without a lower validation loss before it stops; 0: it never does", 0, 100_000
    ),
    "precision": Bounds(
        "what it computes in while it trains",
        choices=("auto", "float32", "mixed_bfloat16", "mixed_float16"),
    ),
    "deterministic": Bounds("the same numbers to the bit in every run; slower on a GPU"),
    "seed": Bounds("of everything that is drawn by chance", 0, 2**32 - 1),
    "novelty": Bounds("whether the version says how unlike its training images a picture is"),
    "margin": Bounds("points, of 100, that a version may be worse than the live one", 0, 100),
    "optimize": Bounds(
        "more graphs to publish: bf16 in bfloat16, gpu in half precision for GPUs", choices=OPTIMIZE
    ),
    "optimize_drop": Bounds("points, of 100, that such a graph may be worse", 0, 100),
    "optimize_margin": Bounds(
        "lead of the best class, of 1, up to which such a graph may name another", 0, 1
    ),
    "optimize_constants": Bounds(
        "MB of memory that a model server may hold more for bf16's weights as constants; 0: they "
        "are variables",
        0,
        1_000_000,
    ),
    "batch_encoded": Bounds(
        "rows of several calls of `encoded` that the network takes at once; 0: of one alone",
        0,
        1024,
    ),
    "explain_layer": Bounds(
        "the layer whose maps `explain` looks at, by name; not set: a last convolution, or tokens"
    ),
    # Sizes of the models.
    "depth": Bounds("blocks, one behind the other", 1, 1_000),
    "depths": Bounds("blocks of each stage", 1, 1_000),
    "dropout": Bounds("the share of the activations that training leaves out", 0, 0.95),
    "filters": Bounds("of the first convolution", 1, _WIDEST),
    "heads": Bounds("of the attention", 1, 1_024),
    "mlp_width": Bounds("of a block's dense layer", 1, _WIDEST),
    "patch": Bounds("side in pixels of the pieces that an image is cut into", 1, _MOST_PIXELS),
    "preprocess": Bounds("what the network's first layer makes of pixels", choices=_PREPROCESS),
    "stem": Bounds("the network's first layers", choices=("7x7", "3x3", "3x3_pool")),
    "units": Bounds("of the dense layers", 1, _WIDEST),
    "width": Bounds("of its layers; inception_v3's is a factor", 0, _WIDEST, above=True),
}

UNKNOWN = Bounds("a size of its model")  # that a recipe of one's own adds
