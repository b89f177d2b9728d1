"""The page of a model in a real browser: pictures, numbers, masks, versions; with the keyboard, and
without a request that leaves the host.
"""

import base64
import json
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path
from urllib.parse import quote

import keras
import numpy as np
import pytest
import requests
from keras import layers
from PIL import Image
from selenium import webdriver
from selenium.common.exceptions import StaleElementReferenceException
from selenium.webdriver.common.action_chains import ActionChains
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.support.ui import Select, WebDriverWait

import training
from tests import figures
from tests.looking import addresses_asked, faults_for_people, tab_to

pytestmark = pytest.mark.root

PATIENCE_S = 120
IMAGES = Path(__file__).parents[2] / "docs" / "images"
ODD = "größe <b> 50% & \"x\" 'y' ?#+"
LABELS = [f"<img src=x onerror=document.title={number}>" for number in range(1000)]


@pytest.fixture(scope="module")
def repository(
    published: Path, gateway_models: Path, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """`digits`, and models of every kind of input and output, untrained."""
    repository = tmp_path_factory.mktemp("models")
    shutil.copytree(published, repository / "digits")
    keras.utils.set_random_seed(1)  # some weights would draw nearly all of a picture black
    left, right = (keras.Input((8, 8, 1), name=name) for name in ("left", "right"))
    size = keras.Input((2,), name="size")
    x = layers.Concatenate()([layers.Flatten()(left), layers.Flatten()(right), size])
    pair = keras.Model([left, right, size], {"sum": layers.Dense(3, activation="softmax")(x)})
    image = keras.Input((16, 16, 3), name="image")
    mask = keras.Model(image, layers.Conv2D(3, 3, padding="same", activation="softmax")(image))
    wild = keras.initializers.RandomNormal(stddev=1, seed=1)
    logits = keras.Model(image, layers.Conv2D(3, 3, padding="same", kernel_initializer=wild)(image))
    cleaned = layers.Conv2D(3, 3, padding="same", activation="sigmoid")(image)
    grey = keras.Input((16, 16, 1), name="image")
    glow = keras.Model(grey, layers.Conv2D(1, 3, padding="same", activation="tanh")(grey))
    noise = keras.Input((4,), name="noise")
    drawn = layers.Dense(8 * 8 * 3, activation="sigmoid", name="drawn")(noise)
    drawing = keras.Model(noise, layers.Reshape((8, 8, 3), name="picture")(drawn))
    flat = layers.Flatten()(image)
    many = keras.Model(image, {"kind": layers.Dense(1000, activation="softmax")(flat)})
    x = keras.Input((3,), name="x")
    numbers = keras.Model(x, {"inverse": 1 / x, "whole": keras.ops.cast(x, "int32")})
    score = layers.Dense(1)(layers.Flatten()(layers.Conv2D(2, 3)(image)))
    untrained = {
        "either": keras.Model(image, score),
        "pair": pair,
        "mask": mask,
        "logits": logits,
        "drawing": drawing,
        "cleaned": keras.Model(image, cleaned),
        "glow": glow,
        "versions": mask,
        "numbers": numbers,
        ODD: many,
    }
    for name, model in untrained.items():
        for _ in range(2 if name == "versions" else 1):
            options = {"model_repository": repository, "name": name, "preprocess": "scale01"}
            labels = {
                ODD: LABELS,
                "either": ["cat", "dog"],
                "logits": ["ground", "cat", "dog"],
            }.get(name)
            training.publish(model, labels=labels, say=lambda _: None, **options)
    (repository / "either/1/metrics.json").unlink()  # as of a repository that nobody may read
    shutil.copytree(gateway_models, repository, dirs_exist_ok=True)
    return repository


@pytest.fixture(scope="module")
def url(repository: Path, launch_modelserver, launch_gateway) -> str:
    names = [
        *("digits", "pair", "mask", "logits", "drawing", "versions", "numbers", "either"),
        *("cleaned", "glow"),
        *("why", "whys", ODD),
    ]
    config = repository / "models.config"
    policy = "model_version_policy { all {} }"
    entries = "".join(
        f"config {{ name: {json.dumps(name)} base_path: {json.dumps(str(repository / name))} "
        f'model_platform: "tensorflow" {policy} }}'
        for name in names
    )
    config.write_text(f"model_config_list {{ {entries} }}")
    twin = launch_modelserver(f"--model_config_file={config}")
    return launch_gateway(
        twin.address, models=",".join(names), model_repository=str(repository)
    ).url


@pytest.fixture
def picture(tmp_path: Path) -> Path:
    path = tmp_path / "picture.png"
    Image.fromarray(np.random.default_rng(0).integers(256, size=(16, 16, 3), dtype=np.uint8)).save(
        path
    )
    return path


def until(browser: webdriver.Chrome, condition):
    """Once the condition holds; what the page replaces while it is looked at is looked at again."""
    ignored = [StaleElementReferenceException]
    return WebDriverWait(browser, PATIENCE_S, ignored_exceptions=ignored).until(condition)


def all_of(browser: webdriver.Chrome, selector: str):
    return browser.find_elements(By.CSS_SELECTOR, selector)


def one(browser: webdriver.Chrome, selector: str):
    [found] = all_of(browser, selector)
    return found


def choose(browser: webdriver.Chrome, name: str, path: Path | str) -> None:
    """path: of a file, or of several, one on each line."""
    one(browser, f"fieldset[data-input={name}] input[type=file]").send_keys(str(path))


def answered(browser: webdriver.Chrome, output: str):
    """The output's block, once it is there; fails with what the page says where it is not."""
    until(browser, lambda b: all_of(b, f"[data-output={output}]") or all_of(b, "#said.bad"))
    assert not all_of(browser, "#said.bad"), one(browser, "#said").text
    return all_of(browser, f"[data-output={output}]")


def test_a_digit_is_read(
    browser: webdriver.Chrome,
    url: str,
    repository: Path,
    request: pytest.FixtureRequest,
    tmp_path: Path,
) -> None:
    browser.get(f"{url}/models/digits")
    choose(browser, "image", repository / "digits/1/samples/3-0.png")
    [block] = answered(browser, "label")
    labels = [each.text for each in block.find_elements(By.CLASS_NAME, "label")]
    assert labels[0] == "3"
    times = one(browser, "#answer > div > .quiet:not([data-output])").text
    assert times.startswith("Version 1: ")
    assert "Like what it was trained on" in one(browser, "[data-output=novelty]").text
    folder = IMAGES if request.config.getoption("--write-pictures") else tmp_path
    assert browser.save_screenshot(str(folder / "page.png"))


def test_a_sample_is_a_click_away_and_the_keyboard_will_do(
    browser: webdriver.Chrome, url: str
) -> None:
    browser.get(f"{url}/models/digits")
    tab_to(browser, lambda focused: focused.get_attribute("aria-label") == "Sample 7-0")
    ActionChains(browser).send_keys(Keys.ENTER).perform()
    [block] = answered(browser, "label")
    assert block.find_elements(By.CLASS_NAME, "label")[0].text == "7"


@pytest.mark.parametrize(
    "brought",
    [
        "document.querySelector('.drop').dispatchEvent("
        "new DragEvent('drop', {dataTransfer: files, bubbles: true, cancelable: true}))",
        "document.body.dispatchEvent("
        "new ClipboardEvent('paste', {clipboardData: files, bubbles: true}))",
    ],
    ids=["dropped", "pasted"],
)
def test_a_picture_is_dropped_or_pasted(
    browser: webdriver.Chrome, url: str, repository: Path, brought: str
) -> None:
    browser.get(f"{url}/models/digits")
    content = base64.b64encode((repository / "digits/1/samples/3-0.png").read_bytes()).decode()
    browser.execute_script(
        """
        const bytes = Uint8Array.from(atob(arguments[0]), (each) => each.charCodeAt(0));
        const files = new DataTransfer();
        files.items.add(new File([bytes], "three.png", {type: "image/png"}));
        """
        + brought,
        content,
    )
    [block] = answered(browser, "label")
    assert block.find_elements(By.CLASS_NAME, "label")[0].text == "3"


def test_a_photo_is_taken(browser: webdriver.Chrome, url: str) -> None:
    """With the camera that Chromium has for tests."""
    browser.get(f"{url}/models/digits")
    browser.find_element(By.XPATH, "//button[.='Camera']").click()
    until(browser, lambda b: all_of(b, "dialog button.main:enabled"))
    one(browser, "dialog button.main").click()
    answered(browser, "label")
    assert "photo.png" in one(browser, ".previews").text
    assert not all_of(browser, "dialog")


def test_several_pictures_have_a_row_each(
    browser: webdriver.Chrome, url: str, repository: Path
) -> None:
    browser.get(f"{url}/models/digits")
    samples = repository / "digits/1/samples"
    choose(browser, "image", f"{samples / '3-0.png'}\n{samples / '7-0.png'}")
    blocks = answered(browser, "label")
    best = [each.find_elements(By.CLASS_NAME, "label")[0].text for each in blocks]
    assert best == ["3", "7"]


def repeated(browser: webdriver.Chrome, folder: Path) -> list[str]:
    """What is answered to the lines of the page, run where its files lie."""
    one(browser, "#repeat summary").click()
    names = [each.text for each in all_of(browser, "#lines h3")]
    assert names == ["curl", "Python", "Python, gRPC"]
    commands = [["bash", "-c"], [sys.executable, "-c"], [sys.executable, "-c"]]
    lines = [each.text for each in all_of(browser, "#lines pre")]
    return [
        subprocess.run(
            [*command, line], cwd=folder, check=True, capture_output=True, text=True
        ).stdout
        for command, line in zip(commands, lines, strict=True)
    ]


def test_the_lines_repeat_the_request(
    browser: webdriver.Chrome, url: str, repository: Path, picture: Path
) -> None:
    browser.get(f"{url}/models/digits")
    sample = repository / "digits/1/samples/3-0.png"
    choose(browser, "image", sample)
    answered(browser, "label")
    curl, *python = repeated(browser, sample.parent)
    assert json.loads(curl)["predictions"][0]["label_classes"][0] == "3"
    assert all(re.search(r"\b3\b", each) for each in python)

    browser.get(f"{url}/models/pair")
    choose(browser, "left", picture)
    choose(browser, "right", picture)
    one(browser, "button.main").click()
    [block] = answered(browser, "sum")
    best = block.find_elements(By.CLASS_NAME, "number")[0].text.split()[0]
    curl, *python = repeated(browser, picture.parent)
    assert f"{100 * json.loads(curl)['predictions'][0]['sum_scores'][0]:.1f}" == best
    assert all(python)


def test_an_array_is_saved_as_numpy_has_it(
    browser: webdriver.Chrome, url: str, tmp_path: Path
) -> None:
    """Infinity and NaN too, which JSON has no word for."""
    behaviour = {"behavior": "allow", "downloadPath": str(tmp_path)}
    browser.execute_cdp_cmd("Browser.setDownloadBehavior", behaviour)
    browser.get(f"{url}/models/numbers")
    field = one(browser, "fieldset[data-input=x] textarea")
    field.clear()
    field.send_keys("0, 2, -3")
    one(browser, "button.main").click()
    [block] = answered(browser, "inverse")
    assert "Infinity" in block.text
    field.send_keys(", 4")
    one(browser, "button.main").click()
    until(browser, lambda b: "expected 3 numbers, got 4" in one(b, "#said").text)
    for name, expected in (
        ("inverse", np.float32([[np.inf, 1 / 2, -1 / 3]])),
        ("whole", np.int32([[0, 2, -3]])),
    ):
        browser.find_element(By.LINK_TEXT, f"Save {name}.npy").click()
        until(browser, lambda _, name=name: (tmp_path / f"{name}.npy").exists())
        saved = np.load(tmp_path / f"{name}.npy")
        assert saved.dtype == expected.dtype
        assert np.array_equal(saved, expected)


def test_an_answer_that_comes_late_is_not_shown(browser: webdriver.Chrome, url: str) -> None:
    """The first is held back until the second is there."""
    browser.get(f"{url}/models/digits")
    browser.execute_script(
        """
        const sent = window.fetch, held = new Promise((resolve) => (window.release = resolve));
        let asked = 0;
        window.fetch = async (address, options) => {
          const isFirst = address.endsWith(":predict") && !asked++;
          const reply = await sent(address, options);
          if (isFirst) await held;
          return reply;
        };
        """
    )
    for sample in ("7-0", "3-0"):
        one(browser, f"button[aria-label='Sample {sample}']").click()
        until(browser, lambda b, name=sample: name in one(b, ".previews").text)
    [block] = answered(browser, "label")
    assert block.find_elements(By.CLASS_NAME, "label")[0].text == "3"
    # Whatever the first has to say is said in the tasks that follow.
    browser.execute_async_script("release(); setTimeout(arguments[0], 300)")
    assert all_of(browser, "[data-output=label] .label")[0].text == "3"


def test_lines_are_copied_where_the_browser_lends_no_clipboard(
    browser: webdriver.Chrome, url: str
) -> None:
    """As it does over http to all but this machine; the camera neither."""
    browser.get(f"{url}/models/drawing")
    browser.execute_script(
        "for (const name of ['clipboard', 'mediaDevices'])"
        " Object.defineProperty(navigator, name, {value: undefined, configurable: true});"
        "document.addEventListener('copy', () => (window.copied = getSelection().toString()));"
    )
    one(browser, "button.main").click()
    answered(browser, "picture")
    one(browser, "#repeat summary").click()
    button, line = all_of(browser, "#lines button")[0], all_of(browser, "#lines pre")[0].text
    browser.execute_script(
        "window.told = [];"  # which it is for a moment only
        "new MutationObserver(() => window.told.push(arguments[0].textContent))"
        ".observe(arguments[0], {childList: true, characterData: true, subtree: true})",
        button,
    )
    button.click()
    until(browser, lambda b: "Copied" in b.execute_script("return window.told"))
    copied = browser.execute_script("return window.copied")
    assert copied.split() == line.split()


def test_why_is_a_heat_over_the_picture_of_the_class_chosen(
    browser: webdriver.Chrome, url: str, picture: Path
) -> None:
    """With the keyboard alone, once the picture is there."""
    browser.get(f"{url}/models/why")
    choose(browser, "image", picture)
    until(browser, lambda b: all_of(b, ".why button"))
    tab_to(browser, lambda focused: focused.text == "Why?")
    ActionChains(browser).send_keys(Keys.ENTER).perform()
    until(browser, lambda b: all_of(b, "[data-why=label] figcaption"))
    best = one(browser, "[data-why=label] figcaption").text.partition(":")[0]
    options = [each.text for each in Select(one(browser, "[data-why=label] select")).options]
    assert options[0] == "the best class"
    assert best in options[1:]
    [other] = {"left", "middle", "right"} & {*options[1:]} - {best}
    Select(one(browser, "[data-why=label] select")).select_by_visible_text(other)
    until(browser, lambda b: one(b, "[data-why=label] figcaption").text.startswith(other))
    over = one(browser, "[data-why=label] .overlay canvas.heat")
    assert over.get_attribute("aria-label") == "the heat"
    tab_to(browser, lambda focused: focused.get_attribute("type") == "range")
    ActionChains(browser).send_keys(Keys.HOME).perform()
    assert over.value_of_css_property("opacity") == "0"


def test_two_classes_of_one_number_have_their_places_for_names(
    browser: webdriver.Chrome, url: str, picture: Path
) -> None:
    browser.get(f"{url}/models/either")
    choose(browser, "image", picture)
    [block] = answered(browser, "label")
    label, best = (block.find_elements(By.CLASS_NAME, name)[0].text for name in ("label", "number"))
    until(browser, lambda b: all_of(b, ".why button"))
    one(browser, ".why button").click()
    until(browser, lambda b: all_of(b, "[data-why=label] figcaption"))
    options = Select(one(browser, "[data-why=label] select")).options
    assert [each.text for each in options] == ["the best class", "0", "1"]
    place = ["cat", "dog"].index(label)
    assert one(browser, "[data-why=label] figcaption").text == f"{place}: {best}"


def test_every_head_is_explained_in_every_picture(
    browser: webdriver.Chrome, url: str, picture: Path
) -> None:
    browser.get(f"{url}/models/whys")
    choose(browser, "above", picture)
    choose(browser, "below", picture)
    one(browser, "button.main").click()
    until(browser, lambda b: all_of(b, ".why button"))
    one(browser, ".why button").click()
    for head in ("first", "second"):
        until(browser, lambda b, head=head: all_of(b, f"[data-why={head}] canvas.heat"))
        shown = all_of(browser, f"[data-why={head}] canvas.heat")
        said = [each.get_attribute("aria-label") for each in shown]
        assert said == ["the heat in above", "the heat in below"]


def test_names_and_labels_are_text_whatever_they_hold(
    browser: webdriver.Chrome, url: str, picture: Path
) -> None:
    """A thousand of them, of a model whose name no address carries as it is."""
    browser.get(f"{url}/models/")
    browser.find_element(By.LINK_TEXT, ODD).click()
    until(browser, lambda b: all_of(b, "fieldset[data-input=image]"))
    assert one(browser, "h1").text == ODD
    choose(browser, "image", picture)
    [block] = answered(browser, "kind")
    assert {each.text for each in block.find_elements(By.CLASS_NAME, "label")} < {*LABELS}
    assert not all_of(browser, "img[src=x]")
    assert browser.title == f"{ODD} · Sluice"
    one(browser, "nav a[href^='/docs/']").click()
    until(browser, lambda b: b.title.startswith(ODD) or ODD in one(b, "h1").text)


def test_several_inputs_have_a_field_each(
    browser: webdriver.Chrome, url: str, picture: Path
) -> None:
    browser.get(f"{url}/models/pair")
    choose(browser, "left", picture)
    choose(browser, "right", picture)
    numbers = one(browser, "fieldset[data-input=size] textarea")
    numbers.clear()
    numbers.send_keys("1; 2")  # as a spreadsheet has them
    one(browser, "button.main").click()
    [block] = answered(browser, "sum")
    assert len(block.find_elements(By.CLASS_NAME, "label")) == 3


@pytest.mark.parametrize("model", ["mask", "logits"])
def test_a_mask_lies_over_the_picture(
    browser: webdriver.Chrome, url: str, picture: Path, model: str
) -> None:
    browser.get(f"{url}/models/{model}")
    choose(browser, "image", picture)
    [block] = answered(browser, "mask")
    over = block.find_elements(By.CSS_SELECTOR, ".overlay canvas")[1]
    slider = block.find_element(By.CSS_SELECTOR, "input[type=range]")
    slider.send_keys(Keys.HOME)
    assert over.value_of_css_property("opacity") == "0"


@pytest.mark.parametrize("model", ["cleaned", "glow"])
def test_a_picture_that_is_made_of_one_does_not_lie_over_it(
    browser: webdriver.Chrome, url: str, picture: Path, model: str
) -> None:
    browser.get(f"{url}/models/{model}")
    choose(browser, "image", picture)
    [block] = answered(browser, "picture")
    assert not block.find_elements(By.CSS_SELECTOR, ".overlay")
    [canvas] = block.find_elements(By.TAG_NAME, "canvas")
    pixels = browser.execute_script(
        "const drawn = arguments[0];"
        "return [...drawn.getContext('2d').getImageData(0, 0, drawn.width, drawn.height).data]",
        canvas,
    )
    greys = np.array(pixels).reshape(16, 16, 4)[..., :3]
    assert (greys > 0).mean() > 0.9  # of 0..1, and of -1..1 too


def test_a_picture_that_a_model_draws(browser: webdriver.Chrome, url: str) -> None:
    browser.get(f"{url}/models/drawing")
    one(browser, "button.main").click()
    [block] = answered(browser, "picture")
    assert block.find_elements(By.TAG_NAME, "canvas")


def test_two_versions_side_by_side(browser: webdriver.Chrome, url: str, picture: Path) -> None:
    browser.get(f"{url}/models/versions")
    Select(one(browser, "#version")).select_by_visible_text("1")
    Select(one(browser, "#beside")).select_by_visible_text("2")
    choose(browser, "image", picture)
    assert len(answered(browser, "mask")) == 2
    said = [each.text for each in all_of(browser, "#answer > div > .quiet")]
    assert [each.partition(":")[0] for each in said] == ["Version 1", "Version 2"]


def test_what_goes_wrong_is_said_in_the_gateways_words(
    browser: webdriver.Chrome, url: str, tmp_path: Path
) -> None:
    browser.get(f"{url}/models/digits")
    broken = tmp_path / "broken.png"
    broken.write_bytes(b"no picture")
    choose(browser, "image", broken)
    until(browser, lambda b: all_of(b, "#said.bad"))
    assert "image" in one(browser, "#said").text


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1200, 360])
def test_the_page_is_for_everybody(
    browser: webdriver.Chrome, url: str, repository: Path, scheme: str, width: int
) -> None:
    browser.set_window_size(width, 1000)
    browser.execute_cdp_cmd(
        "Emulation.setEmulatedMedia",
        {"features": [{"name": "prefers-color-scheme", "value": scheme}]},
    )
    for path in ("/models/", "/models/digits", "/models/why", f"/models/{quote(ODD)}"):
        browser.get(f"{url}{path}")
        if path != "/models/":
            choose(browser, "image", repository / "digits/1/samples/3-0.png")
            answered(browser, "kind" if "%" in path else "label")
            for button in all_of(browser, ".why button"):
                button.click()
                until(browser, lambda b: all_of(b, "canvas.heat"))
            browser.execute_script("document.querySelectorAll('details').forEach(d => d.open = 1)")
        assert faults_for_people(browser) == []
    for path in ("/docs", "/docs/digits"):
        browser.get(f"{url}{path}")
        assert faults_for_people(browser) == []
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": []})
    browser.set_window_size(1200, 1000)


