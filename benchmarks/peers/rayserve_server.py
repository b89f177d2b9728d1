"""Ray Serve: batches of 32, one replica, its HAProxy ingress (RAY_SERVE_ENABLE_HA_PROXY=1)."""

import signal
import sys

import numpy as np
import orjson
import ray
from model import Model, decode
from ray import serve
from starlette.requests import Request
from starlette.responses import Response


@serve.deployment(max_ongoing_requests=1024, ray_actor_options={"num_cpus": 1})
class Served:
    def __init__(self) -> None:
        self.model = Model()

    @serve.batch(max_batch_size=32, batch_wait_timeout_s=0.002)
    async def predict(self, images: list[np.ndarray]) -> list[np.ndarray]:
        return list(self.model(np.stack(images)))

    async def __call__(self, request: Request) -> Response:
        body = await request.body()
        if request.headers["content-type"] == "image/jpeg":
            image = decode(body)
        else:
            image = np.asarray(orjson.loads(body)["instances"][0], np.float32)
        labels = await self.predict(image)
        return Response(
            orjson.dumps({"predictions": [labels.tolist()]}), media_type="application/json"
        )


if __name__ == "__main__":
    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False)
    serve.start(http_options={"host": "127.0.0.1", "port": int(sys.argv[1])})
    serve.run(Served.bind())
    signal.sigwait({signal.SIGTERM, signal.SIGINT})
    ray.shutdown()
