"""Requests that schemathesis makes of the gateway's own OpenAPI document: `URL`."""

import subprocess
import sys
import tempfile
from pathlib import Path

CHECKS = (
    "not_a_server_error,status_code_conformance,content_type_conformance,"
    "response_schema_conformance"
)

with tempfile.TemporaryDirectory() as directory:  # it leaves a cache where it runs
    outcome = subprocess.run(
        [
            Path(sys.executable).with_name("st"),
            "run",
            f"{sys.argv[1]}/openapi.json",
            "--checks",
            CHECKS,
            "--max-examples",
            "30",
            "--seed",
            "1",
            "--no-color",
        ],
        cwd=directory,
        check=False,
    )
sys.exit(outcome.returncode)
