"""`sluice admit`: what it lets in, what it does not, and what it leaves when it is killed."""

import errno
import os
import shutil
import subprocess
import sys
import time
from contextlib import closing

import pytest

from service.signing import Doorman
from service.versions import VersionError
from sluice.wire.signed_files import SIGNED_FILE
from tests.signing import Signed


@pytest.fixture(scope="module")
def signed(tmp_path_factory):
    return Signed(tmp_path_factory.mktemp("signed"))


@pytest.fixture
def places(signed, tmp_path):
    """The two directories: (incoming, repository)."""
    shutil.copytree(signed.repository, tmp_path / "incoming")
    (tmp_path / "repository").mkdir()
    return tmp_path / "incoming", tmp_path / "repository"


@pytest.fixture
def door(signed, places):
    """A doorman, and the two directories: (look, incoming, repository)."""
    with closing(Doorman(*places, signed.trusted)) as doorman:
        yield (lambda: sorted(doorman.look())), *places


def served(repository):
    return sorted(str(path.relative_to(repository)) for path in repository.glob("*/*"))


def test_signed_versions_are_admitted_whole(signed, door):
    look, _, repository = door
    assert look() == ["digits 1 is admitted", "digits 2 is admitted", "photos 2 is admitted"]
    assert served(repository) == ["digits/1", "digits/2", "photos/2"]
    signed.trusted.check(repository / "digits/2", "digits", 2)
    assert look() == []


def test_what_is_refused_is_told_once_and_admitted_once_it_is_mended(door):
    look, incoming, repository = door
    file = incoming / "digits/2/a.png"
    content = file.read_bytes()
    file.write_bytes(content[::-1])
    assert "digits 2 is refused: " in look()[1]
    assert look() == []
    assert served(repository) == ["digits/1", "photos/2"]
    file.write_bytes(content)
    assert look() == ["digits 2 is admitted"]


def test_what_changes_where_it_came_from_changes_nothing_where_it_is_served(signed, door):
    look, incoming, repository = door
    look()
    (incoming / "digits/2/a.png").write_bytes(b"another")
    assert look() == []
    signed.trusted.check(repository / "digits/2", "digits", 2)


def test_versions_go_where_another_is_left_to_serve(door):
    look, incoming, repository = door
    look()
    shutil.rmtree(incoming / "digits/1")
    shutil.rmtree(incoming / "photos/2")
    (incoming / "photos/3").mkdir()
    assert look()[0] == "digits 1 is removed"
    assert served(repository) == ["digits/2", "photos/2"]


def beyond_the_longest_path(version):
    """Directories in one another until no path leads there."""
    above = os.open(version, os.O_RDONLY)
    for _ in range(20):
        os.mkdir("x" * 250, dir_fd=above)
        below = os.open("x" * 250, os.O_RDONLY, dir_fd=above)
        os.close(above)
        above = below
    os.close(above)


def only_a_pipe(version):
    (version / SIGNED_FILE).unlink()
    os.mkfifo(version / SIGNED_FILE)


def only_a_directory(version):
    (version / SIGNED_FILE).unlink()
    (version / SIGNED_FILE).mkdir()


@pytest.mark.parametrize("spoil", [beyond_the_longest_path, only_a_pipe, only_a_directory])
def test_what_cannot_be_read_keeps_no_other_out(door, spoil):
    look, incoming, repository = door
    spoil(incoming / "digits/1")
    told = look()
    assert "digits 1 is refused: " in told[0]
    assert told[1:] == ["digits 2 is admitted", "photos 2 is admitted"]
    assert look() == []
    assert served(repository) == ["digits/2", "photos/2"]


@pytest.mark.parametrize("name", ["two\nlines", "wide\u2028line", os.fsdecode(b"\xff")])
def test_a_name_that_no_model_can_have_is_told_in_a_line(signed, door, name):
    look, incoming, repository = door
    look()
    signed.key.sign(shutil.copytree(signed.repository / "digits/2", incoming / name / "2"), name, 2)
    (line,) = look()
    assert line.startswith(f"{name!r} 2 is refused: {name!r} is no name of a model")
    assert line.isprintable()
    assert served(repository) == ["digits/1", "digits/2", "photos/2"]


