"""A recipe by name, with some of its fields set otherwise; what each of them may be."""

import dataclasses
import operator
import typing
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from training.errors import BadSetting, UnknownName
from training.recipes import RECIPES, Recipe
from training.recipes.bounds import BOUNDS, UNKNOWN, Bounds

_FIXED = {"name", "summary", "source", "task"}  # what makes a recipe that recipe


@dataclass(frozen=True)
class Setting:
    """A field of a recipe that can be set, for whoever lists them.

    kind: what a value is, in words. shown_default: as one types it after `KEY=`.

    >>> Setting("depths", "whole numbers", (2, 2, 2), BOUNDS["depths"]).shown_default
    '2,2,2'
    """

    name: str
    kind: str
    default: object
    bounds: Bounds

    @property
    def meaning(self) -> str:
        return self.bounds.meaning

    @property
    def allowed(self) -> str:
        """The values that it may have, in words."""
        return self.bounds.allowed or self.kind

    @property
    def low(self) -> float | None:
        return self.bounds.low

    @property
    def high(self) -> float | None:
        return self.bounds.high

    @property
    def choices(self) -> tuple[object, ...]:
        return self.bounds.choices

    @property
    def shown_default(self) -> str:
        if isinstance(self.default, bool):
            return str(self.default).lower()
        if isinstance(self.default, tuple):
            return ",".join(map(str, self.default))
        return f"{self.default:g}" if isinstance(self.default, float) else str(self.default)


def settings_of(recipe: Recipe) -> tuple[Setting, ...]:
    """All that can be set, in the order of the recipe's fields.

    >>> by_name = {setting.name: setting for setting in settings_of(RECIPES["digits"])}
    >>> by_name["epochs"].shown_default, by_name["epochs"].allowed
    ('60', '1 to 100,000')
    """
    types = typing.get_type_hints(type(recipe))
    return tuple(
        Setting(
            field.name,
            _kind_of(types[field.name]).words,
            getattr(recipe, field.name),
            BOUNDS.get(field.name, UNKNOWN),
        )
        for field in dataclasses.fields(recipe)
        if field.name not in _FIXED
    )


def configure(recipe: str | Recipe, settings: Mapping[str, object]) -> Recipe:
    """The recipe with `settings` (text, or values of the fields' own types) put in.

    Raises UnknownName for a recipe or a key that does not exist, BadSetting for a value
    that is not of the field's type, or out of its bounds.

    >>> configure("digits", {"epochs": "3"}).epochs
    3
    """
    chosen = _find(recipe) if isinstance(recipe, str) else recipe
    known = {setting.name: setting for setting in settings_of(chosen)}
    for key in settings:
        if key not in known:
            raise UnknownName(f"recipe {chosen.name!r} has no setting", key, known)
    types = typing.get_type_hints(type(chosen))
    # Those that are not asked for as well: a recipe of one's own is checked like ours.
    values = {key: settings.get(key, setting.default) for key, setting in known.items()}
    changes: dict[str, typing.Any] = {
        key: _checked(known[key], _kind_of(types[key]), value) for key, value in values.items()
    }
    return _check_together(dataclasses.replace(chosen, **changes))


def _find(name: str) -> Recipe:
    if name not in RECIPES:
        raise UnknownName("there is no recipe", name, RECIPES)
    return RECIPES[name]


@dataclass(frozen=True)
class _Kind:
    """words: what a value is; parse: from text; accept: from Python. Both raise ValueError."""

    words: str
    parse: Callable[[str], object]
    accept: Callable[[typing.Any], object]


def _checked(setting: Setting, kind: _Kind, value: object) -> object:
    try:
        taken = kind.parse(value) if isinstance(value, str) else kind.accept(value)
    except (ValueError, KeyError, TypeError):
        raise BadSetting(f"{setting.name} must be {setting.kind}, not {value!r}") from None
    for each in taken if isinstance(taken, tuple) else (taken,):
        if setting.choices and isinstance(each, str) and each not in setting.choices:
            raise UnknownName(f"there is no {setting.name}", each, map(str, setting.choices))
        if not setting.bounds.holds(each):
            raise BadSetting(f"{setting.name} must be {setting.allowed}, not {value}")
    return taken


def _parse_bool(text: str) -> bool:
    return {"true": True, "yes": True, "1": True, "false": False, "no": False, "0": False}[
        text.lower()
    ]


def _accept_bool(value: object) -> bool:
    if not isinstance(value, bool):
        raise TypeError
    return value


def _accept_int(value: typing.Any) -> int:
    if isinstance(value, bool):
        raise TypeError
    return operator.index(value)


def _accept_float(value: typing.Any) -> float:
    if isinstance(value, bool):
        raise TypeError
    return float(value)


def _accept_str(_value: object) -> str:
    raise TypeError  # text is parsed


def _accept_ints(value: typing.Any) -> tuple[int, ...]:
    if not value:
        raise ValueError
    return tuple(_accept_int(each) for each in value)


_KINDS: dict[object, _Kind] = {
    int: _Kind("a whole number", int, _accept_int),
    float: _Kind("a number", float, _accept_float),
    str: _Kind("text", str, _accept_str),
    bool: _Kind("true or false", _parse_bool, _accept_bool),
    tuple[int, ...]: _Kind(
        "whole numbers separated by commas, as in 2,2,2",
        lambda text: _accept_ints([int(part) for part in text.split(",")]),
        _accept_ints,
    ),
}


def _kind_of(annotation: object) -> _Kind:
    """A recipe of one's own may have a field of any type, which is then set from Python alone."""
    unknown = _Kind(f"a {annotation}", _accept_str, lambda value: value)
    return _KINDS.get(annotation, unknown)


def _check_together(recipe: Recipe) -> Recipe:
    if recipe.task == "masks" and (recipe.flip or recipe.shift):
        raise BadSetting(
            f"recipe {recipe.name!r} takes no flip and no shift: they move the image "
            f"and not its mask"
        )
    return recipe
