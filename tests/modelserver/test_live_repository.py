"""A running twin and the directory it watches: versions come, fail and go; nobody is refused."""

import json
import re
import shutil
import threading

import grpc
import pytest
from click.testing import CliRunner
from google.protobuf.json_format import ParseDict

from service.capture import capture
from sluice.wire.protos.serving_pb2 import PredictRequest
from tests.conftest import CONFORMANCE
from tests.modelserver.conftest import tfrecords


class Load:
    """Calls a model from four threads inside the block; `answers` and `failures` afterwards."""

    def __init__(self, client, model):
        self.answers, self.failures = [], []
        self._client, self._model, self._stop = client, model, threading.Event()
        self._threads = [threading.Thread(target=self._run) for _ in range(4)]

    def __enter__(self):
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_):
        self._stop.set()
        for thread in self._threads:
            thread.join()

    def _run(self):
        while not self._stop.is_set():
            try:
                self.answers.append(self._client.predict(self._model))
            except grpc.RpcError as error:
                self.failures.append(error)


def code_of(call, *arguments, **named):
    with pytest.raises(grpc.RpcError) as caught:
        call(*arguments, **named)
    return caught.value.code()


def test_a_model_that_appears_is_served(client, models, until):
    assert code_of(client.predict, "new") == grpc.StatusCode.NOT_FOUND
    models.publish("affine/1", "new", 7)
    until(lambda: client.states("new") == {7: "AVAILABLE"})
    assert client.predict("new") == 2.5


def test_of_the_recorded_answers_only_those_to_wrong_shapes_are_others(client, models, until):
    models.publish("affine/3", "affine", 3)
    models.publish("echo/1", "echo", 1)
    until(lambda: client.states("affine") == {3: "AVAILABLE"})
    until(lambda: client.states("echo") == {1: "AVAILABLE"})
    rows = [json.loads(line) for line in (CONFORMANCE / "grpc.jsonl").read_text().splitlines()]
    refused = set()
    for row in rows:
        asks = row["method"].endswith("/Predict") and row["code"] == "OK"
        if asks and row["request"]["model_spec"] in ({"name": "affine"}, {"name": "echo"}):
            try:
                client.predictions.Predict(ParseDict(row["request"], PredictRequest()), timeout=30)
            except grpc.RpcError as error:
                assert error.code() == grpc.StatusCode.INVALID_ARGUMENT
                refused.add(row["name"])
    assert refused == {
        "predict, wrong shape",
        "predict, wrong rank",
        "predict, scalar for a vector",
    }


def test_a_newer_version_takes_over_without_a_failed_request(client, models, until):
    models.publish("affine/1", "swap", 1)
    until(lambda: client.states("swap") == {1: "AVAILABLE"})
    with Load(client, "swap") as load:
        until(lambda: 2.5 in load.answers)
        models.publish("affine/2", "swap", 2)
        until(lambda: client.states("swap") == {2: "AVAILABLE", 1: "END"})
        until(lambda: load.answers[-1] == 3.5)
    assert not load.failures
    assert set(load.answers) == {2.5, 3.5}


def test_a_version_that_does_not_load_leaves_the_old_one_serving(client, models, until):
    models.publish("affine/1", "broken", 1)
    until(lambda: client.states("broken") == {1: "AVAILABLE"})
    with Load(client, "broken") as load:
        version = models.directory / "broken" / "2"
        version.mkdir()
        (version / "saved_model.pb").write_bytes(b"no model")
        until(lambda: client.states("broken") == {1: "AVAILABLE", 2: "END"})
    assert client.status("broken")[2].status.error_message
    assert not load.failures


def test_a_half_copied_version_is_tried_again_as_it_grows(client, models, until):
    models.publish("affine/1", "copied", 1)
    until(lambda: client.states("copied") == {1: "AVAILABLE"})
    whole = models.publish("affine/3", "elsewhere", 3)
    half = models.directory / "copied" / "2"
    half.mkdir()
    shutil.copy(whole / "saved_model.pb", half)
    until(lambda: client.states("copied") == {1: "AVAILABLE", 2: "END"})
    assert client.predict("copied") == 2.5
    shutil.copytree(whole, half, dirs_exist_ok=True)
    until(lambda: client.states("copied") == {2: "AVAILABLE", 1: "END"})
    assert client.predict("copied") == 2.0


def leave_empty(version):
    version.mkdir(parents=True)


def leave_keras_file(version):
    version.mkdir(parents=True)
    (version / "digits.keras").write_bytes(b"PK")


def cut_short(version):
    leave_empty(version)
    (version / "saved_model.pb").write_bytes(b"\n\xff")


def nest(version):
    leave_empty(version / "digits")
    (version / "digits" / "saved_model.pb").write_bytes(b"x")


@pytest.mark.parametrize(
    ("spoil", "code", "reason"),
    [
        (leave_empty, "NOT_FOUND", "1 is empty: copy a SavedModel into it, or remove it"),
        (leave_keras_file, "NOT_FOUND", r"sluice publish \S+1/digits.keras --name "),
        (cut_short, "DATA_LOSS", "cut short: copy the version again .*Cannot parse file"),
        (nest, "NOT_FOUND", "lies in .*/1/digits: move what is in there one up"),
    ],
)
def test_a_bad_version_says_what_to_do_and_is_taken_up_when_mended(
    client, models, until, spoil, code, reason
):
    name = spoil.__name__
    spoil(models.directory / name / "1")
    until(lambda: client.states(name) == {1: "END"})
    status = client.status(name)[1].status
    assert status.error_code == grpc.StatusCode[code].value[0]
    assert re.search(reason, status.error_message), status.error_message
    shutil.rmtree(models.directory / name / "1")
    models.publish("affine/1", name, 1)
    until(lambda: client.states(name) == {1: "AVAILABLE"})


