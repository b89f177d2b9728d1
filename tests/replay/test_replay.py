"""`sluice replay` before a real model server: sound versions, and each kind of fault."""

import re
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
from click.testing import CliRunner, Result
from selenium.webdriver.common.by import By

from service.cli import main
from service.replay.summary import WORST
from sluice.wire.model_ref import ModelRef
from sluice.wire.prediction_logs import CLASSIFY_LOG, PREDICT_LOG, encode_log, log_about
from sluice.wire.protos.serving_pb2 import ClassificationRequest, PredictRequest
from sluice.wire.tensors import encode_tensor
from sluice.wire.tfrecords import frame
from tests.looking import addresses_asked, faults_for_people, tab_to
from tests.processes import RUNNING, leashed
from tests.system import toy_server

HERE = Path(__file__).parent
REQUESTS = 40


@pytest.fixture(scope="session")
def address(
    launch_modelserver, made_once, published: Path, tmp_path_factory: pytest.TempPathFactory
) -> str:
    """Of a twin that serves every version of make_versions.py."""
    repository = made_once("faulty-versions", [HERE / "make_versions.py", published])
    config = (
        f'model_config_list {{ config {{ name: "digits" base_path: "{repository}/digits" '
        'model_platform: "tensorflow" model_version_policy { all {} } '
        'version_labels { key: "sound" value: 1 } } }'
    )
    path = tmp_path_factory.mktemp("faulty-versions") / "models.config"
    path.write_text(config)
    return launch_modelserver(
        f"--model_config_file={path}", "--allow_version_labels_for_unavailable_models=true"
    ).address


@pytest.fixture(scope="session")
def pictures() -> np.ndarray:
    """Digits of very different brightness, float32 [REQUESTS, 8, 8, 1] of 0..255."""
    from sklearn.datasets import load_digits

    digits = load_digits().images[:REQUESTS, ..., None] * 255 / 16
    return (digits * np.linspace(0.2, 1.2, REQUESTS)[:, None, None, None]).astype(np.float32)


class Toy(NamedTuple):
    process: subprocess.Popen[str]
    address: str


@pytest.fixture
def toy() -> Iterator[Toy]:
    """toy_server.py, which says what comes."""
    command = leashed(sys.executable, "-P", toy_server.__file__, "--call-s=0.02")
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        begun = RUNNING.search(process.stdout.readline())
        assert begun
        yield Toy(process, f"127.0.0.1:{begun[1]}")
        process.kill()


def _kill_after(process: subprocess.Popen[str], calls: int) -> None:
    """kill -9, once so many have come."""
    assert process.stdout is not None
    for _ in range(calls):
        process.stdout.readline()
    process.kill()


@pytest.fixture
def captures(tmp_path: Path) -> Callable[..., Path]:
    """`captures(requests)` -> a directory of captures that holds them."""

    def write(requests: Sequence[PredictRequest | ClassificationRequest]) -> Path:
        with (tmp_path / "2026-11-26.tfrecord").open("wb") as file:
            for request in requests:
                kind = PREDICT_LOG if isinstance(request, PredictRequest) else CLASSIFY_LOG
                about = log_about(ModelRef("digits", 1), 1_800_000_000)
                file.write(frame(encode_log(kind, request.SerializeToString(), about)))
        return tmp_path

    return write


def predict(picture: np.ndarray) -> PredictRequest:
    request = PredictRequest(model_spec=ModelRef("digits").to_proto("serving_default"))
    request.inputs["image"].CopyFrom(encode_tensor(picture[None]))
    return request


def replay(capture: Path, before: str, after: str, address: str, *more: str) -> Result:
    words = ["replay", str(capture), f"--from={before}", f"--to={after}"]
    result = CliRunner().invoke(main, [*words, f"--model-server={address}", *more])
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    return result


def counts(result: Result) -> dict[str, int]:
    """Requests by the kind of their change."""
    return {
        kind: int(number)
        for kind, number in re.findall(r"^(\w[\w ]*?) {2,}(\d+) ", result.output, re.MULTILINE)
    }


