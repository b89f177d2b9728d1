"""The docs against the code: what they list exists, and what they tell to type works."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from dataclasses import fields
from pathlib import Path

import pytest

from service.gateway import errors
from service.gateway.access_log import AccessLog
from service.gateway.error_responses import GRPC_CODE, STATUS
from service.gateway.setting_values import range_of
from service.gateway.settings import Settings
from service.gateway.telemetry import Telemetry
from service.gateway.variables import OTHER_VARIABLES, environment_variable
from tests import typed
from tests.processes import START_TIMEOUT_S, free_port, leashed, needs_make_serve
from tests.typed import blocks, newcomers

ROOT = Path(__file__).parent.parent
DOCS = [
    ROOT / "README.md",
    ROOT / "CONTRIBUTING.md",
    ROOT / "CHANGELOG.md",
    *(ROOT / "docs").rglob("*.md"),
]


def test_every_setting_is_documented_with_its_default_range_and_meaning():
    rows = [
        f"| `{environment_variable(each.name)}` | {f'`{each.default}`' if each.default else ''}"
        f" | {range_of(each)} | {each.metadata['meaning']} |"
        for each in fields(Settings)
    ]
    rows += [f"| `{name}` | {meaning} |" for name, meaning in OTHER_VARIABLES.items()]
    documented = [
        line
        for line in (ROOT / "docs/settings.md").read_text().splitlines()
        if line.startswith("| `SLUICE_")
    ]
    assert documented == rows


def test_every_metric_of_the_gateways_is_listed():
    given = Telemetry(AccessLog("off")).exposition()[0].decode()
    page = (ROOT / "docs/operations.md").read_text()
    listed = page.partition("## Metrics")[2].partition("\n## ")[0]
    assert sorted(re.findall(r"`(sluice_\w+)`", listed)) == sorted(
        re.findall(r"^# TYPE (\w+)", given, re.M)
    )


def test_the_modules_that_the_architecture_names_are_there():
    known = [f"/{path}" for path in ROOT.glob("*/**/*.py")]
    named = re.findall(r"[\w/]+\.py\b", (ROOT / "docs/architecture.md").read_text())
    assert named
    assert not [name for name in named if not any(path.endswith(f"/{name}") for path in known)]


def test_every_target_of_the_makefile_has_a_rule():
    """One that is phony and has none does nothing, and make calls that a success."""
    makefile = (ROOT / "Makefile").read_text()
    [phony] = re.findall(r"^\.PHONY: (.+)$", makefile, re.M)
    assert sorted(re.findall(r"^([a-z-]+):", makefile, re.M)) == sorted(phony.split())


@pytest.mark.parametrize("document", DOCS, ids=lambda path: path.name)
def test_relative_links_lead_somewhere(document):
    for target in re.findall(r"\]\((?!https?:)([^)#]+)", document.read_text()):
        assert (document.parent / target).exists(), target


def test_every_status_of_an_error_is_documented():
    documented = {
        int(status)
        for status in re.findall(r"^\| (\d{3}) \|", (ROOT / "docs/api.md").read_text(), re.M)
    }
    assert {nearest(STATUS, kind) for kind in leaves(errors.RequestError)} <= documented
    assert {404, 429, 503, 504} <= documented


def test_the_catalogue_of_errors_is_whole():
    rows = re.findall(
        r"^\| `(\w+)` \| (\d{3}) \| (\w+) \|", (ROOT / "docs/errors.md").read_text(), re.M
    )
    raised = [
        kind
        for kind in leaves(errors.GatewayError)
        if kind
        not in (errors.GatewayError, errors.RequestError, errors.NotFound, errors.ModelServerError)
    ]
    assert sorted(rows) == sorted(
        (kind.__name__, str(nearest(STATUS, kind)), nearest(GRPC_CODE, kind)) for kind in raised
    )


def nearest(table, kind):
    return next(table[each] for each in kind.__mro__ if each in table)


def leaves(kind):
    below = kind.__subclasses__()
    return {kind} if not below else set().union(*map(leaves, below), {kind})


def test_the_error_tree_is_drawn_as_it_is():
    drawn = re.findall(r"(?:├|└)── (\w+)", errors.__doc__)
    assert sorted(drawn) == sorted(
        kind.__name__ for kind in leaves(errors.GatewayError) if kind is not errors.GatewayError
    )


@pytest.fixture(scope="module")
def readme_server(request, tmp_path_factory):
    """`make serve` on free ports, with the `digits` that it would train where there is no model:
    delivery/test_fresh_machine.py has it do so."""
    needs_make_serve()
    directory = tmp_path_factory.mktemp("a newcomer's")  # make and the shell keep it one word
    published = request.getfixturevalue("published")
    shutil.copytree(published, directory / "model_repository/digits")
    http_port, grpc_port = free_port(), free_port()
    log = (directory / "log").open("w+")
    server = subprocess.Popen(
        leashed(
            "make",
            "serve",
            f"HTTP_PORT={http_port}",
            f"GRPC_PORT={grpc_port}",
            f"MODEL_REPOSITORY={directory}/model_repository",
        ),
        cwd=ROOT,
        env=newcomers(directory),
        stdout=log,
        stderr=log,
        start_new_session=True,
    )
    try:
        wait_until_ready(http_port, server, directory / "log")
        yield directory, http_port, grpc_port
    finally:
        os.killpg(server.pid, signal.SIGINT)  # Ctrl-C
        server.wait(60)
        log.close()


def readme(language):
    return blocks("README.md", language)


def test_the_readmes_commands_answer_with_the_digits_label(readme_server):
    for words in ("--data-binary", "curl -F", "base64"):
        (prediction,) = json.loads(type_in(words, readme_server))["predictions"]
        assert prediction["label_classes"][0] == "3"


def test_the_readmes_shell_command_names_every_digit(readme_server):
    rows = [line.split() for line in type_in("sluice predict", readme_server).splitlines()]
    assert rows[0] == ["FILE", "HEAD", "LABEL", "SCORE"]
    right = [Path(file).name[0] == label for file, _head, label, _score in rows[1:]]
    assert len(right) == 10
    assert sum(right) >= 9


def test_the_readmes_own_client_gets_the_same_label(readme_server):
    directory, http_port, _ = readme_server
    (script,) = [block for block in readme("python") if "from sluice import" in block]
    script = script.replace("localhost:8080", f"localhost:{http_port}")
    printed = subprocess.run(
        [sys.executable, "-c", script], cwd=directory, capture_output=True, text=True, check=True
    ).stdout
    assert printed == "3\n"


def test_the_readmes_official_client_gets_the_same_label_and_numbers(readme_server):
    directory, _, grpc_port = readme_server
    (script,) = [block for block in readme("python") if "tensorflow_serving" in block]
    script = script.replace("8500", str(grpc_port)) + (
        "\nprint(list(reply.outputs['label_scores'].float_val))"
    )
    label, scores = subprocess.run(
        [sys.executable, "-W", "error::DeprecationWarning:__main__", "-c", script],
        cwd=directory,
        capture_output=True,
        text=True,
        check=True,
    ).stdout.splitlines()
    over_http = json.loads(type_in("--data-binary", readme_server))["predictions"][0]
    assert label == "3"
    assert json.loads(scores) == pytest.approx(over_http["label_scores"], rel=1e-6)


def test_training_again_is_served_as_the_next_version(readme_server):
    directory, *_ = readme_server
    type_in("sluice train", readme_server)
    assert (directory / "model_repository/digits/2/saved_model.pb").exists()
    wait_until_served("digits", 2, readme_server)
    assert re.findall(r"digits +(\d)", type_in("sluice models", readme_server)) == ["1", "2"]


def test_the_readmes_folder_of_photos_becomes_a_model_that_knows_them(readme_server):
    type_in("skimage", readme_server)
    type_in("--data photos", readme_server)
    wait_until_served("photos", 1, readme_server)
    (prediction,) = json.loads(type_in("photos:predict", readme_server))["predictions"]
    assert prediction["label_classes"][0] == "coffee"


def test_the_readmes_model_of_ones_own_is_published_and_answers(readme_server):
    type_in("mine.keras", readme_server)
    type_in("sluice publish", readme_server)
    wait_until_served("mine", 1, readme_server)
    _, row = type_in("sluice predict mine", readme_server).splitlines()
    assert "three" in row.split()


def wait_until_served(model, version, server):
    _, http_port, _ = server
    deadline = time.monotonic() + START_TIMEOUT_S
    while '"AVAILABLE"' not in read(
        f"http://localhost:{http_port}/v1/models/{model}/versions/{version}"
    ):
        assert time.monotonic() < deadline
        time.sleep(0.2)


def type_in(words, server):
    """Run the README's block that holds `words`, with the ports of this server; what it prints."""
    directory, http_port, _ = server
    command = next(block for block in readme("sh") if words in block)
    command = command.replace("localhost:8080", f"localhost:{http_port}")
    command = command.replace(
        "sluice predict", f"sluice predict --url http://localhost:{http_port}"
    )
    command = command.replace(".venv", f"{ROOT}/.venv")
    outcome = typed.type_in(command, directory)
    assert outcome.returncode == 0, outcome.stderr
    return outcome.stdout


def wait_until_ready(port, server, log):
    deadline = time.monotonic() + 600  # on a machine that may do much else
    while '"ready"' not in read(f"http://localhost:{port}/readyz"):
        assert server.poll() is None, log.read_text()
        assert time.monotonic() < deadline, log.read_text()
        time.sleep(0.5)


def read(url):
    try:
        with urllib.request.urlopen(url, timeout=10) as reply:
            return reply.read().decode()
    except (urllib.error.URLError, OSError) as error:
        if isinstance(error, urllib.error.HTTPError):
            error.close()
        return ""


def test_what_the_readme_needs_is_here():
    assert shutil.which("curl") and shutil.which("make")
