"""One loaded version of a model: a SavedModel in a TensorFlow session of its own.

The TF1 loader takes every SavedModel, those that `tf.saved_model.load` refuses included, and a
session's callable costs less a call than a signature function does.
"""

import threading
import time
from collections.abc import Callable, Container, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, Protocol, TypeVar

import tensorflow as tf
from tensorflow.core.protobuf.config_pb2 import CallableOptions, RunOptions

from service.modelserver.batching_options import BatchingOptions
from service.modelserver.errors import DataLoss, InvalidArgument, NotFound, status_of
from service.modelserver.graphs import can_end_early
from service.modelserver.input_shapes import expected_inputs
from service.modelserver.once import Once
from service.modelserver.session import Session, SessionCallable
from service.modelserver.tags import why_no_graph
from sluice.wire.protos.tensorflow_pb2 import SignatureDef
from sluice.wire.signature import TensorSpec, shape_text
from sluice.wire.tensors import Array
from sluice.wire.versions import why_no_saved_model

# A client can name any subset of a signature's outputs; each subset is a callable of its own.
_MAX_CALLABLES = 64
_IN_CALLERS_THREAD = RunOptions(inter_op_thread_pool=-1)

Tensors = dict[str, Array]  # by TensorFlow's own names, as in a Run


class Run(NamedTuple):
    """What TensorFlow is asked to do, in its own tensor names (`serving_default_x:0`)."""

    feeds: dict[str, Array]
    fetches: tuple[str, ...]  # no name twice


class Planned(Protocol):
    """A request held against a version's signatures: it says what to run."""

    run: Run


Request = TypeVar("Request")
Plan = TypeVar("Plan", bound=Planned)


class Servable:
    """A session and the signatures it can run. Thread-safe.

    `batching`: how its runs may be joined; None: not at all. `expected`: by the tensor that is fed,
    what it must be; nothing is known of the others. `ending`: the outputs whose runs may end early.
    `in_callers_thread`: whether a run's ops follow one another in the thread that asks for it. To
    hand them to TensorFlow's threads and back takes a fifth of the time of a small run; each op is
    still shared out to all cores.
    """

    def __init__(
        self,
        session: Session,
        signatures: Mapping[str, SignatureDef],
        batching: BatchingOptions | None = None,
        expected: Mapping[str, TensorSpec] | None = None,
        ending: Container[str] = (),
        in_callers_thread: bool = False,
    ) -> None:
        self.signatures, self.batching = signatures, batching
        self._expected, self._ending = expected or {}, ending
        self._in_callers_thread = in_callers_thread
        self._session = session
        self._callable = Once(self._make_callable, _MAX_CALLABLES)
        self._running = 0
        self._idle = threading.Condition()  # guards _running

    def plan(
        self, make: Callable[[Mapping[str, SignatureDef], Request], Plan], request: Request
    ) -> Plan:
        """The request, held against the signatures, and its inputs against what they must be.

        Raises InvalidArgument for an input whose shape contradicts it, and what `make` raises.
        """
        plan = make(self.signatures, request)
        for tensor, array in plan.run.feeds.items():
            spec = self._expected.get(tensor)
            if spec is not None and not spec.accepts(array.shape):
                raise _wrong_shape(spec, array.shape)
        return plan

    def run(self, run: Run, deadline: float | None = None) -> Tensors:
        """The fetched tensors by name. The GIL is released while TensorFlow computes.

        A run that may end early does at its `deadline`, on the monotonic clock: TensorFlow looks
        whether it may go on only between two rounds of a loop.
        Raises tf.errors.OpError as TensorFlow does, InvalidArgument where it fails to.
        """
        with self._idle:
            self._running += 1
        try:
            if any(name in self._ending for name in run.fetches):
                outputs = self._run_until(deadline, run)
            else:
                # Files and tf.Examples, which are strings, are decoded side by side.
                strings = any(array.dtype == object for array in run.feeds.values())
                do = self._callable(tuple(run.feeds), run.fetches, strings)
                outputs = do(*run.feeds.values())
        except UnicodeDecodeError as error:
            # TensorFlow quoted an input in its error, and its Python layer cannot take the bytes.
            raise InvalidArgument(error.object.decode(errors="backslashreplace")) from error
        finally:
            with self._idle:
                self._running -= 1
                self._idle.notify_all()
        return dict(zip(run.fetches, outputs, strict=True))

    def close(self) -> None:
        """Wait for the runs in progress, then free the model's memory.

        Nobody holds a lease by then, but a run whose caller hung up goes on in its thread.
        """
        with self._idle:
            self._idle.wait_for(lambda: self._running == 0)
        del self._callable  # it holds this, which would wait for the garbage collector
        self._session.close()

    def _run_until(self, deadline: float | None, run: Run) -> list[Array]:
        left_ms = 0 if deadline is None else max(int((deadline - time.monotonic()) * 1e3), 1)
        return self._session.run(run.feeds, run.fetches, RunOptions(timeout_in_ms=left_ms))

    def _make_callable(
        self, feeds: tuple[str, ...], fetches: tuple[str, ...], strings: bool
    ) -> SessionCallable:
        options = CallableOptions(feed=feeds, fetch=fetches)
        if self._in_callers_thread and not strings:
            options.run_options.CopyFrom(_IN_CALLERS_THREAD)
        return self._session.make_callable(options)


