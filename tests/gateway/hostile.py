"""What the tests with hostile clients share: a bare connection, and a look at the workers."""

import asyncio
import re
import time
from pathlib import Path

import psutil
import requests


class Connection(asyncio.Protocol):
    """Keeps what came, and whether more can."""

    def __init__(self):
        self.data, self.is_open = b"", True
        self.moved = asyncio.Event()

    def connection_made(self, transport):
        self.transport = transport

    def data_received(self, data):
        self.data += data
        self.moved.set()

    def connection_lost(self, _):
        self.is_open = False
        self.moved.set()

    def write(self, data):
        """Unless the other side has ended it: asyncio's transport has no socket from then on."""
        if self.is_open:
            self.transport.write(data)

    def abort(self):
        if self.is_open:
            self.transport.abort()


class Workers:
    """The processes of a GatewayProcess that answer, and the most memory that one has had."""

    def __init__(self, gateway):
        self._gateway = gateway
        self.pids = self._now()

    def _now(self):
        return sorted(each.pid for each in psutil.Process(self._gateway.process.pid).children())

    def peak_mb(self):
        return max(map(_peak_mb, self.pids))

    def check(self, of=""):
        """None was lost, and none has logged what it did not foresee: the loggers below `of`."""
        log, now = self._gateway.log, self._now()
        assert now == self.pids, f"{self.pids} have become {now}\n{log[-3000:]}"
        error = re.search(rf"\b(ERROR|CRITICAL)\b {of}", log)
        assert not error, log[error.start() - 200 : error.start() + 3000]


def closed_connections(admin_port):
    """{reason: count} of those that the gateway with this admin port has closed on its clients."""
    text = requests.get(f"http://127.0.0.1:{admin_port}/metrics", timeout=60).text
    counts = re.findall(
        r'^sluice_connections_closed_total{reason="(.+)"} (.+)$', text, re.MULTILINE
    )
    return {reason: float(count) for reason, count in counts}


def _peak_mb(pid):
    status = Path(f"/proc/{pid}/status").read_text()
    return int(re.search(r"VmHWM:\s+(\d+) kB", status)[1]) / 1024


def wait_until_ready(gateway):
    """With all its workers: gunicorn starts one after another."""
    deadline = time.monotonic() + 60
    master = psutil.Process(gateway.process.pid)
    workers = int(master.environ()["SLUICE_WORKERS"])
    while (
        requests.get(f"{gateway.url}/readyz", timeout=30).status_code != 200
        or len(master.children()) < workers
    ):
        assert time.monotonic() < deadline, gateway.log[-3000:]
        time.sleep(0.05)
