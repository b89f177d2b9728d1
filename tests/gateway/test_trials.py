"""Versions on trial: whose turn it is, which errors are whose, what counts, and files that harm."""

import asyncio
import os
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from service.gateway import errors
from service.gateway.access.grant import EVERYTHING
from service.gateway.answer import Answer
from service.gateway.asking import Question
from service.gateway.caller import Caller
from service.gateway.calls import Calls
from service.gateway.forwarded import Forwarded, Unread
from service.gateway.model_server import CLASSIFY, ModelServer
from service.gateway.rollouts import Rollouts
from service.gateway.routing import BEGINNING_S, Route, described, route
from service.gateway.settings import Settings
from service.gateway.shadow_line import Pair, ShadowLine
from service.gateway.shadowing import LOOK_EVERY_S, Shadow
from service.gateway.threads import Threads
from service.gateway.traffic import kind_of
from service.gateway.trials import Trials
from service.gateway.witness import Witness
from service.rollout import state
from service.rollout.evidence import Evidence, evidence_directory, read_evidence
from service.rollout.state import ASKED_STAGES, goes_to_next
from sluice.wire.model_ref import ModelRef
from sluice.wire.rollout_files import ROLLOUT_FILE
from sluice.wire.rollouts import Rollout, Stage
from sluice.wire.signature import Signature
from tests.gateway.fake_servers import FakeServers

MODEL = ModelRef("m")
CANARY = Rollout("a", 1, 2, Stage.CANARY, canary_share=1)
SETTINGS = Settings(model_server="127.0.0.1:1")


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    """Of the models `m` and `n`, each with two versions."""
    for model in ("m", "n"):
        for number in "12":
            (tmp_path / model / number).mkdir(parents=True)
            (tmp_path / model / number / "saved_model.pb").touch()
    return tmp_path


def calls() -> Calls:
    return Calls(SETTINGS, ModelServer(SETTINGS.model_server), Threads(1))


def seen(witness: Witness, rollout: Rollout) -> Evidence:
    return witness.due({"m": rollout}).get(("m", rollout.id), Evidence(rollout.id))


def tried(rollout: Rollout, error: errors.GatewayError | None) -> tuple[str, Evidence]:
    """Who answered a request whose first version fails so, and what was counted."""
    witness = Witness()
    caller = Caller.within(60)
    way = route(MODEL, rollout, caller)

    async def ask(version: ModelRef) -> str:
        if error is not None and version == way.model:
            raise error
        return str(version.version)

    async def run() -> str:
        try:
            return await Trials(SETTINGS, calls(), witness).ask(way, caller, ask)
        except errors.GatewayError as raised:
            return type(raised).__name__

    return asyncio.run(run()), seen(witness, rollout)


ITS_OWN = [
    errors.InvalidInput("x", "float", "int"),
    errors.RejectedByModel("no"),
    errors.ModelServerFailed("INTERNAL"),
    errors.ModelServerOverloaded("OOM when allocating tensor"),
    errors.NotImplementedByServer("grouped convolutions on this device"),
]


@pytest.mark.parametrize("error", ITS_OWN, ids=lambda error: type(error).__name__)
def test_live_answers_for_a_canary_that_fails_by_what_may_be_its_own(error) -> None:
    answered, evidence = tried(CANARY, error)
    assert answered == "1"
    assert (evidence.canary.errors, evidence.stable.requests) == (1, 0)


ABSENT = [
    errors.ModelNotFound("no such version"),
    errors.ModelServerUnavailable("is loading", begun=False, loading=True),
]


@pytest.mark.parametrize("error", ABSENT, ids=["not found", "loading"])
def test_live_answers_for_a_canary_that_is_not_loaded_which_is_nobodys_fault(error) -> None:
    answered, evidence = tried(CANARY, error)
    assert answered == "1"
    assert (evidence.canary.errors, evidence.stable.requests) == (0, 0)


HELD = Rollout("a", 1, 1, Stage.PROMOTED).moved(Stage.PROMOTED, "", 0.0)


@pytest.fixture
def begun() -> Rollout:
    """Just now."""
    return Rollout("a", 1, 2, Stage.SHADOW).moved(Stage.SHADOW, "", time.time())


@pytest.mark.parametrize("error", ABSENT, ids=["not found", "loading"])
@pytest.mark.parametrize("stage", [Stage.REPLAY, Stage.SHADOW])
def test_the_newest_answers_while_live_is_loaded_at_the_very_beginning(begun, stage, error) -> None:
    """As it has until then."""
    answered, evidence = tried(replace(begun, stage=stage), error)
    assert answered == str(MODEL.version)
    assert evidence.stable.requests == 0


