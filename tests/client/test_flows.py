"""The steps that a client takes, walked by hand: no server, no waiting."""

import numpy as np
import pytest

from sluice import BadRequest, DeadlineExceeded, ModelMetadata, Overloaded, Unavailable
from sluice.client._calls import Attempt, GetMetadata, GetStatus, Pause, Predict
from sluice.client._flows import Flows
from sluice.wire.model_ref import ModelRef
from sluice.wire.signature import Signature, TensorSpec

X, Y = (TensorSpec(name, np.dtype("f4"), (None,)) for name in "xy")
DEFAULT = Signature("serving_default", {"x": X}, {"y": Y})
METADATA = ModelMetadata("m", 1, {"serving_default": DEFAULT})


def walk(flow, *answers):
    """The steps that a flow takes until the answers are used up; exceptions are thrown."""
    steps = [next(flow)]
    for answer in answers:
        error = isinstance(answer, Exception)
        steps.append(flow.throw(answer) if error else flow.send(answer))
    return steps


def predict(flows):
    return flows.predict(ModelRef("m"), {None: [1.0]}, None, (), None)


@pytest.mark.parametrize("error", [Unavailable("down"), Overloaded("busy")])
def test_it_is_asked_again_with_longer_pauses_until_the_retries_are_used_up(error):
    flow = Flows(timeout_s=60, retries=3).status("m", None)
    steps = walk(flow, error, None, error, None, error, None)
    pauses = [step.seconds for step in steps if isinstance(step, Pause)]
    for pause_s, longest_s in zip(pauses, (0.1, 0.2, 0.4), strict=True):
        assert longest_s / 2 <= pause_s <= longest_s
    with pytest.raises(type(error)):
        flow.throw(error)


def test_the_servers_own_pause_is_kept():
    _, pause = walk(Flows(60, 3).status("m", None), Overloaded("busy", "429", retry_after_s=7))
    assert pause == Pause(7)


def test_no_pause_goes_beyond_the_deadline():
    flow = Flows(60, 3).status("m", 5)
    next(flow)
    with pytest.raises(Overloaded):
        flow.throw(Overloaded("busy", "429", retry_after_s=7))


@pytest.mark.parametrize("error", [DeadlineExceeded("late"), BadRequest("wrong")])
def test_nothing_else_is_asked_again(error):
    flow = Flows(60, 3).status("m", None)
    next(flow)
    with pytest.raises(type(error)):
        flow.throw(error)


def test_each_attempt_has_what_is_left_of_the_time():
    first, _, second = walk(Flows(60, 3).status("m", 5), Unavailable("down"), None)
    assert first.call == second.call == GetStatus("m")
    assert second.timeout_s < first.timeout_s <= 5


def test_readiness_is_asked_once():
    flow = Flows(60, 3).ready("m", None)
    next(flow)
    with pytest.raises(StopIteration) as end:
        flow.throw(Unavailable("down"))
    assert end.value.value is False


def test_metadata_is_asked_once_and_again_after_a_refusal():
    flows = Flows(60, 3)
    metadata, prediction = walk(predict(flows), METADATA)
    assert (type(metadata.call), type(prediction.call)) == (GetMetadata, Predict)
    flow = predict(flows)
    (again,) = walk(flow)
    assert isinstance(again, Attempt)
    assert isinstance(again.call, Predict)
    with pytest.raises(BadRequest):
        flow.throw(BadRequest("a new version wants something else"))
    (afresh,) = walk(predict(flows))
    assert afresh.call == GetMetadata(ModelRef("m"))


def explained(signatures=(), **asked) -> Predict:
    """The call that `explain` makes."""
    metadata = ModelMetadata("m", 1, {each.name: each for each in (DEFAULT, *signatures)})
    class_index = asked.pop("class_index", None)
    flow = Flows(60, 3).explain(ModelRef("m"), {"x": [1.0, 2.0], **asked}, class_index, None)
    return walk(flow, metadata)[-1].call


ASKED, OF_A, OF_B = (
    TensorSpec(name, np.dtype("i4"), (None,)) for name in ("class", "a_class", "b_class")
)
WHY = Signature("explain", {"class": ASKED, "x": X}, {})
WHYS = Signature("explain", {"a_class": OF_A, "b_class": OF_B, "x": X}, {})


@pytest.mark.parametrize(("class_index", "classes"), [(None, [-1, -1]), (7, [7, 7])])
def test_why_is_asked_of_the_best_class_or_the_one_that_is_named(class_index, classes):
    call = explained(signatures=[WHY], class_index=class_index)
    assert (call.signature, call.inputs["class"].tolist()) == ("explain", classes)


def test_a_class_is_one_of_a_head():
    call = explained(signatures=[WHYS], b_class=[1, 2])
    assert {name: array.tolist() for name, array in call.inputs.items()} == {
        "x": [1, 2],
        "a_class": [-1, -1],
        "b_class": [1, 2],
    }
    with pytest.raises(BadRequest, match=r"give a_class=\[3\] or b_class=\[3\]"):
        explained(signatures=[WHYS], class_index=3)


def test_a_model_that_cannot_say_why_is_to_be_published_again():
    with pytest.raises(BadRequest, match=r'no signature "explain", so it cannot say why; publish'):
        explained()
