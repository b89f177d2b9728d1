"""The twin answers every recorded exchange as TensorFlow Serving's own server did.

The same code on every row and the same message in every OK; the texts of errors are ours. There
are no deviations under --check_input_shapes=false: lax rows ("predict, wrong shape", ...) are
followed too.
"""

import json
from pathlib import Path

import grpc
import pytest
from google.protobuf import json_format, message_factory

from sluice.wire.protos import POOL, serving_pb2  # noqa: F401 (fills POOL)

ROWS = [
    json.loads(line) for line in (Path(__file__).parent / "grpc.jsonl").read_text().splitlines()
]


def message_class(name):
    return message_factory.GetMessageClass(POOL.FindMessageTypeByName(name))


@pytest.fixture(scope="module")
def channel(modelserver):
    with grpc.insecure_channel(modelserver.address) as channel:
        yield channel


def call(channel, row):
    request = json_format.ParseDict(row["request"], message_class(row["request_type"])())
    method = channel.unary_unary(row["method"])
    return method(request.SerializeToString(), timeout=30)


@pytest.mark.parametrize(
    "row", [row for row in ROWS if row["code"] == "OK"], ids=lambda row: row["name"]
)
def test_an_answer_is_the_recorded_one(channel, row):
    reply = message_class(row["response_type"]).FromString(call(channel, row))
    expected = json_format.ParseDict(row["response"], type(reply)(), descriptor_pool=POOL)
    assert unpacked(reply) == unpacked(expected)


@pytest.mark.parametrize(
    "row", [row for row in ROWS if row["code"] != "OK"], ids=lambda row: row["name"]
)
def test_an_error_has_the_recorded_code_and_a_reason(channel, row):
    with pytest.raises(grpc.RpcError) as caught:
        call(channel, row)
    assert caught.value.code().name == row["code"], caught.value.details()
    assert caught.value.details()
    assert "{{" not in caught.value.details(), "a place in the graph, of which no caller knows"


def unpacked(message):
    """The message's JSON: a packed map has no order of its own on the wire."""
    return json_format.MessageToDict(message, descriptor_pool=POOL)
