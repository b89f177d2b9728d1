"""The paths under which a dialect names a model, its versions and its labels, and what answers."""

from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from flask import Blueprint, Response, current_app
from werkzeug.routing import BaseConverter

from service.gateway.caller import Caller
from service.gateway.http import HttpRequest, HttpResponse
from service.gateway.predictions import Predictions
from sluice.wire.model_ref import ModelRef

PROBE = "probe"  # the dialect of what is answered past admission, and neither counted nor logged

Handler = Callable[[Predictions, ModelRef, HttpRequest, Caller], Awaitable[HttpResponse]]


class ModelName(BaseConverter):
    """A path segment without the colon that starts a verb."""

    regex = r"[^/:]+"


class VersionConverter(BaseConverter):
    """A version number that fits an int64; tried before a label in the same place."""

    regex = r"\d{1,18}"
    weight = 50

    def to_python(self, value: str) -> int:
        return int(value)


CONVERTERS = {"model": ModelName, "version": VersionConverter}


class ModelView:
    """A Flask view that runs a handler; the event loop's front runs the handler without Flask.

    `dialect` and `verb` are for the metrics.
    """

    def __init__(self, handler: Handler, dialect: str, verb: str) -> None:
        self.handler, self.dialect, self.verb = handler, dialect, verb
        self.__name__ = handler.__name__

    def __call__(self, **where: Any) -> Response:
        answered: Response = current_app.extensions["answer"](self, self.model(where))
        return answered

    @staticmethod
    def model(where: dict[str, Any]) -> ModelRef:
        """The model that a path names; one without a name where it names none."""
        return ModelRef(where.get("name", ""), where.get("version"), where.get("label"))


def model_paths(
    routes: Blueprint, dialect: str, root: str, places: Sequence[str]
) -> Callable[..., Callable[[Handler], Handler]]:
    """A decorator `(suffix, *methods)` that registers a handler at root + place + suffix, for each
    of `places`, which name a model's `name`, `version` and `label`."""

    def at(suffix: str, *methods: str) -> Callable[[Handler], Handler]:
        def register(handler: Handler) -> Handler:
            view = ModelView(handler, dialect, handler.__name__)
            for place in places:
                routes.add_url_rule(
                    f"{root}{place}{suffix}", f"{handler.__name__}{place}", view, methods=methods
                )
            return handler

        return register

    return at
