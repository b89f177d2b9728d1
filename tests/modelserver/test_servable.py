"""Where a run's ops run, and what is prepared for the next."""

import threading
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import tensorflow as tf

from service.modelserver import servable as servable_module
from service.modelserver.servable import Run, Servable
from service.modelserver.session import Session


@pytest.mark.parametrize(
    ("in_callers_thread", "dtype", "is_callers"),
    [
        pytest.param(True, np.float32, True, id="numbers"),
        pytest.param(True, object, False, id="strings"),
        pytest.param(False, np.float32, False, id="where TensorFlow is told how many threads"),
    ],
)
def test_ops_follow_one_another_in_the_callers_thread(in_callers_thread, dtype, is_callers):
    with tf.Graph().as_default() as graph:
        given = tf.compat.v1.placeholder(tf.string if dtype is object else tf.float32, [1])
        thread = tf.numpy_function(lambda _: np.int64(threading.get_ident()), [given], tf.int64)
        run = Run({given.name: np.array([b"1"], object).astype(dtype)}, (thread.name,))
    session = Session(tf.compat.v1.Session(graph=graph))
    servable = Servable(session, {}, in_callers_thread=in_callers_thread)
    (found,) = servable.run(run).values()
    servable.close()
    assert (int(found) == threading.get_ident()) == is_callers


class Counting(Session):
    """How often something was prepared."""

    made = 0

    def make_callable(self, options):
        self.made += 1
        return super().make_callable(options)


def test_what_many_ask_for_first_is_prepared_once():
    with tf.Graph().as_default() as graph:
        given = tf.compat.v1.placeholder(tf.float32, [1])
        output = tf.identity(given).name

    class Slowly(Counting):
        def make_callable(self, options):
            everybody.wait(60)
            return super().make_callable(options)

    session = Slowly(tf.compat.v1.Session(graph=graph), [given.name, output])
    servable, everybody = Servable(session, {}), threading.Event()
    run = Run({given.name: np.ones(1, np.float32)}, (output,))
    with ThreadPoolExecutor(8) as pool:
        answers = [pool.submit(servable.run, run) for _ in range(8)]
        while servable._running < len(answers):
            time.sleep(0.01)
        everybody.set()
        assert [answer.result()[output].tolist() for answer in answers] == [[1]] * len(answers)
    servable.close()
    assert session.made == 1


def test_what_cannot_be_prepared_is_tried_anew(monkeypatch):
    with tf.Graph().as_default() as graph:
        given = tf.compat.v1.placeholder(tf.float32, [1])
        output = tf.identity(given).name
    session = Session(tf.compat.v1.Session(graph=graph), [given.name, output])
    servable = Servable(session, {})
    run = Run({given.name: np.ones(1, np.float32)}, (output,))
    with monkeypatch.context() as broken, pytest.raises(MemoryError):
        broken.setattr(session, "make_callable", lambda _: (_ for _ in ()).throw(MemoryError))
        servable.run(run)
    assert servable.run(run)[output].tolist() == [1]
    servable.close()


def test_what_was_asked_last_stays_prepared(monkeypatch):
    """Whatever was asked before: a client can name any subset of the outputs."""
    monkeypatch.setattr(servable_module, "_MAX_CALLABLES", 2)
    with tf.Graph().as_default() as graph:
        given = tf.compat.v1.placeholder(tf.float32, [1])
        outputs = [tf.identity(given).name for _ in range(3)]
    session = Counting(tf.compat.v1.Session(graph=graph), [given.name, *outputs])
    servable = Servable(session, {})
    for name in (*outputs, outputs[-1]):
        servable.run(Run({given.name: np.ones(1, np.float32)}, (name,)))
    servable.close()
    assert session.made == len(outputs)