def test_a_link_to_a_version_is_copied_and_none_to_a_file(door):
    look, incoming, repository = door
    elsewhere = (incoming / "digits/2").rename(incoming.parent / "elsewhere")
    (incoming / "digits/2").symlink_to(elsewhere)
    file = (incoming / "photos/2/a.png").rename(incoming.parent / "a.png")
    (incoming / "photos/2/a.png").symlink_to(file)
    told = look()
    assert told[:2] == ["digits 1 is admitted", "digits 2 is admitted"]
    assert "photos 2 is refused" in told[2] and "'a.png', which is no file" in told[2]
    assert not (repository / "digits/2").is_symlink()


def test_what_is_admitted_is_for_every_model_server_to_read(door):
    look, incoming, repository = door
    for path in (incoming / "digits/2").rglob("*"):
        path.chmod(0o700 if path.is_dir() else 0o600)
    look()
    modes = {path.stat().st_mode & 0o777 for path in (repository / "digits/2").rglob("*")}
    assert modes == {0o755, 0o644}


def admit(incoming, repository, signed):
    return [
        *(sys.executable, "-P", "-m", "service.cli", "admit", incoming),
        f"--model-repository={repository}",
        f"--trusted-keys={signed.trusted_file}",
    ]


def test_killed_in_the_middle_it_leaves_no_half_version_and_nothing_in_the_way(signed, places):
    incoming, repository = places
    with (incoming / "digits/2/weights").open("wb") as file:
        file.truncate(1 << 26)  # it takes a while to copy
    signed.key.sign(incoming / "digits/2", "digits", 2)
    shutil.rmtree(incoming / "digits/1")
    command = admit(incoming, repository, signed)
    running = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    while not list(repository.glob("digits/.admitting-2/weights")):
        assert running.poll() is None
        time.sleep(0.001)
    running.kill()
    running.communicate()
    assert served(repository) == ["digits/.admitting-2"]
    (repository / "photos/.removing-7").mkdir(parents=True)
    outcome = subprocess.run(command, capture_output=True, text=True, check=True)
    assert outcome.stdout.splitlines() == ["digits 2 is admitted", "photos 2 is admitted"]
    assert served(repository) == ["digits/2", "photos/2"]
    signed.trusted.check(repository / "digits/2", "digits", 2)


def test_once_it_ends_with_a_status_that_tells_of_what_is_refused(signed, places):
    incoming, repository = places
    (incoming / "digits/2/more").touch()
    outcome = subprocess.run(
        admit(incoming, repository, signed), capture_output=True, text=True, check=False
    )
    assert (outcome.returncode, outcome.stderr) == (1, "")
    assert "digits 2 is refused: " in outcome.stdout


def test_two_never_admit_to_one_repository(signed, places):
    """The second would take what the first copies for that of one that was killed."""
    incoming, repository = places
    command = [*admit(incoming, repository, signed), "--follow"]
    told = f"another sluice admit is at work in {repository}"
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as running:
        try:
            assert running.stdout.readline() == "digits 1 is admitted\n"
            with pytest.raises(VersionError, match=told):
                Doorman(incoming, repository, signed.trusted)
        finally:
            running.kill()
    first = Doorman(incoming, repository, signed.trusted)
    outcome = subprocess.run(
        admit(incoming, repository, signed), capture_output=True, text=True, check=False
    )
    assert (outcome.returncode, outcome.stdout, outcome.stderr) == (1, "", f"Error: {told}\n")
    first.close()
    Doorman(incoming, repository, signed.trusted).close()


def test_who_may_write_in_the_repository_may_admit_after_another(signed, places):
    incoming, repository = places
    repository.chmod(0o2770)
    before = os.umask(0o077)
    Doorman(incoming, repository, signed.trusted).close()
    os.umask(before)
    assert (repository / ".admit.lock").stat().st_mode & 0o777 == 0o660


def test_a_file_system_without_locks_is_no_hindrance(signed, places, monkeypatch):
    def flock(_descriptor, _operation):
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr("fcntl.flock", flock)
    with closing(Doorman(*places, signed.trusted)) as doorman:
        assert len([*doorman.look()]) == 3


def test_a_repository_is_made_and_one_that_cannot_be_is_told(signed, places):
    incoming, repository = places
    Doorman(incoming, repository / "of" / "others", signed.trusted).close()
    assert (repository / "of" / "others").is_dir()
    (repository / "file").touch()
    with pytest.raises(VersionError, match=f"File exists: '{repository}/file'"):
        Doorman(incoming, repository / "file", signed.trusted)
    (repository / ".admit.lock").mkdir()
    with pytest.raises(VersionError, match=r"Is a directory: '.*/\.admit\.lock'"):
        Doorman(incoming, repository, signed.trusted)