@pytest.mark.parametrize("after", ["2", "sound"])
def test_equal_versions_differ_in_nothing(address, captures, pictures, after: str) -> None:
    result = replay(captures([*map(predict, pictures)]), "1", after, address)
    assert (result.exit_code, counts(result)) == (0, {"any": 0})
    assert "times as long" in result.output


@pytest.mark.parametrize(
    ("version", "kind", "least"),
    [
        pytest.param("3", "class", REQUESTS, id="labels turned"),
        pytest.param("4", "no number", 5, id="NaN for dark ones"),
        pytest.param("5", "shape", REQUESTS, id="outputs renamed"),
        pytest.param("6", "error", 5, id="refuses bright ones"),
        pytest.param("7", "error", 5, id="no memory for bright ones"),
    ],
)
def test_every_fault_is_found_and_named(
    address, captures, pictures, version: str, kind: str, least: int
) -> None:
    page = captures([*map(predict, pictures)]) / "report.html"
    result = replay(page.parent, "1", version, address, f"--report={page}")
    found = counts(result)
    assert result.exit_code == 1
    assert least <= found[kind] == found["any"], result.output
    written = page.read_text()
    assert written.count("<article>") == WORST * (len(found) - 1) or found[kind] < WORST
    assert 'src="data:image/png' in written  # the picture that was asked
    assert "http" not in written.replace("http-equiv", "")  # nobody is asked for anything


def test_a_version_without_pixels_is_asked_for_the_same_by_default(
    address, captures, pictures
) -> None:
    requests = [*map(predict, pictures.clip(0, 255).astype(np.uint8))]
    for request in requests:
        request.model_spec.signature_name = "pixels"
    by_pixels, by_default = (
        counts(replay(captures(asked), "1", "3", address))
        for asked in (
            requests,
            [*map(predict, pictures.clip(0, 255).astype(np.uint8).astype("f4"))],
        )
    )
    assert by_pixels == by_default
    assert by_pixels["class"] == REQUESTS and "error" not in by_pixels


def test_the_other_way_round_an_error_is_an_answer(address, captures, pictures) -> None:
    result = replay(captures([*map(predict, pictures)]), "6", "1", address)
    assert [*counts(result)] == ["answer", "any"]


def test_classify_is_asked_as_classify(address, captures, published: Path) -> None:
    request = ClassificationRequest(model_spec=ModelRef("digits").to_proto("classify"))
    file = next((published / "1").rglob("*.png")).read_bytes()
    example = request.input.example_list.examples.add()
    example.features.feature["image/encoded"].bytes_list.value.append(file)
    result = replay(captures([request]), "1", "2", address)
    assert (result.exit_code, counts(result)) == (0, {"any": 0}), result.output


def test_a_limit_and_a_model_choose_among_the_requests(address, captures, pictures) -> None:
    capture = captures([*map(predict, pictures)])
    found = counts(replay(capture, "1", "3", address, "--limit=7"))
    assert found == {"class": 7, "score": 7, "any": 7}
    other = replay(capture, "1", "3", address, "--model=digit")
    assert (other.exit_code, "holds no request of digit" in other.output) == (2, True)


@pytest.mark.parametrize(
    ("after", "status", "message"),
    [
        ("9", 2, "9 at 127.0.0.1"),
        ("canary", 2, "canary at 127.0.0.1"),
        ("127.0.0.1:1", 2, "live at 127.0.0.1:1 cannot be asked"),
        ("a b", 2, "'a b' is no version, no label"),
        (":8500", 2, "an address is HOST:PORT"),
    ],
)
def test_nobody_to_ask_is_no_change(
    address, captures, pictures, after: str, status: int, message: str
) -> None:
    result = replay(captures([predict(pictures[0])]), "1", after, address)
    assert result.exit_code == status
    assert message in result.output
    assert result.output.count("\n") <= 4


