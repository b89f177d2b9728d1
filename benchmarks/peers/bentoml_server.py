"""BentoML: adaptive batching to 32, one worker (a second halves the batches)."""

from pathlib import Path
from typing import Annotated

import bentoml
import numpy as np
from bentoml.validators import ContentType
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
    def picture(self, image: Annotated[Path, ContentType("image/jpeg")]) -> np.ndarray:
        return self.model(decode(image.read_bytes())[None])
