"""The import rules of docs/architecture.md, read off the sources."""

import ast
import graphlib
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
SOURCES = [
    path
    for room in ("sluice", "service", "models", "training")
    for path in sorted((ROOT / room).rglob("*.py"))
    if "_pb2" not in path.name
]

# Where (a path's start), what may not be imported there, and the files where it may after all.
# Which of our rooms may import which is the table of the docs.
RULES = [
    ("sluice", {"tensorflow", "keras", "flask", "gunicorn"}, set()),
    ("sluice/wire", {"httpx"}, set()),
    (
        "sluice/wire",
        {"grpc", "grpc_health"},
        {
            f"sluice/wire/{name}.py"
            for name in ("reflection", "health", "messages", "lasting_server")
        },
    ),
    ("sluice/client", {"grpc", "sluice.wire.protos.serving_pb2_grpc"}, {"sluice/client/_grpc.py"}),
    ("sluice/client", {"httpx"}, {"sluice/client/_http.py"}),
    ("training", {"flask", "gunicorn", "grpc"}, set()),
    ("service/up", {"grpc", "tensorflow", "flask"}, set()),
    ("service/modelserver", {"flask", "gunicorn"}, set()),
    ("service/gateway", {"tensorflow", "keras"}, set()),
    (
        "service/gateway",
        {"grpc", "sluice.wire.protos.serving_pb2_grpc"},
        {
            "service/gateway/model_server.py",
            "service/gateway/dialling.py",
            "service/gateway/server.py",
            "service/gateway/tracing/otel.py",
            "service/gateway/rpc/edge.py",
            "service/gateway/rpc/open_services.py",
            "service/gateway/rpc/server.py",
        },
    ),
    ("service", {"opentelemetry"}, {"service/gateway/tracing/otel.py"}),
    ("service/gateway/rpc", {"flask", "werkzeug"}, set()),
    ("service/gateway/decode", {"flask", "werkzeug"}, set()),
    ("service/gateway/encode", {"flask", "werkzeug"}, set()),
    ("service/gateway/errors.py", {"flask", "werkzeug", "service"}, set()),
    (
        "service/gateway",
        {"gunicorn", "a2wsgi"},
        {
            "service/gateway/front/asgi.py",
            "service/gateway/front/protocol.py",
            "service/gateway/front/reading.py",
            "service/gateway/front/worker.py",
        },
    ),
    ("service/gateway/front", {"grpc"}, set()),
    ("service/gateway/rpc", {"service.gateway.routes", "service.gateway.http"}, set()),
    ("service/gateway/routes", {"service.gateway.front", "service.gateway.rpc"}, set()),
    # What every way in shares knows none of them.
    *(
        (
            f"service/gateway/{shared}.py",
            {"flask", "werkzeug", "service.gateway.http", "service.gateway.plain"}
            | {f"service.gateway.{way_in}" for way_in in ("routes", "rpc", "front", "app")},
            set(),
        )
        for shared in (
            "predictions",
            "asking",
            "calls",
            "joining",
            "limiter",
            "server",
            "servers",
            "model_server",
            "query",
        )
    ),
]

# What stands further up may import what stands below it; those on one line know nothing of each
# other. The package's own __init__.py is above them all.
TRAINING = [
    {"errors"},
    {"surroundings"},
    {"workspace"},
    {"decoding"},
    {"recipes"},
    {"settings"},
    {"data"},
    {"inference", "build"},
    {"fitting", "explaining", "novelty"},
    {"optimising"},
    {"publishing"},
    {"adopting"},
    {"run"},
]
MOST_FILES_OF_TRAINING = 10  # beside its packages: where there are more, some belong together


def name_of(path):
    """`training.data` for training/data/__init__.py."""
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {name_of(path): path for path in SOURCES}


