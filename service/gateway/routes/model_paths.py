"""The paths under which a dialect names a model, its versions and its labels."""

from collections.abc import Callable, Sequence

from flask import Blueprint, Response
from werkzeug.routing import BaseConverter

from service.gateway.signature import ModelSpec

View = Callable[[ModelSpec], Response]


class ModelName(BaseConverter):
    """A path segment without the colon that starts a verb."""

    regex = r"[^/:]+"


class Version(BaseConverter):
    """A version number that fits an int64; tried before a label in the same place."""

    regex = r"\d{1,18}"
    weight = 50

    def to_python(self, value: str) -> int:
        return int(value)


CONVERTERS = {"model": ModelName, "version": Version}


def model_paths(
    routes: Blueprint, root: str, places: Sequence[str]
) -> Callable[[str, str], Callable[[View], View]]:
    """A decorator `(suffix, method)` that registers a view of a ModelSpec at root + place + suffix,
    for each of `places`."""

    def at(suffix: str, method: str) -> Callable[[View], View]:
        def register(view: View) -> View:
            def endpoint(
                name: str, version: int | None = None, label: str | None = None
            ) -> Response:
                return view(ModelSpec(name, version, label))

            for place in places:
                routes.add_url_rule(
                    f"{root}{place}{suffix}", f"{view.__name__}{place}", endpoint, methods=[method]
                )
            return view

        return register

    return at
