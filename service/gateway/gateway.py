"""What one process answers with, and the steps that every answer about a model takes."""

import logging
import secrets
import time
from dataclasses import dataclass

from service.gateway.access_log import AccessLog
from service.gateway.admission import Admission
from service.gateway.caller import Caller, Metadata, passed_on
from service.gateway.error_responses import error_response
from service.gateway.errors import GatewayError
from service.gateway.exchange import Exchange
from service.gateway.http import HttpRequest, HttpResponse
from service.gateway.predictions import Predictions
from service.gateway.routes.model_paths import PROBE, ModelView
from service.gateway.settings import Settings
from service.gateway.telemetry import Telemetry
from sluice.wire.model_ref import ModelRef

REQUEST_ID = "x-request-id"
TIMEOUT_MS = "x-request-timeout-ms"
MAX_ID = 128  # characters of a client's own request id

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
        headers = request.headers
        seconds = self.settings.request_timeout_s
        asked = headers.get(TIMEOUT_MS, "")
        if asked.isascii() and asked.isdigit() and len(asked) < 10:
            seconds = min(seconds, int(asked) / 1000)
        given = headers.get(REQUEST_ID, "")
        request_id = given[:MAX_ID] if given.isascii() and given.isprintable() else ""
        metadata: Metadata = ((REQUEST_ID, request_id or secrets.token_hex(8)),)
        if "traceparent" in headers:
            metadata += passed_on(
                (name, headers.get(name, ""))
                for name in ("traceparent", "tracestate")
                if name in headers
            )
        return Caller(began + seconds, metadata, began)

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
        self.telemetry.observe(
            Exchange(
                view.dialect,
                view.verb,
                known,
                str(response.status),
                request.method,
                request.path,
                client,
                caller.metadata[0][1],
                len(request.body),
                len(response.body),
                time.monotonic() - caller.began,
                reason,
            ),
            caller,
        )

    def observe_page(
        self, rule: str, request: HttpRequest, status: int, size: int, began: float, client: str
    ) -> None:
        """The same for what is about none, by its route's pattern."""
        seconds = time.monotonic() - began
        exchange = Exchange(
            "page",
            rule,
            "",
            str(status),
            request.method,
            request.path,
            client,
            "-",
            len(request.body),
            size,
            seconds,
        )
        self.telemetry.observe(exchange, Caller(began, (), began))
