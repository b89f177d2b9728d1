"""BentoML: adaptive batching to 32, one worker (a second halves the batches)."""

import base64

import bentoml
import numpy as np
from model import Model, decode


@bentoml.service(
    workers=1, traffic={"timeout": 60, "max_concurrency": 1024}, metrics={"enabled": True}
)
class Service:
    def __init__(self) -> None:
        self.model = Model()

    @bentoml.api(batchable=True, max_batch_size=32, max_latency_ms=1000)
    def predict(self, instances: np.ndarray) -> np.ndarray:
        return self.model(instances.astype(np.float32))

    @bentoml.api
    def pictures(self, instances: list[dict[str, str]]) -> np.ndarray:
        pictures = [decode(base64.b64decode(instance["b64"])) for instance in instances]
        return self.model(np.stack(pictures))
