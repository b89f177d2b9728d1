"""Captured requests: which, what of them, and that nothing but the disk waits for the disk."""

import base64
import shutil
import subprocess
import time
import weakref

import grpc
import numpy as np
import pytest
import requests
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st

from service.captures import Captures
from service.cli import main
from service.gateway import capture_files, capturing
from service.gateway.access.keys import digest_of, new_key
from service.gateway.access_log import AccessLog
from service.gateway.caller import Caller
from service.gateway.capture_files import CaptureFiles
from service.gateway.capture_records import Records
from service.gateway.capturing import AT_A_TIME, MOST_BYTES_IN_LINE, SMALL, Capture
from service.gateway.model_server import CLASSIFY, encode_predict_request
from service.gateway.settings import Settings
from service.gateway.sizes import keep_little, kept_by
from service.gateway.telemetry import Telemetry
from service.gateway.traffic import kind_of
from sluice.wire.model_ref import ModelRef
from sluice.wire.prediction_logs import PREDICT_LOG, encode_log, log_about
from sluice.wire.protos.serving_pb2 import ClassificationRequest
from sluice.wire.protos.serving_pb2_grpc import PredictionServiceStub
from sluice.wire.protos.tensorflow_pb2 import Example, SequenceExample
from sluice.wire.tensors import decode_tensor
from tests.gateway.access import GRPC, HTTP

KEY = new_key("acme")
WRITTEN = 'sluice_captures_total{outcome="written"}'
ACCESS = f"""
[anonymous]
models = ["*"]

[keys.acme]
sha256 = "{digest_of(KEY)}"
models = ["*"]
"""


def eventually(condition):
    """What `condition` gives, once it gives something."""
    deadline = time.monotonic() + 60
    while not (found := condition()):
        assert time.monotonic() < deadline, "it did not come about"
        time.sleep(0.02)
    return found


def read(directory, model=None):
    """The requests captured so far, oldest first."""
    logged = [each.logged for each in Captures(directory)] if any(directory.iterdir()) else []
    return [each for each in logged if model in (None, each.model.name)]


@pytest.fixture(scope="module")
def door(launch_grpc_gateway, launch_gateway, modelserver, tmp_path_factory):
    """(gateways by way, the directory): all of one key's and of one model's requests are captured,
    and one input is left out."""
    directory = tmp_path_factory.mktemp("captures")
    access = directory.parent / "access.toml"
    access.write_text(ACCESS)
    settings = {
        "models": "affine,pair",
        "access_file": access,
        "capture_dir": directory / "made",
        "capture_share": 0,
        "capture_models": "pai*",
        "capture_keys": "acme",
        "capture_leave_out": "meta,secret",
    }
    front, address = launch_grpc_gateway(modelserver.address, **settings)
    wsgi = launch_gateway(modelserver.address, "wsgi", **settings)
    return {"front": front.url, "wsgi": wsgi.url, "grpc": address}, directory / "made"


def metrics(url):
    text = requests.get(f"{url}/metrics", headers={"X-API-Key": KEY}, timeout=30).text
    return {
        name: float(value)
        for name, _, value in (line.rpartition(" ") for line in text.splitlines())
        if name.startswith("sluice_capture")
    }


def test_each_request_of_every_dialect_is_one_record(door):
    ways, directory = door
    asked = [("front", "json"), ("front", "oip"), ("wsgi", "json"), ("grpc", "predict")]
    asked.append(("grpc", "infer"))
    before = len(read(directory))
    for way, dialect in asked:
        headers = {"X-API-Key": KEY, "X-Request-Id": "whose-it-is"}
        assert (HTTP | GRPC)[dialect](ways[way], "affine", headers).status == 200
    eventually(lambda: len(read(directory)) == before + len(asked))
    for logged in read(directory, "affine"):
        assert (logged.kind, logged.signature, logged.rows) == ("predict_log", "serving_default", 2)
        assert logged.model == ModelRef("affine", 2)
        assert [*decode_tensor(logged.request.inputs["x"])] == [1, 2]
        assert abs(logged.seconds - time.time()) < 600


