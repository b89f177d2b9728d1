"""Every recorded REST exchange of TensorFlow Serving, through the gateway and the twin."""

import json
from pathlib import Path

import numpy as np
import pytest
import requests

ROWS = [
    json.loads(line) for line in (Path(__file__).parent / "rest.jsonl").read_text().splitlines()
]

# Where the gateway is stricter on purpose: the status it answers, and why. docs/api.md lists them.
DEVIATIONS = {
    "matrix, wrong inner size": (400, "a shape that contradicts the signature"),
    "matrix, missing rank": (400, "a shape that contradicts the signature"),
    "uint8 of 256": (400, "a value outside its dtype, which TensorFlow Serving wraps to 0"),
    "body has a tail": (400, "text after the JSON document"),
    "model list": (200, "a list of the models, which TensorFlow Serving has not"),
    "status of a missing label": (400, "a label that no version has"),
}


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row["name"])
def test_exchange(row, gateway):
    body = None if row["body"] is None else row["body"].encode()
    reply = requests.request(row["method"], gateway.url + row["path"], data=body, timeout=30)
    status, _reason = DEVIATIONS.get(row["name"], (row["status"], None))
    assert reply.status_code == status, reply.text
    assert reply.headers["Content-Type"] == row["content_type"]
    if status == row["status"] == 200:
        assert_same(json.loads(reply.text), json.loads(row["response"]))
    elif status != 200:
        assert list(reply.json()) == ["error"]


def test_deviations_are_real():
    recorded = {row["name"]: row["status"] for row in ROWS}
    for name, (status, reason) in DEVIATIONS.items():
        assert recorded[name] != status, reason


def assert_same(ours, theirs):
    """Equal JSON, numbers as float32 (whole numbers to the last digit), lists in order."""
    if isinstance(theirs, dict):
        assert ours.keys() == theirs.keys()
        for key, value in theirs.items():
            assert_same(ours[key], value)
    elif isinstance(theirs, list):
        assert len(ours) == len(theirs)
        for one, other in zip(ours, theirs, strict=True):
            assert_same(one, other)
    elif isinstance(theirs, float):
        assert isinstance(ours, float)
        with np.errstate(over="ignore"):
            assert ours == theirs or np.array_equal(np.float32(ours), np.float32(theirs), True)
    else:
        assert (ours, type(ours)) == (theirs, type(theirs))
