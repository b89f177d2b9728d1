"""`python -m service.modelserver`: from flags to a server that runs until it is told to stop."""

import asyncio
import contextlib
import logging
import os
import sys
import tempfile
from collections.abc import Iterator, Sequence

from service.modelserver.command_line import parse
from service.modelserver.options import IGNORED, UsageError

log = logging.getLogger("service.modelserver")


def main(argv: Sequence[str] | None = None) -> int:
    """Serve until SIGTERM or SIGINT. Returns the exit status: 0 stopped, 1 failed, 2 usage.

    Raises SystemExit after --help and --version.
    """
    try:
        options, ignored = parse(sys.argv[1:] if argv is None else argv)
    except UsageError as error:
        print(f"sluice modelserver: {error} (--help lists the flags)", file=sys.stderr)
        return 2
    logging.basicConfig(
        level=logging.INFO,
        stream=sys.stderr,
        format="%(asctime)s %(levelname)s %(name)s: %(message)s",
    )
    for name in ignored:
        log.info("--%s has no meaning here: %s", name, IGNORED[name])
    do_without_temporary_files()
    with _quiet_tensorflow(), _without_keras():
        # Here, not above: a wrong command line and --help need not wait for TensorFlow.
        from service.modelserver.errors import StartError
        from service.modelserver.server import serve

        devices = _find_devices()
    log.info(devices)
    try:
        asyncio.run(serve(options))
    except StartError as error:
        log.error("Failed to start server. Error: %s", error)
        return 1
    return 0


def use_huge_pages() -> None:
    """Start this process anew, once, with glibc's malloc on huge pages: it reads that at its start.

    Large requests take fresh memory, with a page fault for each 4 kB of it
    (docs/decisions/0006-the-twin-runs-tf1-sessions-on-an-event-loop.md). A GLIBC_TUNABLES that is
    set is left as it is.
    """
    if sys.platform == "linux" and "GLIBC_TUNABLES" not in os.environ:
        os.environ["GLIBC_TUNABLES"] = "glibc.malloc.hugetlb=1"
        os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:]])


def do_without_temporary_files() -> None:
    """Start where no directory can be written to, as in a container without a /tmp.

    TensorFlow's import asks where temporary files would go, and fails where Python finds no place;
    nothing here writes one.
    """
    try:
        tempfile.gettempdir()
    except FileNotFoundError:
        tempfile.tempdir = os.sep


def _find_devices() -> str:
    import tensorflow as tf

    gpus = len(tf.config.list_physical_devices("GPU"))
    return f"TensorFlow {tf.__version__}, {gpus} GPU(s), {os.cpu_count()} CPUs"


@contextlib.contextmanager
def _quiet_tensorflow() -> Iterator[None]:
    """Keep TensorFlow's import from writing to stderr, which no log level of its own does; unless
    that level is set, so that its messages are asked for."""
    if "TF_CPP_MIN_LOG_LEVEL" in os.environ:
        yield
        return
    os.environ["TF_CPP_MIN_LOG_LEVEL"] = "2"
    logging.getLogger("tensorflow").setLevel(logging.ERROR)
    kept = os.dup(2)  # the descriptor, not sys.stderr: C++ writes past Python
    with open(os.devnull, "wb") as nowhere:  # noqa: PTH123 (a device, not a path)
        os.dup2(nowhere.fileno(), 2)
    try:
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)


@contextlib.contextmanager
def _without_keras() -> Iterator[None]:
    """Keep TensorFlow's import from that of Keras where it is installed, and so of Matplotlib and
    scikit-learn: a third of its time and 110 MB, none of which is needed to serve. Matplotlib does
    not start without a directory to write to, either."""
    if "keras" in sys.modules:
        yield
        return
    sys.modules["keras"] = None  # type: ignore[assignment]  # Python's way to say: there is none
    try:
        yield
    finally:
        del sys.modules["keras"]


if __name__ == "__main__":
    use_huge_pages()
    sys.exit(main())