def test_examples_are_captured_without_what_is_left_out(door):
    ways, directory = door
    request = ClassificationRequest()
    request.model_spec.name, request.model_spec.signature_name = "affine", "classify"
    features = request.input.example_list.examples.add().features.feature
    features["x"].float_list.value.append(0.25)
    features["secret"].bytes_list.value.append(b"a name")
    with grpc.insecure_channel(ways["grpc"]) as channel:
        PredictionServiceStub(channel).Classify(request, timeout=30, metadata=[("x-api-key", KEY)])
    (logged,) = eventually(
        lambda: [each for each in read(directory) if each.kind == "classify_log"]
    )
    (example,) = logged.request.input.example_list.examples
    assert (logged.signature, logged.rows, [*example.features.feature]) == ("classify", 1, ["x"])


def test_a_prediction_of_examples_is_captured_without_what_is_left_out(door):
    # Of a SequenceExample too, whose context the model takes for an Example's features.
    ways, directory = door
    example = Example()
    example.features.feature["x"].float_list.value.append(0.5)
    plain = example.SerializeToString()
    example.features.feature["secret"].bytes_list.value.append(b"a name")
    sequences = SequenceExample.FromString(plain)
    sequences.feature_lists.feature_list["kept"].feature.add().int64_list.value.append(7)
    kept = sequences.SerializeToString()
    hidden = sequences.feature_lists.feature_list["meta"].feature.add()
    hidden.bytes_list.value.append(b"a name")
    texts = [example.SerializeToString(), plain, sequences.SerializeToString()]
    rows = [{"b64": base64.b64encode(text).decode()} for text in texts]
    body = {"signature_name": "classify", "instances": rows}
    url = f"{ways['front']}/v1/models/affine:predict"
    assert requests.post(url, json=body, headers={"X-API-Key": KEY}, timeout=30).ok
    whose = ("predict_log", "classify")
    (logged,) = eventually(
        lambda: [each for each in read(directory) if (each.kind, each.signature) == whose]
    )
    (inputs,) = logged.request.inputs.values()
    assert [*decode_tensor(inputs)] == [plain, plain, kept]


def test_of_a_model_all_are_captured_less_what_is_left_out(door):
    ways, directory = door
    row = {"image": [[[1.0], [2.0]], [[3.0], [4.0]]], "meta": [1.0, 2.0, 3.0]}
    body = {"instances": [row]}
    assert requests.post(f"{ways['front']}/v1/models/pair:predict", json=body, timeout=30).ok
    (logged,) = eventually(lambda: read(directory, "pair"))
    assert [*logged.request.inputs] == ["image"]
    assert decode_tensor(logged.request.inputs["image"]).shape == (1, 2, 2, 1)


def test_others_requests_and_what_is_refused_are_not(door):
    ways, directory = door
    before = len(read(directory))
    assert HTTP["json"](ways["front"], "affine", {}).status == 200
    bad = {"instances": [{"image": [[[1.0]]], "meta": [1.0, 2.0, 3.0]}]}
    refused = requests.post(f"{ways['front']}/v1/models/pair:predict", json=bad, timeout=30)
    assert refused.status_code == 400
    assert HTTP["json"](ways["front"], "affine", {"X-API-Key": KEY}).status == 200
    eventually(lambda: len(read(directory)) > before)
    assert len(read(directory)) == before + 1
    eventually(lambda: metrics(ways["front"]).get(WRITTEN))


def test_nothing_of_the_caller_is_in_the_files(door):
    _, directory = door
    written = b"".join(path.read_bytes() for path in directory.iterdir())
    assert len(written) > 100
    for secret in (KEY, KEY[-64:], "acme", "whose-it-is", "a name", "127.0.0.1"):
        assert secret.encode() not in written
    assert all(path.stat().st_mode & 0o077 == 0 for path in [directory, *directory.iterdir()])


def test_a_directory_that_cannot_be_written_is_named_at_the_start(tmp_path):
    (tmp_path / "file").touch()
    for command in (["gateway"], ["up", "--check"]):
        environment = {"SLUICE_CAPTURE_DIR": f"{tmp_path}/file/x", "SLUICE_ACCESS": "open"}
        refused = CliRunner().invoke(main, command, env=environment)
        assert refused.exit_code == 2
        assert refused.output == (
            f"Error: SLUICE_CAPTURE_DIR: nothing can be written to {tmp_path}/file/x "
            "(Not a directory)\n"
        )


@pytest.fixture
def capture(tmp_path):
    """`capture(**settings)` -> one that takes every request, and what it counts."""
    made = []

    def make(**settings):
        telemetry = Telemetry(AccessLog("off"))
        settings = {"capture_dir": str(tmp_path), "capture_share": 1.0} | settings
        made.append(Capture(Settings(**settings), telemetry))
        return made[-1], lambda: counts(telemetry)

    yield make
    for each in made:
        each.close()


