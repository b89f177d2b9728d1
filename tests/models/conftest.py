import functools
from collections.abc import Callable

import keras
import pytest

import models


@pytest.fixture(scope="session")
def full_size() -> Callable[[str], keras.Model]:
    """A model by its name alone, with its graph and counts but no memory behind its weights."""

    @functools.cache
    def build(name: str) -> keras.Model:
        with keras.StatelessScope(initialize_variables=False):
            model = models.build(name)
        # Keras keeps the variables in a list, to allocate at the end of the next scope of its own.
        keras.utils.clear_session()
        return model

    return build
