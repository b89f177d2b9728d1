"""Every recipe on toy data of the right kind: from its settings to answers over HTTP, by each of
its graphs.

The families' full sizes are held where they are stated, in tests/models/test_families.py.
"""

import base64
import dataclasses
import functools
import io
import json
import shutil
import time
from pathlib import Path

import keras
import numpy as np
import pytest
import requests
from PIL import Image

import models
import training
from tests.sharing_out import share_of
from training import run as running
from training.data import load as loading
from training.data.dataset import Dataset, Split
from training.data.heads import Classes
from training.publishing import publish as publishing
from training.recipes import RECIPES

TOY = {
    "digits": {"units": "16"},
    "mlp": {"units": "8,8"},
    "cnn_sequential": {"filters": "4"},
    "cnn_functional": {"filters": "4"},
    "fashion": {"units": "8"},
    "two_view": {"width": "4"},
    "multi_head": {"width": "4"},
    "digit_sum": {"width": "4"},
    "unet": {"width": "2"},
    "gan": {"width": "4"},
    "vit_small": {"width": "8", "depth": "1", "heads": "2", "mlp_width": "8"},
    "resnet_small": {"width": "2", "depths": "1,1"},
}
FULL_SIZE = {  # another worker's: tests/sharing_out.py
    "vgg16": {"width": "2", "units": "4"},
    "vgg19": {"width": "2", "units": "4"},
    "resnet50": {"width": "2", "depths": "1,1,1,1"},
    "resnet101": {"width": "2", "depths": "1,1,1,1"},
    "resnet152": {"width": "2", "depths": "1,1,1,1"},
    "inception_v3": {"width": "0.05"},
    "vit_b16": {"depth": "1"},
}
SIZES = TOY | FULL_SIZE
QUICK = ("digit_sum", "unet", "gan")  # and between them every kind of input, head and signature

# By the tags of a graph, what its answers may differ by from Keras's: of themselves, and of the
# greatest. float32 leaves 1e-5 where sums are made in another order, or 1e-6 of the greatest where
# terms cancel out; bfloat16 has 8 bits, and float16 11.
GRAPHS = {"serve": (1e-5, 1e-6), "serve,bf16": (0.05, 0.02), "serve,gpu": (0.01, 0.005)}
# Of a model that has learnt nothing.
ALL_GRAPHS = {"optimize": "bf16,gpu", "optimize_drop": "100", "optimize_margin": "1"}
# Of these CI asks the first graph alone, as others of their families have all there; `make
# test-recipes` asks all of them.
ONE_GRAPH = ("fashion", "vgg19", "resnet50", "resnet101", "resnet152", "vit_b16")

CASES = [pytest.param((name, False, "serve"), id=name) for name in QUICK]
CASES += [
    pytest.param(
        (name, True, tags),
        id=f"{name} {tags}",
        marks=pytest.mark.load if name in ONE_GRAPH else pytest.mark.slow,
    )
    for name in SIZES
    for tags in GRAPHS
]
CASES += [
    pytest.param((name, False, "serve"), id=name, marks=pytest.mark.slow) for name in ONE_GRAPH
]

# By model; where one is not listed: image, label, and nothing.
INPUTS = {"two_view": {"left", "right"}, "digit_sum": {"left", "right"}}
NAMING = {"digit_sum": ("left_digit", "right_digit", "sum"), "unet": ()}
MEASURING = {"multi_head": {"coverage"}, "unet": {"mask"}, "gan": {"real"}}
ROWS = 3


def toy_source(*_):
    """Discs on black, so that masks and coverage mean something."""
    rng = np.random.default_rng(0)
    y, x = np.mgrid[:28, :28]
    radius = rng.integers(4, 12, size=40)[:, None, None]
    images = (np.hypot(y - 14, x - 14) < radius)[..., None] * rng.integers(
        100, 255, (40, 28, 28, 1)
    )
    whole = Split({"image": images.astype(np.uint8)}, {"label": np.arange(40) % 10})
    return Dataset(
        whole,
        whole.take(slice(10)),
        whole.take(slice(20)),
        {"label": Classes(tuple("0123456789"))},
        "discs",
    )


