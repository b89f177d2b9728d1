"""Which answers are other answers, of every kind that there is."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as some
from hypothesis.extra.numpy import array_shapes, arrays

from service.replay.changes import Kind, Reply, Tolerance, changes, overlap


def answer(**outputs: object) -> Reply:
    return Reply({name: np.asarray(value) for name, value in outputs.items()}, 1, 0.01)


def refusal(error: str) -> Reply:
    return Reply({}, None, 0.01, error, "no reason")


def labelled(*best: tuple[bytes, float]) -> Reply:
    """Each row's two best labels: `best`, then another that has the rest."""
    classes = [[label, b"other"] for label, _ in best]
    scores = [[score, 1 - score] for _, score in best]
    return answer(
        digit_classes=np.array(classes, object), digit_scores=np.array(scores, np.float32)
    )


ROWS = np.array([[0.7, 0.2, 0.1], [0.1, 0.1, 0.8]], np.float32)
SURE = np.zeros((1, 8, 8, 1), np.float32)
SURE[0, :4] = 0.9


def moved(array: np.ndarray, by: float) -> np.ndarray:
    return array + np.array([by, -by, 0], np.float32)


@pytest.mark.parametrize(
    ("was", "now", "kinds"),
    [
        pytest.param(answer(y=ROWS), answer(y=ROWS.copy()), [], id="equal"),
        pytest.param(answer(y=ROWS), answer(y=moved(ROWS, 0.004)), [], id="within"),
        pytest.param(answer(y=ROWS), answer(y=moved(ROWS, 0.04)), [Kind.SCORE], id="beyond"),
        pytest.param(answer(y=ROWS), answer(y=ROWS[:, ::-1]), [Kind.CLASS, Kind.SCORE], id="class"),
        pytest.param(answer(y=ROWS), answer(y=ROWS * np.nan), [Kind.NAN], id="nan"),
        pytest.param(answer(y=ROWS), answer(z=ROWS), [Kind.SHAPE, Kind.SHAPE], id="names"),
        pytest.param(answer(y=ROWS), answer(y=ROWS[:1]), [Kind.SHAPE], id="rows"),
        pytest.param(answer(y=ROWS), answer(y=ROWS.astype("f2")), [Kind.SHAPE], id="dtype"),
        pytest.param(answer(y=ROWS * 9), answer(y=ROWS * 9.2), [Kind.VALUE], id="numbers"),
        pytest.param(answer(y=ROWS * 9), answer(y=ROWS * 9.01), [], id="numbers within"),
        pytest.param(answer(y=[1, 2]), answer(y=[1, 3]), [Kind.VALUE], id="integers"),
        pytest.param(
            answer(y=np.array([b"a"], object)),
            answer(y=np.array([b"b"], object)),
            [Kind.VALUE],
            id="texts",
        ),
        pytest.param(
            answer(**{"y:0": ROWS}), answer(**{"y:0": ROWS[:1]}), [Kind.SHAPE], id="colon"
        ),
        pytest.param(
            labelled((b"a", 0.9)), labelled((b"a", np.nan)), [Kind.NAN], id="labels without scores"
        ),
        pytest.param(
            labelled((b"a", 0.4)), labelled((b"a", 0.7)), [Kind.CLASS, Kind.SCORE], id="unsorted"
        ),
        pytest.param(answer(m=SURE), answer(m=SURE * 0.8), [], id="the same mask"),
        pytest.param(answer(m=SURE), answer(m=SURE[:, ::-1]), [Kind.MASK], id="another mask"),
        pytest.param(answer(m=SURE), answer(m=SURE * np.nan), [Kind.NAN, Kind.MASK], id="no mask"),
        pytest.param(
            answer(m=SURE[..., 0] > 0.5), answer(m=SURE[..., 0] > 1), [Kind.MASK], id="of integers"
        ),
        pytest.param(labelled((b"3", 0.9)), labelled((b"3", 0.9)), [], id="equal labels"),
        pytest.param(labelled((b"3", 0.9)), labelled((b"8", 0.9)), [Kind.CLASS], id="labels"),
        pytest.param(labelled((b"3", 0.9)), labelled((b"3", 0.6)), [Kind.SCORE], id="less sure"),
        pytest.param(answer(y=ROWS), refusal("INTERNAL"), [Kind.ERROR], id="error"),
        pytest.param(refusal("INTERNAL"), refusal("INVALID_ARGUMENT"), [Kind.ERROR], id="errors"),
        pytest.param(refusal("INTERNAL"), refusal("INTERNAL"), [], id="the same error"),
        pytest.param(refusal("INTERNAL"), answer(y=ROWS), [Kind.ANSWER], id="answer"),
        pytest.param(answer(y=np.zeros((0, 3))), answer(y=np.zeros((0, 3))), [], id="no rows"),
        pytest.param(answer(y=np.inf), answer(y=np.inf), [], id="infinite"),
        pytest.param(answer(y=1.0), answer(y=2.0), [Kind.VALUE], id="a scalar"),
    ],
)
def test_every_kind_is_told_and_no_other(was: Reply, now: Reply, kinds: list[Kind]) -> None:
    assert [each.kind for each in changes(was, now, Tolerance())] == kinds