@pytest.mark.parametrize("error", ABSENT, ids=["not found", "loading"])
@pytest.mark.parametrize("earlier", [(), CANARY.remembered])
def test_the_newest_answers_until_a_version_that_is_held_is_loaded(earlier, error) -> None:
    """However long that takes: none is on trial."""
    answered, _ = tried(replace(HELD, earlier=earlier), error)
    assert answered == str(MODEL.version)


@pytest.mark.parametrize("error", ABSENT, ids=["not found", "loading"])
@pytest.mark.parametrize(
    "later",
    [
        lambda begun: begun.moved(Stage.ROLLED_BACK, "", time.time()),
        lambda begun: begun.moved(Stage.CANARY, "", time.time(), 0.0),
        lambda begun: begun.moved(Stage.PAUSED, "", time.time()),
        lambda begun: begun.moved(Stage.PAUSED, "", 0.0).moved(Stage.SHADOW, "", time.time()),
        lambda begun: replace(
            begun, history=(replace(begun.history[0], at=time.time() - BEGINNING_S),)
        ),
        lambda begun: replace(begun, earlier=CANARY.remembered),
    ],
    ids=["rolled back", "canary", "paused", "shadow again", "long ago", "not the first"],
)
def test_the_newest_never_answers_for_live_after_that(begun, later, error) -> None:
    """It is the one that is on trial, or that was rolled back."""
    answered, evidence = tried(later(begun), error)
    assert answered == type(error).__name__
    assert evidence.stable.errors == 0


@pytest.mark.parametrize(
    ("error", "counts"),
    [
        (errors.Busy("full"), False),
        (errors.RateLimited("too many"), False),
        (errors.DeadlineExceeded("too slow"), True),
        (errors.ModelServerUnavailable("no connection", begun=False), False),
        (errors.ModelServerUnavailable("connection reset", begun=True), True),
    ],
    ids=lambda value: type(value).__name__,
)
def test_what_a_server_was_lost_under_is_asked_of_no_other(error, counts) -> None:
    """And what is late, or refused before any version was asked."""
    for rollout, of in ((CANARY, "canary"), (replace(CANARY, canary_share=0), "stable")):
        answered, evidence = tried(rollout, error)
        assert answered == type(error).__name__
        assert getattr(evidence, of).errors == counts


@pytest.mark.parametrize("stage", Stage)
def test_versions_are_counted_while_they_are_on_trial(stage) -> None:
    rollout = replace(CANARY, stage=stage)
    answered, evidence = tried(rollout, None)
    assert answered == ("2" if stage in (Stage.CANARY, Stage.PROMOTED) else "1")
    counted = evidence.stable.requests + evidence.canary.requests
    assert counted == (stage in ASKED_STAGES)
    assert evidence.canary.requests == (stage is Stage.CANARY)


def test_a_version_that_is_asked_seldom_is_not_late_for_its_signatures() -> None:
    """Which are asked for anew when they have not been for a while: of a canary nearly always."""
    witness, caller = Witness(), Caller.within(60)

    async def ask(version: ModelRef) -> ModelRef:
        await asyncio.sleep(0.05)
        caller.queued_s, caller.upstream_s = 0.001, 0.002
        return version

    way = route(MODEL, CANARY, caller)
    asyncio.run(Trials(SETTINGS, calls(), witness).ask(way, caller, ask))
    assert seen(witness, CANARY).canary.quantile_s(1) < 0.005


def test_a_key_always_goes_the_same_way_and_who_has_none_is_lives() -> None:
    rollout = replace(CANARY, canary_share=0.5, by="key")
    caller, found = Caller.within(60), set()
    for number in range(20):
        caller.grant = replace(EVERYTHING, id=f"key-{number}")
        ways = {route(MODEL, rollout, caller).model.version for _ in range(3)}
        assert ways == {2 if goes_to_next(rollout, "m", f"key-{number}") else 1}
        assert described(MODEL, rollout, caller).model.version == 1
        found |= ways
    assert found == {1, 2}
    caller.grant = EVERYTHING
    assert route(MODEL, replace(rollout, canary_share=1), caller).model.version == 1


