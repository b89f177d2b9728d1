"""A gateway worker's memory under many requests, large ones and small."""

import io
import time

import numpy as np
import psutil
import pytest
import requests

LOOKS, LARGE, SMALL = 10, 300, 600  # requests of each kind before each look
TWO_MEGABYTES = np.zeros((2**21 // 24, 2, 3), np.float32)
NPY = "application/x-npy"
REST_S = 4  # idle, a worker gives back what malloc kept for the next request
# Of 68 MB, between the lowest of the first half of the looks and of the second, five looks apart:
# 0.6 kB a request. A single look differs by 3 % from the next, as malloc gives back more or less.
GROWTH = 1.04


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

    busy, idle = [], []
    with requests.Session() as session:
        for _ in range(LOOKS):
            for body, headers in [small] * SMALL + [large] * LARGE:
                reply = session.post(
                    f"{gateway.url}/v1/models/echo:predict", body, headers=headers, timeout=60
                )
                assert reply.status_code == 200, reply.text
            busy.append(resident())
            time.sleep(REST_S)
            idle.append(resident())
    print(
        "resident MB after each look's requests:",
        [round(each, 1) for each in idle],
        "and just before:",
        [round(each) for each in busy],
    )
    half = LOOKS // 2
    assert min(idle[half:]) < GROWTH * min(idle[:half])
    assert max(busy) < 2 * min(idle)  # what one client's requests of 2 MB need, and no more
