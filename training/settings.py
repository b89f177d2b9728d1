"""A recipe by name, with some of its fields set otherwise."""

import dataclasses
import typing
from collections.abc import Mapping

from training.errors import BadSetting, UnknownName
from training.recipes import RECIPES, Recipe

_PRECISIONS = ("auto", "float32", "mixed_bfloat16", "mixed_float16")
_FIXED = {"name", "summary", "source", "task"}


def configure(recipe: str | Recipe, settings: Mapping[str, object]) -> Recipe:
    """The recipe with `settings` (text, or values of the fields' own types) put in.

    Raises UnknownName for a recipe or a key that does not exist, BadSetting for a value
    that is not of the field's type, or out of range.

    >>> configure("digits", {"epochs": "3"}).epochs
    3
    """
    chosen = _find(recipe) if isinstance(recipe, str) else recipe
    types = typing.get_type_hints(type(chosen))
    known = [field.name for field in dataclasses.fields(chosen) if field.name not in _FIXED]
    changes: dict[str, typing.Any] = {}
    for key, value in settings.items():
        if key not in known:
            raise UnknownName(f"recipe {chosen.name!r} has no setting", key, known)
        changes[key] = _convert(key, value, types[key])
    return _check(dataclasses.replace(chosen, **changes))


def _find(name: str) -> Recipe:
    if name not in RECIPES:
        raise UnknownName("there is no recipe", name, RECIPES)
    return RECIPES[name]


def _convert(key: str, value: object, kind: object) -> object:
    if not isinstance(value, str):
        return value
    try:
        return _PARSERS[kind](value)
    except (ValueError, KeyError):
        raise BadSetting(f"{key} must be {_IN_WORDS.get(kind, kind)}, not {value!r}") from None


def _parse_bool(text: str) -> bool:
    return {"true": True, "yes": True, "1": True, "false": False, "no": False, "0": False}[
        text.lower()
    ]


def _parse_ints(text: str) -> tuple[int, ...]:
    return tuple(int(part) for part in text.split(","))


_PARSERS: dict[object, typing.Callable[[str], object]] = {
    int: int,
    float: float,
    str: str,
    bool: _parse_bool,
    tuple[int, ...]: _parse_ints,
}
_IN_WORDS: dict[object, str] = {
    int: "a whole number",
    float: "a number",
    bool: "true or false",
    tuple[int, ...]: "whole numbers separated by commas, as in 2,2,2",
}


def _check(recipe: Recipe) -> Recipe:
    for key in ("epochs", "batch_size", "learning_rate"):
        if not getattr(recipe, key) > 0:
            raise BadSetting(f"{key} must be above 0, not {getattr(recipe, key)}")
    if recipe.task == "masks" and (recipe.flip or recipe.shift):
        raise BadSetting(
            f"recipe {recipe.name!r} takes no flip and no shift: they move the image "
            f"and not its mask"
        )
    if recipe.channels not in (1, 3):
        raise BadSetting(f"channels must be 1 (grey) or 3 (colour), not {recipe.channels}")
    if recipe.precision not in _PRECISIONS:
        raise UnknownName("there is no precision", recipe.precision, _PRECISIONS)
    return recipe