def counts(telemetry):
    lines = telemetry.exposition()[0].decode().splitlines()
    found = (line.rpartition(" ") for line in lines if line.startswith("sluice_capture"))
    return {name: int(float(value)) for name, _, value in found if "_created" not in name}


def ask(capture, rows=1, model="m"):
    """As if a version had answered so many rows of a kilobyte."""
    answer(capture, {"x": np.zeros((rows, 1024), np.uint8)}, model)


def answer(capture, inputs, model="m"):
    """As if a version had answered these."""
    kind = kind_of(ModelRef(model), "serving_default", (), inputs)
    capture.answered(kind, inputs, 1, Caller.within(1))


@pytest.fixture
def late(monkeypatch):
    """The thread does not look before the end."""
    monkeypatch.setattr(capturing, "WRITE_EVERY_S", 3600.0)


def test_each_record_is_of_its_own_request_whatever_others_have_in_common():
    small, large = np.ones((1, 3), "f4"), np.ones((100, 100), "f4")
    texts = np.array([b"a", b"bcd"], object)
    asked = [
        ("m", "s", (), {"x": small}, 1, 7),
        ("n", "s", (), {"x": small}, 1, 7),
        ("m", "t", (), {"x": small}, 1, 7),
        ("m", "s", ("y",), {"x": small}, 1, 7),
        ("m", "s", (), {"x": small}, 2, 7),
        ("m", "s", (), {"x": small}, 1, 8),
        ("m", "s", (), {"z": small}, 1, 7),
        ("m", "s", (), {"x": small + 1}, 1, 7),
        ("m", "s", (), {"x": small.astype("i4")}, 1, 7),
        ("m", "s", (), {"x": small.astype(">f4")}, 1, 7),
        ("m", "s", (), {"x": small.T}, 1, 7),
        ("m", "s", (), {"x": np.tile(small, (2, 1))}, 1, 7),
        ("m", "s", (), {"x": large.T, "text": texts, "none": small[:0]}, 1, 7),
        ("m", "s", (), {"x": texts}, 1, 7),
        ("m", "s", (), {"x": texts[::-1]}, 1, 7),
        ("m", "s", (), {"x": texts[:1]}, 1, 7),
        ("m", "s", (), {}, 1, 7),
    ]
    records = Records("left_out")
    for name, signature, outputs, inputs, version, seconds in asked * 2:
        kind = kind_of(ModelRef(name), signature, outputs, inputs)
        given = inputs | {"left_out": small}
        model = ModelRef(name, version)
        request = encode_predict_request(model, signature, [inputs], outputs)
        expected = encode_log(PREDICT_LOG, request, log_about(model, seconds))
        assert records.answered(kind, given, version, seconds) == expected


def test_a_share_is_taken_at_random(capture, tmp_path):
    taken, counted = capture(capture_share=0.25)
    for _ in range(2000):
        ask(taken)
    taken.close()
    assert 350 < counted()[WRITTEN] == len(read(tmp_path)) < 650


