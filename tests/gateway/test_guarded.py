"""`sluice rollout MODEL VERSION` before a real gateway: through all stages by itself, or back."""

import re
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner, Result

from service.captures import Captures
from service.rollout import state
from service.rollout.command import rollout
from service.rollout.evidence import Evidence, evidence_directory, read_evidence, write_evidence
from service.rollout.replaying import Replaying
from service.rollout.watch import Action
from sluice.wire.model_ref import ModelRef
from sluice.wire.prediction_logs import PREDICT_LOG, encode_log, log_about
from sluice.wire.protos.serving_pb2 import PredictRequest
from sluice.wire.rollout_files import read_rollout
from sluice.wire.rollouts import Stage
from sluice.wire.tensors import encode_tensor
from sluice.wire.tfrecords import frame
from tests.gateway.rollouts import Door, eventually

GUARD = """
pairs = 40
seconds = 0
[allowed]
class = 0.5
mask = 0.5
value = 0.5
slower = 1  # both are asked on a machine that does much else
[times]
slow = 1e6
[[steps]]
share = 0.5
requests = 10
"""


@contextmanager
def asked(door: Door, model: str) -> Iterator[list[int]]:
    """Requests one after the other meanwhile; the statuses of their answers."""
    statuses: list[int] = []
    over = threading.Event()

    def ask() -> None:
        while not over.wait(0.01):
            statuses.append(door.predict(model).status_code)

    asking = threading.Thread(target=ask)
    asking.start()
    try:
        yield statuses
    finally:
        over.set()
        asking.join()


def roll_out(door: Door, model: str, guard: Path, *options: str) -> Result:
    arguments = [model, "2", f"--model-repository={door.repository}", f"--guard={guard}", *options]
    return CliRunner().invoke(rollout, arguments)


@pytest.fixture
def guard(tmp_path: Path) -> Path:
    path = tmp_path / "guard.toml"
    path.write_text(GUARD)
    return path


@pytest.fixture
def captures(tmp_path: Path) -> Path:
    """Of 30 requests to each model."""
    path = tmp_path / "captures"
    path.mkdir()
    records = [captured(model, np.float32([x])) for x in range(30) for model in ("same", "moved")]
    (path / "2026-11-26.tfrecord").write_bytes(b"".join(records))
    return path


def captured(model: str, x: np.ndarray) -> bytes:
    """A request, as it lies in a file of captures."""
    request = PredictRequest(model_spec=ModelRef(model).to_proto("serving_default"))
    request.inputs["x"].CopyFrom(encode_tensor(x))
    about = log_about(ModelRef(model, 1), 1_800_000_000)
    return frame(encode_log(PREDICT_LOG, request.SerializeToString(), about))


def stages(directory: Path) -> list[Stage]:
    ended = read_rollout(directory)
    assert ended is not None
    return [event.stage for event in ended.history]


def test_a_version_that_answers_the_same_comes_to_answer_all(
    door: Door, guard: Path, captures: Path
) -> None:
    directory = door.fresh("same")
    capture = [f"--capture={captures}", f"--model-server={door.grpc}"]
    with asked(door, "same") as statuses:
        result = roll_out(door, "same", guard, *capture)
    assert result.exit_code == 0, result.output
    assert "replay: 30 captured requests compared, all within bounds" in result.output
    assert stages(directory) == [Stage.REPLAY, Stage.SHADOW, Stage.CANARY, Stage.PROMOTED]
    assert "same: promoted: version 2 answers" in result.output
    assert set(statuses) == {200}
    again = roll_out(door, "same", guard, *capture)
    assert (again.exit_code, "same: promoted: version 2 answers" in again.output) == (0, True)


def test_what_captured_requests_show_nobody_meets(door: Door, guard: Path, captures: Path) -> None:
    """Not a request comes meanwhile, and none is needed."""
    directory = door.fresh("moved")
    result = roll_out(door, "moved", guard, f"--capture={captures}", f"--model-server={door.grpc}")
    assert result.exit_code == 1, result.output
    assert stages(directory) == [Stage.REPLAY, Stage.ROLLED_BACK]
    # All that were asked by then: a busy machine has not asked all of them at the first look.
    assert re.search(r"\b(\d+) of \1 had another value \(allowed: 0\.5\)", result.output)


