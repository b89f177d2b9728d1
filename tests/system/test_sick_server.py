"""One of two model servers hangs, or is cut off, or is slow: the other one serves on."""

import asyncio
import signal
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import pytest

from tests.system.faults import Proxy
from tests.system.load import Outcome, Question, failed, open_loop, told

DEADLINE_S = 3.0
SLOW_S = 2.0
NOTICED_S = 2.0  # until then requests may be caught
GREETING = f"X-Request-Timeout-Ms: {DEADLINE_S * 1000:.0f}\r\n"
QUESTIONS = {
    "affine": (b'{"instances":[1.0]}', b'{"predictions":[3.5]}'),
    "echo": (
        b'{"instances":[[[1,2,3],[4,5,6]]]}',
        b'{"predictions":[[[1.0,2.0,3.0],[4.0,5.0,6.0]]]}',
    ),
}


@dataclass(frozen=True)
class Sick:
    """A model server behind a proxy, and what may befall it."""

    process: object
    proxy: Proxy

    def hang(self) -> None:
        self.process.send_signal(signal.SIGSTOP)

    def vanish(self) -> None:
        self.proxy.black_hole()

    def slow_down(self) -> None:
        self.proxy.delay(SLOW_S)

    def recover(self) -> None:
        self.process.send_signal(signal.SIGCONT)
        self.proxy.heal()


@pytest.fixture(scope="module")
def healthy(modelserver) -> str:
    return modelserver.address


@pytest.fixture(scope="module")
def sick(launch_modelserver, conformance_models) -> Iterator[Sick]:
    twin = launch_modelserver(
        f"--model_config_file={conformance_models}/models.config",
        "--allow_version_labels_for_unavailable_models=true",
    )
    with Proxy(twin.port) as proxy:
        yield Sick(twin.process, proxy)


@pytest.mark.parametrize("befall", [Sick.hang, Sick.vanish, Sick.slow_down])
@pytest.mark.parametrize(
    ("rate", "seconds", "share", "within_s", "late_s"),
    [
        pytest.param(20, 5, 0.9, 2.0, 2.0, id="briefly"),
        pytest.param(60, 40, 0.98, 1.0, 0.1, id="long", marks=pytest.mark.load),
    ],
)
def test_the_other_one_answers(
    launch_front, healthy, sick, befall, rate, seconds, share, within_s, late_s
):
    gateway = launch_front(f"{healthy},{sick.proxy.address}")
    outcomes = asyncio.run(_while(gateway.http_port, sick, befall, rate, seconds))
    print(*(line for line in gateway.log.splitlines() if "WARNING" in line), sep="\n")
    for model, during, after in outcomes:
        print(f"{model}: {told(during)}; after: {told(after)}")
        later = [each for each in during if each.at > NOTICED_S]
        prompt = [each for each in later if each.right and each.seconds < within_s]
        print(f"  {len(prompt)} of {len(later)} within {within_s} s")
        assert len(prompt) >= share * len(later)
        assert max(each.seconds for each in during + after) < DEADLINE_S + late_s
        assert {each.status for each in during} <= {200, 503, 504}
        assert not failed(after)


async def _while(
    port: int, sick: Sick, befall: Callable[[Sick], None], rate: float, seconds: float
) -> list[tuple[str, list[Outcome], list[Outcome]]]:
    """By model: what became of requests while the server was sick, and then."""

    async def asked(seconds: float) -> list[list[Outcome]]:
        return await asyncio.gather(
            *(
                open_loop(
                    Question(port, f"/v1/models/{model}:predict", body, right, GREETING),
                    rate,
                    seconds,
                    seed=13,
                )
                for model, (body, right) in QUESTIONS.items()
            )
        )

    assert not any(failed(some) for some in await asked(1))
    befall(sick)
    try:
        during = await asked(seconds)
    finally:
        sick.recover()
    await asyncio.sleep(SLOW_S)  # what was under way while it was sick
    after = await asked(1)
    return list(zip(QUESTIONS, during, after, strict=True))
