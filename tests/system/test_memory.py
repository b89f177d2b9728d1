"""A gateway worker's memory under many requests, large ones and small."""

import io
import time

import numpy as np
import psutil
import pytest
import requests

LOOKS, LARGE, SMALL = 9, 150, 600  # requests of each kind before each look
TWO_MEGABYTES = np.zeros((2**21 // 24, 2, 3), np.float32)
NPY = "application/x-npy"
REST_S, PATIENCE_S = 6, 60
GROWTH = 1.06  # of 68 MB: about 0.7 kB a request, beside the 3 % by which looks differ anyhow


@pytest.mark.slow
def test_thousands_of_requests_leave_it_flat(launch_gateway, modelserver):
    gateway = launch_gateway(modelserver.address)
    (worker,) = psutil.Process(gateway.process.pid).children()
    buffer = io.BytesIO()
    np.save(buffer, TWO_MEGABYTES)
    large = buffer.getvalue(), {"Content-Type": NPY, "Accept": NPY}
    small = b'{"instances": [[[1, 2, 3], [4, 5, 6]]]}', {"Content-Type": "application/json"}

    def resident():
        return worker.memory_info().rss / 2**20

    def wait_until_below(bound):
        """Idle, a worker gives back what malloc kept for the next request."""
        deadline = time.monotonic() + PATIENCE_S
        while resident() >= bound and time.monotonic() < deadline:
            time.sleep(0.2)

    busy, idle = [], []
    with requests.Session() as session:
        for _ in range(LOOKS):
            for body, headers in [small] * SMALL + [large] * LARGE:
                reply = session.post(
                    f"{gateway.url}/v1/models/echo:predict", body, headers=headers, timeout=60
                )
                assert reply.status_code == 200, reply.text
            busy.append(resident())
            if idle:
                wait_until_below(GROWTH * idle[0])
            else:
                time.sleep(REST_S)
            idle.append(resident())
    print(
        "resident MB after each look's requests:",
        [round(each, 1) for each in idle],
        "and just before:",
        [round(each) for each in busy],
    )
    assert max(idle) < GROWTH * idle[0]
    assert max(busy) < 2 * idle[0]  # what one client's requests of 2 MB need, and no more
