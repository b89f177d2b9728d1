"""The alerts before Prometheus itself: promtool reads them, and plays faults and quiet nights."""

import shutil
import subprocess
from pathlib import Path

import pytest
import yaml

HERE = Path(__file__).parent
RULES = HERE.parents[1] / "deploy/prometheus/rules.yml"
SCENES = HERE / "alerts_test.yml"

pytestmark = (
    pytest.mark.root
)  # to install promtool; a test of compose holds Kubernetes' rules equal


@pytest.fixture(scope="module")
def promtool():
    """`promtool(*arguments)` -> what it says; it must be content."""
    assert shutil.which("promtool"), "apt-get install prometheus"

    def run(*arguments):
        outcome = subprocess.run(
            ["promtool", *arguments], capture_output=True, text=True, check=False
        )
        assert outcome.returncode == 0, outcome.stdout + outcome.stderr
        return outcome.stdout

    return run


def test_prometheus_reads_every_rule(promtool):
    count = sum(len(group["rules"]) for group in yaml.safe_load(RULES.read_text())["groups"])
    assert f"{count} rules found" in promtool("check", "rules", RULES)


def test_faults_raise_alerts_and_quiet_nights_do_not(promtool):
    promtool("test", "rules", SCENES)


def test_every_alert_is_seen_raised_and_not_raised():
    alerts = {
        each["alert"]
        for group in yaml.safe_load(RULES.read_text())["groups"]
        for each in group["rules"]
        if "alert" in each
    }
    seen = {
        (each["alertname"], bool(each.get("exp_alerts")))
        for scene in yaml.safe_load(SCENES.read_text())["tests"]
        for each in scene["alert_rule_test"]
    }
    assert {(alert, raised) for alert in alerts for raised in (True, False)} <= seen
