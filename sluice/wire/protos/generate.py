"""Generate the *_pb2 modules: `python -m sluice.wire.protos.generate [OUT_DIR]`."""

import sys
from pathlib import Path

from grpc_tools import protoc

PROTOS = Path(__file__).parent
ROOT = PROTOS.parent.parent.parent

# The one change to protoc's output: descriptors go to our own pool (see __init__.py).
DEFAULT_POOL = "from google.protobuf import descriptor_pool as _descriptor_pool\n"
OWN_POOL = "from sluice.wire.protos import POOL as _POOL\n"


def generate(out_dir: Path) -> list[Path]:
    """Write every generated module under `out_dir`/sluice/wire/protos; return their paths."""
    sources = [str(path.relative_to(ROOT)) for path in sorted(PROTOS.glob("*.proto"))]
    well_known = Path(protoc.__file__).parent / "_proto"
    arguments = [
        "protoc",
        f"-I{ROOT}",
        f"-I{well_known}",
        f"--python_out={out_dir}",
        f"--pyi_out={out_dir}",
        f"--grpc_python_out={out_dir}",
    ]
    if protoc.main(arguments + sources) != 0:
        raise SystemExit("protoc failed; its message is above")
    generated = out_dir / "sluice" / "wire" / "protos"
    for path in generated.glob("*_pb2.py"):
        text = path.read_text().replace(DEFAULT_POOL, OWN_POOL)
        path.write_text(text.replace("_descriptor_pool.Default()", "_POOL"))
    for path in generated.glob("*_pb2.pyi"):  # protoc writes generics without their arguments
        path.write_text("# mypy: ignore-errors\n" + path.read_text())
    for path in generated.glob("*_pb2_grpc.py"):
        if "Servicer" not in path.read_text():  # a file of messages alone has no services
            path.unlink()
    return sorted(generated.glob("*_pb2*"))


if __name__ == "__main__":
    generate(Path(sys.argv[1]) if len(sys.argv) > 1 else ROOT)
