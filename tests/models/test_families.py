"""What every family must do, at toy size; and their published sizes."""

import functools
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest

import models
from tests.models.doc import names, rows

FULL = {
    "mlp": 535_818,
    "cnn_sequential": 33_033_802,
    "cnn_functional": 33_033_802,
    "vgg16": 138_357_544,
    "vgg19": 143_667_240,
    "resnet50": 25_636_712,
    "resnet101": 44_707_176,
    "resnet152": 60_419_944,
    "inception_v3": 23_851_784,
    "unet": 31_030_658,
    "vit_b16": 86_567_656,
    "gan": 1_231_796,
    "two_view": 218_698,
    "multi_head": 421_771,
    "digit_sum": 239_847,
}

SMALL_RESNET: dict[str, Any] = {
    "input_shape": (8, 8, 1),
    "depths": (1, 2),
    "width": 2,
    "stem": "3x3",
}
TOY: dict[str, dict[str, Any]] = {
    "mlp": {"input_shape": (8, 8, 1), "units": (4,)},
    "cnn_sequential": {"input_shape": (8, 8, 1), "filters": 2, "units": 4},
    "cnn_functional": {"input_shape": (8, 8, 1), "filters": 2, "units": 4},
    "vgg16": {"input_shape": (8, 8, 1), "depths": (1, 2), "width": 2, "units": 4},
    "vgg19": {"input_shape": (8, 8, 3), "depths": (2,), "width": 2, "units": 4, "sequential": True},
    "resnet50": SMALL_RESNET,
    "resnet101": {**SMALL_RESNET, "input_shape": (32, 32, 3), "stem": "7x7"},
    "resnet152": SMALL_RESNET,
    "inception_v3": {"input_shape": (75, 75, 1), "width": 0.05},
    "unet": {"input_shape": (8, 16, 3), "width": 2, "depth": 2},
    "vit_b16": {
        "input_shape": (8, 8, 1), "patch": 4, "width": 8, "depth": 2, "heads": 2, "mlp_width": 8
    },
    "gan": {"input_shape": (8, 8, 1), "latent": 5, "width": 2},
    "two_view": {"input_shape": (8, 4, 1), "width": 2, "units": 4},
    "multi_head": {"input_shape": (8, 8, 1), "width": 2, "units": 4},
    "digit_sum": {"input_shape": (8, 8, 1), "width": 2, "units": 4},
}  # fmt: skip

CLASSIFIER = ({"image"}, {"label": (2, 3)})
PARTS = {name: {name: CLASSIFIER} for name in FULL} | {
    "unet": {"unet": ({"image"}, {"mask": (2, 8, 16, 3)})},
    "gan": {
        "generator": ({"noise", "label"}, {"image": (2, 8, 8, 1)}),
        "discriminator": ({"image"}, {"real": (2, 1), "label": (2, 3)}),
    },
    "two_view": {"two_view": ({"left", "right"}, {"label": (2, 3)})},
    "multi_head": {"multi_head": ({"image"}, {"label": (2, 3), "coverage": (2, 1)})},
    "digit_sum": {
        "digit_sum": (
            {"left", "right"},
            {"left_digit": (2, 3), "right_digit": (2, 3), "sum": (2, 5)},
        )
    },
}


def fresh(name: str) -> keras.Model:
    keras.utils.set_random_seed(1)
    return models.build(name, classes=3, **TOY[name])


toy = functools.cache(fresh)


@functools.cache
def toy_in_mixed_precision(name: str) -> keras.Model:
    """Built a second time from the same seed; its weights are float32 as ever."""
    keras.mixed_precision.set_dtype_policy("mixed_float16")
    try:
        return fresh(name)
    finally:
        keras.mixed_precision.set_dtype_policy("float32")


