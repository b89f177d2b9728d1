"""The import rules of docs/architecture.md, read off the sources."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
SOURCES = [
    path
    for part in ("sluice", "service", "models", "training")
    for path in (ROOT / part).rglob("*.py")
    if "_pb2" not in path.name
]

# Where (a path's start), what may not be imported there, and the files where it may after all.
RULES = [
    ("service", {"training", "models"}, {"service/cli.py"}),
    ("models", {"service", "training", "tensorflow"}, set()),
    ("service/gateway", {"tensorflow", "keras", "service.modelserver"}, set()),
    (
        "service/gateway",
        {"grpc", "sluice.wire.protos.serving_pb2_grpc"},
        {
            "service/gateway/model_server.py",
            "service/gateway/rpc/edge.py",
            "service/gateway/rpc/server.py",
        },
    ),
    ("service/gateway/rpc", {"flask", "werkzeug"}, set()),
    ("service/gateway/decode", {"flask", "werkzeug"}, set()),
    ("service/gateway/encode", {"flask", "werkzeug"}, set()),
    ("service/gateway/errors.py", {"flask", "werkzeug", "service"}, set()),
    ("service/modelserver", {"service.gateway", "flask", "gunicorn"}, set()),
    ("sluice/client", {"service.gateway", "service.modelserver", "flask", "tensorflow"}, set()),
    ("sluice/client", {"grpc", "sluice.wire.protos.serving_pb2_grpc"}, {"sluice/client/_grpc.py"}),
    ("sluice/client", {"httpx"}, {"sluice/client/_http.py"}),
    ("sluice/wire/oip_tensors.py", {"flask", "grpc", "tensorflow", "service.gateway"}, set()),
    ("sluice/wire/protos", {"tensorflow"}, set()),
    ("sluice/wire/tensors.py", {"tensorflow", "flask", "grpc"}, set()),
    ("sluice/wire/large_tensors.py", {"tensorflow", "flask", "grpc"}, set()),
    (
        "training",
        {"flask", "gunicorn", "service.gateway", "service.modelserver", "sluice.client"},
        set(),
    ),
]


def imports_of(path):
    """Every module that a file imports, wherever in the file it does."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


@pytest.mark.parametrize(
    ("where", "forbidden", "exempt"),
    RULES,
    ids=[f"{where} no {min(forbidden)}" for where, forbidden, _ in RULES],
)
def test_no_import_crosses_a_line(where, forbidden, exempt):
    checked = [
        path
        for path in SOURCES
        if str(path.relative_to(ROOT)).startswith(where)
        and str(path.relative_to(ROOT)) not in exempt
    ]
    crossings = [
        (str(path.relative_to(ROOT)), name)
        for path in checked
        for name in imports_of(path)
        if any(name == each or name.startswith(f"{each}.") for each in forbidden)
    ]
    assert crossings == []
    assert checked


@pytest.mark.parametrize(
    "module",
    [
        "service.gateway",
        "service.gateway.app",
        "service.cli",
        "service.up.supervisor",
        "sluice.wire.tensors",
        "training",
    ],
)
def test_importing_it_loads_no_tensorflow(module):
    code = (
        f"import {module}, sys; "
        "sys.exit(any(name in sys.modules for name in ('tensorflow', 'keras')))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
