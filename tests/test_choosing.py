"""A file of tests is passed over only where `-m` chooses none of them."""

import pytest

from tests.choosing import COLLECTED, SUITES, TESTS, can_choose, marks_named


def test_no_test_has_a_mark_that_neither_its_file_nor_a_conftest_names(request):
    """Of all that were collected with this one: in `make test`, of all there are."""
    unnamed = [
        (item.nodeid, mark.name)
        for item in request.config.stash[COLLECTED]
        for mark in item.iter_markers()
        if mark.name in SUITES and mark.name not in marks_named(item.path)
    ]
    assert not unnamed


@pytest.mark.parametrize(
    ("expression", "file", "chosen"),
    [
        ("slow", "system/test_memory.py", True),
        ("slow", "test_wire.py", False),
        ("slow", "contract/test_contract.py", True),  # its conftest.py gives it
        ("root", "page/test_page.py", True),
        ("root and not (slow or containers)", "replay/test_replay.py", True),
        ("root and not (slow or containers)", "system/test_memory.py", False),
        ("clients and not (slow or root)", "clients/test_clients.py", True),
        ("containers and not (slow or load)", "delivery/test_images.py", True),
        ("containers", "page/test_page.py", False),
        ("not (slow or load or clients or root)", "page/test_page.py", True),
        ("hypothesis", "test_wire.py", True),  # given by a plugin, and named nowhere
        ("slow(why='memory')", "test_wire.py", True),
        ("slow load", "test_wire.py", True),
    ],
)
def test_a_file_is_one_that_an_expression_can_choose_from(expression, file, chosen):
    assert (TESTS / file).exists()
    assert can_choose(expression, TESTS / file) is chosen
