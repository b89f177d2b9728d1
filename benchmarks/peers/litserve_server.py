"""LitServe: batches of 32, its fast queue, one copy of the model."""

import base64
import sys

import litserve
import numpy as np
from model import Model, decode


class Api(litserve.LitAPI):
    def setup(self, device: str) -> None:  # noqa: ARG002
        self.model = Model()

    def decode_request(self, request: dict) -> np.ndarray:
        (instance,) = request["instances"]
        if isinstance(instance, dict):
            return decode(base64.b64decode(instance["b64"]))
        return np.asarray(instance, np.float32)

    def batch(self, inputs: list[np.ndarray]) -> np.ndarray:
        return np.stack(inputs)

    def predict(self, images: np.ndarray) -> np.ndarray:
        return self.model(images)

    def unbatch(self, output: np.ndarray) -> list[np.ndarray]:
        return list(output)

    def encode_response(self, output: np.ndarray) -> dict:
        return {"predictions": [output.tolist()]}


if __name__ == "__main__":
    api = Api(max_batch_size=32, batch_timeout=0.002)
    server = litserve.LitServer(api, accelerator="cpu", workers_per_device=1, fast_queue=True)
    server.run(port=int(sys.argv[1]), generate_client_file=False, log_level="error")
