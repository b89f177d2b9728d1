"""Who is let in: bounded places and bytes, for each model and in all, before any work is done.

A worker that takes all that comes gives every caller an answer that is too late for all of them.
Beyond these bounds, and where those in line have waited too long already, a request is refused at
once, from its head alone.

A place is for a request that is all there: one that is still on its way costs nothing but the bytes
that have come, or clients that send slowly would take every place.
"""

import time
from typing import TypeVar

from service.gateway.access.account import FREE, AnyAccount
from service.gateway.errors import Busy, GatewayError, PayloadTooLarge, RateLimited
from service.gateway.joining import Joining
from service.gateway.settings import Settings
from service.gateway.telemetry import Telemetry

Refusal = TypeVar("Refusal", bound=GatewayError)


class Admission:
    """The requests in flight of one worker. For one event loop."""

    def __init__(self, settings: Settings, joining: Joining, telemetry: Telemetry) -> None:
        self._settings, self._joining, self._telemetry = settings, joining, telemetry
        self.in_flight = 0
        self.bytes_in_flight = 0
        self._by_model: dict[str, int] = {}
        self._by_account: dict[str, int] = {}

    def arriving(
        self, model: str, announced: int, left_s: float, account: AnyAccount = FREE
    ) -> "Arrival":
        """A request that is being read, then worked on, for as long as the block runs that it is
        entered for; it has `left_s` until its deadline, and is counted on `account`.

        Raises Busy, RateLimited, or PayloadTooLarge for a body that is announced to be over the
        limit of one.
        """
        self._check_bytes(announced)
        self._check_place(model, left_s, account)
        return Arrival(self, model, time.monotonic() + left_s, account)

    def place(self, model: str, size: int, left_s: float, account: AnyAccount = FREE) -> "Arrival":
        """The same for a request whose body, of `size` bytes, is there already."""
        arrival = self.arriving(model, size, left_s, account)
        self.bytes_in_flight += size
        arrival.size = size
        self._count_in(model, account)
        arrival.has_place = True
        return arrival

    def hold(self, size: int, held: int) -> None:
        """So many bytes more of a body of which `held` have come. Raises Busy, PayloadTooLarge."""
        self._check_bytes(size, held)
        self.bytes_in_flight += size

    def take_place(self, model: str, left_s: float, account: AnyAccount) -> None:
        """Raises Busy, RateLimited."""
        self._check_place(model, left_s, account)
        self._count_in(model, account)

    def _count_in(self, model: str, account: AnyAccount) -> None:
        self.in_flight += 1
        self._by_model[model] = self._by_model.get(model, 0) + 1
        if account.places is not None:
            self._by_account[account.name] = self._by_account.get(account.name, 0) + 1

    def give_back_place(self, model: str, account: AnyAccount) -> None:
        self.in_flight -= 1
        _count_down(self._by_model, model)
        if account.places is not None:
            _count_down(self._by_account, account.name)

    def give_back_bytes(self, size: int) -> None:
        self.bytes_in_flight -= size

    def _check_bytes(self, size: int, held: int = 0) -> None:
        settings = self._settings
        if held + size > settings.max_body_bytes:
            raise self._counted(PayloadTooLarge(settings.max_body_bytes))
        if self.bytes_in_flight + size > settings.max_bytes_in_flight:
            raise self._counted(
                Busy(
                    "The bodies in flight take all the memory that is set for them "
                    "(SLUICE_MAX_BYTES_IN_FLIGHT); try again"
                )
            )

    def _check_place(self, model: str, left_s: float, account: AnyAccount) -> None:
        settings, places = self._settings, account.places
        if places is not None and self._by_account.get(account.name, 0) >= places:
            raise self._counted(
                RateLimited(f"All {places} places that you have are taken; try again")
            )
        if self.in_flight >= settings.places:
            raise self._counted(
                Busy(f"All {settings.places} places are taken (SLUICE_PLACES); try again")
            )
        if self._by_model.get(model, 0) >= settings.model_places:
            raise self._counted(
                Busy(
                    f'All {settings.model_places} places of the model "{model}" are taken '
                    "(SLUICE_MODEL_PLACES); try again"
                )
            )
        try:
            self._joining.check_wait(model, left_s)
        except Busy as error:
            self._counted(error)
            raise

    def _counted(self, error: Refusal) -> Refusal:
        self._telemetry.refused(type(error).__name__)
        return error


class Arrival:
    """One request: the bytes that have come of it, and its place once it is whole."""

    __slots__ = ("_account", "_admission", "_deadline", "_model", "has_place", "size")

    def __init__(
        self, admission: Admission, model: str, deadline: float, account: AnyAccount
    ) -> None:
        self._admission, self._model, self._deadline = admission, model, deadline
        self._account = account
        self.size = 0
        self.has_place = False

    def __enter__(self) -> "Arrival":
        return self

    def __exit__(self, *_: object) -> None:
        self.leave()

    def leave(self) -> None:
        """It has been answered, or will not be."""
        self._admission.give_back_bytes(self.size)
        if self.has_place:
            self._admission.give_back_place(self._model, self._account)

    def hold(self, size: int) -> None:
        """So many bytes more. Raises PayloadTooLarge where the body is too large with them, Busy
        where they are too many beside all others'."""
        self._admission.hold(size, self.size)
        self.size += size

    def move(self, model: str) -> None:
        """It is about this model, which nobody knew when it was given its place. Raises Busy,
        RateLimited."""
        self._admission.give_back_place(self._model, self._account)
        self._model, self.has_place = model, False
        self.take_place()

    def take_place(self) -> None:
        """Its body is there: work on it may begin. Raises Busy, RateLimited."""
        left_s = self._deadline - time.monotonic()
        self._admission.take_place(self._model, left_s, self._account)
        self.has_place = True


def _count_down(counts: dict[str, int], name: str) -> None:
    left = counts[name] - 1
    if left:
        counts[name] = left
    else:
        del counts[name]