TOY_SOURCES = {"fashion": toy_source, "digits": toy_source}


@dataclasses.dataclass(frozen=True)
class Trained:
    """A recipe's published version, the Keras model that it was made from, and where it answers."""

    name: str
    version: Path
    model: keras.Model
    dataset: Dataset
    url: str
    tags: str

    @property
    def family(self) -> str:
        return RECIPES[self.name].model

    @property
    def naming(self) -> tuple[str, ...]:
        """The heads that name classes."""
        return NAMING.get(self.family, ("label",))

    @property
    def prefixes(self) -> dict[str, str]:
        """By head, what its names in `explain` begin with."""
        return {head: f"{head}_" if len(self.naming) > 1 else "" for head in self.naming}

    @property
    def heatmaps(self) -> list[str]:
        several = INPUTS.get(self.family, ())
        return [f"heatmap_{name}" for name in several] or ["heatmap"]

    @property
    def heads(self) -> set[str]:
        return {*self.naming, *MEASURING.get(self.family, ())}

    @property
    def images(self) -> dict[str, np.ndarray]:
        """uint8 [ROWS, H, W, C] by input name, of which no two are the same."""
        return {name: images[4 : 4 + ROWS] for name, images in self.dataset.test.inputs.items()}

    @functools.cached_property
    def keras_answers(self) -> dict[str, np.ndarray]:
        """To `images`, by head name; from Keras itself, not through `training`."""
        asked = models.parts(self.model).get("discriminator", self.model)
        inputs = {name: images.astype(np.float32) for name, images in self.images.items()}
        outputs = asked(inputs if len(inputs) > 1 else inputs["image"], training=False)
        if not isinstance(outputs, dict):
            [head] = models.heads(asked)
            outputs = {head: outputs}
        return {head: np.asarray(values) for head, values in outputs.items()}

    def signatures(self) -> dict[str, dict[str, set[str]]]:
        """By signature the names of its inputs and outputs, as the gateway tells them."""
        found = self.get("/metadata")["metadata"]["signature_def"]["signature_def"]
        return {
            name: {side: set(each[side]) for side in ("inputs", "outputs")}
            for name, each in found.items()
            if not name.startswith("__")
        }

    def predict(self, signature: str, inputs: dict[str, object]) -> dict[str, object]:
        """Outputs by name; TensorFlow Serving's JSON leaves the name of a single one out."""
        outputs = self.post(":predict", {"signature_name": signature, "inputs": inputs})["outputs"]
        names = self.signatures()[signature]["outputs"]
        return outputs if len(names) > 1 else dict.fromkeys(names, outputs)

    def get(self, what: str) -> dict:
        return checked(requests.get(f"{self.url}/v1/models/{self.name}{what}", timeout=60))

    def post(self, verb: str, body: dict) -> dict:
        return checked(self.send(verb, body))

    def refused(self, body: dict) -> tuple[int, str]:
        """The status and the words of a prediction that is an error."""
        reply = self.send(":predict", body)
        return reply.status_code, reply.json()["error"]

    def send(self, verb: str, body: dict) -> requests.Response:
        return requests.post(f"{self.url}/v1/models/{self.name}{verb}", json=body, timeout=60)


def checked(reply: requests.Response) -> dict:
    assert reply.status_code == 200, reply.text
    return reply.json()


@pytest.fixture(scope="module")
def repository(tmp_path_factory):
    return tmp_path_factory.mktemp("model-repository")


@pytest.fixture(scope="module")
def served_by(repository, launch_modelserver, launch_gateway):
    """`served_by(tags)` -> the URL of one twin's gateway, for this graph of all that is there."""

    @functools.cache
    def launch(tags):
        twin = launch_modelserver(f"--model_repository={repository}", f"--saved_model_tags={tags}")
        return launch_gateway(twin.address).url

    return launch


