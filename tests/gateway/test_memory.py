"""Memory is kept while a worker is busy, and given back once when it is idle."""

import asyncio
import subprocess
import sys
import tracemalloc

import psutil
import pytest

from service.gateway import memory
from service.gateway.front.asgi import Body
from service.gateway.memory import MALLOC, IdleTrim


@pytest.fixture
def trim(monkeypatch):
    """An IdleTrim on clocks that the test sets, and the times at which it gave memory back."""
    clocks, given_back = {"now": 0.0, "used": 0.0}, []
    monkeypatch.setattr(memory.time, "monotonic", lambda: clocks["now"])
    monkeypatch.setattr(memory.time, "process_time", lambda: clocks["used"])
    trim = IdleTrim(lambda: given_back.append(clocks["now"]))

    def second(work_s):
        clocks["now"] += 1
        clocks["used"] += work_s
        trim.beat()
        return given_back

    return second


def test_an_idle_worker_gives_memory_back_once_after_each_time_that_it_worked(trim):
    for work_s in (0, 0, 0.5, 0.9, 0.001, 0, 0, 0.5, 0):
        given_back = trim(work_s)
    assert given_back == [5, 9]


def test_a_busy_worker_keeps_its_memory(trim):
    for _ in range(10):
        given_back = trim(0.5)
    assert given_back == []


@pytest.mark.skipif(sys.platform != "linux", reason="glibc's malloc")
def test_what_malloc_kept_goes_back_to_the_system():
    code = (
        "import sys; from service.gateway.memory import IdleTrim\n"
        "blocks = [b'x' * size for size in range(100_000, 100_500)]\n"
        "hold = b'x' * len(blocks); del blocks\n"
        "print(flush=True); input(); IdleTrim()._give_back(); print(flush=True); input()"
    )
    environment = {**MALLOC, "PYTHONMALLOC": "malloc"}
    process = subprocess.Popen(
        [sys.executable, "-c", code],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env=environment,
    )
    resident = []
    for _ in range(2):
        process.stdout.readline()
        resident.append(psutil.Process(process.pid).memory_info().rss)
        process.stdin.write("\n")
        process.stdin.flush()
    process.communicate(timeout=60)
    assert resident[1] < resident[0] - 40_000_000


def test_a_worker_runs_with_these_settings_unless_others_are_set(
    launch_gateway, modelserver, monkeypatch
):
    monkeypatch.setenv("MALLOC_ARENA_MAX", "3")
    gateway = launch_gateway(modelserver.address)
    (worker,) = psutil.Process(gateway.process.pid).children()
    environment = worker.environ()
    assert {name: environment[name] for name in MALLOC} == MALLOC | {"MALLOC_ARENA_MAX": "3"}


def test_what_is_off_is_not_loaded(tmp_path):
    """Tokens, TLS and Redis have libraries that would make every worker a fifth larger."""
    path = tmp_path / "access.toml"
    path.write_text(f'[keys.a]\nsha256 = "{"0" * 64}"\nmodels = ["*"]\n')
    script = (
        "import sys, service.gateway.app, service.gateway.front.worker\n"
        "from service.gateway.access.guard import guard_of\n"
        "from service.gateway.settings import Settings\n"
        f"guard_of(Settings(access_file={str(path)!r}))\n"
        "print(*({'cryptography', 'httpx', 'jwt', 'redis', 'tomlkit'} & sys.modules.keys()))"
    )
    loaded = subprocess.run(
        [sys.executable, "-P", "-c", script], capture_output=True, text=True, check=True
    )
    assert loaded.stdout == "\n"


def test_a_body_that_nobody_has_asked_for_is_not_kept():
    """A stranger's, at a path that needs no body, before it has been asked for a key."""
    left = 32

    async def receive():
        nonlocal left
        left -= 1
        return {"type": "http.request", "body": bytes(1 << 20), "more_body": left > 0}

    came = []
    tracemalloc.start()
    try:
        asyncio.run(Body(receive).pass_over(came.append))
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert sum(came) == 32 << 20
    assert peak < 4 << 20