def test_a_line_that_is_full_takes_no_more_and_counts(capture, tmp_path):
    taken, counted = capture()
    ask(taken, rows=MOST_BYTES_IN_LINE // 1024 + 1)
    assert counted()['sluice_captures_total{outcome="line"}'] == 1
    for _ in range(10):  # sooner than any disk takes a third of it
        ask(taken, rows=MOST_BYTES_IN_LINE // 1024 // 3)
    taken.close()
    dropped = counted()['sluice_captures_total{outcome="line"}']
    assert dropped > 1
    assert counted()[WRITTEN] == 1 + 10 - dropped == len(read(tmp_path))


def test_a_line_is_full_of_the_messages_that_requests_lie_in(capture):
    taken, counted = capture()
    message = memoryview(bytes(MOST_BYTES_IN_LINE))
    answer(taken, {"x": np.frombuffer(message[:1024], np.uint8).reshape(1, 1024)})
    taken.close()
    assert counted() == {'sluice_captures_total{outcome="line"}': 1}


@pytest.mark.usefixtures("late")
@pytest.mark.parametrize(("size", "waits"), [(SMALL, False), (SMALL + 1, True)])
def test_small_requests_become_records_before_the_thread_looks(capture, tmp_path, size, waits):
    taken, counted = capture()
    kept = []
    for number in range(AT_A_TIME):
        array = np.full((1, size), number, np.uint8)
        kept.append(weakref.ref(array))
        answer(taken, {"x": array})
    del array
    assert [each() is not None for each in kept] == [waits] * AT_A_TIME
    taken.close()
    assert counted()[WRITTEN] == AT_A_TIME
    written = [decode_tensor(each.request.inputs["x"]) for each in read(tmp_path)]
    assert [(each[0, 0], each.shape) for each in written] == [
        (number, (1, size)) for number in range(AT_A_TIME)
    ]


@pytest.mark.usefixtures("late")
def test_of_small_requests_that_a_full_line_does_not_take_each_is_counted(
    capture, monkeypatch, tmp_path
):
    monkeypatch.setattr(capturing, "MOST_IN_LINE", 1)
    taken, counted = capture()
    for _ in range(3 * AT_A_TIME + 1):
        ask(taken)
    taken.close()
    assert counted()['sluice_captures_total{outcome="line"}'] == 2 * AT_A_TIME
    assert counted()[WRITTEN] == AT_A_TIME + 1 == len(read(tmp_path))


def test_each_small_request_is_written_once_whichever_thread_makes_its_record(
    capture, monkeypatch, tmp_path
):
    monkeypatch.setattr(capturing, "WRITE_EVERY_S", 0.0)
    taken, counted = capture()
    for number in range(3000):
        answer(taken, {"x": np.array([number])})
    taken.close()
    written = [int(*decode_tensor(each.request.inputs["x"])) for each in read(tmp_path)]
    assert sorted(written) == [*range(3000)]
    assert counted() == {WRITTEN: 3000}


def test_what_keeps_little_is_no_view_of_much_no_text_and_not_many():
    array = np.zeros((10, 100), np.uint8)
    message = memoryview(bytes(2000))
    little = [
        {"x": array},
        {"x": array.reshape(1, 1000), "y": array[:0]},
        {"x": np.frombuffer(message[:10], np.uint8)},
        {},
    ]
    for each in little:
        assert keep_little(each, 4096)
        assert kept_by(each) <= 4096
    much = [
        {"x": np.zeros(4097, np.uint8)},
        {"x": np.zeros(5000, np.uint8)[:10].reshape(1, 10)},
        {"x": np.frombuffer(memoryview(bytes(5000))[:10], np.uint8)},
        {"x": np.broadcast_to(array, (5, 10, 100))},
        {"x": np.zeros(3000, np.uint8), "y": np.zeros(3000, np.uint8)},
        {"x": np.array([b"a"], object)},
        {str(number): array[:0] for number in range(9)},
    ]
    assert not any(keep_little(each, 4096) for each in much)


def test_a_request_that_is_larger_than_a_file_is_dropped(capture, tmp_path):
    taken, counted = capture(capture_max_bytes=800_000)
    ask(taken, rows=100)
    ask(taken)
    taken.close()
    assert counted()['sluice_captures_total{outcome="size"}'] == 1
    assert [each.rows for each in read(tmp_path)] == [1]


@given(
    writers=st.integers(1, 3),
    sizes=st.lists(st.tuples(st.integers(0, 2), st.integers(1, 1000)), min_size=1, max_size=60),
)
def test_files_keep_to_their_bytes_whoever_writes_them(tmp_path_factory, writers, sizes):
    directory = tmp_path_factory.mktemp("files")
    (directory / "mine.tfrecord").write_bytes(bytes(50_000))
    files = [CaptureFiles(directory, 10_000, 1000, writers) for _ in range(writers)]
    for writer, size in sizes:
        mine = files[writer % writers]
        mine.append([bytes(min(size, mine.most))])
        written = [path.stat().st_size for path in directory.iterdir()]
        assert 0 < sum(written) - 50_000 <= 10_000
    for each in files:
        each.close()


def test_of_those_begun_in_one_second_the_oldest_go_first(tmp_path, monkeypatch):
    now = 1_800_000_000.0
    monkeypatch.setattr(capture_files.time, "time", lambda: now)
    files = CaptureFiles(tmp_path, 8000, 1000, 1)
    for number in range(40):
        now += 1e-4
        files.append([b"%04d" % number * 250])
    files.close()
    numbers = [int(path.read_bytes()[:4]) for path in sorted(tmp_path.iterdir())]
    assert numbers == [*range(32, 40)]


def test_a_file_that_somebody_deletes_is_begun_anew(tmp_path):
    files = CaptureFiles(tmp_path, 10_000, 1000, 1)
    files.append([b"one"])
    [path.unlink() for path in tmp_path.iterdir()]
    files.append([b"two"])
    files.close()
    assert [path.read_bytes() for path in tmp_path.iterdir()] == [b"two"]


def test_a_file_whose_name_has_no_date_is_none_of_ours(tmp_path):
    other = tmp_path / "20261399T000000Z-00000000.tfrecord"
    other.touch()
    files = CaptureFiles(tmp_path, 10_000, 1000, 1)
    files.append([b"one"])
    files.close()
    assert len([*tmp_path.iterdir()]) == 2
    assert other.exists()


def test_what_is_too_old_goes_also_while_nobody_asks(capture, tmp_path):
    for name in ("20200101T000000Z-00000000.tfrecord", "20200101T000000Z-old.tfrecord"):
        (tmp_path / name).touch()
    taken, counted = capture(capture_max_age_s=2.0)
    ask(taken)
    eventually(lambda: counted().get(WRITTEN) == 1)
    eventually(lambda: [*tmp_path.iterdir()] == [tmp_path / "20200101T000000Z-old.tfrecord"])
    ask(taken)
    taken.close()
    assert len(read(tmp_path)) == 1


@pytest.mark.usefixtures("late")
@pytest.mark.parametrize("rows", [1, SMALL], ids=["small", "large"])
def test_what_no_record_can_be_made_of_is_dropped_alone_and_told_once(
    capture, tmp_path, caplog, rows
):
    taken, counted = capture()
    ask(taken)
    for _ in range(AT_A_TIME):
        answer(taken, {"x": np.zeros(rows, "datetime64[s]")})  # no dtype of the protocol's
    taken.forwarded(CLASSIFY, b"no message", ModelRef("m"), Caller.within(1))
    ask(taken)
    taken.close()
    assert counted() == {WRITTEN: 2, 'sluice_captures_total{outcome="record"}': AT_A_TIME + 1}
    assert len(read(tmp_path)) == 2
    (told,) = [each for each in caplog.records if each.levelname == "ERROR"]
    assert told.exc_info and "No record can be made of a captured request" in told.message


def test_a_disk_that_takes_some_by_turns_is_told_of_seldom(capture, tmp_path, caplog, monkeypatch):
    caplog.set_level("INFO")
    disk = tmp_path / "disk"
    taken, counted = capture(capture_dir=str(disk))

    def ask_until(outcome):
        name = f'sluice_captures_total{{outcome="{outcome}"}}'
        before = counted().get(name, 0)
        ask(taken)
        eventually(lambda: counted().get(name, 0) == before + 1)

    def by_turns(times):
        for _ in range(times):
            disk.mkdir(exist_ok=True)
            ask_until("written")
            shutil.rmtree(disk)
            ask_until("disk")

    by_turns(3)
    told = ["Captures cannot be written", "Captures are written"]
    assert [caplog.text.count(each) for each in told] == [1, 1]
    monkeypatch.setattr(capturing, "TELL_EVERY_S", 0.0)
    by_turns(2)
    assert [caplog.text.count(each) for each in told] == [3, 2]


@pytest.mark.root
def test_a_full_disk_costs_records_and_nothing_else(capture, tmp_path, caplog):
    caplog.set_level("INFO")
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=64k", "none", disk]
    subprocess.run(mount, check=True)
    try:
        taken, counted = capture(capture_dir=str(disk))
        for asked in (40, 80, 120):
            for _ in range(40):
                ask(taken)
            eventually(lambda asked=asked: sum(counted().values()) == asked)
        lost = counted()['sluice_captures_total{outcome="disk"}']
        assert len(read(disk)) == counted()[WRITTEN]
        assert caplog.text.count(f"Captures cannot be written to {disk} (No space left") == 1
        subprocess.run(["mount", "-o", "remount,size=10m", disk], check=True)
        ask(taken)
        taken.close()
        assert counted()['sluice_captures_total{outcome="disk"}'] == lost
        assert len(read(disk)) == counted()[WRITTEN] == 121 - lost
        assert f"Captures are written to {disk} again" in caplog.text
    finally:
        subprocess.run(["umount", disk], check=True)
