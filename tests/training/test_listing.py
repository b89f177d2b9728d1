import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

from service.cli import main
from sluice.wire.contract import METRICS_FILE
from sluice.wire.labels import LABELS_FILE, write_labels
from training.publishing.listing import as_json, published, table

SIGNATURES = ("classify", "encoded", "explain", "explain_encoded", "pixels", "serving_default")
DATA, INDEX = "variables/variables.data-00000-of-00001", "variables/variables.index"


def test_every_version_with_its_signatures_and_metrics(version, tmp_path):
    shutil.copytree(version, tmp_path / "ours" / "2")
    shutil.copytree(version, tmp_path / "ours" / "10")
    shutil.copytree(
        version, tmp_path / "theirs" / "1", ignore=shutil.ignore_patterns("metrics.json")
    )
    (tmp_path / "ours" / ".publishing-x").mkdir()
    (tmp_path / "empty").mkdir()
    found = [*published(tmp_path)]
    assert [(each.model, each.version) for each in found] == [
        ("ours", 2),
        ("ours", 10),
        ("theirs", 1),
    ]
    assert {each.signatures for each in found} == {SIGNATURES}
    assert found[0].measured.startswith("label accuracy 0.")
    assert found[2].measured == ""


def test_the_table_is_aligned(version, tmp_path):
    shutil.copytree(version, tmp_path / "digits" / "1")
    header, line = table(tmp_path).splitlines()
    assert header.index("SIGNATURES") == line.index("classify")
    assert header.index("ON TEST") == line.index("label accuracy")


@pytest.mark.parametrize(
    ("spoil", "reason"),
    [
        (lambda path: (path / "saved_model.pb").unlink(), "holds no saved_model.pb: is it copied"),
        (lambda path: cut(path / "saved_model.pb"), r"saved_model.pb has 9 of [\d,]+ bytes"),
        (lambda path: cut(path / DATA), r"variables.data-00000-of-00001 has 9 of [\d,]+ bytes"),
        (lambda path: (path / DATA).unlink(), "variables.data-00000-of-00001 is missing"),
        (lambda path: (path / METRICS_FILE).unlink() or cut(path / "saved_model.pb"), "be read"),
        (
            lambda path: (path / METRICS_FILE).write_text("{") and (path / INDEX).unlink(),
            "variables.index is missing",
        ),
    ],
)
def test_a_broken_version_is_shown_with_its_reason_beside_the_live_one(
    version, tmp_path, spoil, reason
):
    for number in ("1", "2", "3"):
        shutil.copytree(version, tmp_path / "digits" / number)
    spoil(tmp_path / "digits" / "3")
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "pets.keras").touch()
    assert [(each.version, each.state) for each in published(tmp_path)] == [
        (1, ""),
        (2, "live"),
        (3, "broken"),
    ]
    lines = table(tmp_path).splitlines()
    assert re.search(rf"^digits 3 is broken: .*{reason}", lines[-2])
    assert lines[-1].startswith("photos is no model: ") and "sluice publish" in lines[-1]


def test_json_for_programs_says_what_the_table_does_and_more(version, tmp_path):
    digits = tmp_path / "digits"
    for name in ("1", "2", "3", ".withdrawn-4"):
        shutil.copytree(version, digits / name)
    cut(digits / "3" / "saved_model.pb")
    write_labels(digits, {"stable": 1})
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "pets.keras").touch()
    command = ["models", "--json", f"--model-repository={tmp_path}"]
    listed = json.loads(CliRunner().invoke(main, command).output)

    assert listed["repository"] == str(tmp_path)
    assert [*listed["no_models"]] == ["photos"]
    [model] = listed["models"]
    assert (model["name"], model["live"]) == ("digits", 2)
    assert (model["labels"], model["labels_fault"]) == ({"stable": 1}, None)
    versions = model["versions"]
    assert [(each["version"], each["state"], each["labels"]) for each in versions] == [
        (1, "older", ["stable"]),
        (2, "live", []),
        (3, "broken", []),
        (4, "withdrawn", []),
    ]
    assert [each["broken"] is None for each in versions] == [True, True, False, True]
    size = sum(file.stat().st_size for file in version.rglob("*") if file.is_file())
    assert versions[1]["bytes"] == size
    assert versions[1]["signatures"] == [*SIGNATURES]
    facts = json.loads((version / METRICS_FILE).read_text())
    assert versions[1]["metrics"] == facts["heads"]


def test_a_labels_file_that_is_none_is_said_and_stops_nothing(version, tmp_path):
    shutil.copytree(version, tmp_path / "digits" / "1")
    (tmp_path / "digits" / LABELS_FILE).write_text("{")
    [model] = as_json(tmp_path)["models"]
    assert model["labels"] == {}
    assert "is no JSON" in model["labels_fault"]
    assert model["live"] == 1


def test_what_json_holds_is_documented(version, tmp_path):
    shutil.copytree(version, tmp_path / "digits" / "1")
    listed = as_json(tmp_path)
    [model] = listed["models"]
    documented = Path(__file__).parents[2].joinpath("docs/operations.md").read_text()
    section = documented.partition("`sluice models --json`")[2].partition("\n## ")[0]
    for key in (*listed, *model, *model["versions"][0]):
        assert f"`{key}`" in section


def cut(path):
    path.write_bytes(path.read_bytes()[:9])


def test_no_repository_is_an_empty_list(tmp_path):
    assert [*published(tmp_path / "none")] == []


def test_listing_our_own_models_loads_no_tensorflow(version):
    script = (
        "import sys; from pathlib import Path; "
        "from training.publishing.listing import table; "
        "print(table(Path(sys.argv[1]))); assert 'tensorflow' not in sys.modules"
    )
    subprocess.run(
        [sys.executable, "-c", script, version.parent.parent], check=True, stdout=subprocess.DEVNULL
    )
