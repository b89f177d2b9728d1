"""KServe's Python server. Its batcher is a sidecar of Kubernetes: here a call is a picture."""

import base64
import sys

import kserve
import numpy as np
from model import Model, decode


class Served(kserve.Model):
    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.model = Model()
        self.ready = True

    def predict(self, payload, headers=None, response_headers=None):  # noqa: ARG002
        if isinstance(payload, kserve.InferRequest):
            labels = self.model(payload.inputs[0].as_numpy())
            output = kserve.InferOutput("label", list(labels.shape), "FP32")
            output.set_data_from_numpy(labels, binary_data=False)
            return kserve.InferResponse(payload.id, self.name, [output])
        instances = payload["instances"]
        if isinstance(instances[0], dict):
            images = np.stack([decode(base64.b64decode(each["b64"])) for each in instances])
        else:
            images = np.asarray(instances, np.float32)
        return {"predictions": self.model(images).tolist()}


if __name__ == "__main__":
    server = kserve.ModelServer(
        http_port=int(sys.argv[1]),
        enable_grpc=False,
        workers=1,
        enable_docs_url=False,
        access_log_format=None,
    )
    server.start([Served(sys.argv[2])])
