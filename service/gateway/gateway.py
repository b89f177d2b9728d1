"""What one process answers with, and the steps that every answer about a model takes."""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from service.gateway.access.grant import OF_ALL, OPERATION_OF
from service.gateway.access.guard import AnyGuard, guard_of
from service.gateway.access.limits import BYTES, REQUESTS
from service.gateway.access_log import AccessLog
from service.gateway.admission import Admission, Arrival
from service.gateway.caching import cache_of, told
from service.gateway.caller import Caller
from service.gateway.capturing import capture_of, samples_of
from service.gateway.cors import Cors
from service.gateway.decode.content_encoding import decompress
from service.gateway.error_responses import error_response
from service.gateway.errors import Forbidden, GatewayError, Unauthenticated
from service.gateway.exchange import Exchange
from service.gateway.http import ClientGone, HttpRequest, HttpResponse
from service.gateway.predictions import Predictions
from service.gateway.settings import Settings
from service.gateway.telemetry import Telemetry
from service.gateway.tls.server import ServerTls, server_tls
from service.gateway.tracing.trace import Tracer
from service.gateway.tracing.tracers import tracer_of
from service.gateway.views import ModelView
from service.gateway.witness import Witness
from sluice.wire.model_ref import ModelRef

# Headers of a request.
TIMEOUT_MS = "x-request-timeout-ms"
CONTENT_ENCODING = "content-encoding"
TIMING = "x-sluice-timing"
# Of an answer, and of a request that asks for one version: routing.py.
VERSION = "X-Sluice-Version"
_HUNG_UP = HttpResponse(b"", 499)  # nginx's number for it; nobody is there to read it

