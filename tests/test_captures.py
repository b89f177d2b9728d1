"""`sluice capture`: what a directory of captures holds, and warm-up files of it."""

import io
import subprocess
import sys

import numpy as np
import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st

from service.capture import capture
from sluice.wire.contract import CLASSIFY_METHOD, MAX_WARMUP_RECORDS, WARMUP_FILE
from sluice.wire.model_ref import ModelRef
from sluice.wire.prediction_logs import (
    CLASSIFY_LOG,
    MULTI_INFERENCE_LOG,
    PREDICT_LOG,
    encode_log,
    log_about,
    read_log,
)
from sluice.wire.protos.serving_pb2 import (
    ClassificationRequest,
    MultiInferenceRequest,
    PredictRequest,
)
from sluice.wire.protos.tensorflow_pb2 import SavedModel
from sluice.wire.tensors import encode_tensor
from sluice.wire.tfrecords import BadRecord, frame, read_frames

HEADER = ["MODEL", "VERSION", "SIGNATURE", "REQUESTS", "ROWS", "BYTES", "FIRST", "LAST"]
NOON = 1_795_694_400  # 2026-11-26T12:00:00Z


def predict(rows=1, model="digits", version=3, signature="serving_default", **inputs):
    """A captured prediction; of `rows` pictures where nothing else is given."""
    inputs = inputs or {"image": np.zeros((rows, 2, 2), "f4")}
    tensors = {name: encode_tensor(array) for name, array in inputs.items()}
    spec = ModelRef(model, version).to_proto(signature)
    request = PredictRequest(model_spec=spec, inputs=tensors)
    about = log_about(ModelRef(model, version), NOON + rows)
    return encode_log(PREDICT_LOG, request.SerializeToString(), about)


def classify(signature="classify", count=2):
    request = ClassificationRequest(model_spec=ModelRef("digits").to_proto(signature))
    for _ in range(count):
        request.input.example_list.examples.add()
    return encode_log(
        CLASSIFY_LOG, request.SerializeToString(), log_about(ModelRef("digits"), NOON)
    )


def multi_inference(method=CLASSIFY_METHOD):
    request = MultiInferenceRequest()
    request.tasks.add(model_spec=ModelRef("digits").to_proto("classify"), method_name=method)
    request.input.example_list.examples.add()
    return encode_log(MULTI_INFERENCE_LOG, request.SerializeToString())


@pytest.fixture
def captures(tmp_path):
    """`captures(*records)` -> a directory with a file of them."""
    directory = tmp_path / "captures"
    directory.mkdir()

    def write(*records, name="20261126T120000Z-00000000.tfrecord"):
        (directory / name).write_bytes(b"".join(map(frame, records)))
        return directory

    return write


def run(*arguments):
    return CliRunner().invoke(capture, [*map(str, arguments)])


def frames_in(data):
    return list(read_frames(io.BytesIO(data)))


