"""MLServer: adaptive batching to 32, inference in the server's own process."""

import asyncio
import sys

from mlserver import MLModel, MLServer, ModelSettings, Settings
from mlserver.codecs import NumpyCodec
from mlserver.types import InferenceRequest, InferenceResponse
from model import Model


class Runtime(MLModel):
    async def load(self) -> bool:
        self.model = Model()
        return True

    async def predict(self, payload: InferenceRequest) -> InferenceResponse:
        images = NumpyCodec.decode_input(payload.inputs[0])
        labels = await asyncio.to_thread(self.model, images)
        outputs = [NumpyCodec.encode_output("label", labels)]
        return InferenceResponse(model_name=self.name, outputs=outputs)


async def main(port: int, model: str) -> None:
    settings = Settings(
        http_port=port, grpc_port=port + 1, metrics_port=port + 2, parallel_workers=0, debug=False
    )
    batched = ModelSettings(
        name=model, implementation=Runtime, max_batch_size=32, max_batch_time=0.002
    )
    await MLServer(settings).start([batched])


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1]), sys.argv[2]))
