"""What one process answers with, and the steps that every answer about a model takes."""

import logging
import time
from dataclasses import dataclass

from service.gateway.access_log import AccessLog
from service.gateway.admission import Admission
from service.gateway.caller import Caller
from service.gateway.error_responses import error_response
from service.gateway.errors import GatewayError
from service.gateway.exchange import Exchange
from service.gateway.http import HttpRequest, HttpResponse
from service.gateway.predictions import Predictions
from service.gateway.routes.model_paths import PROBE, ModelView
from service.gateway.settings import Settings
from service.gateway.telemetry import Telemetry
from sluice.wire.model_ref import ModelRef

TIMEOUT_MS = "x-request-timeout-ms"

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Gateway:
    """The predictions, and what is counted and bounded around them."""

    settings: Settings
    predictions: Predictions
    telemetry: Telemetry
    admission: Admission

    @classmethod
    def of(cls, settings: Settings) -> "Gateway":
        predictions = Predictions(settings)
        telemetry = Telemetry(AccessLog(settings.access_log))
        admission = Admission(settings, predictions.joining, telemetry)
        return cls(settings, predictions, telemetry, admission)

    def caller(self, request: HttpRequest, began: float) -> Caller:
        """Whoever sent `request`, whose first byte came at `began` on the monotonic clock."""
        seconds = self.settings.request_timeout_s
        asked = request.headers.get(TIMEOUT_MS, "")
        if asked.isascii() and asked.isdigit() and len(asked) < 10:
            seconds = min(seconds, int(asked) / 1000)
        return Caller.of(request.headers, began, seconds)

    async def respond(
        self, view: ModelView, model: ModelRef, request: HttpRequest, caller: Caller
    ) -> tuple[HttpResponse, str]:
        """The answer, whatever happens, and the reason where it is a refusal."""
        try:
            return await view.handler(self.predictions, model, request, caller), ""
        except GatewayError as error:
            return error_response(error), str(error)
        except Exception as error:  # a bug of ours: the client gets an answer, the log the trace
            log.exception("%s %s failed", request.method, request.path)
            return error_response(error), f"{type(error).__name__}: {error}"

    def observe(
        self,
        view: ModelView,
        model: str,
        request: HttpRequest,
        response: HttpResponse,
        caller: Caller,
        client: str,
        reason: str,
    ) -> None:
        """Count and log an answered request about a model."""
        if view.dialect == PROBE:
            return
        known = model if self.predictions.knows(model) else ""
        exchange = Exchange(
            dialect=view.dialect,
            verb=view.verb,
            model=known,
            status=str(response.status),
            method=request.method,
            path=request.path,
            client=client,
            request_id=caller.request_id,
            bytes_in=len(request.body),
            bytes_out=len(response.body),
            seconds=time.monotonic() - caller.began,
            reason=reason,
        )
        self.telemetry.observe(exchange, caller)

    def observe_page(self, page: Exchange) -> None:
        """The same for what is about no model."""
        self.telemetry.observe(page, Caller.within(0))
