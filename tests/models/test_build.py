import pytest

import models


def test_an_unknown_name_lists_the_nearest_first() -> None:
    with pytest.raises(models.UnknownModelError, match="no model 'cnn_seq'; known: cnn_seq"):
        models.build("cnn_seq")


def test_an_unknown_size_lists_the_known_ones() -> None:
    with pytest.raises(models.UnknownSizeError, match="no size 'filter'; known: filters, "):
        models.build("cnn_functional", filter=3)


def test_sizes_are_the_builders_arguments() -> None:
    assert models.sizes("cnn_functional") == {
        "input_shape": (256, 256, 3),
        "classes": 10,
        "filters": 32,
        "units": 64,
    }


@pytest.mark.parametrize("name", ["cnn_sequential", "cnn_functional"])
def test_heads_are_named(name: str) -> None:
    model = models.build(name, (8, 8, 1), 3)
    assert {head: tensor.shape for head, tensor in models.heads(model).items()} == {
        "label": (None, 3)
    }