def import_nodes(node):
    """The imports below `node`, those in functions too, but for what type checkers alone read."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.Import | ast.ImportFrom):
            yield child
        elif isinstance(child, ast.If) and "TYPE_CHECKING" in ast.unparse(child.test):
            for other in child.orelse:
                yield from import_nodes(other)
        else:
            yield from import_nodes(child)


def imports_of(path):
    """Every module that a file imports, wherever in the file it does, once it runs. Of
    `from a import b` both `a` and `a.b`."""
    for node in import_nodes(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        else:
            assert node.level == 0, f"{path}: a relative import"
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def our_imports_of(path):
    """Our modules that a file asks for. `from a import b` is an import of the module `a.b` where
    there is one, and of `a` else."""
    for node in import_nodes(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            asked = [alias.name for alias in node.names]
        else:
            submodules = [f"{node.module}.{alias.name}" for alias in node.names]
            asked = [name if name in MODULES else node.module for name in submodules]
        yield from (name for name in asked if name in MODULES)


def documented_rooms():
    """From the docs' table, by room, what it may import of ours beside itself."""
    page = (ROOT / "docs/architecture.md").read_text()
    table = page.partition("Who may import whom:\n\n")[2].partition("\n\n")[0]
    rows = re.findall(r"^\| `([\w.]+)` \| ([^|]*) \|", table, re.M)
    return {room: set(re.findall(r"`([\w.]+)`", others)) for room, others in rows}


ROOMS = documented_rooms()


def test_the_docs_name_the_rooms_there_are():
    named = {*ROOMS, *(other for others in ROOMS.values() for other in others)}
    assert [room for room in named if room not in MODULES] == []


@pytest.mark.parametrize("room", [room for room in ROOMS if room != "service.cli"])
def test_a_room_imports_what_the_docs_say(room):
    allowed = tuple(f"{each}." for each in {room, *ROOMS[room]})
    imported = [
        (module, name)
        for module, path in MODULES.items()
        if f"{module}.".startswith(f"{room}.")
        for name in our_imports_of(path)
    ]
    assert imported
    assert [pair for pair in imported if not f"{pair[1]}.".startswith(allowed)] == []


def test_every_module_is_in_a_room_of_the_docs():
    # What stands above the rooms holds nothing but names and a docstring.
    rooms = tuple(f"{room}." for room in ROOMS)
    outside = {name for name in MODULES if not f"{name}.".startswith(rooms)}
    assert outside == {"sluice", "service"}


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
    assert all((ROOT / path).exists() for path in exempt)


def test_models_stand_on_keras_alone():
    foreign = {
        name.partition(".")[0]
        for path in (ROOT / "models").rglob("*.py")
        for name in imports_of(path)
    } - sys.stdlib_module_names
    assert foreign == {"keras", "models"}


def test_training_imports_downwards():
    heights = {part: height for height, parts in enumerate(TRAINING) for part in parts}
    ours = {name: path for name, path in MODULES.items() if name.startswith("training.")}
    assert {part_of(name) for name in ours} == set(heights)
    heights["the package itself"] = len(TRAINING)
    upwards = [
        (module, name)
        for module, path in ours.items()
        for name in our_imports_of(path)
        if name.partition(".")[0] == "training" and part_of(name) != part_of(module)
        if heights[part_of(name)] >= heights[part_of(module)]
    ]
    assert upwards == []


def part_of(module):
    """`data` for `training.data.load`."""
    return module.split(".")[1] if "." in module else "the package itself"


def test_the_training_package_keeps_few_files_beside_its_rooms():
    assert len(list((ROOT / "training").glob("*.py"))) <= MOST_FILES_OF_TRAINING


def test_no_import_comes_back_to_where_it_began():
    """Imports within functions count as well. Not those that Python adds by itself: of a package
    before its modules, so an `__init__` may offer what its modules define."""
    graph = {module: set(our_imports_of(path)) - {module} for module, path in MODULES.items()}
    assert sum(map(len, graph.values())) > len(graph)
    try:
        graphlib.TopologicalSorter(graph).prepare()
    except graphlib.CycleError as error:
        pytest.fail("a circle of imports: " + " <- ".join(error.args[1]))


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
