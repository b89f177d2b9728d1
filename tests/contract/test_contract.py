"""One suite over every dialect: the same arrays and the same refusal from all of them."""

import ml_dtypes
import numpy as np
import pytest

F4, I4 = np.float32, np.int32
IMAGE = np.arange(8, dtype=F4).reshape(2, 2, 2, 1)
META = np.float32([[1, 2, 3], [4, 5, 6]])
PAIR = {"image": IMAGE, "meta": META}
PAIR_OUT = {"score": np.empty(0, F4), "ranks": np.empty(0, F4)}
Y = {"y": np.empty(0, F4)}


def strings(*values):
    return np.array(values, object)


@pytest.fixture
def refusal(ask, refused):
    """`refusal(...)` -> (status, message) of a request that must be refused."""

    def send(*arguments, **options):
        try:
            answer = ask(*arguments, **options)
        except refused as error:
            return error.status, error.message
        raise AssertionError(f"answered {answer}")

    return send


def test_one_input_and_one_output(ask, place):
    outputs = ask(place("affine"), {"x": F4([1, 2, 5])}, Y)
    np.testing.assert_array_equal(outputs["y"], F4([3.5, 4, 5.5]))


PRECISIONS = {"serve": F4, "serve,bf16": ml_dtypes.bfloat16, "serve,gpu": np.float16}


def test_a_number_that_half_precision_does_not_have(ask, place):
    def rounded(x):
        return x.astype(PRECISIONS[ask.tags]).astype(F4)

    x = F4([1 / 3, 100.7])
    outputs = ask(place("affine"), {"x": x}, Y)
    np.testing.assert_array_equal(outputs["y"], rounded(rounded(x) / 2 + 3))


def test_several_inputs_and_outputs(ask, place):
    outputs = ask(place("pair"), PAIR, PAIR_OUT)
    np.testing.assert_array_equal(outputs["score"], F4([[12], [37]]))
    np.testing.assert_array_equal(outputs["ranks"], F4([[6, 1, 2], [22, 4, 5]]))


DTYPES = {
    "i32": I4([1, -2]),
    "i64": np.int64([2**53 + 1, -1]),
    "u8": np.uint8([0, 254]),
    "f64": np.float64([0.1, 1e300]),
    "flag": np.array([True, False]),
    "text": strings(b"a", b"caf\xc3\xa9"),
}


def test_every_dtype(ask, place):
    wanted = {
        "i32": I4([2, -1]),
        "i64": np.int64([2**53 + 2, 0]),
        "u8": np.uint8([1, 255]),
        "f64": np.float64([0.1, 1e300]) / 3,
        "flag": np.array([False, True]),
        "text": strings(b"A", b"CAF\xc3\xa9"),
        "raw_bytes": DTYPES["text"],
    }
    outputs = ask(place("dtypes"), DTYPES, wanted)
    for name, array in wanted.items():
        np.testing.assert_array_equal(outputs[name], array)
        assert outputs[name].dtype == array.dtype


@pytest.mark.parametrize(
    ("where", "offset"),
    [({"version": 1}, 2), ({"version": 2}, 3), ({"label": "stable"}, 2), ({"label": "canary"}, 3)],
)
def test_versions_and_labels(ask, place, where, offset):
    outputs = ask(place("affine", **where), {"x": F4([0])}, Y)
    np.testing.assert_array_equal(outputs["y"], F4([offset]))


def test_another_signature(ask, place):
    outputs = ask(
        place("echo"),
        {"matrix": np.ones((2, 2, 3), F4)},
        {"total": np.empty(0, F4)},
        signature="total",
    )
    np.testing.assert_array_equal(outputs["total"], F4([6, 6]))


@pytest.mark.parametrize(
    ("model", "inputs", "message"),
    [
        (
            "echo",
            {"matrix": np.zeros((1, 2, 2), F4)},
            "inputs.matrix: expected float32 [N,2,3], got [1,2,2] (axis 2 is 2, not 3)",
        ),
        (
            "echo",
            {"matrix": np.zeros((1, 3), F4)},
            "inputs.matrix: expected float32 [N,2,3], got [1,3] (3 axes, not 2)",
        ),
        (
            "pair",
            {"image": IMAGE[..., 0], "meta": META},
            "inputs.image: expected float32 [N,2,2,1], got [2,2,2] (the channel axis is missing)",
        ),
        ("pair", {"imag": IMAGE, "meta": META}, 'has no input "imag"; did you mean "image"?'),
        ("dtypes", DTYPES | {"text": DTYPES["i32"]}, "inputs.text"),
        ("dtypes", DTYPES | {"i32": np.float64([1.5, 2])}, "inputs.i32"),
    ],
)
def test_what_the_signature_does_not_take(refusal, ask, place, model, inputs, message):
    status, said = refusal(place(model), inputs, PAIR_OUT)
    assert status == 400
    if ask.dialect == "columns" and "did you mean" in message:
        message = 'the input image is missing; did you mean "image"?'  # extra names are ignored
    if ask.dialect == "npz" and "did you mean" in message:
        message = 'no input for the member "imag.npy"; expected an input\'s name and .npy; did you '
        message += 'mean "image"?'
    assert message in said


@pytest.mark.parametrize(
    ("where", "status"),
    [
        ({"model": "nope"}, 404),
        ({"model": "affine", "version": 9}, 404),
        ({"model": "affine", "label": "nope"}, 400),
    ],
)
def test_a_servable_that_is_not_there(refusal, place, where, status):
    assert refusal(place(**where), {"x": F4([0])}, Y)[0] == status


def test_a_signature_that_is_not_there(refusal, place):
    status, said = refusal(place("affine"), {"x": F4([0])}, Y, signature="nope")
    assert status == 400
    assert 'The model has no signature "nope"; there are: "classify", "regress"' in said


def test_an_empty_batch(refusal, ask, place):
    status, said = refusal(place("affine"), {"x": np.zeros(0, F4)}, Y)
    assert status == 400
    if ask.dialect == "rows":
        assert "'instances' is empty; expected at least one row" in said
    else:
        assert said == "inputs.x: expected at least one row, got an empty batch"
