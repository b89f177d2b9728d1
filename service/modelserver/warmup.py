"""Warm-up: a version's own requests are run before it takes traffic.

They lie in `assets.extra/tf_serving_warmup_requests`, a TFRecord file of PredictionLog.
"""

import logging
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import tensorflow as tf
from google.protobuf.message import DecodeError

from service.modelserver.errors import InvalidArgument, ServingError
from service.modelserver.examples import ClassifyPlan, MultiInferencePlan, RegressPlan
from service.modelserver.predict import PredictPlan
from service.modelserver.servable import Servable
from sluice.wire.contract import MAX_WARMUP_RECORDS, WARMUP_FILE
from sluice.wire.protos.serving_pb2 import PredictionLog
from sluice.wire.reasons import plain_reason

log = logging.getLogger(__name__)

_PLANS: dict[str, Any] = {
    "predict_log": PredictPlan,
    "classify_log": ClassifyPlan,
    "regress_log": RegressPlan,
    "multi_inference_log": MultiInferencePlan,
}


def warm_up(servable: Servable, path: Path, iterations: int = 1) -> int:
    """Run every record of the version in `path`, each `iterations` times; how many there were.

    Raises InvalidArgument with the number of the first record that cannot be read or run.
    """
    file = path / WARMUP_FILE
    if not file.exists():
        log.info("No warmup data file found at %s", file)
        return 0
    started, number = time.monotonic(), 0
    for number, record in enumerate(_records(file), start=1):
        if number > MAX_WARMUP_RECORDS:
            raise InvalidArgument(
                f"Number of warmup records exceeds the maximum ({MAX_WARMUP_RECORDS}) at {file}"
            )
        for _ in range(iterations):
            _run(servable, record, number)
    log.info("Ran %d warmup records of %s in %.1f s", number, file, time.monotonic() - started)
    return number


def _records(file: Path) -> Iterator[bytes]:
    number = 0
    try:
        for record in tf.compat.v1.io.tf_record_iterator(str(file)):
            number += 1
            yield record
    except tf.errors.DataLossError as error:
        raise InvalidArgument(
            f"warmup record {number + 1} of {file}: {error.message}. Please "
            "verify your warmup data is in TFRecord format."
        ) from error


def _run(servable: Servable, record: bytes, number: int) -> None:
    try:
        entry = PredictionLog.FromString(record)
        kind = entry.WhichOneof("log_type")
        if kind is None:
            raise InvalidArgument("it holds none of Predict, Classify, Regress and MultiInference")
        plan = servable.plan(_PLANS[kind], getattr(entry, kind).request)
        plan.respond(servable.run(plan.run), version=0)
    except (ServingError, tf.errors.OpError, DecodeError) as error:
        reason = str(error)
        if isinstance(error, tf.errors.OpError):
            reason = plain_reason(error.message)
        raise InvalidArgument(f"warmup record {number} failed: {reason}") from error
