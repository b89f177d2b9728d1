"""What there is to be asked: models, the states of their versions, and their signatures."""

import asyncio
import time
from functools import partial

from service.gateway.caller import Caller
from service.gateway.deadlines import Deadlines
from service.gateway.dialling import Dialling
from service.gateway.errors import ModelNotFound, NotFound, did_you_mean
from service.gateway.flights import Flights
from service.gateway.model_list import ModelList
from service.gateway.model_server import ModelServer
from service.gateway.remembered import Remembered
from service.gateway.settings import Settings
from service.gateway.signatures import Signatures
from service.gateway.tls.upstream import upstream_tls
from sluice.wire.contract import State
from sluice.wire.model_ref import ModelRef
from sluice.wire.protos import serving_pb2 as serving

SIGNATURES_MAY_BE_STALE_S = 1.0


class Catalogue:
    """As the model servers say it, and with the names that the settings give. For the event loop in
    which `model_server` was opened."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.model_list = ModelList(settings)
        self.model_server = ModelServer(
            settings.model_server,
            Dialling(upstream_tls(settings), settings.tls_model_server_name),
        )
        self._deadlines = Deadlines()
        self._remembered = Remembered()
        self._fetching: Flights[Signatures] = Flights()

    async def signatures_of(
        self, model: ModelRef, caller: Caller, max_age_s: float | None = None
    ) -> Signatures:
        """The signatures of the version that answers for `model` now, or did `max_age_s` ago.

        Raises ModelNotFound, UnknownLabel, or a ModelServerError.
        """
        age_s = self.settings.metadata_ttl_s if max_age_s is None else max_age_s
        known = self._remembered.get(model, age_s)
        if known is not None:
            return known
        with self._deadlines.within(caller):
            ask = partial(self._fetch_signatures, model, caller)
            found, _ = await self._fetching.share(model, ask)
        return found

    async def _fetch_signatures(self, model: ModelRef, caller: Caller) -> Signatures:
        asked = time.monotonic()
        reply = await self.metadata_of(model, caller)
        found = serving.SignatureDefMap()
        reply.metadata["signature_def"].Unpack(found)
        signatures = Signatures(dict(found.signature_def))
        return self._remembered.keep(model, signatures, reply.model_spec.version.value, asked)

    async def live_version(self, model: ModelRef, caller: Caller) -> int:
        """The version that answers for `model` now, or did a moment ago; raises as
        `signatures_of`."""
        await self.signatures_of(model, caller, SIGNATURES_MAY_BE_STALE_S)
        return self._remembered.version_of(model)

    async def metadata_of(
        self, model: ModelRef, caller: Caller
    ) -> serving.GetModelMetadataResponse:
        """The raw answer of GetModelMetadata; raises as `signatures_of` does."""
        try:
            with self._deadlines.within(caller):
                return await self.model_server.metadata(model, caller)
        except ModelNotFound as error:
            raise self.with_names(error, model, caller) from error

    async def status(self, model: ModelRef, caller: Caller) -> list[serving.ModelVersionStatus]:
        """The versions of a model, newest first, each with its state; raises ModelNotFound."""
        with self._deadlines.within(caller):
            if model.label is not None:  # GetModelStatus passes an unknown label over
                await self.model_server.metadata(model, caller)
            return await self.model_server.status(model, caller)

    async def available_versions(self, name: str, caller: Caller) -> list[int]:
        """The versions that take requests, newest first; raises ModelNotFound."""
        statuses = await self.status(ModelRef(name), caller)
        return [each.version for each in statuses if each.state == State.AVAILABLE]

    def names(self, caller: Caller) -> list[str]:
        """The named models, those that the caller may ask about."""
        return list(filter(caller.grant.names, self.model_list.names()))

    async def versions_of(self, name: str, caller: Caller) -> list[serving.ModelVersionStatus]:
        """As `status`, and none of a model that is not there."""
        try:
            return await self.status(ModelRef(name), caller)
        except NotFound:
            return []

    async def listing(self, caller: Caller) -> dict[str, list[serving.ModelVersionStatus]]:
        """The named models, as the model server's API cannot list its own, each with its versions
        as `status` has them; without any where it is not there."""
        names = self.names(caller)
        found = await asyncio.gather(*(self.versions_of(name, caller) for name in names))
        return dict(zip(names, found, strict=True))

    def knows(self, model: str) -> bool:
        """Whether a model of this name has ever answered, whatever it was asked: what may be a
        label of a metric."""
        return self.model_server.knows(model)

    def answered(self, model: ModelRef, version: int) -> None:
        """A version has: what is remembered of another one is forgotten."""
        self._remembered.forget_if_replaced(model, version)

    def with_names(self, error: ModelNotFound, model: ModelRef, caller: Caller) -> ModelNotFound:
        """The error, and for a model that nobody named those that are, the nearest first."""
        names = self.names(caller)
        if not names or model.name in names:
            return error
        return ModelNotFound(f"{error}{did_you_mean(model.name, names)}")