def test_no_request_leaves_the_host_and_nothing_is_wrong_in_the_console(
    browser: webdriver.Chrome, url: str
) -> None:
    """Of all that was looked at before."""
    browser.get(f"{url}/models/digits")
    everything = addresses_asked(browser)
    assert everything
    assert [
        each for each in everything if not re.match(rf"{url}/|data:|blob:|about:|chrome:", each)
    ] == []
    # A refused prediction is a line of the console, and is meant to be.
    wrong = [
        each["message"] for each in browser.get_log("browser") if ":predict" not in each["message"]
    ]
    assert wrong == []


def asked(browser: webdriver.Chrome) -> int:
    """Requests of the page since it was loaded."""
    return browser.execute_script("return performance.getEntriesByType('resource').length")


def calls(url: str) -> float:
    """To the models, of all requests that were answered."""
    said = requests.get(f"{url}/metrics", timeout=60).text
    return sum(map(float, re.findall(r"^sluice_calls_total{.*} (\S+)$", said, re.M)))


def test_nothing_is_asked_while_nobody_looks(browser: webdriver.Chrome, url: str) -> None:
    """And no model, whether somebody looks or not."""
    before_all = calls(url)
    assert before_all > 0
    browser.get(f"{url}/models/digits")
    one(browser, "#now summary").click()
    until(browser, lambda b: all_of(b, "#now-shown table"))
    one(browser, "#now summary").click()
    for _ in range(3):  # what is on its way may come, and late
        before = asked(browser)
        time.sleep(5)
        if asked(browser) == before:
            break
    assert asked(browser) == before
    assert calls(url) == before_all