def test_what_cannot_be_read_is_told_and_the_rest_compared(address, captures, pictures) -> None:
    capture = captures([*map(predict, pictures)])
    (file,) = capture.glob("*.tfrecord")
    file.write_bytes(file.read_bytes()[:-9])
    result = replay(capture, "1", "2", address)
    assert "is cut off" in result.output
    assert counts(result) == {"any": 0}
    file.write_bytes(b"no records at all, and not few of them")
    result = replay(capture, "1", "2", address)
    assert result.exit_code == 2


def test_what_was_compared_before_a_server_died_is_told(captures, toy) -> None:
    requests = [
        PredictRequest(model_spec=ModelRef("toy").to_proto("serving_default"))
        for _ in range(REQUESTS)
    ]
    for request in requests:
        request.inputs["x"].CopyFrom(encode_tensor(np.float32([1.5])))
    page = captures(requests) / "report.html"
    killer = threading.Thread(target=_kill_after, args=(toy.process, 9))
    killer.start()
    result = replay(page.parent, "1", "2", toy.address, f"--report={page}")
    killer.join()
    assert result.exit_code == 2
    assert counts(result) == {"any": 0}
    *_, last = result.output.splitlines()
    [(left, number)] = re.findall(
        r"^Error: (\d+) requests were not compared: . at .* cannot be asked: .* "
        r"\(2026-11-26.tfrecord, record (\d+), was the first of them\)$",
        last,
    )
    told = re.search(r"(\d+) requests of .*>(\d+) more were not compared", page.read_text(), re.S)
    assert told and told[2] == left
    assert int(told[1]) >= 4
    assert int(told[1]) + int(left) == REQUESTS
    assert int(number) == int(told[1]) + 1


@pytest.mark.parametrize(
    ("option", "told"),
    [
        ("--tolerance=nan", "'nan' is no finite number"),
        ("--timeout-s=inf", "'inf' is no finite number"),
        ("--report=/nowhere/at/all.html", "there is no directory /nowhere/at"),
    ],
)
def test_what_cannot_be_meant_is_told_before_anything_is_asked(captures, option, told) -> None:
    result = replay(captures([]), "1", "2", "127.0.0.1:1", option)
    assert (result.exit_code, told in result.output) == (2, True), result.output


@pytest.mark.root
@pytest.mark.parametrize(("version", "drawn"), [("3", 2), ("6", 1)])
def test_the_report_is_looked_at(
    address, captures, pictures, browser, version: str, drawn: int
) -> None:
    """`drawn`: the sides of a case that have an answer, and with it the picture that was asked."""
    page = captures([*map(predict, pictures)]) / "report.html"
    replay(page.parent, "1", version, address, f"--report={page}")
    addresses_asked(browser), browser.get_log("browser")  # of what was looked at before
    browser.get(page.as_uri())
    cases = browser.find_elements(By.CSS_SELECTOR, "article")
    assert cases
    for case in cases[:WORST]:
        shown = case.find_elements(By.CSS_SELECTOR, "img")
        assert len(shown) == drawn
        assert all(each.is_displayed() and each.size["width"] > 100 for each in shown)
        assert all(int(each.get_property("naturalWidth")) > 0 for each in shown)
    tab_to(browser, lambda focused: focused.get_attribute("aria-label") == "after")
    assert faults_for_people(browser) == []
    browser.set_window_size(360, 1000)
    assert faults_for_people(browser) == []
    browser.set_window_size(1200, 1000)
    assert {each.partition(":")[0] for each in addresses_asked(browser)} == {"file", "data"}
    assert browser.get_log("browser") == []


@pytest.mark.slow
def test_ten_thousand_requests_of_equal_versions_differ_in_nothing(
    address, captures, pictures
) -> None:
    rows = np.random.default_rng(3).permutation(np.resize(np.arange(REQUESTS), 10_000))
    result = replay(captures([predict(pictures[row]) for row in rows]), "1", "2", address)
    assert (result.exit_code, counts(result)) == (0, {"any": 0})
    assert re.search(r"any +0 +0.00% +0.00% and 0.04%", result.output)
