"""What CI's audit of the pinned packages does where it cannot ask."""

import os
import subprocess

import pytest

from tests.processes import ROOT, free_port


@pytest.mark.slow
def test_an_audit_that_cannot_ask_is_a_line_and_no_failure():
    nobody = f"http://127.0.0.1:{free_port()}"
    proxies = dict.fromkeys(("HTTPS_PROXY", "https_proxy"), nobody)
    run = subprocess.run(
        [ROOT / ".ci/audit"],
        env=os.environ | proxies | {"NO_PROXY": "", "no_proxy": ""},
        capture_output=True,
        text=True,
        check=True,
    )
    assert run.stdout.startswith("Not audited: ") and run.stdout.count("\n") == 1, run.stdout
    assert run.stderr == ""
