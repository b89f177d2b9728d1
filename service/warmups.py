"""Warm-up files made of captured requests: what a model server runs before a version takes any.

One that the version cannot answer would keep it from being loaded, so each is held against the
version's signatures first.
"""

import os
import random
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from itertools import chain, islice, zip_longest
from pathlib import Path
from typing import Any, NamedTuple

from service.captures import Captures
from sluice.wire.contract import (
    CLASSIFY_METHOD,
    DEFAULT_SIGNATURE,
    MAX_WARMUP_RECORDS,
    REGRESS_METHOD,
    WARMUP_FILE,
)
from sluice.wire.data_types import data_type_name, data_type_of
from sluice.wire.prediction_logs import (
    CLASSIFY_LOG,
    MULTI_INFERENCE_LOG,
    PREDICT_LOG,
    REGRESS_LOG,
    Logged,
    encode_log,
    read_log,
)
from sluice.wire.protos.serving_pb2 import ModelSpec
from sluice.wire.protos.tensorflow_pb2 import SignatureDef, TensorProto
from sluice.wire.saved_model import read_signatures
from sluice.wire.signature import Signature, callable_signatures, shape_text
from sluice.wire.tfrecords import BadRecord, frame, read_frames

_METHODS = {CLASSIFY_LOG: CLASSIFY_METHOD, REGRESS_LOG: REGRESS_METHOD}

Place = tuple[Path, int]  # the file, and the number of the record there


class NothingFits(Exception):
    """No captured request is one that the version could answer."""


class Written(NamedTuple):
    """What became of it: how many were chosen, of how many that fit; how many of the file before
    stayed; and why others were passed over, with how often."""

    file: Path
    chosen: int
    fitting: int
    kept: int
    passed_over: Counter[str]


def write_warmup(captures: Captures, model: str, version: Path, most: int) -> Written:
    """Make the warm-up file of a version's directory out of `most` captured requests of `model` at
    the most, whole or not at all.

    Every signature, and every shape within it, gets as many as every other, as far as there are
    so many. What the file before has of signatures that nobody asked stays.

    Raises NothingFits, OSError, BadSavedModel.
    """
    fitting, passed_over = _fitting(captures, model, read_signatures(version))
    if not fitting:
        reasons = "; ".join(f"{reason} ({count})" for reason, count in passed_over.most_common(5))
        raise NothingFits(
            f"no request in {captures.path} is one that {version} answers: "
            f"{reasons or 'nothing in there can be read'}"
        )
    chosen = set(_sample(fitting.values(), most))
    taken = [each.logged for each in captures if (each.file, each.number) in chosen]
    file = version / WARMUP_FILE
    asked = {logged.signature for logged in taken}
    kept = [logged for logged in _before(file) if logged.signature not in asked]
    kept = kept[: MAX_WARMUP_RECORDS - len(taken)]
    _replace(file, [_record(logged, model) for logged in (*kept, *taken)])
    return Written(file, len(taken), sum(map(len, fitting.values())), len(kept), passed_over)


def _fitting(
    captures: Captures, model: str, signatures: Mapping[str, SignatureDef]
) -> tuple[dict[object, list[Place]], Counter[str]]:
    """Where the requests are that the version answers, by shape; and why others are not."""
    fitting: dict[object, list[Place]] = defaultdict(list)
    passed_over: Counter[str] = Counter()
    known = callable_signatures(signatures)
    for each in captures:
        logged = each.logged
        if logged.model.name != model:
            reason = f'it was for the model "{logged.model.name}"'
        elif logged.kind == PREDICT_LOG:
            reason = _why_no_predict(logged, known)
        else:
            reason = _why_no_examples(logged, signatures)
        if reason:
            passed_over[reason] += 1
        else:
            fitting[_shape(logged)].append((each.file, each.number))
    return fitting, passed_over


def _why_no_predict(logged: Logged, known: Mapping[str, Signature]) -> str:
    if logged.signature not in known:
        return f'the version has no signature "{logged.signature}"'
    specs, tensors = known[logged.signature].inputs, logged.request.inputs
    for name in specs.keys() ^ set(tensors):
        what = "is missing" if name in specs else "is none of the signature's"
        return f'"{logged.signature}": the input "{name}" {what}'
    for name, spec in specs.items():
        tensor, shape = tensors[name], _sizes(tensors[name])
        if tensor.dtype != data_type_of(spec.dtype) or not spec.accepts(shape):
            got = f"{data_type_name(tensor.dtype)} {shape_text(shape)}"
            return f'"{logged.signature}": "{name}" takes {spec}, not {got}'
    return ""


def _why_no_examples(logged: Logged, signatures: Mapping[str, SignatureDef]) -> str:
    request = logged.request
    if logged.kind == MULTI_INFERENCE_LOG:
        asked = [(task.model_spec, task.method_name) for task in request.tasks]
    else:
        asked = [(request.model_spec, _METHODS[logged.kind])]
    for spec, method in asked:
        name = spec.signature_name or DEFAULT_SIGNATURE
        if name not in signatures or signatures[name].method_name != method:
            return f'the version has no signature "{name}" for {method}'
    return ""


def _shape(logged: Logged) -> object:
    if logged.kind != PREDICT_LOG:
        return logged.kind, logged.signature, logged.rows
    inputs = logged.request.inputs
    return logged.signature, tuple((name, _sizes(inputs[name])) for name in sorted(inputs))


def _sizes(tensor: TensorProto) -> tuple[int, ...]:
    return tuple(dim.size for dim in tensor.tensor_shape.dim)


def _sample(groups: Iterable[Sequence[Place]], most: int) -> Iterator[Place]:
    """Of each group one after the other; the same ones of the same captures."""
    dice = random.Random(0)
    shuffled = [dice.sample(group, len(group)) for group in groups]
    dice.shuffle(shuffled)
    in_turn = chain.from_iterable(zip_longest(*shuffled))
    return islice(filter(None, in_turn), most)


def _before(file: Path) -> Iterator[Logged]:
    """The requests of a warm-up file, as far as they can be read; none where there is no file."""
    with suppress(FileNotFoundError, BadRecord), file.open("rb") as opened:
        for record in read_frames(opened):
            yield read_log(record)


def _record(logged: Logged, model: str) -> bytes:
    """As a warm-up file has it: of this model, whichever version."""
    request: Any = logged.request
    for spec in [each.model_spec for each in getattr(request, "tasks", [request])]:
        spec.MergeFrom(ModelSpec(name=model))
        spec.ClearField("version_choice")
    return encode_log(logged.kind, request.SerializeToString(deterministic=True))


def _replace(file: Path, records: Iterable[bytes]) -> None:
    file.parent.mkdir(exist_ok=True)
    beside = file.with_name(f".{file.name}.{os.getpid()}")
    try:
        with beside.open("wb") as out:
            out.writelines(map(frame, records))
            out.flush()
            os.fsync(out.fileno())
        beside.replace(file)
    except OSError:
        beside.unlink(missing_ok=True)
        raise
