"""Servers as processes, load from outside, and what each process spent on it."""

import json
import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import psutil

from sluice.client import Client, ClientError
from sluice.wire.processor import CPUINFO, computes_bfloat16

HERE = Path(__file__).parent
DOCS = HERE.parent / "docs"
STARTED_WITHIN_S = 120.0
WARM_UP_S = 0.5
LOOK_S = 0.02  # between two looks at a server that starts
# What oneDNN can be held to that computes bfloat16 without AMX (ONEDNN_MAX_CPU_ISA).
WITHOUT_AMX = ("AVX512_CORE_BF16", "AVX512_CORE_FP16", "AVX10_1_512")

Figures = dict[str, float]


class CannotStart(Exception):
    """The server ended, or did not answer in time; the message says where its output is."""


def require_wrk() -> None:
    if shutil.which("wrk") is None:
        raise SystemExit("The load comes from wrk: apt-get install wrk, or brew install wrk")


def load_http(
    url: str, body: Path, headers: Mapping[str, str], connections: int, seconds: float
) -> Figures:
    """wrk's figures: requests, seconds, per_second, p50_ms, p99_ms, errors (of any kind)."""
    command = ["wrk", "-t1", f"-c{connections}", f"-d{max(1, round(seconds))}s", "--timeout", "30s"]
    command += [f"-H{name}: {value}" for name, value in headers.items()]
    command += ["-s", str(HERE / "wrk.lua"), url]
    environment = os.environ | {"BODY": str(body)}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    figures: Figures = json.loads(done.stdout.strip().splitlines()[-1])
    return figures | {"per_second": figures["requests"] / figures["seconds"]}


def in_a_process(*arguments: object, **variables: str) -> Figures:
    """What a role of loads.py prints; `variables` are for its environment."""
    command = [sys.executable, str(HERE / "loads.py"), *map(str, arguments)]
    done = subprocess.run(
        command,
        check=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        env=os.environ | variables,
    )
    figures: Figures = json.loads(done.stdout)
    return figures


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextmanager
def running(
    command: Sequence[str], environment: Mapping[str, str], log: Path
) -> Iterator[psutil.Popen]:
    """A server and the processes that it starts, all ended at the end."""
    with log.open("ab") as output:
        process = psutil.Popen(
            command, env=os.environ | dict(environment), stdout=output, stderr=output, cwd=HERE
        )
    try:
        yield process
    finally:
        tree = _tree([process])
        with suppress(psutil.NoSuchProcess):
            process.terminate()
        _, alive = psutil.wait_procs(tree, timeout=10)
        for each in alive:
            with suppress(psutil.NoSuchProcess):
                each.kill()
        psutil.wait_procs(alive, timeout=10)


def until_answered(
    process: psutil.Popen, url: str, body: Path, headers: Mapping[str, str], log: Path
) -> bytes:
    """The first answer of 200 to a POST. Raises CannotStart."""
    import httpx

    content, last = body.read_bytes(), "nothing was answered"
    deadline = time.monotonic() + STARTED_WITHIN_S
    while process.poll() is None and time.monotonic() < deadline:
        try:
            reply = httpx.post(url, content=content, headers=dict(headers), timeout=20)
        except httpx.TransportError:
            time.sleep(LOOK_S)
            continue
        if reply.status_code == 200:
            return reply.content
        last = f"{reply.status_code} {reply.text[:200]}"
        time.sleep(LOOK_S)
    raise CannotStart(f"{last}; its output is in {log}")


def until_serving(process: psutil.Popen, address: str, models: Iterable[str], log: Path) -> None:
    """Until a model server serves these. Raises CannotStart."""
    deadline = time.monotonic() + STARTED_WITHIN_S
    with Client(f"grpc://{address}") as client:
        while process.poll() is None and time.monotonic() < deadline:
            try:
                if all(client.ready(model, timeout_s=1) for model in models):
                    return
            except ClientError:
                pass
            time.sleep(LOOK_S)
    raise CannotStart(f"the models did not become AVAILABLE; its output is in {log}")


def listening_on(address: str) -> psutil.Process | None:
    """The process behind HOST:PORT, where it is this machine's."""
    port = int(address.rpartition(":")[2])
    for found in psutil.net_connections("tcp"):
        if found.status == psutil.CONN_LISTEN and found.laddr.port == port and found.pid:
            return psutil.Process(found.pid)
    return None


def cpu_s(processes: Iterable[psutil.Process]) -> float:
    """Of these and all that they started, seconds."""
    return float(sum(sum(each.cpu_times()[:2]) for each in _tree(processes)))


def memory_mb(processes: Iterable[psutil.Process]) -> float:
    """Of these and all that they started; what several share counts once."""
    return float(sum(each.memory_full_info().pss for each in _tree(processes)) / 1e6)


def largest_mb(processes: Iterable[psutil.Process]) -> float:
    """The resident size of the largest single process."""
    return float(max(each.memory_info().rss for each in _tree(processes)) / 1e6)


def cores() -> int:
    """How many this process and those that it starts may use."""
    return len(core_numbers())


def core_numbers() -> list[int]:
    """Those that they may use, as far as the system tells."""
    if hasattr(os, "sched_getaffinity"):
        return sorted(os.sched_getaffinity(0))
    return list(range(os.cpu_count() or 1))


def kind_of_cpu(cpuinfo: Path = CPUINFO) -> str:
    """By what TensorFlow computes bfloat16 with: figures of one kind say nothing of another."""
    if not computes_bfloat16(cpuinfo):
        return "no bfloat16"
    held_to = os.environ.get("ONEDNN_MAX_CPU_ISA", "").upper().removeprefix("DNNL_")
    amx = "amx_bf16" in cpuinfo.read_text() and held_to not in WITHOUT_AMX
    return "AMX" if amx else "AVX512-BF16"


def idle_cpu(processes: Sequence[psutil.Process], seconds: float) -> float:
    """The share of one core that they use while nobody asks."""
    before = cpu_s(processes)
    time.sleep(seconds)
    return (cpu_s(processes) - before) / seconds


def write_docs(page: str, name: str, text: str) -> None:
    """Put it where `read_docs` finds it."""
    before, _, behind = _around(page, name)
    (DOCS / page).write_text(f"{before}\n\n{text}\n\n{behind}")


def read_docs(page: str, name: str) -> str:
    """What stands in the page of docs/ between `<!-- NAME: begin -->` and `<!-- NAME: end -->`.
    Ends the process with a sentence where it has no such lines."""
    return _around(page, name)[1]


def _around(page: str, name: str) -> tuple[str, str, str]:
    begin, end = f"<!-- {name}: begin -->", f"<!-- {name}: end -->"
    text = (DOCS / page).read_text()
    if begin not in text or end not in text:
        raise SystemExit(
            f"docs/{page} has no place for what is measured here: it needs the lines {begin} and "
            f"{end}"
        )
    before, rest = text.split(begin)
    inside, behind = rest.split(end)
    return before + begin, inside, end + behind


def _tree(processes: Iterable[Any]) -> list[psutil.Process]:
    found: dict[int, psutil.Process] = {}
    for process in processes:
        try:
            found |= {each.pid: each for each in [process, *process.children(recursive=True)]}
        except psutil.NoSuchProcess:
            continue
    return [each for each in found.values() if each.is_running()]
