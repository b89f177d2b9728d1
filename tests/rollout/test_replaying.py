"""A replay and its file: nothing is decided by what is not written, and nothing is written over."""

import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from pathlib import Path

import grpc
import numpy as np
import pytest

from service.captures import Captures
from service.gateway.capture_files import CaptureFiles
from service.rollout import state
from service.rollout.evidence import (
    REPLAYED,
    Evidence,
    evidence_directory,
    evidence_in,
    write_evidence,
)
from service.rollout.replaying import Replaying
from service.rollout.watch import Action, Verdict
from sluice.wire.model_ref import ModelRef
from sluice.wire.prediction_logs import PREDICT_LOG, encode_log, log_about
from sluice.wire.protos.serving_pb2 import PredictRequest, PredictResponse
from sluice.wire.protos.serving_pb2_grpc import (
    PredictionServiceServicer,
    add_PredictionServiceServicer_to_server,
)
from sluice.wire.rollouts import Stage
from sluice.wire.tensors import decode_tensor, encode_tensor
from sluice.wire.tfrecords import frame
from tests.processes import RUNNING, free_port, leashed
from tests.system import toy_server

NOBODY = "127.0.0.1:1"
FILE = "2026-11-26.tfrecord"


@pytest.fixture
def digits(tmp_path: Path) -> Path:
    for number in "12":
        (tmp_path / "digits" / number).mkdir(parents=True)
        (tmp_path / "digits" / number / "saved_model.pb").touch()
    state.start(tmp_path / "digits", 2, stage=Stage.REPLAY)
    return tmp_path / "digits"


def file_of(digits: Path) -> Path:
    return evidence_directory(digits, state.start(digits, 2).id) / REPLAYED


def captured(x: float) -> bytes:
    """A request, as it lies in a file of captures."""
    request = PredictRequest(model_spec=ModelRef("digits").to_proto("serving_default"))
    request.inputs["x"].CopyFrom(encode_tensor(np.float32([x])))
    about = log_about(ModelRef("digits", 1), 1_800_000_000)
    return frame(encode_log(PREDICT_LOG, request.SerializeToString(), about))


@contextmanager
def asking(digits: Path, capture: Path, address: str) -> Iterator[Replaying]:
    """Of what is captured, as a command that begins now."""
    begun = state.start(digits, 2)
    with closing(Replaying(digits, begun, Captures(capture), address, None)) as found:
        yield found


@contextmanager
def replaying(digits: Path) -> Iterator[Replaying]:
    """Of one captured request, and nobody to ask it."""
    file = digits.parent / FILE
    file.write_bytes(captured(1))
    with asking(digits, file, NOBODY) as found:
        yield found


def ended(digits: Path, **counted: int) -> Verdict:
    """The verdict where so much has been counted by whoever had the turn before."""
    write_evidence(file_of(digits), Evidence(state.start(digits, 2).id, asked={FILE: 1}, **counted))
    with replaying(digits) as found:
        found.go_on(60)
        return found.verdict()


def test_it_goes_on_only_once_what_was_counted_is_written(digits: Path) -> None:
    counted = Evidence(state.start(digits, 2).id, pairs=1, asked={FILE: 1})
    write_evidence(file_of(digits), counted)
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


class Noting(PredictionServiceServicer):
    """Answers with what it is asked, and notes that, by version."""

    def __init__(self) -> None:
        self.asked: dict[int, list[float]] = {1: [], 2: []}

    def Predict(self, request: PredictRequest, _: grpc.ServicerContext) -> PredictResponse:  # noqa: N802
        (x,) = decode_tensor(request.inputs["x"])
        self.asked[request.model_spec.version.value].append(x)
        reply = PredictResponse(model_spec=request.model_spec)
        reply.outputs["y"].CopyFrom(request.inputs["x"])
        return reply


@pytest.fixture
def noting() -> Iterator[tuple[Noting, str]]:
    """A Noting server, and its address."""
    service, server = Noting(), grpc.server(ThreadPoolExecutor(1))
    add_PredictionServiceServicer_to_server(service, server)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    yield service, f"127.0.0.1:{port}"
    server.stop(0).wait()


def rotated(directory: Path, files: CaptureFiles, since: int) -> None:
    """Two more files, for which the two oldest go."""
    before = {*directory.iterdir()}
    for number in (since, since + 5):
        files.append([captured(x) for x in range(number, number + 5)])
    assert len(before - {*directory.iterdir()}) == 2


def grown(directory: Path, _: CaptureFiles, since: int) -> None:
    """The oldest file is longer: another worker had begun it first, and still writes to it."""
    with min(directory.iterdir()).open("ab") as file:
        file.writelines(captured(x) for x in range(since, since + 10))


@pytest.mark.parametrize("changed", [rotated, grown])
def test_begun_anew_it_asks_what_it_has_not_asked_whatever_has_become_of_the_files(
    digits: Path, tmp_path: Path, noting: tuple[Noting, str], changed
) -> None:
    """Of eight files of five requests two and a half are behind it."""
    service, address = noting
    capture = tmp_path / "captures"
    capture.mkdir()
    files = CaptureFiles(capture, 8 * 5 * len(captured(0)), 1e6, writers=1)
    for number in range(0, 40, 5):
        files.append([captured(x) for x in range(number, number + 5)])
    with asking(digits, capture, address) as first:
        while len(service.asked[2]) < 12:
            first.go_on(0.01)
    changed(capture, files, 40)
    with asking(digits, capture, address) as again:
        again.go_on(60)
        assert again.verdict().why == "50 captured requests compared, all within bounds"
    files.close()
    assert [sorted(each) for each in service.asked.values()] == 2 * [[*range(50)]]


class Toy:
    """toy_server.py at one address, begun again as often as it is asked to."""

    def __init__(self, dies: int) -> None:
        self._dies, self._port = f"--dies={dies}", free_port()
        self.address, self.begun = f"127.0.0.1:{self._port}", 0
        self.begin()

    def begin(self) -> None:
        command = leashed(
            sys.executable, "-P", toy_server.__file__, f"--port={self._port}", self._dies
        )
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        assert self.process.stdout is not None
        assert RUNNING.search(self.process.stdout.readline())
        self.begun += 1

    def end(self) -> None:
        self.process.kill()
        self.process.communicate()


@pytest.mark.parametrize("place", [4, 5])  # next is asked first every other time
@pytest.mark.parametrize("dies", [1, 2])
def test_what_a_server_died_of_is_asked_of_no_other(
    digits: Path, tmp_path: Path, place: int, dies: int
) -> None:
    """Else each that is begun anew dies of it too. It is next's error where next was asked it."""
    file = tmp_path / FILE
    file.write_bytes(b"".join(captured(-1 if number == place else 1) for number in range(10)))
    toy = Toy(dies)
    try:
        with asking(digits, file, toy.address) as found:
            while found.verdict().action is Action.WAIT:
                if toy.process.poll() is not None:
                    assert "cannot be asked" in found.verdict().why
                    toy.end()
                    toy.begin()
                found.go_on(0.1)
    finally:
        toy.end()
    assert toy.begun == 2
    seen = evidence_in(file_of(digits))
    is_nexts = dies == 2
    assert (seen.pairs, seen.dropped) == ((10, 0) if is_nexts else (9, 1))
    assert seen.changes == ({"error": 1} if is_nexts else {})
    assert (seen.shadow_live.errors, seen.shadow_next.errors) == (0, is_nexts)
