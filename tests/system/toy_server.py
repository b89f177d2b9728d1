"""A model server whose speed is known: `y = 2 x`, in so many seconds a call and so many a row, one
call of a model at a time. It sleeps for them, so that the cores are left to those it is asked by.

Like TensorFlow Serving it says SERVING while its models load, and NOT_FOUND of each until then:
when their time is over, or on SIGUSR1.
"""

import argparse
import asyncio
import os
import signal
import time
from collections import defaultdict

import grpc

from sluice.wire.contract import MODEL_SERVICE, PREDICTION_SERVICE
from sluice.wire.health import HealthService, add_health
from sluice.wire.protos import serving_pb2 as serving
from sluice.wire.tensors import decode_tensor, encode_tensor

State = serving.ModelVersionStatus.State
Context = grpc.aio.ServicerContext[bytes, bytes]
FLOAT, TENSOR_NAMES = 1, {"inputs": "x", "outputs": "y"}


class Toy:
    """Any model it is asked for, as the version it is asked for, or 1. Calls of the model `hangs`
    never end; one of the version `dies` with a negative row ends the process, as the kernel does
    where memory is short."""

    def __init__(
        self, call_s: float, row_s: float, load_s: float, hangs: str, dies: int | None
    ) -> None:
        self._call_s, self._row_s, self._hangs, self._dies = call_s, row_s, hangs, dies
        self._loaded_at = time.monotonic() + load_s
        self._turns: dict[str, asyncio.Lock] = defaultdict(asyncio.Lock)

    async def predict(self, data: bytes, context: Context) -> bytes:
        request = serving.PredictRequest.FromString(data)
        await self._check(request.model_spec, context)
        x = decode_tensor(request.inputs["x"])
        print(f"came rows={len(x)}", flush=True)
        if request.model_spec.version.value == self._dies and (x < 0).any():
            os.kill(os.getpid(), signal.SIGKILL)
        try:
            if request.model_spec.name == self._hangs:
                await asyncio.Event().wait()
            async with self._turns[request.model_spec.name]:
                await asyncio.sleep(self._call_s + len(x) * self._row_s)
        except asyncio.CancelledError:
            print(f"cancelled rows={len(x)}", flush=True)
            raise
        reply = serving.PredictResponse(model_spec=_answering(request.model_spec))
        reply.outputs["y"].CopyFrom(encode_tensor(2 * x))
        return reply.SerializeToString()

    async def metadata(self, data: bytes, context: Context) -> bytes:
        request = serving.GetModelMetadataRequest.FromString(data)
        await self._check(request.model_spec, context)
        found = serving.SignatureDefMap()
        signature = found.signature_def["serving_default"]
        signature.method_name = "tensorflow/serving/predict"
        for place, name in TENSOR_NAMES.items():
            info = getattr(signature, place)[name]
            info.name, info.dtype = f"{name}:0", FLOAT
            info.tensor_shape.dim.add(size=-1)
        reply = serving.GetModelMetadataResponse(model_spec=_answering(request.model_spec))
        reply.metadata["signature_def"].Pack(found)
        return reply.SerializeToString()

    async def status(self, _: bytes, __: Context) -> bytes:
        reply = serving.GetModelStatusResponse()
        reply.model_version_status.add(
            version=1, state=State.AVAILABLE if self._is_loaded else State.LOADING
        )
        return reply.SerializeToString()

    def load(self) -> None:
        self._loaded_at = time.monotonic()

    @property
    def _is_loaded(self) -> bool:
        return time.monotonic() >= self._loaded_at

    async def _check(self, spec: serving.ModelSpec, context: Context) -> None:
        if not self._is_loaded:
            await context.abort(
                grpc.StatusCode.NOT_FOUND, f"Servable not found for request: Latest({spec.name})"
            )


def _answering(spec: serving.ModelSpec) -> serving.ModelSpec:
    answering = serving.ModelSpec(name=spec.name, signature_name=spec.signature_name)
    answering.version.value = spec.version.value or 1
    return answering


async def serve(options: argparse.Namespace) -> None:
    toy = Toy(options.call_s, options.row_s, options.load_s, options.hangs, options.dies)
    server, health = grpc.aio.server(), HealthService(())
    server.add_generic_rpc_handlers(
        (
            grpc.method_handlers_generic_handler(
                PREDICTION_SERVICE,
                {
                    "Predict": grpc.unary_unary_rpc_method_handler(toy.predict),
                    "GetModelMetadata": grpc.unary_unary_rpc_method_handler(toy.metadata),
                },
            ),
            grpc.method_handlers_generic_handler(
                MODEL_SERVICE,
                {"GetModelStatus": grpc.unary_unary_rpc_method_handler(toy.status)},
            ),
        )
    )
    add_health(server, health)
    port = server.add_insecure_port(f"127.0.0.1:{options.port}")
    await server.start()
    await health.set(serving=True)
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    asyncio.get_running_loop().add_signal_handler(signal.SIGUSR1, toy.load)
    print(f"Running gRPC ModelServer at 0.0.0.0:{port}", flush=True)
    await stop.wait()
    await server.stop(0)


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--call-s", type=float, default=0.0)
    parser.add_argument("--row-s", type=float, default=0.0)
    parser.add_argument("--load-s", type=float, default=0.0)
    parser.add_argument("--hangs", default="")
    parser.add_argument("--dies", type=int)
    asyncio.run(serve(parser.parse_args()))
