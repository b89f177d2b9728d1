"""An infer request that is nothing but the one input's raw bytes, as Triton takes it."""

import numpy as np
import pytest
import requests

RAW = {"Inference-Header-Content-Length": "0"}


def test_raw_bytes_are_the_only_input(gateway):
    reply = requests.post(
        f"{gateway.url}/v2/models/affine/infer",
        headers=RAW,
        timeout=30,
        data=np.float32([1, 2, 5]).tobytes(),
    )
    length = int(reply.headers["Inference-Header-Content-Length"])
    np.testing.assert_array_equal(np.frombuffer(reply.content[length:], np.float32), [3.5, 4, 5.5])


@pytest.mark.parametrize(
    ("model", "data", "message"),
    [
        ("affine", b"123", "inputs.x: expected the raw bytes of float32 [N], got 3 bytes"),
        ("pair", b"1234", "raw bytes fit a single one"),
    ],
)
def test_raw_bytes_that_fit_nothing(gateway, model, data, message):
    reply = requests.post(
        f"{gateway.url}/v2/models/{model}/infer", headers=RAW, data=data, timeout=30
    )
    assert (reply.status_code, message in reply.json()["error"]) == (400, True), reply.text
