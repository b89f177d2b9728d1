"""What tests ask of a page that is open in a real browser."""

import json
from collections.abc import Callable
from pathlib import Path

from selenium import webdriver
from selenium.webdriver.common.action_chains import ActionChains
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.remote.webelement import WebElement

AXE = Path(__file__).parent / "page" / "axe" / "axe.min.js"


def faults_for_people(browser: webdriver.Chrome) -> list[tuple[str, str]]:
    """What axe finds, rule and element; and where the page is wider than the window."""
    browser.execute_script(AXE.read_text())
    found = browser.execute_async_script("axe.run().then(arguments[0])")
    faults = [(each["id"], each["nodes"][0]["html"]) for each in found["violations"]]
    wide, window = browser.execute_script(
        "const e = document.documentElement; return [e.scrollWidth, e.clientWidth]"
    )
    return faults + ([("too wide", f"{wide} pixels of {window}")] if wide > window else [])


def addresses_asked(browser: webdriver.Chrome) -> set[str]:
    """By all pages since this was last asked."""
    messages = [json.loads(each["message"])["message"] for each in browser.get_log("performance")]
    return {
        message["params"]["request"]["url"]
        for message in messages
        if message["method"] == "Network.requestWillBeSent"
    }


def tab_to(browser: webdriver.Chrome, is_it: Callable[[WebElement], bool]) -> None:
    """Until what is wanted has the focus."""
    for _ in range(50):
        ActionChains(browser).send_keys(Keys.TAB).perform()
        if is_it(browser.switch_to.active_element):
            return
    raise AssertionError("Tab does not lead to it")