def test_a_file_that_harms_its_own_model_harms_no_other(repository: Path) -> None:
    rollouts = Rollouts(Witness(repository))
    for model in ("m", "n"):
        state.start(repository / model, 2)
    rollouts.look()
    before = rollouts.in_force
    assert {*before} == {"m", "n"}
    state.canary(repository / "n", 0.5)
    file = repository / "m" / ROLLOUT_FILE
    for harm in ("[" * 100_000, '{"id": "', "x" * (2**20 + 1)):
        file.write_text(harm)
        rollouts.look()
        assert rollouts.in_force["m"] == before["m"]
        assert rollouts.in_force["n"].canary == 0.5
        assert [*rollouts.problems] == ["m"]
    file.unlink()
    os.mkfifo(file)
    rollouts.look()
    assert [*rollouts.problems] == ["m"]
    file.unlink()
    rollouts.look()
    assert ([*rollouts.in_force], rollouts.problems) == (["n"], {})


def test_a_problem_goes_with_its_model_and_a_volume_that_is_gone_ends_nothing(
    repository: Path,
) -> None:
    rollouts = Rollouts(Witness(repository))
    (repository / "m" / ROLLOUT_FILE).write_text("{")
    state.start(repository / "n", 2)
    rollouts.look()
    assert rollouts.problem
    for model in ("m", "n"):
        (repository / model).rename(repository.with_name(f"{repository.name}-{model}"))
    rollouts.look()
    assert ([*rollouts.in_force], rollouts.problem) == (["n"], False)


def test_what_was_seen_is_written_of_rollouts_in_force_into_models_that_are_there(
    repository: Path,
) -> None:
    witness = Witness(repository)
    over, gone = replace(CANARY, id="over"), Rollout("gone", 1, 2, Stage.SHADOW)
    for name, rollout in (("m", CANARY), ("m", over), ("deleted", gone)):
        witness.answered(Route(ModelRef(name, 1), rollout), 0.01, {})
    witness.write(witness.due({"m": CANARY, "deleted": gone}))
    assert read_evidence(repository / "m", "a").stable.requests == 1
    assert not evidence_directory(repository / "m", "over").exists()
    assert not (repository / "deleted").exists()
    assert not witness.problem
    assert seen(witness, over) == Evidence("over")


LIVE = ModelRef("m", 1)
REPLY = np.zeros((64, 1000), np.float32)  # to all rows of a call


def offered(rollout: Rollout, joined: int = 1) -> Pair | None:
    """What stands in line once a row of REPLY was answered, in a call of so many rows."""
    inputs = {"x": np.zeros((1, 2), np.float32)}
    kind = kind_of(LIVE, "serving_default", (), inputs)
    question = Question(kind, inputs, 1, Signature("serving_default", {}, {}))
    caller = Caller.within(60)
    caller.rows, caller.joined = 1, joined
    return in_line(rollout, question, Answer({"y": REPLY[3:4]}, 1), caller)


def passed_on(rollout: Rollout, model: ModelRef = LIVE) -> Pair | None:
    """What stands in line once 200 bytes were the reply to 100, which went as they came."""
    asked, reply = Forwarded(CLASSIFY, bytes(100), model), Unread(CLASSIFY, bytes(200), model)
    return in_line(rollout, asked, reply, Caller.within(60))


def in_line(rollout: Rollout, asked, answer, caller: Caller) -> Pair | None:
    async def offer() -> Pair | None:
        shadow = Shadow(SETTINGS, Rollouts(Witness()), Witness(), calls())
        shadow.offer(Route(LIVE, rollout), asked, answer, caller)
        await shadow.close()
        return shadow._line.first if shadow._line else None

    return asyncio.run(offer())


@pytest.mark.parametrize("offered", [offered, passed_on])
@pytest.mark.parametrize("stage", Stage)
def test_who_is_shadowed(stage, offered) -> None:
    assert bool(offered(replace(CANARY, stage=stage))) == (stage in (Stage.SHADOW, Stage.CANARY))


def test_what_another_has_answered_for_live_is_compared_with_nothing() -> None:
    assert passed_on(CANARY) and not passed_on(CANARY, MODEL)


def test_what_goes_as_it_came_goes_alone() -> None:
    """And its own calls say which version is slower: both have as many rows."""
    pair = passed_on(CANARY)
    pair.caller.answered = True
    assert (pair.size, pair.rows, pair.joined) == (300, 1, 1)
    line = ShadowLine(most=100, most_bytes=1 << 20)
    for _ in range(3):
        line.add(replace(pair))
    assert [(len(pairs), copies) for pairs, copies in (line.take(8), line.take(8))] == [(1, 0)] * 2


def test_what_waits_keeps_no_more_than_is_counted_for_it() -> None:
    """Else a row in line keeps the reply to all."""
    lone, joined = offered(CANARY), offered(CANARY, joined=64)
    assert lone.size == joined.size == 4000 + 8
    assert np.shares_memory(lone.answer.outputs["y"], REPLY)
    assert not np.shares_memory(joined.answer.outputs["y"], REPLY)


