"""What single steps of a request cost the gateway: hot, and cold, as they are under load.

When a request comes, the processor's caches have lost what the last one walked through: here some
megabytes are walked through before each call, and the median of all is told, beside that of none.
"""

import asyncio
import statistics
import tempfile
import time
from pathlib import Path

import numpy as np

from service.gateway.access.keys import digest_of, new_key
from service.gateway.access.limits import ROWS
from service.gateway.caller import Caller
from service.gateway.capturing import Capture
from service.gateway.gateway import Gateway
from service.gateway.settings import Settings
from service.gateway.traffic import kind_of
from sluice.wire.model_ref import ModelRef

MEGABYTES, ROUNDS = 8, 1000
KEY = new_key("k")
HEADERS = {"x-api-key": KEY}
FILE = f'[keys.k]\nsha256 = "{digest_of(KEY)}"\nmodels = ["m"]\nrequests_per_s = 1e9\n'


async def measure(home: Path) -> None:
    (home / "keys").write_text(FILE)
    settings = Settings(access_file=f"{home}/keys", capture_dir=str(home), capture_share=1.0)
    gateway, caller = Gateway.of(settings), Caller.within(3600)
    capture, inputs = Capture(settings, gateway.telemetry), {"x": np.zeros((1, 28, 28, 1), "f4")}
    kind = kind_of(ModelRef("m"), "serving_default", (), inputs)
    steps = {
        "nothing": lambda: None,
        "a key is hashed": lambda: digest_of(KEY),
        "who is known is let in": lambda: gateway.lets_in(HEADERS, 100, caller),
        "it may ask that": lambda: gateway.permit(caller, "m", "predict"),
        "it pays its rows": lambda: caller.account.pay(ROWS, 1),
        "a request is captured": lambda: capture.answered(kind, inputs, 1, caller),
    }
    for walked in (np.zeros(0), np.zeros(MEGABYTES << 17)):
        for name, step in steps.items():
            times = []
            for _ in range(ROUNDS):
                await gateway.identify(HEADERS, "-", 100, caller)  # known once more, if need be
                walked += 1
                began = time.perf_counter_ns()
                step()
                times.append(time.perf_counter_ns() - began)
            print(f"{walked.nbytes:8} bytes, {name}: {statistics.median(times) / 1e3:.2f} µs")
    capture.close()


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as home:
        asyncio.run(measure(Path(home)))
