"""Versions appear whole or not at all."""

import contextlib
import multiprocessing
import os
import signal
import subprocess
import sys
import time

import pytest

from sluice.wire.versions import published_versions
from training.publishing.version_directory import LEFTOVER_AGE_S, publish_directory


def write_model(directory):
    (directory / "variables").mkdir()
    (directory / "variables" / "data").write_text("weights")
    (directory / "saved_model.pb").write_text("graph")


def publish_many(path, count, start):
    start.wait()
    for _ in range(count):
        publish_directory(path, write_model)


def be_refused_many_times(path, count, start):
    def refuse(_):
        raise ValueError

    start.wait()
    for _ in range(count):
        with contextlib.suppress(ValueError):
            publish_directory(path, refuse)


def test_numbers_count_up_and_sort_as_numbers(tmp_path):
    for _ in range(11):
        published = publish_directory(tmp_path / "m", write_model)
    assert published.name == "11"
    assert [*published_versions(tmp_path / "m")] == [*range(1, 12)]


def test_versions_of_no_model_and_of_half_a_version(tmp_path):
    assert published_versions(tmp_path / "none") == {}
    (tmp_path / "m" / "7").mkdir(parents=True)
    assert published_versions(tmp_path / "m") == {}
    assert publish_directory(tmp_path / "m", write_model).name == "8"


def test_a_server_can_read_what_another_user_published(tmp_path):
    assert publish_directory(tmp_path / "m", write_model).stat().st_mode & 0o777 == 0o755


def test_a_failed_write_leaves_nothing(tmp_path):
    def fail(directory):
        write_model(directory)
        raise RuntimeError("no space")

    with pytest.raises(RuntimeError, match="no space"):
        publish_directory(tmp_path / "m", fail)
    assert list(tmp_path.iterdir()) == []
    first = publish_directory(tmp_path / "m", write_model)
    with pytest.raises(RuntimeError, match="no space"):
        publish_directory(tmp_path / "m", fail)
    assert list((tmp_path / "m").iterdir()) == [first]


def test_nothing_with_a_version_number_is_seen_while_it_is_written(tmp_path):
    def look(directory):
        write_model(directory)
        assert directory.parent == tmp_path / "m"
        assert not any(entry.name.isdecimal() for entry in directory.parent.iterdir())

    publish_directory(tmp_path / "m", look)


def test_concurrent_publishers_each_get_a_version_of_their_own(tmp_path):
    context = multiprocessing.get_context("spawn")
    start = context.Event()
    publishers = [
        context.Process(target=each, args=(tmp_path / "m", 20, start))
        for each in (publish_many,) * 4 + (be_refused_many_times,)
    ]
    for publisher in publishers:
        publisher.start()
    start.set()
    for publisher in publishers:
        publisher.join(timeout=60)
        assert publisher.exitcode == 0
    assert [*published_versions(tmp_path / "m")] == [*range(1, 81)]
    assert all(
        (version / "variables" / "data").read_text() == "weights"
        for version in published_versions(tmp_path / "m").values()
    )


def test_a_killed_publishers_leftovers_do_no_harm_and_go_later(tmp_path):
    script = (
        "import sys, time; from pathlib import Path\n"
        "from training.publishing.version_directory import publish_directory\n"
        "def write(directory):\n"
        "    (directory / 'saved_model.pb').touch(); print('ready', flush=True)\n"
        "    time.sleep(60)\n"
        "publish_directory(Path(sys.argv[1]), write)\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", script, str(tmp_path / "m")], stdout=subprocess.PIPE, text=True
    ) as publisher:
        assert publisher.stdout.readline() == "ready\n"
        publisher.send_signal(signal.SIGKILL)
    [leftover] = (tmp_path / "m").iterdir()
    assert published_versions(tmp_path / "m") == {}
    assert publish_directory(tmp_path / "m", write_model).name == "1"
    assert leftover.exists()  # it might be another publisher at work
    old = time.time() - LEFTOVER_AGE_S - 1
    os.utime(leftover, (old, old))
    publish_directory(tmp_path / "m", write_model)
    assert not leftover.exists()
    assert [*published_versions(tmp_path / "m")] == [1, 2]
