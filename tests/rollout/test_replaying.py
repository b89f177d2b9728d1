"""A replay and its file: nothing is decided by what is not written, and nothing is written over."""

from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import numpy as np
import pytest

from service.captures import Captures
from service.rollout import state
from service.rollout.evidence import REPLAYED, Evidence, evidence_directory, write_evidence
from service.rollout.replaying import Replaying
from service.rollout.watch import Action, Verdict
from sluice.wire.model_ref import ModelRef
from sluice.wire.prediction_logs import PREDICT_LOG, encode_log, log_about
from sluice.wire.protos.serving_pb2 import PredictRequest
from sluice.wire.rollouts import Stage
from sluice.wire.tensors import encode_tensor
from sluice.wire.tfrecords import frame

NOBODY = "127.0.0.1:1"


@pytest.fixture
def digits(tmp_path: Path) -> Path:
    for number in "12":
        (tmp_path / "digits" / number).mkdir(parents=True)
        (tmp_path / "digits" / number / "saved_model.pb").touch()
    state.start(tmp_path / "digits", 2, stage=Stage.REPLAY)
    return tmp_path / "digits"


def file_of(digits: Path) -> Path:
    return evidence_directory(digits, state.start(digits, 2).id) / REPLAYED


@contextmanager
def replaying(digits: Path) -> Iterator[Replaying]:
    """Of one captured request, and nobody to ask it."""
    request = PredictRequest(model_spec=ModelRef("digits").to_proto("serving_default"))
    request.inputs["x"].CopyFrom(encode_tensor(np.float32([1])))
    about = log_about(ModelRef("digits", 1), 1_800_000_000)
    file = digits.parent / "2026-11-26.tfrecord"
    file.write_bytes(frame(encode_log(PREDICT_LOG, request.SerializeToString(), about)))
    with closing(Replaying(digits, state.start(digits, 2), Captures(file), NOBODY, None)) as found:
        yield found


def ended(digits: Path, **counted: int) -> Verdict:
    """The verdict where so much has been counted by whoever had the turn before."""
    write_evidence(file_of(digits), Evidence(state.start(digits, 2).id, **counted))
    with replaying(digits) as found:
        found.go_on(60)
        return found.verdict()


def test_it_goes_on_only_once_what_was_counted_is_written(digits: Path) -> None:
    write_evidence(file_of(digits), Evidence(state.start(digits, 2).id, pairs=1))
    with replaying(digits) as found:
        assert found.verdict().action is Action.WAIT
        beside = file_of(digits).with_name(f".{REPLAYED}.new")
        beside.mkdir()
        for _ in range(2):
            with pytest.raises(OSError, match=REPLAYED):
                found.go_on(60)
            assert found.verdict().action is Action.WAIT
        beside.rmdir()
        found.go_on(60)
        assert found.verdict().action is Action.ADVANCE


def test_what_cannot_be_read_now_is_not_written_over(digits: Path) -> None:
    loop = file_of(digits)
    loop.parent.mkdir(parents=True)
    loop.symlink_to(loop)
    with replaying(digits) as found:
        for ask in (found.verdict, lambda: found.go_on(0)):
            with pytest.raises(OSError, match="symbolic links"):
                ask()
        assert loop.is_symlink()
        loop.unlink()
        write_evidence(loop, Evidence(state.start(digits, 2).id, pairs=1))
        assert "1 captured requests compared" in found.verdict().why


@pytest.mark.parametrize("text", ["", "{", "[]", '{"pairs": 3}'])
def test_what_is_no_evidence_begins_anew(digits: Path, text: str) -> None:
    file_of(digits).parent.mkdir(parents=True)
    file_of(digits).write_text(text)
    with replaying(digits) as found:
        assert found.verdict() == Verdict(Action.WAIT, "0 captured requests compared")


def test_what_neither_version_answers_is_told_and_shows_nothing(digits: Path) -> None:
    told = "0 captured requests compared (3 more answered by neither version), which shows nothing"
    assert ended(digits, dropped=3) == Verdict(Action.ADVANCE, told)
    assert ended(digits, pairs=1).why == "1 captured requests compared, all within bounds"
