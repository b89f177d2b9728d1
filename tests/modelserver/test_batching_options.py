"""BatchingParameters as TensorFlow Serving reads them: from a flag's file, or from a version's."""

import os
import re
from pathlib import Path

import pytest
from google.protobuf import text_format

from service.modelserver.batching_options import (
    BatchingOptions,
    batch_threads,
    batching_options,
    batching_options_of,
)
from service.modelserver.errors import InvalidArgument
from sluice.wire.protos.serving_pb2 import BatchingParameters


def test_parameters_have_tensorflow_servings_defaults():
    assert batching_options(BatchingParameters()) == BatchingOptions()
    assert BatchingOptions()[:3] == (1000, 0.0, 10)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"max_batch_size": {"value": 8}, "allowed_batch_sizes": [1, 4]}, "expected 8"),
        ({"max_batch_size": {"value": 4}, "allowed_batch_sizes": [4, 2, 4]}, "increasing order"),
        ({"max_batch_size": {"value": 0}}, "max_batch_size must be positive; was 0"),
        (
            {"max_enqueued_batches": {"value": 0}, "enable_large_batch_splitting": {"value": True}},
            "max_enqueued_batches must be positive; was 0",
        ),
        (
            {"batch_timeout_micros": {"value": -1}},
            "batch_timeout_micros must be non-negative; was -1",
        ),
        (
            {
                "enable_large_batch_splitting": {"value": True},
                "max_batch_size": {"value": 4},
                "max_execution_batch_size": {"value": 5},
            },
            r"max_execution_batch_size must be from 1 to max_batch_size \(4\); was 5",
        ),
    ],
)
def test_contradictory_parameters_are_refused(given, message):
    with pytest.raises(InvalidArgument, match=message):
        batching_options(BatchingParameters(**given))


def test_the_documented_file_is_read_as_it_says():
    page = Path(__file__).parents[2] / "docs" / "modelserver.md"
    text = re.search(r"## Batching\n.*?```\n(.*?)```", page.read_text(), re.DOTALL)[1]
    parameters = text_format.Parse(text, BatchingParameters())
    assert batch_threads(parameters) == 2
    assert batching_options(parameters) == BatchingOptions(
        max_batch_size=128, max_enqueued_batches=100, allowed_sizes=(8, 32, 128), split_at=32
    )


def test_there_must_be_threads():
    assert batch_threads(BatchingParameters()) == os.cpu_count()
    with pytest.raises(InvalidArgument, match="num_batch_threads must be positive; was 0"):
        batch_threads(BatchingParameters(num_batch_threads={"value": 0}))


def test_a_queue_of_no_batches_is_one_of_one():
    assert (
        batching_options(BatchingParameters(max_enqueued_batches={"value": 0})).max_enqueued_batches
        == 1
    )


@pytest.mark.parametrize(
    ("given", "limit"),
    [
        ({}, 8),
        ({"max_execution_batch_size": {"value": 2}}, 8),  # says nothing without splitting
        ({"enable_large_batch_splitting": {"value": True}}, 8),
        (
            {
                "enable_large_batch_splitting": {"value": True},
                "max_execution_batch_size": {"value": 2},
            },
            2,
        ),
    ],
)
def test_a_batch_is_full_at_the_execution_size_where_calls_are_split(given, limit):
    options = batching_options(BatchingParameters(max_batch_size={"value": 8}, **given))
    assert (options.max_batch_size, options.batch_limit) == (8, limit)


def test_a_version_without_parameters_of_its_own_is_not_batched(tmp_path):
    assert batching_options_of(tmp_path) is None


def test_a_version_says_nothing_about_threads(tmp_path):
    (tmp_path / "batching_params.pbtxt").write_text(
        "batch_timeout_micros { value: 5000 } num_batch_threads { value: 0 }"
    )
    assert batching_options_of(tmp_path) == BatchingOptions(timeout_s=0.005)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("max_batch_size: 4", "batching_params.pbtxt"),
        ("max_batch_size { value: 0 }", "max_batch_size must be positive"),
    ],
)
def test_a_versions_parameters_that_cannot_be_followed_fail_its_load(tmp_path, text, message):
    (tmp_path / "batching_params.pbtxt").write_text(text)
    with pytest.raises(InvalidArgument, match=message):
        batching_options_of(tmp_path)