@pytest.fixture(scope="module")
def published(repository):
    """`published(recipe, all_graphs)` -> its version after two steps (digit_sum makes more of its
    pairs), and the model and the images that it was made of."""

    @functools.cache
    def publish(name, all_graphs):
        kept = []

        def keep(model, dataset, *rest, **options):
            kept.append((model, dataset))
            return publishing.publish(model, dataset, *rest, **options)

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(loading, "SOURCES", TOY_SOURCES)
            patch.setattr(running, "publish", keep)
            version = training.train(
                name,
                model_repository=repository,
                epochs=1,
                batch_size=8,
                settings={"limit": "16", **SIZES[name], **(ALL_GRAPHS if all_graphs else {})},
            )
        return version, *kept[0]

    return publish


@pytest.fixture(scope="module", params=CASES)
def trained(request, published, served_by):
    """Each recipe by each of its graphs: published, and served."""
    name, all_graphs, tags = request.param
    version, model, dataset = published(name, all_graphs)
    url = served_by(tags)
    wait_until_served(f"{url}/v1/models/{name}/versions/{version.name}")
    yield Trained(name, version, model, dataset, url, tags)
    if not all_graphs or tags == [*GRAPHS][-1]:  # nobody asks for it any more
        shutil.rmtree(version.parent)


def wait_until_served(url):
    deadline = time.monotonic() + 300  # 94 convolutions, on two cores that others use too
    while '"AVAILABLE"' not in (said := requests.get(url, timeout=60).text):
        assert time.monotonic() < deadline, said
        time.sleep(0.1)


def test_a_version_tells_what_it_is(trained):
    facts = json.loads((trained.version / "metrics.json").read_text())
    assert trained.version.parent.name == trained.name
    assert facts["recipe"]["model"] == trained.family
    assert len(facts["curves"]["loss"]) == 1
    assert set(facts["heads"]) <= trained.heads
    assert trained.tags in facts["graphs"]
    assert not any("absent" in graph for graph in facts["graphs"].values())
    for picture in trained.version.glob("*.png"):
        with Image.open(picture) as opened:
            assert opened.width > 300


def test_signatures_have_the_familys_names(trained):
    images, naming, heads = INPUTS.get(trained.family, {"image"}), trained.naming, trained.heads
    best = {f"{head}_{what}" for head in naming for what in ("classes", "scores")}
    expected = {
        "serving_default": {"inputs": images, "outputs": heads},
        "pixels": {"inputs": images, "outputs": heads},
        "encoded": {"inputs": images, "outputs": heads | best},
    }
    if naming:
        expected["classify"] = {"inputs": {"inputs"}, "outputs": {"classes", "scores"}}
        expected["explain"] = expected["explain_encoded"] = {
            "inputs": images | {f"{before}class" for before in trained.prefixes.values()},
            "outputs": {
                f"{before}{what}"
                for before in trained.prefixes.values()
                for what in ("class", "score", *trained.heatmaps)
            },
        }
    if trained.family == "gan":
        expected["generate"] = {"inputs": {"noise", "label"}, "outputs": {"image"}}
    assert trained.signatures() == expected


def test_every_signature_answers_as_keras_does(trained):
    for answers in trained.keras_answers.values():
        assert not np.allclose(answers, answers[:1]), "one answer to every image proves nothing"
    for signature in trained.signatures():
        ASKED[signature](trained)


def ask_with_arrays(trained, signature="serving_default"):
    answered = trained.predict(
        signature, {name: images.tolist() for name, images in trained.images.items()}
    )
    for head, expected in trained.keras_answers.items():
        assert_close(trained, answered[head], expected)


def ask_with_files(trained):
    answered = trained.predict(
        "encoded",
        {name: [as_file(image) for image in images] for name, images in trained.images.items()},
    )
    for head, expected in trained.keras_answers.items():
        assert_close(trained, answered[head], expected)
    for head in trained.naming:
        assert_best(trained, head, answered[f"{head}_classes"], answered[f"{head}_scores"])