def example(model: keras.Model) -> dict[str, np.ndarray]:
    """Two rows for every input, by its name."""
    rng = np.random.default_rng(0)
    return {
        tensor.name: rng.uniform(
            0, 255 if tensor.dtype == "float32" else 3, (2, *tensor.shape[1:])
        ).astype(tensor.dtype)
        for tensor in model.inputs
    }


def answers(model: keras.Model) -> dict[str, np.ndarray]:
    inputs = example(model)
    answer = model(inputs if len(inputs) > 1 else next(iter(inputs.values())))
    if isinstance(answer, dict):
        return {head: np.asarray(value) for head, value in answer.items()}
    return {next(iter(models.heads(model))): np.asarray(answer)}


def test_every_family_is_listed_here() -> None:
    assert set(models.MODELS) == set(FULL) == set(TOY)


@pytest.mark.parametrize("name", FULL)
def test_the_name_alone_gives_the_published_size(
    name: str, full_size: Callable[[str], keras.Model]
) -> None:
    assert full_size(name).count_params() == FULL[name]


def test_the_docs_list_every_family_with_its_size_inputs_and_heads(
    full_size: Callable[[str], keras.Model],
) -> None:
    stated = {names(row[0])[0]: row[1:3] for row in rows("Families")}
    assert set(stated) == set(models.MODELS)
    for name, (count, signatures) in stated.items():
        model = full_size(name)
        assert count == f"{model.count_params():,}"
        assert signatures == "; ".join(
            f"{', '.join(tensor.name for tensor in part.inputs)} → {', '.join(models.heads(part))}"
            for part in models.parts(model).values()
        )


@pytest.mark.parametrize("name", FULL)
def test_inputs_and_heads_have_names_and_shapes(name: str) -> None:
    parts = models.parts(toy(name))
    assert set(parts) == set(PARTS[name])
    for part, (inputs, heads) in PARTS[name].items():
        assert {tensor.name for tensor in parts[part].inputs} == inputs
        given = answers(parts[part])
        assert {head: value.shape for head, value in given.items()} == heads
        assert {str(value.dtype) for value in given.values()} == {"float32"}
        assert {key: (2, *out.shape[1:]) for key, out in models.heads(parts[part]).items()} == heads


# Keras saves its variables through an __array__ that numpy 2 warns of.
@pytest.mark.filterwarnings("ignore:__array__ implementation doesn't accept:DeprecationWarning")
@pytest.mark.parametrize("name", FULL)
def test_saved_and_loaded_it_is_the_same_graph(name: str, tmp_path: Path) -> None:
    toy(name).save(tmp_path / "model.keras")
    loaded = models.parts(keras.saving.load_model(tmp_path / "model.keras"))
    for part, model in models.parts(toy(name)).items():
        assert json.loads(loaded[part].to_json()) == json.loads(model.to_json())
        after = answers(loaded[part])
        for head, before in answers(model).items():
            np.testing.assert_array_equal(after[head], before)


@pytest.mark.parametrize("name", FULL)
def test_one_seed_gives_one_model_with_one_set_of_names(name: str) -> None:
    """A name of Keras's own would count on: conv2d, then conv2d_1."""
    first, second = models.parts(toy(name)), models.parts(toy_in_mixed_precision(name))
    for part, model in first.items():
        again = second[part]
        assert [layer.name for layer in again.layers] == [layer.name for layer in model.layers]
        for one, other in zip(model.get_weights(), again.get_weights(), strict=True):
            np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("name", FULL)
def test_under_mixed_precision_inputs_and_answers_stay_float32(name: str) -> None:
    for part in models.parts(toy_in_mixed_precision(name)).values():
        assert {tensor.dtype for tensor in part.inputs} <= {"float32", "int32"}
        assert {head.dtype for head in models.heads(part).values()} == {"float32"}


def test_no_family_passes_150_lines() -> None:
    folder = Path(models.__file__).parent
    lengths = {path.name: len(path.read_text().splitlines()) for path in folder.glob("*.py")}
    assert max(lengths.values()) <= 150, lengths
