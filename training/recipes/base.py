"""What every recipe says, as data."""

import dataclasses
from dataclasses import dataclass


@dataclass(frozen=True)
class Recipe:
    """One model trained on one source of images.

    A field that a subclass adds to these is a size argument of its model,
    `models.build(recipe.model, ..., **recipe.size)`; another model is built at its own size.

    >>> @dataclass(frozen=True)
    ... class Wide(Recipe):
    ...     name: str = "wide"
    ...     summary: str = "Garments by one wide layer"
    ...     model: str = "mlp"
    ...     units: tuple[int, ...] = (4096,)
    >>> Wide().size
    {'units': (4096,)}
    """

    name: str  # also the published model's name
    summary: str
    model: str  # a key of models.MODELS
    source: str = "fashion"  # a key of training.data.load.SOURCES
    task: str = "labels"  # a key of training.data.tasks.TASKS: what is asked about the images
    limit: int = 0  # training images to take, by seed; 0: all
    image_size: int = 0  # side in pixels that images are brought to; 0: as they are, a folder's 64
    channels: int = 3  # that a folder's images are brought to: 1 or 3
    epochs: int = 10
    batch_size: int = 64  # over all devices and machines together
    learning_rate: float = 1e-3  # its peak: it rises for 5% of the steps, then falls on a cosine
    beta_1: float = 0.9  # Adam's memory of the direction
    weight_decay: float = 0.0
    shift: float = 0.0  # augmentation: up to this fraction of the height and width, either way
    flip: bool = False  # augmentation: left and right
    patience: int = 0  # epochs without a lower validation loss before it stops; 0: it never does
    precision: str = "auto"  # auto, float32, mixed_bfloat16, mixed_float16
    deterministic: bool = False  # the same numbers to the bit in every run; slower on a GPU
    seed: int = 0
    novelty: bool = True  # say of each picture how unlike the training images it is
    margin: float = 1.0  # points, of 100, by which a version may be worse than the live one
    optimize: str = "none"  # bf16, gpu or both: more graphs, where they answer as the first does
    optimize_drop: float = 0.2  # points, of 100, that such a graph may be worse on held-out images
    optimize_margin: float = 0.1  # how far ahead a class may be where such a graph names another
    optimize_constants: int = 0  # MB that a server may hold more for bf16's weights as constants
    batch_encoded: int = 0  # rows of several calls that the network takes at once; 0: one call's
    explain_layer: str = ""  # whose maps `explain` looks at; else a last convolution's, or tokens

    @property
    def size(self) -> dict[str, object]:
        """The size arguments for its model's builder."""
        fields = {field.name: field for field in dataclasses.fields(self)}
        if self.model != fields["model"].default:
            return {}
        own = fields.keys() - {field.name for field in dataclasses.fields(Recipe)}
        return {name: getattr(self, name) for name in fields if name in own}
