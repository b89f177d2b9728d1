"""What each layer of a model gives while the model is called."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import keras
import tensorflow as tf

from training.explaining.lending import lent


@dataclass(frozen=True)
class Given:
    """What a layer gave in one of its calls. path: its name, after those of the models it is in.
    taken: what it was called on. training: whether it was told that it is being trained.

    >>> Given("encoder/conv", keras.layers.Conv2D(1, 3, name="conv"), tf.zeros((1, 8, 8, 1))).name
    'conv'
    """

    path: str
    layer: keras.Layer
    output: tf.Tensor
    taken: tuple[Any, ...] = ()
    training: bool = False

    @property
    def name(self) -> str:
        return self.path.rpartition("/")[2]


@contextmanager
def recorded(model: keras.Model) -> Iterator[list[Given]]:
    """The list that fills, call by call, while the model is called inside.

    Layers in other layers too, and whatever kind of model: what Keras knows of a graph ends at a
    nested model, and a subclassed one has none.

    >>> model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(3, name="dense")])
    >>> with recorded(model) as given:
    ...     _ = model(tf.zeros((1, 2)))
    >>> [(each.path, each.output.shape) for each in given]
    [('dense', TensorShape([1, 3]))]
    """
    given: list[Given] = []
    with ExitStack() as until_called:
        for layer, path in _paths(model):
            until_called.enter_context(lent(layer, call=_recording(layer, path, given)))
        yield given


def _paths(model: keras.Model) -> list[tuple[keras.Layer, str]]:
    """Every layer once, however often it is shared."""
    found: dict[int, tuple[keras.Layer, str]] = {}

    def walk(parent: keras.Layer, prefix: str) -> None:
        for layer in parent._flatten_layers(include_self=False, recursive=False):
            if id(layer) not in found:
                found[id(layer)] = layer, prefix + layer.name
                walk(layer, f"{prefix}{layer.name}/")

    walk(model, "")
    return [*found.values()]


def _recording(layer: keras.Layer, path: str, given: list[Given]) -> Callable[..., Any]:
    call = layer.call

    def recording(*args: Any, **kwargs: Any) -> Any:
        outputs = call(*args, **kwargs)
        if isinstance(outputs, tf.Tensor):
            given.append(Given(path, layer, outputs, args, bool(kwargs.get("training"))))
        return outputs

    return recording
