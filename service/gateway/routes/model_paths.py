"""The paths under which a dialect names a model, its versions and its labels, and what answers."""

from collections.abc import Callable, Sequence
from typing import Any

from flask import Blueprint, Response, current_app
from werkzeug.routing import BaseConverter, ValidationError

from service.gateway.views import Handler, ModelView, model_of
from sluice.wire.versions import version_number


class ModelName(BaseConverter):
    """A path segment without the colon that starts a verb."""

    regex = r"[^/:]+"


class VersionConverter(BaseConverter):
    """A version number that fits an int64; tried before a label in the same place."""

    regex = r"\d{1,19}"
    weight = 50

    def to_python(self, value: str) -> int:
        number = version_number(value)
        if number is None:
            raise ValidationError
        return number


CONVERTERS = {"model": ModelName, "version": VersionConverter}


class FlaskView:
    """A ModelView as Flask calls it: by the answer that the application has for all of them."""

    def __init__(self, view: ModelView) -> None:
        self.view = view
        self.__name__ = view.verb

    def __call__(self, **where: Any) -> Response:
        answered: Response = current_app.extensions["answer"](self.view, model_of(where))
        return answered


def model_paths(
    routes: Blueprint, dialect: str, root: str, places: Sequence[str]
) -> Callable[..., Callable[[Handler], Handler]]:
    """A decorator `(suffix, *methods)` that registers a handler at root + place + suffix, for each
    of `places`, which name a model's `name`, `version` and `label`."""

    def at(suffix: str, *methods: str) -> Callable[[Handler], Handler]:
        def register(handler: Handler) -> Handler:
            for place in places:
                path = f"{root}{place}{suffix}"
                view = FlaskView(ModelView(handler, dialect, handler.__name__, path))
                routes.add_url_rule(path, f"{handler.__name__} {path}", view, methods=methods)
            return handler

        return register

    return at
