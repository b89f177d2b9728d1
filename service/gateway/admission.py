"""Who is let in: bounded places and bytes, for each model and in all, before any work is done.

A worker that takes all that comes gives every caller an answer that is too late for all of them.
Beyond these bounds, and where those in line have waited too long already, a request is refused at
once, from its head alone.
"""

from collections.abc import Iterator
from contextlib import contextmanager

from service.gateway.errors import Busy, GatewayError, PayloadTooLarge
from service.gateway.joining import Joining
from service.gateway.settings import Settings
from service.gateway.telemetry import Telemetry


class Admission:
    """The requests in flight of one worker. For one event loop."""

    def __init__(self, settings: Settings, joining: Joining, telemetry: Telemetry) -> None:
        self._settings, self._joining, self._telemetry = settings, joining, telemetry
        self.in_flight = 0
        self.bytes_in_flight = 0
        self._by_model: dict[str, int] = {}

    @contextmanager
    def place(self, model: str, size: int) -> Iterator["Place"]:
        """A place for as long as the block runs, for a body of `size` bytes so far as is known.

        Raises Busy, or PayloadTooLarge for a body that is over the limit of one.
        """
        try:
            self._check(model, size)
        except GatewayError as error:
            self._telemetry.refused(type(error).__name__)
            raise
        place = Place(self)
        self.in_flight += 1
        self._by_model[model] = self._by_model.get(model, 0) + 1
        try:
            place.hold(size)
            yield place
        finally:
            self.in_flight -= 1
            self.bytes_in_flight -= place.size
            left = self._by_model[model] - 1
            if left:
                self._by_model[model] = left
            else:
                del self._by_model[model]

    def _check(self, model: str, size: int) -> None:
        settings = self._settings
        if size > settings.max_body_bytes:
            raise PayloadTooLarge(settings.max_body_bytes)
        if self.in_flight >= settings.places:
            raise Busy(f"All {settings.places} places are taken (SLUICE_PLACES); try again")
        if self._by_model.get(model, 0) >= settings.model_places:
            raise Busy(
                f'All {settings.model_places} places of the model "{model}" are taken '
                "(SLUICE_MODEL_PLACES); try again"
            )
        if self.bytes_in_flight + size > settings.max_bytes_in_flight:
            raise Busy(
                "The bodies in flight take all the memory that is set for them "
                "(SLUICE_MAX_BYTES_IN_FLIGHT); try again"
            )
        self._joining.check_wait(model)


class Place:
    """One request's place, and the bytes that it holds."""

    __slots__ = ("_admission", "size")

    def __init__(self, admission: Admission) -> None:
        self._admission = admission
        self.size = 0

    def hold(self, size: int) -> None:
        """So many bytes more."""
        self.size += size
        self._admission.bytes_in_flight += size
