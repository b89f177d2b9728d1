"""The client for asyncio."""

from collections.abc import Mapping, Sequence
from os import PathLike
from typing import Self

from sluice.client._arguments import model_ref, speaks_grpc, values_of, with_key
from sluice.client._client import DEFAULT_TIMEOUT_S
from sluice.client._flows import Flows
from sluice.client._inputs import Value
from sluice.client._running import AsyncTransport, run_flow_async
from sluice.client.results import ModelMetadata, Prediction, VersionStatus


class AsyncClient:
    """Client for asyncio: the same methods and arguments, awaited. Image files are read in the
    event loop; give their bytes where the disk is slow.

    >>> async def ask() -> bool:
    ...     async with AsyncClient("http://localhost:1") as client:
    ...         return await client.ready()
    >>> import asyncio
    >>> asyncio.run(ask())
    False
    """

    def __init__(
        self,
        url: str,
        *,
        timeout_s: float = DEFAULT_TIMEOUT_S,
        retries: int = 3,
        headers: Mapping[str, str] | None = None,
        api_key: str | None = None,
        ca_file: str | PathLike[str] | None = None,
    ) -> None:
        given = with_key(headers or {}, api_key)
        self._transport: AsyncTransport
        if speaks_grpc(url):
            from sluice.client._grpc import AsyncGrpcTransport

            self._transport = AsyncGrpcTransport(url, given, ca_file)
        else:
            from sluice.client._http import AsyncHttpTransport

            self._transport = AsyncHttpTransport(url, given, ca_file)
        self._flows = Flows(timeout_s, retries)

    async def predict(
        self,
        model: str,
        inputs: Mapping[str, Value] | Value | None = None,
        /,
        *,
        version: int | None = None,
        label: str | None = None,
        signature: str | None = None,
        outputs: Sequence[str] = (),
        timeout_s: float | None = None,
        **named: Value,
    ) -> Prediction:
        """See Client.predict."""
        return await run_flow_async(
            self._transport,
            self._flows.predict(
                model_ref(model, version, label),
                values_of(inputs, named),
                signature,
                outputs,
                timeout_s,
            ),
        )

    async def explain(
        self,
        model: str,
        inputs: Mapping[str, Value] | Value | None = None,
        /,
        *,
        class_index: int | None = None,
        version: int | None = None,
        label: str | None = None,
        timeout_s: float | None = None,
        **named: Value,
    ) -> Prediction:
        """See Client.explain."""
        return await run_flow_async(
            self._transport,
            self._flows.explain(
                model_ref(model, version, label), values_of(inputs, named), class_index, timeout_s
            ),
        )

    async def metadata(
        self,
        model: str,
        *,
        version: int | None = None,
        label: str | None = None,
        timeout_s: float | None = None,
    ) -> ModelMetadata:
        """See Client.metadata."""
        return await run_flow_async(
            self._transport, self._flows.metadata(model_ref(model, version, label), timeout_s)
        )

    async def status(self, model: str, *, timeout_s: float | None = None) -> list[VersionStatus]:
        """See Client.status."""
        return await run_flow_async(self._transport, self._flows.status(model, timeout_s))

    async def ready(self, model: str | None = None, *, timeout_s: float | None = None) -> bool:
        """See Client.ready."""
        return await run_flow_async(self._transport, self._flows.ready(model, timeout_s))

    async def models(self, *, timeout_s: float | None = None) -> list[str]:
        """See Client.models."""
        return await run_flow_async(self._transport, self._flows.models(timeout_s))

    async def close(self) -> None:
        await self._transport.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()
