"""The curves as TensorBoard reads them."""

from pathlib import Path
from types import TracebackType
from typing import Self

import tensorflow as tf

_VALIDATION = "validation_"


class CurvesLog:
    """One TensorBoard run each for training and validation, so that their curves share a chart.

    One file for each, kept open: of several, TensorBoard takes the last by name for the whole.
    A context manager.

    >>> from tempfile import TemporaryDirectory
    >>> with TemporaryDirectory() as directory, CurvesLog(Path(directory)) as log:
    ...     log.write({"loss": 1.0, "validation_loss": 2.0}, step=1)
    ...     sorted(path.name for path in Path(directory).iterdir())
    ['train', 'validation']
    """

    def __init__(self, directory: Path) -> None:
        self._writers = {
            prefix: tf.summary.create_file_writer(str(directory / run))
            for run, prefix in (("train", ""), ("validation", _VALIDATION))
        }

    def write(self, means: dict[str, float], step: int) -> None:
        """As raw messages: `tf.summary.scalar` asks for TensorBoard itself, which only reading
        needs."""
        for prefix, writer in self._writers.items():
            values = [
                tf.compat.v1.Summary.Value(tag=name.removeprefix(prefix), simple_value=value)
                for name, value in means.items()
                if name.startswith(_VALIDATION) == bool(prefix)
            ]
            with writer.as_default(step=step):
                tf.summary.experimental.write_raw_pb(
                    tf.compat.v1.Summary(value=values).SerializeToString()
                )
            writer.flush()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        for writer in self._writers.values():
            writer.close()