def ask_with_examples(trained):
    examples = [
        {name: as_file(images[row]) for name, images in trained.images.items()}
        for row in range(ROWS)
    ]
    results = trained.post(":classify", {"signature_name": "classify", "examples": examples})[
        "results"
    ]
    assert_best(
        trained,
        trained.naming[0],
        [[label for label, _ in row] for row in results],
        [[score for _, score in row] for row in results],
    )


def ask_why(trained):
    assert_explained(
        trained, "explain", {name: images.tolist() for name, images in trained.images.items()}
    )


def ask_why_with_files(trained):
    files = {name: [*map(as_file, images)] for name, images in trained.images.items()}
    assert_explained(trained, "explain_encoded", files)


def assert_explained(trained, signature, pictures):
    """Of the best class and of two that are asked for."""
    classes = {f"{before}class": [-1, 0, 1] for before in trained.prefixes.values()}
    answered = trained.predict(signature, {**pictures, **classes})
    for head, before in trained.prefixes.items():
        expected = trained.keras_answers[head]
        best, *asked = answered[f"{before}class"]
        assert asked == [0, 1]
        assert_close(trained, expected[0, best], expected[0].max())
        assert trained.tags != "serve" or best == expected[0].argmax()
        assert_close(
            trained, answered[f"{before}score"], expected[range(3), answered[f"{before}class"]]
        )
        for name in trained.heatmaps:
            heat = np.array(answered[before + name])
            assert heat.ndim == 3 and len(heat) == ROWS
            assert set(heat.max(axis=(1, 2))) <= {0, 1} and heat.min() >= 0


def ask_for_pictures(trained):
    [(_, latent), _] = trained.model.generator.input_shape
    noise = np.random.default_rng(0).standard_normal((ROWS, latent)).astype(np.float32)
    label = np.array([0, 7, 3], np.int32)
    answered = trained.predict("generate", {"noise": noise.tolist(), "label": label.tolist()})
    assert_close(trained, answered["image"], np.asarray(trained.model.generator([noise, label])))


ASKED = {
    "serving_default": ask_with_arrays,
    "pixels": functools.partial(ask_with_arrays, signature="pixels"),
    "encoded": ask_with_files,
    "classify": ask_with_examples,
    "explain": ask_why,
    "explain_encoded": ask_why_with_files,
    "generate": ask_for_pictures,
}


def test_every_graph_refuses_in_the_same_words(trained, served_by):
    first = dataclasses.replace(trained, url=served_by("serve"))
    wait_until_served(f"{first.url}/v1/models/{first.name}/versions/{first.version.name}")
    for body, said in refusals(trained):
        status, words = trained.refused(body)
        assert (status, words) == first.refused(body)
        assert status == 400 and said in words