def test_now_tells_of_each_version_while_somebody_looks(
    browser: webdriver.Chrome, url: str, repository: Path
) -> None:
    browser.get(f"{url}/models/digits")
    assert not all_of(browser, "#now-shown table")
    one(browser, "#now summary").click()
    until(browser, lambda b: all_of(b, "#now-shown table"))
    choose(browser, "image", repository / "digits/1/samples/3-0.png")

    def answered_by_1(b: webdriver.Chrome) -> list[list[str]]:
        rows = b.execute_script(  # at once: the table is another one every two seconds
            "return [...document.querySelectorAll('#now-shown tbody tr')]"
            ".map((row) => [...row.querySelectorAll('td')].map((cell) => cell.innerText))"
        )
        return [
            row for row in rows if row[0] == "1" and all(each.endswith(" ms") for each in row[3:])
        ]

    [(_, rate, errors, *times)] = until(browser, answered_by_1)
    assert (errors, len(times)) == ("0", 6)
    assert float(rate) > 0
    assert all_of(browser, "#now-shown svg polyline")


def test_the_page_is_small(
    browser: webdriver.Chrome, url: str, request: pytest.FixtureRequest
) -> None:
    """What is sent without the pictures. The first paint is told: it is the machine's affair."""
    browser.execute_cdp_cmd("Network.setCacheDisabled", {"cacheDisabled": True})
    browser.get(f"{url}/models/digits")
    browser.execute_cdp_cmd("Network.setCacheDisabled", {"cacheDisabled": False})
    sizes = browser.execute_script(
        "return [...performance.getEntriesByType('navigation'),"
        " ...performance.getEntriesByType('resource')]"
        ".filter(each => !each.name.endsWith('.png')).map(each => each.transferSize)"
    )
    assert len(sizes) > 5
    assert all(sizes)
    assert sum(sizes) < 150_000
    first_paint = until(
        browser,
        lambda b: b.execute_script(
            "return performance.getEntriesByName('first-contentful-paint')[0]?.startTime"
        ),
    )
    said = (
        f"{figures.machine()}, Chromium and the gateway on one machine: first paint after "
        f"{first_paint:.0f} ms, {len(sizes)} requests with {sum(sizes):,} bytes in all without the "
        f"pictures, headers counted, nothing cached."
    )
    print(said)
    if request.config.getoption("--write-docs"):
        figures.write("api.md", "test_the_page_is_small", said)
    assert re.search(
        r"after \d+ ms, \d+ requests", figures.written("api.md", "test_the_page_is_small")
    )


def test_a_server_that_is_away_is_said_in_words(
    browser: webdriver.Chrome, launch_modelserver, launch_gateway, repository: Path, picture: Path
) -> None:
    twin = launch_modelserver("--model_name=why", f"--model_base_path={repository / 'why'}")
    url = launch_gateway(twin.address, models="why", request_timeout_s=8).url
    browser.get(f"{url}/models/why")
    twin.terminate()
    choose(browser, "image", picture)
    until(browser, lambda b: all_of(b, "#said.bad"))
    assert one(browser, "#said").text
    browser.get(f"{url}/models/why")
    assert one(browser, "main .bad").text
    assert one(browser, "a[href='/models/']")
