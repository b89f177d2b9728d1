"""Two users, as of a command and of the gateways, who write what a rollout needs."""

import errno
import os
import stat
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from service.rollout import state
from service.rollout.evidence import Evidence, evidence_directory, write_evidence
from service.rollout.following import follow
from service.rollout.guard import Guard
from sluice.wire.shared import make_folder, open_lock, write_whole


@pytest.fixture
def digits(tmp_path: Path) -> Iterator[Path]:
    """In a repository of a group, while files are made for one's own eyes."""
    for number in "12":
        (tmp_path / "digits" / number).mkdir(parents=True)
        (tmp_path / "digits" / number / "saved_model.pb").touch()
    for path in (tmp_path, tmp_path / "digits"):
        path.chmod(0o2770)
    before = os.umask(0o077)
    yield tmp_path / "digits"
    os.umask(before)


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_who_may_write_in_the_repository_may_write_what_is_seen(digits: Path) -> None:
    rollout = state.start(digits, 2)
    folder = evidence_directory(digits, rollout.id)
    write_evidence(folder / "one.json", Evidence(rollout.id))
    made = [folder, *folder.parents][:3]
    assert made[-1] == digits.parent / ".rollout"
    assert [mode(each) for each in made] == [0o2770] * 3


def test_who_may_write_in_the_repository_may_move_and_follow(digits: Path) -> None:
    state.start(digits, 2)
    state.abort(digits)
    follow(digits, Guard(), lambda *_: None, look_s=0)
    for lock in (".rollout.lock", ".following.lock"):
        assert mode(digits / lock) == 0o660


@pytest.mark.skipif(os.geteuid() != 0, reason="nobody else can be somebody else")
def test_another_users_lock_is_one_that_cannot_be_written() -> None:
    with TemporaryDirectory() as directory:  # which anybody may come to, as not to tmp_path
        lock = Path(directory, "lock")
        lock.touch(0o644)
        lock.parent.chmod(0o755)
        os.seteuid(65534)
        try:
            os.close(open_lock(lock))
            with pytest.raises(PermissionError, match="other"):
                open_lock(lock.with_name("other"))
        finally:
            os.seteuid(0)


def test_what_is_there_stays_as_it_is(digits: Path) -> None:
    digits.chmod(0o755)
    make_folder(digits)
    assert mode(digits) == 0o755
    digits.parent.chmod(0o1777)  # in which nobody replaces what another has made
    make_folder(digits.parent / "open")
    assert mode(digits.parent / "open") == 0o1777
    with pytest.raises(FileNotFoundError):
        open_lock(digits / "none" / "lock")


def test_a_mount_that_has_modes_of_its_own_ends_no_command(digits: Path, monkeypatch) -> None:
    """As those of Windows' shares and of some buckets, which cannot be had here."""

    def refuse(*_, **__) -> None:
        raise OSError(errno.EOPNOTSUPP, os.strerror(errno.EOPNOTSUPP))

    monkeypatch.setattr(os, "chmod", refuse)
    monkeypatch.setattr(os, "fchmod", refuse)
    make_folder(digits / "of" / "several")
    assert (digits / "of" / "several").is_dir()
    os.close(open_lock(digits / "lock"))


def test_what_a_killed_command_of_another_user_left_is_in_nobodys_way(digits: Path) -> None:
    """A file that may not be written, as this link cannot be, by whatever user."""
    for name in ("one.json", ".watch.json"):
        left = digits / f".{name.removeprefix('.')}.new"
        left.symlink_to(left)
        write_whole(digits / name, "{}")
        assert (digits / name).read_text() == "{}"
        assert not left.is_symlink()
