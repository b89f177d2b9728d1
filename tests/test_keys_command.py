"""`sluice keys`: the file is written whole or not at all, and has no key in it."""

import stat
import threading

import pytest
from click.testing import CliRunner

from service.gateway.access.access_list import read_access
from service.gateway.access.keys import digest_of
from service.keys import keys


@pytest.fixture
def run(tmp_path):
    """`run(*arguments)` -> click's result, on `file`."""
    return lambda *arguments: CliRunner().invoke(
        keys, [*arguments, f"--file={tmp_path}/access.toml"]
    )


@pytest.fixture
def file(tmp_path):
    return tmp_path / "access.toml"


def test_a_new_key_is_shown_once_and_its_hash_kept(run, file):
    made = run("new", "acme", "--model=digits", "--operation=predict", "--expires=2d", "--note=n")
    key = made.stdout.strip()
    assert made.exit_code == 0 and key.startswith("sluice_acme_")
    assert key[-64:] not in file.read_text() + made.stderr
    entry = read_access(file.read_text()).keys["acme"]
    assert digest_of(key) == entry.digest
    assert (entry.grant.models, entry.grant.operations) == (("digits",), {"predict"})
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert not [path for path in file.parent.iterdir() if path != file]


def test_a_certificate_stands_for_a_key(run, file):
    names = ["DNS:phone.acme.example", "IP:10.1.2.3"]
    made = run("new", "phone", *[f"--certificate={name}" for name in names], "--model=digits")
    assert (made.exit_code, made.stdout) == (0, "")
    access = read_access(file.read_text())
    assert (access.keys["phone"].certificates, access.keys["phone"].digest) == (tuple(names), "")
    again = run("new", "other", f"--certificate={names[0]}")
    assert (again.exit_code, "is the key phone's already" in again.output) == (1, True)


@pytest.mark.parametrize("option", ["--model=", "--certificate=phone.acme.example"])
def test_what_the_gateway_would_refuse_is_not_written(run, file, option):
    refused = run("new", "a", option)
    assert refused.exit_code == 1
    assert refused.output.startswith("Error: keys.a.")
    assert not file.exists()


def test_the_list_says_who_may_what(run):
    run("new", "a", "--expires=2020-01-01T00:00:00Z")
    run("new", "b", "--model=m", "--model=n-*", "--note=Bea's")
    run("revoke", "b")
    rows = [line.split() for line in run("list").output.splitlines()]
    assert rows[1:] == [
        ["a", "*", "predict", "metadata", "status", "2020-01-01T00:00:00Z", "expired"],
        ["b", "m", "n-*", "predict", "metadata", "status", "never", "revoked", "Bea's"],
    ]


def test_what_people_wrote_stays(run, file):
    file.write_text('# Ours.\n[anonymous]  # for all\nmodels = ["m"]\n')
    file.chmod(0o640)
    run("new", "a")
    run("revoke", "a")
    assert file.read_text().startswith('# Ours.\n[anonymous]  # for all\nmodels = ["m"]\n')
    assert read_access(file.read_text()).keys["a"].revoked
    assert stat.S_IMODE(file.stat().st_mode) == 0o640


@pytest.mark.parametrize(
    "arguments, message",
    [
        (["new", "a b"], "ID is of letters, digits"),
        (["new", "there"], "has a key 'there' already"),
        (["new", "x", "--expires=soon"], "--expires: expected 90d or 2027"),
        (["revoke", "gone"], "has no key 'gone'; there are: there"),
    ],
)
def test_what_cannot_be_done_changes_nothing(run, file, arguments, message):
    run("new", "there")
    before = file.read_text()
    refused = run(*arguments)
    assert refused.exit_code and message in refused.output
    assert file.read_text() == before


def test_a_file_that_cannot_be_used_is_named(run, file):
    assert "cannot be read" in run("list").output
    file.write_text("keyz = 1")
    for command in (["list"], ["new", "a"], ["revoke", "a"]):
        refused = run(*command)
        assert refused.exit_code == 1 and "did you mean keys?" in refused.output
    assert file.read_text() == "keyz = 1"


def test_two_at_the_same_time_lose_nothing(file):
    makers = [
        threading.Thread(
            target=keys.main,
            args=(["new", f"k{number}", f"--file={file}"],),
            kwargs={"standalone_mode": False},
        )
        for number in range(8)
    ]
    for maker in makers:
        maker.start()
    for maker in makers:
        maker.join()
    assert read_access(file.read_text()).keys.keys() == {f"k{number}" for number in range(8)}