def test_a_replay_waits_for_a_server_and_goes_on_after_what_it_has_counted(
    door: Door, captures: Path
) -> None:
    """As after a command that was killed in the middle, while the model server was away."""
    directory = door.fresh("same")
    begun = state.start(directory, 2, stage=Stage.REPLAY)
    counted = Evidence(begun.id, pairs=29, asked={"2026-11-26.tfrecord": 57})
    write_evidence(evidence_directory(directory, begun.id) / "replay.json", counted)
    with closing(Replaying(directory, begun, Captures(captures), "127.0.0.1:1", None)) as away:
        away.go_on(0.1)
        assert "29 captured requests compared; 2 at 127.0.0.1:1 cannot" in away.verdict().why
        assert away.verdict().action is Action.WAIT
    with closing(Replaying(directory, begun, Captures(captures), door.grpc, None)) as back:
        eventually(lambda: back.go_on(0.1) or back.verdict().action is Action.ADVANCE)
    seen = read_evidence(directory, begun.id)
    assert (seen.pairs, seen.shadow_next.requests, seen.changed) == (30, 1, 0)


def test_what_both_versions_refuse_is_no_pair_of_equals(door: Door, tmp_path: Path) -> None:
    """Else requests that nobody can answer would show that the two answer alike."""
    directory = door.fresh("same")
    begun = state.start(directory, 2, stage=Stage.REPLAY)
    good, refused = captured("same", np.float32([1])), captured("same", np.array([[b"one"]]))
    file = tmp_path / "2026-11-26.tfrecord"
    file.write_bytes(good + refused + good)
    for _ in range(2):  # and what was dropped is not asked again
        with closing(Replaying(directory, begun, Captures(file), door.grpc, None)) as replaying:
            eventually(
                lambda replaying=replaying: (
                    replaying.go_on(0.1) or replaying.verdict().action is Action.ADVANCE
                )
            )
            told = "2 captured requests compared (1 more answered by neither version)"
            assert replaying.verdict().why == f"{told}, all within bounds"
        seen = read_evidence(directory, begun.id)
        assert (seen.pairs, seen.dropped, seen.changed) == (2, 1, 0)
        assert (seen.shadow_live.errors, seen.shadow_next.errors) == (0, 0)


def test_one_that_answers_otherwise_goes_back_before_anybody_has_met_it(
    door: Door, guard: Path
) -> None:
    directory = door.fresh("moved")
    with asked(door, "moved") as statuses:
        result = roll_out(door, "moved", guard)
    assert result.exit_code == 1, result.output
    assert stages(directory) == [Stage.SHADOW, Stage.ROLLED_BACK]
    assert "had another value (allowed: 0.5)" in result.output
    assert set(statuses) == {200}
    assert door.predict("moved").json() == {"predictions": [2.5]}


def test_what_is_wrong_with_a_guard_is_told_before_anything_begins(door: Door, guard: Path) -> None:
    directory = door.fresh("same")
    guard.write_text("pair = 3")
    result = roll_out(door, "same", guard)
    assert result.exit_code == 1
    assert "pair is not known; did you mean pairs?" in result.output
    assert read_rollout(directory) is None


def test_captures_without_the_model_are_told_before_anything_begins(
    door: Door, guard: Path, captures: Path
) -> None:
    directory = door.fresh("absent")
    result = roll_out(door, "absent", guard, f"--capture={captures}")
    assert f"{captures} holds no request of absent" in result.output
    (captures / "2026-11-26.tfrecord").unlink()
    result = roll_out(door, "absent", guard, f"--capture={captures}")
    assert f"{captures} holds no captures" in result.output
    assert (result.exit_code, read_rollout(directory)) == (1, None)
