"""How runs are joined: TensorFlow Serving's BatchingParameters, its defaults and its checks."""

import os
from pathlib import Path
from typing import NamedTuple

from service.modelserver.errors import InvalidArgument, StartError
from service.modelserver.files import read_text_proto
from sluice.wire.protos.serving_pb2 import BatchingParameters

PER_MODEL_FILE = "batching_params.pbtxt"  # in the version's directory


class BatchingOptions(NamedTuple):
    """BatchingParameters with TensorFlow Serving's defaults. Sizes are in rows."""

    max_batch_size: int = 1000  # of one call; without splitting, of one batch as well
    timeout_s: float = 0.0
    max_enqueued_batches: int = 10
    allowed_sizes: tuple[int, ...] = ()  # a batch is filled up to the next of these
    pad_variable_lengths: bool = False
    split_at: int | None = None  # calls are cut into batches of this size; None: never

    @property
    def batch_limit(self) -> int:
        """The size of a batch that is full."""
        return self.split_at or self.max_batch_size

    @property
    def run_at_once(self) -> bool:
        """Whether a call that finds a free thread has nothing to wait for."""
        return not (self.timeout_s or self.allowed_sizes)


def batching_options(parameters: BatchingParameters) -> BatchingOptions:
    """Raises InvalidArgument for parameters that contradict each other."""
    given = {
        name: getattr(parameters, name).value
        for name in (
            "max_batch_size",
            "batch_timeout_micros",
            "max_enqueued_batches",
            "max_execution_batch_size",
        )
        if parameters.HasField(name)
    }
    max_batch_size = given.get("max_batch_size", BatchingOptions().max_batch_size)
    enqueued = given.get("max_enqueued_batches", BatchingOptions().max_enqueued_batches)
    splits = parameters.enable_large_batch_splitting.value
    options = BatchingOptions(
        max_batch_size,
        given.get("batch_timeout_micros", 0) / 1e6,
        enqueued or (0 if splits else 1),  # TensorFlow Serving: there are models that say 0
        tuple(parameters.allowed_batch_sizes),
        parameters.pad_variable_length_inputs,
        given.get("max_execution_batch_size", max_batch_size) if splits else None,
    )
    _check(options)
    return options


def batch_threads(parameters: BatchingParameters) -> int:
    """How many batches run at the same time, of all models. Raises InvalidArgument."""
    if not parameters.HasField("num_batch_threads"):
        return os.cpu_count() or 1
    threads = parameters.num_batch_threads.value
    if threads < 1:
        raise InvalidArgument(f"num_batch_threads must be positive; was {threads}")
    return threads


def batching_options_of(version: Path) -> BatchingOptions | None:
    """What a version asks for in a file of its own; None, not to be batched, without one.

    Raises InvalidArgument.
    """
    file = version / PER_MODEL_FILE
    if not file.exists():
        return None
    try:
        return batching_options(read_text_proto(str(file), BatchingParameters()))
    except StartError as error:  # the server runs: only this version cannot
        raise InvalidArgument(str(error)) from error


def _check(options: BatchingOptions) -> None:
    for name in ("max_batch_size", "max_enqueued_batches"):
        if getattr(options, name) < 1:
            raise InvalidArgument(f"{name} must be positive; was {getattr(options, name)}")
    if options.timeout_s < 0:
        raise InvalidArgument(
            f"batch_timeout_micros must be non-negative; was {options.timeout_s * 1e6:.0f}"
        )
    if options.split_at is not None and not 1 <= options.split_at <= options.max_batch_size:
        raise InvalidArgument(
            f"max_execution_batch_size must be from 1 to max_batch_size "
            f"({options.max_batch_size}); was {options.split_at}"
        )
    sizes = options.allowed_sizes
    if sizes and (list(sizes) != sorted(set(sizes)) or sizes[0] < 1):
        raise InvalidArgument(f"allowed_batch_sizes entries must be in increasing order: {sizes}")
    if sizes and sizes[-1] != options.max_batch_size:
        raise InvalidArgument(
            "Last entry in allowed_batch_sizes must match max_batch_size; last "
            f"entry was {sizes[-1]}; expected {options.max_batch_size}"
        )