def test_two_classes_that_are_as_good_may_change_places() -> None:
    even = np.array([[0.5, 0.5 - 1e-7]], np.float32)
    assert not changes(answer(y=even), answer(y=even[:, ::-1]), Tolerance())
    odd = np.array([[0.501, 0.499]], np.float32)
    found = changes(answer(y=odd), answer(y=odd[:, ::-1]), Tolerance())
    assert [each.kind for each in found] == [Kind.CLASS]


def test_the_worst_row_is_named() -> None:
    now = ROWS.copy()
    now[1] = [0.3, 0.3, 0.4]
    found = changes(answer(y=ROWS), answer(y=now), Tolerance())
    assert [str(each) for each in found] == ["row 1: y: a score is off by 0.4"]


def test_tolerances_are_taken() -> None:
    off = answer(y=moved(ROWS, 0.04))
    assert not changes(answer(y=ROWS), off, Tolerance(score=0.05))
    less = SURE.copy()
    less[0, 0] = 0
    assert changes(answer(m=SURE), answer(m=less), Tolerance())
    assert not changes(answer(m=SURE), answer(m=less), Tolerance(overlap=0.7))


def test_overlap_leaves_the_background_out() -> None:
    was, now = np.zeros((4, 4), int), np.zeros((4, 4), int)
    assert overlap(was, now) == 1.0
    was[0, 0] = now[3, 3] = 1
    assert overlap(was, now) == 0.0


DTYPES = [np.float32, np.float64, np.float16, np.int32, np.uint8, np.bool_]
TEXTS = some.binary(max_size=2)


def of_dtype(dtype: object) -> some.SearchStrategy[np.ndarray]:
    shapes = array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=2)
    return arrays(dtype, shapes, elements=TEXTS if dtype is object else None)


@given(
    some.dictionaries(
        some.sampled_from(["label", "label_classes", "label_scores", "y", "heatmap"]),
        some.sampled_from([*DTYPES, object]).flatmap(of_dtype),
    ),
    some.data(),
)
def test_whatever_a_model_answers_is_compared_and_is_like_itself(outputs, data) -> None:
    copies = {name: array.copy() for name, array in outputs.items()}
    assert changes(Reply(outputs, 1, 0.1), Reply(copies, 2, 0.1), Tolerance()) == []
    others = {
        name: data.draw(
            arrays(array.dtype, array.shape, elements=TEXTS if array.dtype == object else None)
        )
        for name, array in outputs.items()
    }
    for each in changes(Reply(outputs, 1, 0.1), Reply(others, 2, 0.1), Tolerance()):
        assert str(each)
