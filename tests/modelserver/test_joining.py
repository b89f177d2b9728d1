"""What becomes of the arrays when runs are joined; the rest is test_batching's."""

import numpy as np
import pytest

from service.modelserver.batching_options import BatchingOptions
from service.modelserver.errors import FailedPrecondition
from service.modelserver.joining import glue, join, split
from service.modelserver.servable import Run


def test_a_joined_batch_lies_where_tensorflow_reads_it_without_a_copy():
    for dtype in ("u1", "f4", "f8"):
        runs = [Run({"x": np.arange(count, dtype=dtype)}, ("y",)) for count in range(1, 6)]
        for number in range(2, 6):  # numpy's own arrays begin at a multiple of 16
            joined = join(runs[:number], BatchingOptions()).feeds["x"]
            assert joined.ctypes.data % 64 == 0
            assert joined.tolist() == [value for run in runs[:number] for value in run.feeds["x"]]


def test_the_parts_of_a_run_are_its_own_memory():
    run = Run(
        {"x": np.arange(6.0), "s": np.array([b"a", b"b", b"c", b"d", b"e", b"f"], "O")}, ("y",)
    )
    parts = list(split(run, [4, 2]))
    assert [part.feeds["x"].tolist() for part in parts] == [[0, 1, 2, 3], [4, 5]]
    assert all(np.shares_memory(part.feeds["x"], run.feeds["x"]) for part in parts)
    assert glue([part.feeds for part in parts])["s"].tolist() == run.feeds["s"].tolist()


def test_parts_that_came_back_in_different_shapes_are_told():
    with pytest.raises(FailedPrecondition, match=r"y cannot be .* \[\(2, 3\), \(1, 4\)\]"):
        glue([{"y": np.ones((2, 3))}, {"y": np.ones((1, 4))}])