def test_a_link_to_itself_keeps_no_version_loading(client, models, until):
    version = models.publish("affine/1", "linked", 1)
    (version / "assets.extra").symlink_to("assets.extra")
    (version.parent / "2").symlink_to("2")
    whole = version.rename(version.with_name("3"))
    until(lambda: client.states("linked").get(3) == "AVAILABLE")
    (whole / "saved_model.pb").rename(whole / "other.pb")
    (whole / "saved_model.pb").symlink_to("saved_model.pb")
    whole.rename(whole.with_name("4"))
    until(lambda: client.states("linked").get(4) == "END")
    assert client.status("linked")[4].status.error_message


def test_a_model_without_a_version_is_told_once_and_when_asked_for(
    client, models, conformance_models, until, watcher, tmp_path
):
    shutil.copytree(conformance_models / "affine/1", tmp_path / "misnamed/v2")
    (tmp_path / "misnamed").rename(models.directory / "misnamed")
    until(lambda: "No version of model misnamed was found" in watcher.log)
    with pytest.raises(grpc.RpcError) as caught:
        client.status("misnamed")
    assert caught.value.code() == grpc.StatusCode.NOT_FOUND
    assert re.search(r"mv \S+/misnamed/v2 \S+/misnamed/2$", caught.value.details())
    (models.directory / "misnamed" / "v2").rename(models.directory / "misnamed" / "2")
    until(lambda: client.states("misnamed") == {2: "AVAILABLE"})
    assert watcher.log.count("No version of model misnamed was found") == 1


def test_names_that_are_no_integers_are_no_versions(client, models, until):
    base = models.publish("affine/1", "named", 1).parent
    for name in ("2.tmp", "v3", "latest", "4x"):
        shutil.copytree(base / "1", base / name)
    (base / "5").write_text("a file")
    until(lambda: client.states("named") == {1: "AVAILABLE"})


def test_a_model_that_is_removed_is_unloaded(client, models, until):
    models.publish("affine/1", "gone", 1)
    until(lambda: client.states("gone") == {1: "AVAILABLE"})
    models.remove("gone")
    until(lambda: client.states("gone") == {1: "END"})
    assert code_of(client.predict, "gone") == grpc.StatusCode.NOT_FOUND


def test_a_version_is_warmed_up_with_its_own_requests(client, models, until, predict_log, watcher):
    models.publish("affine/1", "warm", 1, warmup=[predict_log("warm"), predict_log("warm", 2.0)])
    until(lambda: client.states("warm") == {1: "AVAILABLE"})
    watcher.wait_for("Ran 2 warmup records")


def test_a_version_is_warmed_up_with_captured_requests(
    models, conformance_models, client, until, predict_log, watcher, tmp_path
):
    # As a gateway has written them: by the version that answered.
    asked = [predict_log("caught", float(x), version={"value": 9}) for x in range(3)]
    (tmp_path / "captured.tfrecord").write_bytes(tfrecords(*asked, predict_log("other")))
    beside = tmp_path / "beside"
    shutil.copytree(conformance_models / "affine/1", beside / "caught/1")
    options = [f"--model-repository={beside}", "--records=2"]
    made = CliRunner().invoke(capture, ["warmup", str(tmp_path), "caught", *options])
    assert made.exit_code == 0, made.output
    (beside / "caught").rename(models.directory / "caught")
    until(lambda: client.states("caught") == {1: "AVAILABLE"})
    watcher.wait_for("Ran 2 warmup records of .*/caught/1/")


def test_a_bad_warmup_record_fails_the_load_with_its_number(client, models, until, predict_log):
    bad = predict_log("cold", signature_name="nope")
    models.publish("affine/1", "cold", 1, warmup=[predict_log("cold"), bad])
    until(lambda: client.states("cold") == {1: "END"})
    status = client.status("cold")[1].status
    assert status.error_code == grpc.StatusCode.INVALID_ARGUMENT.value[0]
    assert status.error_message == (
        'warmup record 2 failed: Serving signature key "nope" not found.'
    )


@pytest.mark.parametrize(
    ("record", "reason"),
    [
        (b"", "warmup record 1 failed: it holds none of Predict, Classify"),
        (b"\xff\xff", "warmup record 1 failed: Error parsing message"),
    ],
)
def test_a_warmup_record_that_is_none_fails_the_load(client, models, until, record, reason):
    model = f"unreadable-{len(record)}"
    models.publish("affine/1", model, 1, warmup=[record])
    until(lambda: client.states(model) == {1: "END"})
    assert client.status(model)[1].status.error_message.startswith(reason)


def test_a_torn_warmup_file_fails_the_load(client, models, until, predict_log):
    models.publish("affine/1", "whole", 1, warmup=[predict_log("whole")])
    until(lambda: client.states("whole") == {1: "AVAILABLE"})
    torn = models.directory / "whole" / "torn"
    shutil.copytree(models.directory / "whole" / "1", torn)
    file = torn / "assets.extra" / "tf_serving_warmup_requests"
    file.write_bytes(file.read_bytes()[:-6])
    torn.rename(models.directory / "whole" / "2")
    until(lambda: client.states("whole") == {1: "AVAILABLE", 2: "END"})
    assert "verify your warmup data" in client.status("whole")[2].status.error_message
