"""The corpus by every way that a file takes through real servers, as one table: run with -s."""

import subprocess
import sys
from contextlib import ExitStack
from pathlib import Path

import httpx
import numpy as np
import pytest

from sluice import Client, ClientError
from sluice.pictures.decoding import Unreadable
from tests.pictures import make_model
from tests.pictures.corpus import FLAT, PHOTO, corpus, saved
from tests.pictures.make_model import SHAPE
from tests.pictures.verdicts import verdict
from training.data.sources.picture import read_picture

MODEL, OLD_MODEL = "mirror", "old-mirror"
ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def twin(tmp_path_factory, launch_modelserver):
    directory = tmp_path_factory.mktemp("mirror")
    subprocess.run([sys.executable, "-m", make_model.__name__, directory], check=True, cwd=ROOT)
    return launch_modelserver(f"--model_repository={directory}")


@pytest.fixture(scope="module")
def ways(twin, launch_grpc_gateway, tmp_path_factory):
    """By name, a function from a file's bytes to pixels [H, W, 3], or to the words of a refusal."""
    gateway, address = launch_grpc_gateway(twin.address)
    clients = ExitStack()
    file = tmp_path_factory.mktemp("training") / "picture"

    def training(data):
        file.write_bytes(data)
        try:
            return read_picture(file, SHAPE)
        except Unreadable as error:
            return str(error)

    def encoded(url):
        client = clients.enter_context(Client(url, timeout_s=60))

        def ask(data, model=MODEL):
            try:
                return client.predict(model, [data], signature="encoded")["pixels"][0]
            except ClientError as error:
                return str(error)

        return ask

    def as_pixels(data):
        answer = httpx.post(
            f"{gateway.url}/v1/models/{MODEL}:predict?signature_name=serving_default",
            content=data,
            headers={"Content-Type": "image/png"},
            timeout=60,
        )
        if answer.status_code != 200:
            return answer.text.replace(r"\"", '"')
        return np.array(answer.json()["predictions"][0])

    with clients:
        yield {
            "training": training,
            "gateway HTTP": encoded(gateway.url),
            "gateway gRPC": encoded(f"grpc://{address}"),
            "gateway pixels": as_pixels,
            "twin gRPC": encoded(f"grpc://{twin.address}"),
        }


@pytest.mark.slow
def test_no_way_shows_another_picture(ways):
    lines, wrong = [], []
    print(f"\n{'file':45}" + "".join(f"{name:16}" for name in ways))
    for name, data, shows in corpus():
        found = {way: (seen := ask(data), verdict(seen, shows)) for way, ask in ways.items()}
        cells = [
            "refused" if isinstance(seen, str) else fault or "equal"
            for seen, fault in found.values()
        ]
        lines.append(f"{name:45}" + "".join(f"{cell:16}" for cell in cells))
        print(lines[-1])
        for way, (seen, fault) in found.items():
            # The twin alone may refuse what the gateway makes PNG of, and then says who reads it.
            by_gateway = way == "twin gRPC" and isinstance(seen, str) and "the gateway" in seen
            wrong += [(name, way, fault)] if fault and not by_gateway else []
    assert wrong == []


@pytest.mark.slow
def test_a_version_from_before_these_rules_is_served_as_it_was(ways):
    for kind, pixels, options in (
        ("PNG", PHOTO, {}),
        ("JPEG", PHOTO, {"quality": 95, "subsampling": 0}),
        ("BMP", PHOTO, {}),
        ("GIF", FLAT, {}),
        ("WEBP", FLAT, {"lossless": True}),
    ):
        data = saved(pixels, kind, **options)
        for way in ("gateway HTTP", "gateway gRPC", "twin gRPC"):
            assert verdict(ways[way](data, OLD_MODEL), pixels) == "", (kind, way)
