"""A TensorFlow session by its handle, without the Python that its graph was loaded by.

tf.Graph keeps Python objects of each op and function. No run needs them, and they are full of
cycles, which a full collection of garbage alone frees, while every request in the process waits:
once more, and the longest, when a version has just replaced another. So they are taken apart when
the graph has been loaded, and a version that is unloaded has nothing left but what TensorFlow frees
without Python's lock.
"""

import threading
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import tensorflow as tf
from tensorflow.core.protobuf.config_pb2 import CallableOptions, RunOptions
from tensorflow.python.client import pywrap_tf_session
from tensorflow.python.framework.ops import dismantle_graph

from sluice.wire.tensors import Array


class Session:
    """Takes over a tf.compat.v1.Session, which with its graph is of no use from then on. `tensors`
    are the names that `run` may be asked for, as far as the graph has them. Thread-safe."""

    def __init__(self, session: tf.compat.v1.Session, tensors: Iterable[str] = ()) -> None:
        self._places = _places(session.graph, tensors)
        pywrap_tf_session.ExtendSession(session._session)
        self.handle, session._session = session._session, None
        self.lock = threading.RLock()  # what a callable is freed under; garbage may be one, too
        dismantle_graph(session.graph)

    def make_callable(self, options: CallableOptions) -> "SessionCallable":
        """Raises what TensorFlow raises. What Session.make_callable wraps around it costs as much
        again as a small model."""
        return SessionCallable(self, options)

    def run(
        self, feeds: Mapping[str, Array], fetches: Sequence[str], options: RunOptions
    ) -> list[Array]:
        """With options of its own, which a callable is given once for all its runs."""
        # Session.run wraps this in as much Python as Session.make_callable does a callable.
        buffer = pywrap_tf_session.TF_NewBufferFromString(options.SerializeToString())
        try:
            outputs: list[Array] = pywrap_tf_session.TF_SessionRun_wrapper(
                self.handle,
                buffer,
                {self._places[name]: array for name, array in feeds.items()},
                [self._places[name] for name in fetches],
                [],
                None,
            )
        finally:
            pywrap_tf_session.TF_DeleteBuffer(buffer)
        return outputs

    def close(self) -> None:
        """Free the graph and its memory. Nobody runs anything by then, nor later."""
        with self.lock:
            handle, self.handle = self.handle, None
        try:
            pywrap_tf_session.TF_CloseSession(handle)
        finally:
            pywrap_tf_session.TF_DeleteSession(handle)


class SessionCallable:
    """What a session was asked to run, prepared; called with the arrays to feed, in the order of
    the options."""

    def __init__(self, session: Session, options: CallableOptions) -> None:
        self._session, self._handle = session, None
        buffer = pywrap_tf_session.TF_NewBufferFromString(options.SerializeToString())
        try:
            self._handle = pywrap_tf_session.TF_SessionMakeCallable(session.handle, buffer)
        finally:
            pywrap_tf_session.TF_DeleteBuffer(buffer)

    def __call__(self, *arrays: Array) -> list[Array]:
        outputs: list[Array] = pywrap_tf_session.TF_SessionRunCallable(
            self._session.handle, self._handle, arrays, None
        )
        return outputs

    def __del__(self) -> None:
        with self._session.lock:
            if self._handle is not None and self._session.handle is not None:
                pywrap_tf_session.TF_SessionReleaseCallable(self._session.handle, self._handle)


def _places(graph: tf.Graph, tensors: Iterable[str]) -> dict[str, Any]:
    found = {}
    for name in tensors:
        try:
            found[name] = graph.get_tensor_by_name(name)._as_tf_output()
        except (KeyError, ValueError):  # a signature may name what is not there
            continue
    return found
