"""Fuzz the gateway's bodies: JSON, forms, numpy files and binary tensors, guided by coverage.

    python tests/clients/fuzz_client.py MODEL_SERVER [-max_total_time=600]

The model server, a real one, serves the models of tests/conformance. The application runs in this
process, so that its branches are seen. Any answer of 500 and above, save 503 and 504, is a crash.
"""

import io
import json
import sys
from pathlib import Path

import atheris

sys.path.insert(0, str(Path(__file__).parent.parent.parent))  # nothing of ours is installed here

with atheris.instrument_imports(include=["service.gateway", "sluice.wire"]):
    from service.gateway.app import create_app
    from service.gateway.settings import Settings

import numpy as np
from PIL import Image

SERVER, ARGUMENTS = sys.argv[1], [sys.argv[0], *sys.argv[2:]]
client = create_app(
    Settings(
        model_server=SERVER,
        models="affine,pair,dtypes,echo",
        max_body_bytes=1 << 20,
        request_timeout_s=10.0,
        metadata_ttl_s=1e9,
        access_log="off",
    )
).test_client()


def saved(write, *arguments, **named):
    buffer = io.BytesIO()
    write(buffer, *arguments, **named)
    return buffer.getvalue()


PNG = saved(lambda buffer: Image.new("L", (2, 2)).save(buffer, "PNG"))
FORM = (
    b'--x\r\nContent-Disposition: form-data; name="image"; filename="i"\r\n\r\n'
    + PNG
    + b'\r\n--x\r\nContent-Disposition: form-data; name="meta"\r\n\r\n[1,2,3]\r\n--x--\r\n'
)
OIP = json.dumps(
    {
        "inputs": [
            {"name": "x", "shape": [1], "datatype": "FP32", "parameters": {"binary_data_size": 4}}
        ]
    }
).encode()
DTYPES = {"i32": 1, "i64": 1, "u8": 1, "f64": 1.5, "flag": True, "text": "a"}

# (path, headers, a good body): mutations start from it, and every other byte string is tried too.
TARGETS = [
    ("/v1/models/affine:predict", {}, b'{"instances": [1.0, 2]}'),
    ("/v1/models/echo:predict", {}, b'{"signature_name": "total", "inputs": [[[1,2,3],[4,5,6]]]}'),
    ("/v1/models/dtypes:predict", {}, json.dumps({"instances": [DTYPES]}).encode()),
    ("/v1/models/affine:classify", {}, b'{"signature_name": "classify", "examples": [{"x": 0.5}]}'),
    (
        "/v1/models/pair:predict?resize=fit",
        {"Content-Type": "multipart/form-data; boundary=x"},
        FORM,
    ),
    (
        "/v1/models/affine:predict",
        {"Content-Type": "application/x-npy"},
        saved(np.save, np.float32([1])),
    ),
    (
        "/v1/models/affine:predict",
        {"Content-Type": "application/x-npz", "Accept": "application/x-npz"},
        saved(np.savez, x=np.float32([1])),
    ),
    ("/v1/models/pair:predict", {"Content-Type": "image/png"}, PNG),
    (
        "/v2/models/affine/infer",
        {"Inference-Header-Content-Length": str(len(OIP))},
        OIP + b"\0\0\0\0",
    ),
    ("/v2/repository/index", {}, b'{"ready": true}'),
    (
        "/v2/models/affine/infer",
        {},
        json.dumps(
            {
                "parameters": {"timeout": 10**7},
                "inputs": [{"name": "x", "shape": [1], "datatype": "FP32", "data": [1]}],
            }
        ).encode(),
    ),
    (
        "/v2/models/dtypes/infer",
        {},
        json.dumps(
            {"inputs": [{"name": "text", "shape": [1], "datatype": "BYTES", "data": ["a"]}]}
        ).encode(),
    ),
]


def one_input(data: bytes) -> None:
    """The first byte picks the target; an odd second byte splices the rest into its good body."""
    if len(data) < 3:
        return
    path, headers, good = TARGETS[data[0] % len(TARGETS)]
    place = data[2] * len(good) // 256
    body = good[:place] + data[3:] + good[place + len(data) - 3 :] if data[1] % 2 else data[3:]
    reply = client.post(path, data=body, headers=headers)
    if reply.status_code >= 500 and reply.status_code not in (503, 504):
        raise AssertionError(f"{reply.status_code} {reply.data!r} for {path} {headers} {body!r}")


atheris.Setup(ARGUMENTS, one_input)
atheris.Fuzz()