def test_nor_of_the_message_that_its_inputs_lie_in() -> None:
    """Which may be padded: nearly all of it can be fields that nobody knows."""
    message = bytes(1 << 20)
    inputs = {"x": np.frombuffer(memoryview(message)[-8:], np.float32).reshape(1, 2)}
    kind = kind_of(LIVE, "serving_default", (), inputs)
    question = Question(kind, inputs, 1, Signature("serving_default", {}, {}))
    pair = in_line(CANARY, question, Answer({"y": REPLY[3:4]}, 1), Caller.within(60))
    assert pair.size >= len(message)


@pytest.mark.parametrize(
    ("error", "counts"),
    [
        (errors.ModelServerUnavailable("connection reset", begun=True), True),
        (errors.ModelServerUnavailable("no connection", begun=False), False),
        (errors.ModelNotFound("not loaded yet"), False),
        (errors.ModelServerOverloaded("OOM when allocating tensor with shape[9]"), True),
        (errors.ModelServerOverloaded("Out of memory while trying to allocate 9 bytes."), True),
        (errors.ModelServerOverloaded("the queue is full"), False),
    ],
    ids=["lost", "away", "not loaded", "no memory", "none for XLA", "full"],
)
def test_a_server_that_shadows_were_lost_under_counts_once(error, counts) -> None:
    """Whatever the call held: one of its questions may have ended the server. So does a version
    that has no memory."""
    pair, witness = offered(CANARY), Witness()

    async def ask() -> None:
        asked = calls()
        shadow = Shadow(SETTINGS, Rollouts(witness), witness, asked)
        await shadow._failed([pair, replace(pair), replace(pair)], error, 0.01)
        await shadow.close()

    asyncio.run(ask())
    evidence = seen(witness, CANARY)
    assert evidence.changes == ({"error": 1} if counts else {})
    assert evidence.shadow_next.errors == counts


def test_every_other_turn_asks_as_many_rows_as_went_with_the_first() -> None:
    """Calls of one size say which version is slower. Copies stand in for those that are missing."""
    pair = offered(CANARY, joined=5)
    pair.caller.answered = True
    line = ShadowLine(most=100, most_bytes=1 << 20)
    for _ in range(17):
        line.add(replace(pair))
    turns = [line.take(most_rows=8) for _ in range(3)]
    assert [(len(pairs), copies) for pairs, copies in turns] == [(5, 0), (8, 0), (4, 1)]


def test_no_copies_are_asked_where_as_many_rows_as_went_with_the_first_may_not_go() -> None:
    """The call would be no longer than it may be, and its time would say nothing."""
    pair = offered(CANARY, joined=5)
    pair.caller.answered = True
    line = ShadowLine(most=100, most_bytes=1 << 20)
    for alone in (False, False, True):
        line.add(replace(pair, kind=None if alone else pair.kind))
    turns = [line.take(most_rows=4) for _ in range(2)]
    assert [(len(pairs), copies) for pairs, copies in turns] == [(2, 0), (1, 0)]
    for _ in range(2):
        line.add(replace(pair, kind=None))
        assert line.take(most_rows=8)[1] == 0


def test_shadows_rest_for_a_time_that_nobody_else_takes() -> None:
    """Not for one in which live is asked."""

    async def rest() -> None:
        model_server = ModelServer(SETTINGS.model_server)
        model_server.servers = servers = FakeServers()
        asked = Calls(SETTINGS, model_server, Threads(1))
        shadow = Shadow(SETTINGS, Rollouts(Witness()), Witness(), asked)
        traffic = asked.joining._of("m")
        call = traffic.begin(servers.up[0], time.monotonic(), rows=1)
        resting = asyncio.create_task(shadow._rest("m", 2 * LOOK_EVERY_S))
        await asyncio.sleep(10 * LOOK_EVERY_S)
        assert not resting.done()
        traffic.end(call)
        await asyncio.wait_for(resting, 60)

    asyncio.run(rest())


def test_where_a_promoted_version_is_gone_the_one_before_answers_and_not_the_newest() -> None:
    """Which may be the next one, on trial, before this gateway knows of it."""
    way = route(MODEL, Rollout("a", 1, 2, Stage.PROMOTED), Caller.within(1))
    assert (way.model.version, way.instead) == (2, ModelRef("m", 1))
    assert way.goes_round(errors.ModelNotFound("version 2 is not loaded"))