def load_servable(
    path: Path,
    tags: Sequence[str],
    session_config: Any,
    batching: BatchingOptions | None = None,
    check_shapes: bool = True,
) -> Servable:
    """Load the SavedModel in `path`; raises what TensorFlow raises (OpError, ...).

    Raises NotFound where there is none, or no graph with these tags, and DataLoss where its files
    are not whole.
    `check_shapes`: whether inputs are held against the shapes that the model takes.
    """
    if reason := why_no_saved_model(path):
        raise NotFound(reason)
    graph = tf.Graph()
    with graph.as_default():
        session = tf.compat.v1.Session(graph=graph, config=session_config)
        try:
            meta_graph = tf.compat.v1.saved_model.load(session, list(tags), str(path))
        except BaseException as error:  # whatever it was, nobody else could free the session
            session.close()
            if isinstance(error, RuntimeError) and (reason := why_no_graph(path, [*tags])):
                raise NotFound(reason) from error
            if _is_torn(error):
                raise DataLoss(
                    f"the SavedModel in {path} is damaged, as after a copy that was cut short: "
                    f"copy the version again ({status_of(error)[1]})"
                ) from error
            raise
    signatures = {  # TensorFlow's message class is not ours: the two are in pools of their own
        name: SignatureDef.FromString(signature.SerializeToString())
        for name, signature in meta_graph.signature_def.items()
    }
    expected = expected_inputs(signatures, meta_graph.graph_def) if check_shapes else {}
    inputs, outputs = (
        {info.name for each in signatures.values() for info in getattr(each, side).values()}
        for side in ("inputs", "outputs")
    )
    ending = {name for name in outputs if can_end_early(meta_graph.graph_def, name)}
    in_callers_thread = not (session_config and session_config.inter_op_parallelism_threads)
    bare = Session(session, inputs | outputs)
    return Servable(bare, signatures, batching, expected, ending, in_callers_thread)


def _is_torn(error: BaseException) -> bool:
    """Whether TensorFlow failed because of files that are missing, short or no SavedModel's."""
    if isinstance(error, tf.errors.NotFoundError):
        return "Op type not registered" not in error.message  # what is missing else is a file
    return isinstance(error, (OSError, tf.errors.DataLossError, tf.errors.OutOfRangeError)) or (
        isinstance(error, ValueError) and "not a valid checkpoint" in str(error)
    )


def _wrong_shape(spec: TensorSpec, shape: tuple[int, ...]) -> InvalidArgument:
    hint = spec.hint(shape)
    return InvalidArgument(
        f'input "{spec.name}" is expected to have the shape {shape_text(spec.shape)} but '
        f"{shape_text(shape)} is provided" + (f": {hint}" if hint else "")
    )