@given(st.lists(st.binary(max_size=100), max_size=5), st.data())
def test_what_is_framed_is_read_and_what_is_bent_is_not(records, data):
    whole = b"".join(map(frame, records))
    assert frames_in(whole) == records
    if whole:
        cut = data.draw(st.integers(0, len(whole) - 1))
        bent = bytearray(whole)
        bent[cut] ^= data.draw(st.integers(1, 255))
        read = []
        with pytest.raises(BadRecord, match=r"is damaged|is cut off"):
            read.extend(read_frames(io.BytesIO(bent)))
    ends = [len(b"".join(map(frame, records[:count]))) for count in range(len(records) + 1)]
    for end in {len(whole) // 2, max(len(whole) - 1, 0)} - {*ends}:
        with pytest.raises(BadRecord, match="is cut off"):
            frames_in(whole[:end])


def test_a_length_that_a_file_cannot_hold_is_not_believed():
    huge = frame(bytes(1 << 20))
    with pytest.raises(BadRecord, match="record 1, at byte 0, is cut off"):
        frames_in(huge[:14])


def test_show_says_what_there_is(captures):
    directory = captures(predict(1), predict(3), predict(2, version=4), classify())
    captures(predict(5), name="20261126T130000Z-00000000.tfrecord")
    shown = run("show", directory)
    assert shown.exit_code == 0
    rows = [line.split() for line in shown.output.splitlines()]
    assert rows[0] == HEADER
    assert [row[:5] for row in rows[1:]] == [
        ["digits", "-", "classify", "1", "2"],
        ["digits", "3", "serving_default", "3", "9"],
        ["digits", "4", "serving_default", "1", "2"],
    ]
    assert rows[2][6:] == ["2026-11-26T12:00:01Z", "2026-11-26T12:00:05Z"]


def test_what_cannot_be_read_is_said_and_passed_over(captures):
    directory = captures(predict(), b"\xff\xff", predict(), encode_log(PREDICT_LOG, b"")[:0])
    torn = directory / "20261126T120001Z-00000000.tfrecord"
    torn.write_bytes((frame(predict()) + frame(predict()))[:-3])
    (directory / "20261126T120002Z-00000000.tfrecord").mkdir()
    shown = run("show", directory)
    assert shown.exit_code == 0
    assert " 3  " in shown.stdout
    whole = directory / "20261126T120000Z-00000000.tfrecord"
    torn_at = len(frame(predict()))
    for line, begins in zip(
        shown.stderr.splitlines(),
        (
            f"{whole}: record 2: it is no PredictionLog: ",
            f"{whole}: record 4: it is a PredictionLog without a request",
            f"{torn}: record 2, at byte {torn_at}, is cut off; what comes before it is read",
            f"{directory}/20261126T120002Z-00000000.tfrecord cannot be read (Is a directory)",
        ),
        strict=True,
    ):
        assert line.startswith(begins)


def test_where_there_are_none_it_says_so(tmp_path):
    for path, said in (
        (tmp_path, f"{tmp_path} holds no captures (*.tfrecord)"),
        (tmp_path / "x", "cannot be read (No such file or directory)"),
    ):
        for command in (["show", path], ["warmup", path, "digits"]):
            refused = run(*command, *repository(tmp_path / "r", command))
            assert refused.exit_code == 1 and said in refused.output


def repository(path, command=("warmup",)):
    """A repository with the version 3 of `digits`, as an option of the command."""
    version = path / "digits/3"
    if not version.exists():
        version.mkdir(parents=True)
        (version / "saved_model.pb").write_bytes(saved_model())
    return [f"--model-repository={path}"] if "warmup" in command else []


def saved_model():
    model = SavedModel()
    graph = model.meta_graphs.add()
    graph.meta_info_def.tags.append("serve")
    for name in ("serving_default", "half"):
        image = graph.signature_def[name].inputs["image"]
        image.dtype = 1
        for size in (-1, 2, 2) if name == "serving_default" else (-1, 1):
            image.tensor_shape.dim.add(size=size)
    graph.signature_def["classify"].inputs["inputs"].dtype = 7
    graph.signature_def["classify"].method_name = CLASSIFY_METHOD
    return model.SerializeToString()


@pytest.fixture
def warmed(tmp_path):
    """`warmed(directory, *options)` -> click's result, and the records that it made."""
    file = tmp_path / "repository/digits/3" / WARMUP_FILE

    def warm(directory, *options):
        done = run("warmup", directory, "digits", *options, *repository(tmp_path / "repository"))
        records = [read_log(each) for each in frames_in(file.read_bytes())] if file.exists() else []
        return done, records

    return warm


def test_warmup_takes_as_many_of_each_signature_and_shape(captures, warmed):
    half = predict(signature="half", image=np.zeros((1, 1), "f4"))
    directory = captures(*[predict(1)] * 50, *[predict(4)] * 5, half, classify())
    done, records = warmed(directory, 3, "--records=10")
    assert done.exit_code == 0
    assert "10 of 57 requests" in done.stdout
    asked = sorted((each.kind, each.signature, each.rows) for each in records)
    assert asked == [
        ("classify_log", "classify", 2),
        ("predict_log", "half", 1),
        *[("predict_log", "serving_default", 1)] * 4,
        *[("predict_log", "serving_default", 4)] * 4,
    ]
    assert {(each.model, each.seconds) for each in records} == {(ModelRef("digits"), 0)}


def test_warmup_of_a_signed_version_says_that_it_is_to_be_signed_again(captures, warmed, tmp_path):
    directory = captures(predict())
    assert "sign it again" not in warmed(directory)[0].stderr
    (tmp_path / "repository/digits/3/model.sig").touch()
    assert (
        "digits/3 is no longer as it was signed: sluice sign it again"
        in warmed(directory)[0].stderr
    )


def test_warmup_passes_over_what_the_version_would_not_answer(captures, warmed):
    directory = captures(
        predict(),
        predict(model="other"),
        predict(signature="gone"),
        predict(meta=np.zeros(1, "f4"), image=np.zeros((1, 2, 2), "f4")),
        predict(image=np.zeros((1, 2, 3), "f4")),
        predict(image=np.zeros((1, 2, 2), "f8")),
        encode_log(PREDICT_LOG, PredictRequest(model_spec={"name": "digits"}).SerializeToString()),
        classify("serving_default"),
        multi_inference(),
        multi_inference("tensorflow/serving/regress"),
    )
    done, records = warmed(directory)
    assert [each.kind for each in records].count(PREDICT_LOG) == 1
    assert {each.kind for each in records} == {PREDICT_LOG, MULTI_INFERENCE_LOG}
    assert sorted(done.stderr.splitlines()) == [
        f"1 passed over: {reason}"
        for reason in (
            '"serving_default": "image" takes float32 [N,2,2], not DT_DOUBLE [1,2,2]',
            '"serving_default": "image" takes float32 [N,2,2], not DT_FLOAT [1,2,3]',
            '"serving_default": the input "image" is missing',
            '"serving_default": the input "meta" is none of the signature\'s',
            'it was for the model "other"',
            'the version has no signature "classify" for tensorflow/serving/regress',
            'the version has no signature "gone"',
            'the version has no signature "serving_default" for tensorflow/serving/classify',
        )
    ]


def test_warmup_keeps_what_nobody_asked_and_tensorflow_servings_bound(captures, warmed, tmp_path):
    directory = captures(classify())
    assert len(warmed(directory)[1]) == 1
    directory = captures(*[predict()] * (MAX_WARMUP_RECORDS + 5))
    done, records = warmed(directory, "--records=1000")
    assert [each.kind for each in records] == [PREDICT_LOG] * MAX_WARMUP_RECORDS
    done, records = warmed(captures(classify(), classify(count=3)), "--records=999")
    assert len(records) == MAX_WARMUP_RECORDS
    assert "2 of 2 requests, and 998 that it had" in done.stdout
    assert [*(tmp_path / "repository/digits/3/assets.extra").iterdir()] == [
        tmp_path / "repository/digits/3" / WARMUP_FILE
    ]


@pytest.mark.parametrize(
    ("record", "options", "said"),
    [
        (predict(model="other"), [], 'answers: it was for the model "other" (1)'),
        (b"", [], "nothing in there can be read"),
        (predict(), ["9"], "digits has no version 9; there are: 3"),
        (predict(), ["--records=1001"], "1001 is not in the range 1<=x<=1000"),
    ],
)
def test_warmup_that_cannot_be_changes_nothing(captures, warmed, record, options, said):
    warmed(captures(predict()))
    before = warmed(captures(predict()))[1]
    done, records = warmed(captures(record), *options)
    assert done.exit_code in (1, 2) and said in done.output
    assert records == before


def test_a_saved_model_that_is_damaged_is_named(captures, warmed, tmp_path):
    warmed(captures(predict()))
    (tmp_path / "repository/digits/3/saved_model.pb").write_bytes(b"\xff")
    done, _ = warmed(captures(predict()))
    assert done.exit_code == 1 and "saved_model.pb cannot be read: copy the version" in done.output


def test_it_loads_no_tensorflow():
    script = "import sys, service.capture; sys.exit('tensorflow' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", script], check=False).returncode == 0
