"""A gateway worker's memory under many large requests."""

import io
import time

import numpy as np
import psutil
import pytest
import requests

REQUESTS, WARM = 10_000, 1_000
TWO_MEGABYTES = np.zeros((2**21 // 24, 2, 3), np.float32)


@pytest.mark.slow
def test_ten_thousand_requests_of_two_megabytes_leave_it_flat(launch_gateway, modelserver):
    gateway = launch_gateway(modelserver.address)
    (worker,) = psutil.Process(gateway.process.pid).children()
    buffer = io.BytesIO()
    np.save(buffer, TWO_MEGABYTES)
    busy, resident = [], []
    with requests.Session() as session:
        for count in range(1, REQUESTS + 1):
            reply = session.post(
                f"{gateway.url}/v1/models/echo:predict",
                data=buffer.getvalue(),
                headers={"Content-Type": "application/x-npy", "Accept": "application/x-npy"},
                timeout=60,
            )
            assert reply.status_code == 200, reply.text
            if count % WARM == 0:
                busy.append(worker.memory_info().rss / 2**20)
                time.sleep(4)  # idle, a worker gives back what malloc kept for the next request
                resident.append(worker.memory_info().rss / 2**20)
    print(
        "resident MB after each thousand:",
        [round(each) for each in resident],
        "and just before:",
        [round(each) for each in busy],
    )
    assert max(resident) < 1.1 * resident[0]
    assert max(busy) < 2 * resident[0]  # what one client's requests of 2 MB need, and no more
