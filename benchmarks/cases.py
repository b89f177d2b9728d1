"""What is asked: the pictures, the forms they are sent in, and by how many connections at once."""

import base64
import io
import json
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np

from sluice.wire.protos.serving_pb2 import PredictRequest
from sluice.wire.tensors import encode_tensor

SHAPES = {"small": (28, 28, 1), "large": (256, 256, 3)}
SMALL = "28×28×1 JSON"
JSON, JPEG, BASE64, NPY, OIP = (
    f"256×256×3 {form}" for form in ("JSON", "JPEG", "base64 JSON", "npy", "OIP binary")
)
GRPC, DIRECT = "28×28×1 gRPC", "28×28×1 gRPC, no gateway"
PAUSED = "28×28×1 JSON, with pauses"
ALONE = "28×28×1 JSON, read and written alone"

CONNECTIONS: dict[str, tuple[int, ...]] = {
    SMALL: (1, 8, 32, 128, 512),
    **dict.fromkeys((JSON, JPEG, BASE64, NPY, OIP), (1, 8, 32)),
    GRPC: (1, 32),
    DIRECT: (1,),
    PAUSED: (1,),
    ALONE: (1,),
}


def model_of(kind: str) -> str:
    return "small" if kind.startswith("28") else "large"


class Request(NamedTuple):
    """A POST to `path`, or for gRPC a Predict at that port; `body` is one of `bodies`' by name."""

    path: str
    body: str
    headers: Mapping[str, str] = {}


def write_models(repository: Path) -> None:
    """The two models, untrained, as `sluice publish` would write them; in a process of its own,
    for TensorFlow's threads would stay."""
    code = (
        "import sys, models, pathlib; from training.publishing import saved_model; "
        "from training.data.heads import Classes; "
        "model = models.build('cnn_functional', classes=10, "
        "input_shape=tuple(map(int, sys.argv[1].split(',')))); "
        "path = pathlib.Path(sys.argv[2]); path.mkdir(parents=True); "
        "saved_model.write(model, {'label': Classes(tuple('0123456789'))}, path)"
    )
    for model, shape in SHAPES.items():
        version = repository / model / "1"
        if not (version / "saved_model.pb").exists():
            arguments = [",".join(map(str, shape)), str(version)]
            subprocess.run([sys.executable, "-c", code, *arguments], check=True)


def write_bodies(directory: Path) -> None:
    directory.mkdir(parents=True, exist_ok=True)
    for name, body in bodies().items():
        (directory / name).write_bytes(body)


def bodies() -> dict[str, bytes]:
    """What is sent, by name. The small picture is 8.6 kB of JSON, the large 4.1 MB."""
    random = np.random.default_rng(7)
    small = random.random((1, *SHAPES["small"])).round(5)
    large = random.random((1, *SHAPES["large"]))
    picture = _jpeg(random)
    encoded = base64.b64encode(picture).decode()
    npy = io.BytesIO()
    np.save(npy, large.astype(np.float32))
    return {
        "small.json": _json({"instances": small.tolist()}),
        "large.json": _json({"instances": large.tolist()}),
        "small.oip.json": _json(_oip(small)),
        "large.oip.json": _json(_oip(large)),
        "jpeg": picture,
        "base64.json": _json({"signature_name": "encoded", "instances": [{"b64": encoded}]}),
        "picture.json": _json({"instances": [{"b64": encoded}]}),
        "npy": npy.getvalue(),
        "oip": _json(OIP_HEADER) + large.astype(np.float32).tobytes(),
        "small.predict": _predict_request("small", small.astype(np.float32)),
    }


def _jpeg(random: np.random.Generator) -> bytes:
    from PIL import Image

    coarse = random.integers(0, 255, (16, 16, 3), np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(coarse).resize(SHAPES["large"][:2]).save(buffer, "JPEG", quality=90)
    return buffer.getvalue()


def _json(document: object) -> bytes:
    return json.dumps(document).encode()


def _oip(images: np.ndarray) -> dict[str, object]:
    shape, data = list(images.shape), images.ravel().tolist()
    return {"inputs": [{"name": "image", "shape": shape, "datatype": "FP32", "data": data}]}


def _predict_request(model: str, images: np.ndarray) -> bytes:
    request = PredictRequest(inputs={"image": encode_tensor(images, content=True)})
    request.model_spec.name = model
    return request.SerializeToString()


OIP_HEADER = {
    "inputs": [
        {
            "name": "image",
            "shape": [1, *SHAPES["large"]],
            "datatype": "FP32",
            "parameters": {"binary_data_size": 4 * int(np.prod(SHAPES["large"]))},
        }
    ]
}
OIP_HEADER_LENGTH = len(_json(OIP_HEADER))
