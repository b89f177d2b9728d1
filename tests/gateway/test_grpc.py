"""The gateway's gRPC port: TensorFlow Serving's API and the Open Inference Protocol."""
import json
from pathlib import Path

import pytest
from google.protobuf import json_format, message_factory

from service.protos import POOL, inference_pb2, serving_pb2  # noqa: F401 (they fill POOL)

CONFORMANCE = Path(__file__).parent.parent / "conformance" / "grpc.jsonl"
ROWS = [json.loads(line) for line in CONFORMANCE.read_text().splitlines()]

# Where the gateway is stricter on purpose: the code it answers, and why. docs/api.md lists them.
DEVIATIONS = {
    "predict, wrong shape": ("INVALID_ARGUMENT", "a shape that contradicts the signature"),
    "predict, wrong rank": ("INVALID_ARGUMENT", "a shape that contradicts the signature"),
    "predict, scalar for a vector": ("INVALID_ARGUMENT", "a shape that contradicts the signature"),
    "predict, empty batch": ("INVALID_ARGUMENT", "an empty batch"),
    "status, missing label": ("INVALID_ARGUMENT", "a label that no version has"),
}


def message_class(name):
    return message_factory.GetMessageClass(POOL.FindMessageTypeByName(name))


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row["name"])
def test_an_exchange_is_the_recorded_one(channel, row):
    request = json_format.ParseDict(row["request"], message_class(row["request_type"])())
    code, _reason = DEVIATIONS.get(row["name"], (row["code"], None))
    call = channel.unary_unary(row["method"]).future(request.SerializeToString(), timeout=30)
    assert call.code().name == code, call.details()
    if code == "OK":
        reply = message_class(row["response_type"]).FromString(call.result())
        expected = json_format.ParseDict(row["response"], type(reply)(), descriptor_pool=POOL)
        assert unpacked(reply) == unpacked(expected)
    else:
        assert call.details()


def test_deviations_are_real():
    recorded = {row["name"]: row["code"] for row in ROWS}
    for name, (code, reason) in DEVIATIONS.items():
        assert recorded[name] != code, reason


def unpacked(message):
    """The message's JSON: a packed map has no order of its own on the wire."""
    return json_format.MessageToDict(message, descriptor_pool=POOL)
