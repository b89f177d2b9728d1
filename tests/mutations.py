"""Requests changed at random, by a seeded generator: bytes, and the fields of messages."""

import json
from pathlib import Path

from google.protobuf import json_format, message_factory

from sluice.wire.protos import POOL, serving_pb2  # noqa: F401 (fills POOL)

CONFORMANCE = Path(__file__).parent / "conformance" / "grpc.jsonl"
METHODS = ("Predict", "Classify", "Regress", "MultiInference", "GetModelMetadata")
MOST_CHANGES = 4
NAMES = [
    "",
    "x",
    "y",
    "inputs",
    "image",
    "affine",
    "pair",
    "echo",
    "serving_default",
    "regress",
    "classify",
    "\0",
    "ü" * 50,
    "__saved_model_init_op",
]
INTEGERS = [0, 1, 2, 3, 5, 7, 8, 100, 2**20, 2**31 - 1]
FLOATS = [0.0, -0.0, 1e38, -1e38, float("inf"), float("nan")]


def recorded():
    """(method, serialized request, its class) of the recorded exchanges."""
    rows = [json.loads(line) for line in CONFORMANCE.read_text().splitlines()]
    for row in rows:
        if row["method"].rpartition("/")[2] in METHODS:
            cls = message_factory.GetMessageClass(POOL.FindMessageTypeByName(row["request_type"]))
            request = json_format.ParseDict(row["request"], cls())
            yield row["method"], request.SerializeToString(), cls


def mutate(raw, cls, rng):
    """Most of the bytes changed at random are no message any more, so change fields as well."""
    if rng.random() < 0.2:
        return mutate_bytes(raw, rng)
    message = cls.FromString(raw)
    for _ in range(rng.randint(1, 3)):
        mutate_message(message, rng)
    return message.SerializeToString()


def mutate_bytes(raw, rng):
    """A few bytes changed, removed, repeated or put in."""
    mutated = bytearray(raw)
    for _ in range(rng.randint(1, MOST_CHANGES)):
        at = rng.randrange(len(mutated) + 1)
        count = rng.randint(1, 8)
        mutated[at : at + rng.choice((0, count))] = rng.choice(
            (rng.randbytes(count), mutated[at : at + count] * 2, b"", b"\xff")
        )
    return bytes(mutated)


def mutate_message(message, rng):
    """One field, at any depth, changed, dropped or repeated."""
    fields = message.ListFields()
    if not fields:
        return
    field, value = rng.choice(fields)
    if rng.random() < 0.1:
        message.ClearField(field.name)
    elif field.message_type and field.message_type.GetOptions().map_entry:
        mutate_map(value, rng)
    elif field.is_repeated:
        mutate_list(value, field, rng)
    elif field.message_type:
        mutate_message(value, rng)
    else:
        setattr(message, field.name, scalar(field, value, rng))


def mutate_map(entries, rng):
    key = rng.choice(sorted(entries))
    if rng.random() < 0.2:
        entries[rng.choice(NAMES)].CopyFrom(entries[key])
    else:
        mutate_message(entries[key], rng)


def mutate_list(values, field, rng):
    at = rng.randrange(len(values))
    choice = rng.randrange(4)
    if choice == 0:
        del values[at]
    elif choice == 1:
        values.extend(list(values) * rng.randint(1, 9))
    elif field.message_type:
        mutate_message(values[at], rng)
    else:
        values[at] = scalar(field, values[at], rng)


def scalar(field, value, rng):
    if isinstance(value, bytes):
        return mutate_bytes(value, rng)
    if isinstance(value, str):
        return rng.choice(NAMES)
    if isinstance(value, bool):
        return not value
    if isinstance(value, float):
        return rng.choice(FLOATS)
    signed = field.type in (field.TYPE_INT32, field.TYPE_INT64)
    number = rng.choice(INTEGERS) * rng.choice((1, -1) if signed else (1,))
    return number << 32 if field.type == field.TYPE_INT64 and rng.random() < 0.2 else number
