"""From a recipe to a published version. Importing this loads no TensorFlow; `train` does."""

import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sluice.wire.contract import OPTIMIZE
from sluice.wire.versions import model_name_fault
from training.errors import BadSetting, TrainingError, UnknownName
from training.recipes import RECIPES, Recipe
from training.settings import configure
from training.surroundings.keras_state import pinned
from training.surroundings.tensorflow_log import quiet

if TYPE_CHECKING:
    import keras

    from sluice.wire.signing import SigningKey

__all__ = ["RECIPES", "Recipe", "TrainingError", "publish", "train"]


def train(
    recipe: str | Recipe,
    *,
    model_repository: Path | str,
    data: Path | str | None = None,
    epochs: int | None = None,
    batch_size: int | None = None,
    optimize: str | None = None,
    settings: Mapping[str, object] | None = None,
    name: str | None = None,
    resume: bool = False,
    allow_breaking: bool = False,
    allow_worse: bool = False,
    sign: Path | str | None = None,
) -> Path | None:
    """Train a recipe and publish the result; give `model_repository/<name>/<version>`.

    Of several machines that train together (TF_CONFIG) the first publishes; the others get None.

    data: the images' folder (or file), where the recipe's own source is not wanted or not there.
    epochs, batch_size, optimize: short for these three of the settings.
    settings: the recipe's fields by name; text is taken as the field's type.
    name: the published model's, the recipe's where not given.
    resume: go on after the last finished epoch of a run that was cut off; settings must be its own.
    allow_breaking: publish also where clients of the version before would break.
    allow_worse: publish also where the version before is better by more than the recipe's margin.
    sign: the file of the private key that signs the version.
    Raises TrainingError, whose message is meant for the user.

    >>> train("digits", model_repository=Path("model_repository"))  # doctest: +SKIP
    PosixPath('model_repository/digits/1')
    >>> train("digit", model_repository=Path("model_repository"))  # doctest: +ELLIPSIS
    Traceback (most recent call last):
    training.errors.UnknownName: there is no recipe 'digit'; known, nearest first: digits, ...
    """
    given = {"epochs": epochs, "batch_size": batch_size, "optimize": optimize}
    asked = dict(settings or {}) | {key: value for key, value in given.items() if value is not None}
    chosen = configure(recipe, asked)
    name = _checked(chosen.name if name is None else name)
    key = _signing_key(sign)

    with quiet(), pinned():
        from training.run import Plan, run  # TensorFlow takes seconds to load: not for a slip

        return run(
            Plan(
                chosen,
                Path(model_repository),
                name,
                None if data is None else Path(data),
                resume,
                allow_breaking,
                allow_worse,
                key,
            )
        )


def publish(
    model: "str | Path | keras.Model",
    *,
    model_repository: str | Path = "model_repository",
    name: str | None = None,
    labels: Sequence[str] | None = None,
    preprocess: str | Callable[[Any], Any] | None = None,
    inputs: Mapping[str, str] | None = None,
    outputs: Mapping[str, str] | None = None,
    resize: tuple[int, int] | None = None,
    samples: Sequence[str | Path] = (),
    explain_layer: str = "",
    optimize: str = "none",
    optimize_drop: float = 0.2,
    optimize_margin: float = 0.1,
    optimize_constants: int = 0,
    batch_encoded: int = 0,
    custom_objects: str | None = None,
    allow_code: bool = False,
    allow_breaking: bool = False,
    novelty: bool = True,
    allow_worse: bool = False,
    sign: str | Path | None = None,
    ask: Callable[[str, Sequence[str]], str | None] | None = None,
    say: Callable[[str], None] = print,
) -> Path:
    """Publish a model that Sluice did not train; give `model_repository/<name>/<version>`.

    model: the path of a `.keras`, `.h5` or `.hdf5` file or of a SavedModel directory, or a Keras
        model object.
    name: the file's, or the object's own, where not given.
    labels: the classes' names, in the order of the output.
    preprocess: what the model was trained on, made inside the graph of pixels of 0..255: raw,
        scale01, scale11, imagenet-caffe, imagenet-torch, or a function of [N, H, W, C] made of
        keras.ops or TensorFlow. Guessed where not given, and refused where that cannot be.
    inputs: image, numbers or text by an input's name, where its shape does not tell.
    outputs: picture, mask or numbers by an output's name, where it is not what it is taken for.
    resize: (height, width) that image files are brought to, where the model takes any size.
    samples: image files and folders, or `.npz` files, to try the model on; else random numbers.
        200 and more teach it what its pictures look like. On a folder with a folder for each label
        it is measured, and held against the version before.
    explain_layer: the layer whose maps the signature `explain` looks at, by name; the last
        convolution where not given.
    optimize: bf16 for a second graph that computes in bfloat16, gpu for one in half precision for
        GPUs, "bf16,gpu" for both, where it answers as the first does: on labelled samples it may be
        worse by `optimize_drop` points of 100, and name another class where the best one is ahead
        by `optimize_margin` of 1 at most.
    optimize_constants: MB of memory that a model server may hold more where bf16's weights are
        constants, which is measured, and done where batch 1 is faster for it; 0: variables.
    batch_encoded: rows of several calls of `encoded` that the network takes at once; 0: a call's
        own alone.
    custom_objects: the module, by name or file, that defines the model's own layers.
    allow_code: run the Python code that Lambda layers keep in the file.
    novelty: say of each picture how unlike the samples it is, where there are enough.
    allow_worse: publish also where the version before is better on the same labelled samples.
    sign: the file of the private key that signs the version.
    ask: answers a question (what, choices) that the model leaves open, or gives None.
    say: is told in a line each what the model was taken for.
    Raises TrainingError, whose message is meant for the user.
    """
    key = _signing_key(sign)
    with quiet():
        from training.adopting import adopt  # loads TensorFlow
        from training.adopting import publish as adopting
        from training.publishing.agreement import Limits

        source = Path(model) if isinstance(model, str | Path) else model
        own_name = (
            source.stem if isinstance(source, Path) else str(getattr(source, "name", "model"))
        )
        wishes = adopt.Wishes(
            labels,
            preprocess,
            inputs or {},
            resize,
            [Path(sample) for sample in samples],
            explain_layer,
            _known(optimize),
            Limits(optimize_drop, optimize_margin),
            outputs or {},
            optimize_constants,
            batch_encoded,
        )
        return adopting.publish(
            source,
            wishes,
            Path(model_repository),
            _checked(re.sub(r"\W+", "_", own_name).strip("_") if name is None else name),
            custom_objects=custom_objects,
            allow_code=allow_code,
            allow_breaking=allow_breaking,
            novelty=novelty,
            allow_worse=allow_worse,
            key=key,
            ask=ask or (lambda _what, _choices: None),
            say=say,
        )


def _signing_key(file: str | Path | None) -> "SigningKey | None":
    if file is None:
        return None
    from sluice.wire.signing import BadKey, SigningKey  # a library for those who sign alone

    try:
        return SigningKey(Path(file))
    except BadKey as error:
        raise BadSetting(f"sign: {error}") from None


def _known(optimize: str) -> str:
    if optimize not in OPTIMIZE:
        raise UnknownName("there is no way to optimize called", optimize, OPTIMIZE)
    return optimize


def _checked(name: str) -> str:
    if fault := model_name_fault(name):
        raise BadSetting(f"a model cannot be named {name!r}: {fault}")
    return name
