import keras
import numpy as np
import pytest

import models


def test_an_unknown_name_lists_the_nearest_first() -> None:
    with pytest.raises(models.UnknownModel, match="no model 'cnn_seq'; known: cnn_seq"):
        models.build("cnn_seq")


def test_an_unknown_size_lists_the_known_ones() -> None:
    with pytest.raises(models.UnknownSize, match="no size 'filter'; known: filters, "):
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


def test_a_shape_that_a_network_cannot_take_says_which_it_can() -> None:
    with pytest.raises(ValueError, match="unet: height and width must be multiples of 16, not 2"):
        models.build("unet", (28, 28, 1))
    with pytest.raises(ValueError, match="vit_b16: height and width must be multiples of 7"):
        models.build("vit_b16", (28, 30, 1), patch=7)
    with pytest.raises(ValueError, match="no stem '5x5'; known: 7x7, 3x3, 3x3_pool"):
        models.build("resnet50", stem="5x5")


def test_the_papers_unet_crops_its_skips() -> None:
    with keras.StatelessScope(initialize_variables=False):
        model = models.build("unet", (572, 572, 1), padding="valid")
    keras.utils.clear_session()
    assert model.output_shape == (None, 388, 388, 2)


@pytest.mark.parametrize("name", ["vgg16", "vgg19"])
def test_vgg_as_a_stack_and_as_a_graph_are_the_same_to_the_bit(name: str) -> None:
    size = {"input_shape": (32, 32, 3), "classes": 5, "width": 4, "units": 8}
    stack, graph = models.build(name, sequential=True, **size), models.build(name, **size)
    assert isinstance(stack, keras.Sequential)
    graph.set_weights(stack.get_weights())
    pixels = np.random.default_rng(0).uniform(0, 255, (2, 32, 32, 3)).astype("float32")
    np.testing.assert_array_equal(stack(pixels), graph(pixels))
