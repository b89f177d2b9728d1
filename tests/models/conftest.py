from collections.abc import Callable

import keras
import pytest

import models


@pytest.fixture(scope="session")
def count_at_full_size() -> Callable[[str], int]:
    """A model's parameters with its name alone, counted without allocating them."""

    def count(name: str) -> int:
        with keras.StatelessScope(initialize_variables=False):
            parameters: int = models.build(name).count_params()
        # Keras keeps the variables in a list, to allocate at the end of the next scope of its own.
        keras.utils.clear_session()
        return parameters

    return count