ReadBody = Callable[[Callable[[int], None]], Awaitable[bytes]]

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Gateway:
    """The predictions, and what is counted and bounded around them."""

    settings: Settings
    predictions: Predictions
    telemetry: Telemetry
    admission: Admission
    guard: AnyGuard
    tls: ServerTls | None
    cors: Cors
    tracer: Tracer

    @classmethod
    def of(cls, settings: Settings) -> "Gateway":
        telemetry = Telemetry(AccessLog(settings.access_log))
        guard = guard_of(settings, telemetry.refused)
        hear = telemetry.version_states.hear
        capture, cache = capture_of(settings, telemetry), cache_of(settings, telemetry)
        repository = Path(settings.model_repository) if settings.model_repository else None
        witness = Witness(repository, telemetry, samples_of(settings, telemetry))
        predictions = Predictions(
            settings, telemetry.statistics, hear, lambda: guard.remark, capture, cache, witness
        )
        rollouts = predictions.trials.rollouts
        telemetry.rollout_states.in_force = lambda: rollouts.in_force
        admission = Admission(settings, predictions.joining, telemetry)
        tls, cors = server_tls(settings), Cors(settings.cors_origins)
        tracer = tracer_of(settings)
        return cls(settings, predictions, telemetry, admission, guard, tls, cors, tracer)

    def lets_in(self, headers: Mapping[str, str], size: int, caller: Caller) -> bool:
        """Whether it is at hand whose request of `size` bytes this is, and what it costs, as it is
        of nearly all: then it is counted, and the caller known. Else `identify` finds out."""
        holder = self.guard.known(headers)
        if holder is None or size > self.settings.max_body_bytes:
            return False
        if not holder.account.pay_request(size):
            return False
        caller.grant, caller.account = holder
        return True

    async def identify(
        self, headers: Mapping[str, str], peer: str, size: int, caller: Caller
    ) -> None:
        """Find out whose request of `size` bytes (0 where they are not known) it is that came from
        `peer` with these headers, or gRPC metadata, by lower-case name, and count it: before
        anything is read or done for it. Raises Unauthenticated, RateLimited."""
        try:
            holder = await self.guard.identify(headers, caller.certificate, peer)
        except Unauthenticated as error:
            self.telemetry.refused(type(error).__name__)
            raise
        caller.grant, caller.account = holder
        # A head may announce what would take years to pay back, and no more than this is taken.
        size = min(size, self.settings.max_body_bytes)
        await caller.account.spend({REQUESTS: 1, BYTES: size})

    def permit(self, caller: Caller, model: str | None, verb: str) -> None:
        """Raises Forbidden where the caller may not ask that of the model, "" for none; None is for
        one that is not known yet."""
        operation = OPERATION_OF[verb]
        try:
            if operation is not None:
                caller.grant.check(None if not model and verb in OF_ALL else model, operation)
        except Forbidden as error:
            self.telemetry.refused(type(error).__name__)
            raise

    def caller(self, request: HttpRequest, began: float) -> Caller:
        """Whoever sent `request`, whose first byte came at `began` on the monotonic clock."""
        seconds = self.settings.request_timeout_s
        asked = request.headers.get(TIMEOUT_MS, "")
        if asked.isascii() and asked.isdigit() and len(asked) < 10:
            seconds = min(seconds, int(asked) / 1000)
        return Caller.of(request.headers, began, seconds, request.certificate)

    async def answer(
        self,
        view: ModelView,
        model: ModelRef,
        request: HttpRequest,
        read: ReadBody | None,
        caller: Caller,
        client: str,
    ) -> HttpResponse:
        """The answer to a request about a model, whatever happens; counted and logged.

        `read` reads the body, where `request` does not hold it already: it is given a function to
        call with the size of each piece that comes. It may raise GatewayErrors.
        """
        headers, reason = request.headers, ""
        try:
            if view.is_probe:
                return await view.handler(self.predictions, model, request, caller)
            route = view.route
            caller.trace = self.tracer.begin(request.method, route, caller.metadata, caller.began)
            size = request.length if read else len(request.body)
            if self.guard.asks:
                if not self.lets_in(headers, size, caller):
                    await self.identify(headers, client, size, caller)
                self.permit(caller, model.name, view.verb)
            let_in = self.admission.arriving if read else self.admission.place
            with let_in(model.name, size, caller.time_left_s(), caller.account) as arrival:
                if read:
                    request = request._replace(body=await self._read(read, size, arrival, caller))
                caller.trace.step("admit", caller.began)
                if CONTENT_ENCODING in headers:
                    request = await self._unpacked(request, arrival)
                response = await view.handler(self.predictions, model, request, caller)
                response = _described(response, caller, TIMING in headers)
                if caller.cache:
                    response = response._replace(headers={**response.headers, **told(caller)})
        except GatewayError as error:
            response, reason = error_response(error), str(error)
        except (asyncio.CancelledError, ClientGone):
            self._observe(view, model, request, _HUNG_UP, caller, client, "the client hung up")
            raise
        except Exception as error:  # a bug of ours: the client gets an answer, the log the trace
            log.exception("%s %s failed", request.method, request.path)
            response, reason = error_response(error), f"{type(error).__name__}: {error}"
        self._observe(view, model, request, response, caller, client, reason)
        return self.cors.dressed(response, headers)

    async def _read(
        self, read: ReadBody, announced: int, arrival: Arrival, caller: Caller
    ) -> bytes:
        """The body, once there is a place for it."""
        body = await read(arrival.hold)
        if not announced and body:  # in chunks, of which no head tells
            await caller.account.spend({BYTES: len(body)})
        arrival.take_place()
        return body

    async def _unpacked(self, request: HttpRequest, arrival: Arrival) -> HttpRequest:
        """The request, its Content-Encoding undone."""
        body, encoding = request.body, request.headers[CONTENT_ENCODING]
        if not encoding:
            return request
        unpacked = await self.predictions.aside(
            decompress, body, encoding, self.settings.max_body_bytes
        )
        arrival.hold(max(len(unpacked) - len(body), 0))
        return request._replace(body=unpacked)

    def _observe(
        self,
        view: ModelView,
        model: ModelRef,
        request: HttpRequest,
        response: HttpResponse,
        caller: Caller,
        client: str,
        reason: str,
    ) -> None:
        if view.is_probe:
            return
        exchange = Exchange(
            dialect=view.dialect,
            verb=view.verb,
            model=model.name if self.predictions.knows(model.name) else "",
            status=str(response.status),
            method=request.method,
            path=request.path,
            client=caller.at(client),
            request_id=caller.request_id,
            bytes_in=len(request.body),
            bytes_out=len(response.body),
            seconds=time.monotonic() - caller.began,
            reason=reason,
        )
        self.telemetry.observe(exchange, caller)

    def observe_page(self, page: Exchange, caller: Caller) -> None:
        """The same for what is about no model."""
        self.telemetry.observe(page, caller)


def _described(response: HttpResponse, caller: Caller, timed: bool) -> HttpResponse:
    """With the version that answered, where one did, and where the time went, for a client that
    asks: the page does."""
    said = {} if caller.version is None else {VERSION: str(caller.version)}
    if timed:
        steps = {"queue": caller.queued_s, "model": caller.upstream_s, "decode": caller.decode_s}
        said["Server-Timing"] = ", ".join(
            f"{step};dur={1000 * seconds:.2f}" for step, seconds in steps.items()
        )
    return response._replace(headers={**response.headers, **said}) if said else response