def refusals(trained):
    """Predictions that no graph makes, and what is said of each: by the graph itself of a damaged
    picture, and by the gateway, from what that graph's version tells, of the others."""
    arrays = {name: images.tolist() for name, images in trained.images.items()}
    name, images = next(iter(trained.images.items()))
    shape, flat = (",".join(map(str, each)) for each in (images.shape[1:], images.shape[:3]))
    yield (
        {"inputs": arrays | {name: images[..., 0].tolist()}},
        f"inputs.{name}: expected float32 [N,{shape}], got [{flat}] (the channel axis is missing)",
    )
    yield {"signature_name": "nope", "inputs": arrays}, 'has no signature "nope"'
    files = {each: [*map(as_file, array)] for each, array in trained.images.items()}
    whole = base64.b64decode(files[name][1]["b64"])
    files[name][1] = {"b64": base64.b64encode(whole[: len(whole) // 2]).decode()}
    yield {"signature_name": "encoded", "inputs": files}, "Invalid PNG"
    if trained.naming:
        asked = {f"{before}class": [-1] * ROWS for before in trained.prefixes.values()}
        head, before = next(iter(trained.prefixes.items()))
        most = len(trained.dataset.heads[head].labels) - 1
        asked[f"{before}class"][1] = most + 1
        yield (
            {"signature_name": "explain", "inputs": arrays | asked},
            f"inputs.{before}class: expected a class, 0 to {most}, or -1 for the best one",
        )


def as_file(image):
    buffer = io.BytesIO()
    Image.fromarray(image[..., 0] if image.shape[-1] == 1 else image).save(buffer, "PNG")
    return {"b64": base64.b64encode(buffer.getvalue()).decode()}


def assert_best(trained, head, classes, scores):
    """The five best, by name and score; of two that are as good either may be named first."""
    expected, labels = trained.keras_answers[head], trained.dataset.heads[head].labels
    assert_close(trained, scores, -np.sort(-expected)[:, :5])
    columns = [[labels.index(label) for label in row] for row in classes]
    assert_close(
        trained, np.take_along_axis(expected, np.array(columns), axis=-1), np.array(scores)
    )
    assert all(len(set(row)) == 5 for row in columns)


def assert_close(trained, answered, expected):
    of_itself, of_greatest = GRAPHS[trained.tags]
    atol = of_greatest * np.abs(expected).max()
    np.testing.assert_allclose(answered, expected, rtol=of_itself, atol=atol)


def test_each_task_asks_its_own_question(tmp_path, monkeypatch):
    monkeypatch.setattr(loading, "SOURCES", TOY_SOURCES)

    def loaded(task):
        return loading.load(dataclasses.replace(RECIPES["fashion"], task=task), None, tmp_path)

    views = loaded("views").test.inputs
    assert {name: image.shape for name, image in views.items()} == {
        "left": (20, 28, 14, 1),
        "right": (20, 28, 14, 1),
    }
    sums = loaded("sums").test.targets
    np.testing.assert_array_equal(sums["sum"], sums["left_digit"] + sums["right_digit"])
    covered = loaded("coverage")
    np.testing.assert_allclose(
        covered.test.targets["coverage"], (covered.test.inputs["image"] > 0).mean(axis=(1, 2, 3))
    )
    masks = loaded("masks").test
    assert masks.inputs["image"].shape == (20, 32, 32, 1)
    shares = masks.targets["mask"].mean(axis=(1, 2)) * 32 * 32
    np.testing.assert_allclose(shares, covered.test.targets["coverage"] * 28 * 28, rtol=1e-5)


def test_every_model_has_a_recipe_and_every_recipe_a_test():
    assert {recipe.model for recipe in RECIPES.values()} == set(models.MODELS)
    assert set(RECIPES) == {*SIZES}


@pytest.mark.parametrize("name", SIZES)
def test_a_recipe_of_full_size_is_another_workers(name):
    file = "tests/training/test_recipes.py"
    shares = {share_of(f"{file}::test_it[{name}{graph}]") for graph in ("", " serve,bf16")}
    assert (shares != {file}) == (name in FULL_SIZE)
    assert len(shares) == 1


def test_every_family_is_asked_by_all_its_graphs():
    def family(name):
        build = models.MODELS[RECIPES[name].model]
        return getattr(build, "func", build).__module__

    assert {*map(family, SIZES.keys() - {*ONE_GRAPH})} == {*map(family, SIZES)}


@pytest.mark.parametrize("recipe", RECIPES.values(), ids=lambda recipe: recipe.name)
def test_a_recipes_own_fields_are_sizes_of_its_model(recipe):
    assert set(recipe.size) <= set(models.sizes(recipe.model))


@pytest.mark.parametrize("name", FULL_SIZE)
def test_depths_are_the_published_ones(name):
    published, recipe = models.sizes(RECIPES[name].model), RECIPES[name]
    for size in {"depth", "depths"} & set(recipe.size):
        assert recipe.size[size] == published[size]


def test_another_model_is_built_at_its_own_size():
    assert dataclasses.replace(RECIPES["digits"], model="mlp").size == {}
