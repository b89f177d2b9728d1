"""The manifests before the tools that know Kubernetes: kubectl, its schemas, checkov."""

import json
import re
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]

pytestmark = pytest.mark.clients

# Kinds of other projects: no schema is at hand for them.
UNKNOWN_KINDS = {
    "Gateway",
    "HTTPRoute",
    "GRPCRoute",
    "ScaledObject",
    "ServiceMonitor",
    "PrometheusRule",
    "InferenceService",
    "ServingRuntime",
    "HealthCheckPolicy",
    "NodePool",
    "PodMonitoring",
    "Certificate",
}

EVERYWHERE = ""
# checkov's finding -> where it is excused, and why.
EXCUSED = {
    "CKV_K8S_43": (
        EVERYWHERE,
        "a tag is pinned; a digest is the registry's, and another one for each architecture",
    ),
    "CKV_K8S_15": (
        EVERYWHERE,
        "tags are never moved, so what a node has need not be pulled again; "
        "kind has no registry to pull from",
    ),
    "CKV_K8S_11": (
        EVERYWHERE,
        "a CPU limit throttles threads in the middle of a request; requests share the CPU out",
    ),
    "CKV_K8S_8": ("modelserver", "side-cars that bring models serve nobody"),
    "CKV_K8S_9": ("modelserver", "side-cars that bring models serve nobody"),
    "CKV_K8S_35": (
        "modelserver|gateway|train|rollout",
        "rclone reads its keys from the environment, where there is no identity to use instead",
    ),
}


@pytest.mark.parametrize("version", ["1.30.0", "1.37.0"])
def test_every_document_keeps_to_kubernetes_schemas(tools, rendered, version):
    files = sorted(rendered.iterdir())
    outcome = subprocess.run(
        [tools / "kubernetes-validate", "--strict", "-k", version, *files],
        capture_output=True,
        text=True,
        check=False,
    )
    said = outcome.stdout + outcome.stderr
    problems = [
        line
        for line in said.splitlines()
        if line.startswith(("ERROR", "WARN")) and "Couldn't find schema" not in line
    ]
    assert not problems, "\n".join(problems)
    assert set(re.findall(r"Couldn't find schema for kind (\w+)", said)) <= UNKNOWN_KINDS
    assert all(file.name in said for file in files), said


def test_kserves_own_classes_know_every_field(installed):
    python = installed(ROOT / "tests/clients/kserve-requirements.txt") / "python"
    files = sorted((ROOT / "deploy/kubernetes/kserve").iterdir())
    outcome = subprocess.run(
        [python, Path(__file__).with_name("through_kserve.py"), *files],
        capture_output=True,
        text=True,
        check=False,
    )
    assert outcome.returncode == 0, outcome.stderr
    assert set(outcome.stdout.split()) == {"InferenceService", "ServingRuntime"}


def test_checkov_finds_nothing_but_what_is_excused(tools, rendered):
    outcome = subprocess.run(
        [
            tools / "checkov",
            "--framework",
            "kubernetes",
            "--skip-download",
            "--compact",
            "--quiet",
            "--output",
            "json",
            "-d",
            rendered,
        ],
        capture_output=True,
        text=True,
        check=False,
    )
    report = json.loads(outcome.stdout)
    assert report["summary"]["passed"] > 1000
    assert not report["summary"]["parsing_errors"]
    found = {
        (check["check_id"], check["resource"].split(".")[-1]): check["check_name"]
        for check in report["results"]["failed_checks"]
    }
    excused = {
        (check, name)
        for check, name in found
        if check in EXCUSED and re.search(EXCUSED[check][0], name)
    }
    assert not {key: name for key, name in found.items() if key not in excused}
    assert {check for check, _ in excused} == set(EXCUSED), "an excuse that nothing needs"
