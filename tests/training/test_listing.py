import shutil
import subprocess
import sys

from training.publishing.listing import published, table


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
    assert {each.signatures for each in found} == {("classify", "encoded", "serving_default")}
    assert found[0].measured.startswith("label accuracy 0.")
    assert found[2].measured == ""


def test_the_table_is_aligned(version, tmp_path):
    shutil.copytree(version, tmp_path / "digits" / "1")
    header, line = table(tmp_path).splitlines()
    assert header.index("SIGNATURES") == line.index("classify")
    assert header.index("ON TEST") == line.index("label accuracy")


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
