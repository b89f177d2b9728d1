"""Attributes of an object that are others for a while."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any


@contextmanager
def lent(owner: object, **attributes: Any) -> Iterator[None]:
    """`owner` with these attributes while inside, past Keras, which tracks what is set on a layer.

    >>> import keras
    >>> layer = keras.layers.Dense(1, name="own")
    >>> with lent(layer, call=lambda inputs: "another's"):
    ...     print(layer.call(None))
    another's
    >>> "call" in vars(layer)
    False
    """
    own = vars(owner)
    before = {name: own[name] for name in attributes if name in own}
    own.update(attributes)
    try:
        yield
    finally:
        for name in attributes:
            del own[name]
        own.update(before)
