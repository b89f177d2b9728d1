"""The page of a model, as far as no browser is needed: what is sent, and what is not."""

import json
import re
import shutil
from pathlib import Path

import pytest
import requests

from service.gateway.showcase import Showcase
from service.rollout import state


@pytest.fixture(scope="module")
def repository(conformance_models: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`affine`, with what training leaves beside a version."""
    repository = tmp_path_factory.mktemp("a page's repository")
    version = repository / "affine" / "1"
    (version / "samples").mkdir(parents=True)
    found = next(conformance_models.glob("affine/*/saved_model.pb"))
    shutil.copy(found, version)
    for name in ("training.png", "confusion-label.png", "samples/3-0.png", "samples/4-1.left.png"):
        (version / name).write_bytes(b"\x89PNG")
    (version / "metrics.json").write_text(
        json.dumps({"heads": {"y": {"accuracy": 0.5, "per_class": {"a": 1}}}, "parameters": 1234})
    )
    (repository / "secret.png").write_bytes(b"secret")
    (repository / "affine" / "labels.json").write_text('{"stable": 1, "gone": 7}')
    warm = version / "assets.extra"
    warm.mkdir()
    (warm / "tf_serving_warmup_requests").touch()
    (version / "variables").mkdir()
    (version / "variables" / "data").write_bytes(bytes(3_000_000))
    shutil.copytree(version, version.with_name("2"))
    state.start(version.parent, 2)
    state.abort(version.parent, "3 of 9 had <b>another</b> best class")
    shutil.rmtree(version.with_name("2"))  # of what is gone the history stays
    return repository


@pytest.fixture(scope="module")
def url(launch_gateway, modelserver, repository: Path, way: str) -> str:
    return launch_gateway(
        modelserver.address, way, models="affine,pair,nope", model_repository=str(repository)
    ).url


def get(address: str, **headers: str) -> requests.Response:
    return requests.get(address, headers=headers, timeout=30)


def test_a_browser_is_led_to_the_models_and_a_machine_is_told_that_it_is_alive(url: str) -> None:
    page = get(url, Accept="text/html,*/*;q=0.8")
    assert page.url == f"{url}/models/"
    assert all(f'href="/models/{name}"' in page.text for name in ("affine", "pair", "nope"))
    assert "not served yet" in page.text
    assert get(url).json() == {"status": "alive"}


def test_a_page_holds_the_signatures_and_what_lies_beside_the_version(url: str) -> None:
    page = get(f"{url}/models/affine")
    facts = json.loads(re.search(r'id="facts">(.*?)</script>', page.text)[1])
    names = [each["name"] for each in facts["signatures"]]
    assert "serving_default" in names
    assert "classify" not in names
    for shown in ("accuracy 0.5000", "1,234", "training.png", "confusion-label.png", "Sample 3-0"):
        assert shown in page.text
    cells = re.search(r"<td>1</td><td>AVAILABLE</td>(.*?)</tr>", page.text)[1]
    assert re.findall("<td>(.*?)</td>", cells) == ["stable", "3.0 MB", "yes"]
    assert get(f"{url}/models/affine/1/samples/3-0.png").content == b"\x89PNG"
    assert get(f"{url}/models/nope").status_code == 404


@pytest.mark.parametrize(
    "path",
    [
        "affine/1/saved_model.pb",
        "affine/1/metrics.json",
        "affine/1/../../secret.png",
        "affine/1/..%2F..%2Fsecret.png",
        "../secret.png",
        "affine/1/samples/..%2Ftraining.png",
        "affine/1/%2Fetc%2Fpasswd",
        "affine/2/training.png",
        "..%2F/1/training.png",
    ],
)
def test_nothing_but_a_versions_pictures_is_given_out(url: str, path: str) -> None:
    session = requests.Session()
    request = requests.Request("GET", f"{url}/models/x").prepare()
    request.url = f"{url}/models/{path}"  # as it is, dots and all
    assert session.send(request, timeout=30).status_code == 404


def test_only_our_own_scripts_run_and_they_are_kept(url: str) -> None:
    page = get(f"{url}/models/affine")
    assert "script-src 'self'" in page.headers["Content-Security-Policy"]
    assert not re.search(r"<script(?! type=\"(application/json|module)\")|\son\w+=", page.text)
    [script] = re.findall(r'src="(/static/\w+/page.js)"', page.text)
    kept = get(url + script)
    assert "max-age=31536000" in kept.headers["Cache-Control"]
    assert kept.headers["Content-Type"].startswith("text/javascript")
    of_another_release = re.sub(r"static/\w+", "static/0", script)
    assert "31536000" not in get(url + of_another_release).headers["Cache-Control"]
    for imported in re.findall(r'from "\./(\w+\.js)"', kept.text):
        assert get(url + script.replace("page.js", imported)).ok
    assert get(f"{url}/static/0/..%2Fapp.py").status_code == 404


def test_it_says_which_version_answered_and_where_the_time_went_where_it_is_asked(url: str) -> None:
    address, body = f"{url}/v1/models/affine:predict", '{"instances": [1.0]}'
    asked = requests.post(address, body, headers={"X-Sluice-Timing": "on"}, timeout=30)
    assert asked.headers["X-Sluice-Version"].isdigit()
    steps = dict(step.split(";dur=") for step in asked.headers["Server-Timing"].split(", "))
    assert float(steps["model"]) > 0
    assert "Server-Timing" not in requests.post(address, body, timeout=30).headers


def test_now_tells_how_many_took_how_long(url: str) -> None:
    requests.post(f"{url}/v1/models/affine:predict", '{"instances": [1.0]}', timeout=30)
    counted = get(f"{url}/models/affine/now").json()
    [version] = counted.values()
    assert version["answered"] >= 1
    assert version["failed"] == 0
    for step in ("all", "queue", "model"):
        bounds, counts = zip(*version[step], strict=True)
        assert bounds[-1] is None
        assert list(counts) == sorted(counts)
        assert counts[-1] == version["answered"]
    assert get(f"{url}/models/nope/now").json() == {}


def test_what_became_of_rollouts_is_shown_and_not_who_it_was(url: str) -> None:
    page = get(f"{url}/models/affine").text
    table = page.partition('aria-label="Rollouts"')[2].partition("</table>")[0]
    rows = [re.findall(r"<td>(.*?)</td>", row) for row in table.split("<tr>")[2:]]
    assert [row[1:] for row in rows] == [
        ["2", "rolled back", "3 of 9 had &lt;b&gt;another&lt;/b&gt; best class"],
        ["2", "shadow", "by hand"],
    ]
    assert 'aria-label="Rollouts"' not in get(f"{url}/models/pair").text


def test_what_is_wrong_with_a_model_is_said_to_whoever_looks(url: str) -> None:
    page = get(f"{url}/models/nope<b>")
    assert page.status_code == 404
    assert page.headers["Content-Type"].startswith("text/html")
    assert "script-src 'self'" in page.headers["Content-Security-Policy"]
    assert 'role="alert"' in page.text
    assert "nope&lt;b&gt;" in page.text
    assert "<b>" not in page.text


def test_a_setting_turns_it_off(launch_gateway, modelserver, repository: Path) -> None:
    url = launch_gateway(
        modelserver.address, models="affine", page="off", model_repository=str(repository)
    ).url
    models = ("", "affine", "affine/1/training.png", "affine/now")
    for path in (*(f"models/{name}" for name in models), "static/0/page.js"):
        assert get(f"{url}/{path}").status_code == 404
    assert get(url, Accept="text/html").url == f"{url}/docs"


def test_without_a_repository_there_is_nothing_to_show(tmp_path: Path) -> None:
    assert Showcase(None).describe("digits") == {}
    assert Showcase(tmp_path / "gone").describe("digits") == {}
    assert Showcase(tmp_path).file("..", 1, "training.png") is None
    assert Showcase(None).rollouts("digits") == Showcase(tmp_path).rollouts("..") == []
