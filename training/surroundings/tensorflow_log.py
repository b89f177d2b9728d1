"""What TensorFlow prints as it starts and loads, kept from the screen unless it is asked for."""

import contextlib
import logging
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator

_LEVEL = "TF_CPP_MIN_LOG_LEVEL"  # TensorFlow's own; where it is set, its messages are asked for
_WARNINGS = "2"
# Notices; and what looks like an error and says that this machine has no GPU. Before its log is
# set up TensorFlow heeds no level, so that only its lines are left to go by.
_NOTICES = (
    r"^WARNING: All log messages before absl::InitializeLog"
    r"|^[IW][0-9]{4} [0-9:.]+ "
    r"|^E[0-9]{4} [0-9:.]+ .*(cuInit|cuda_platform|cudart_stub|Unable to register cu)"
    r"|^[0-9-]+ [0-9:.]+: [IW] "
)


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Within: errors alone, also of TensorFlow's Python side (deprecations of what we need).

    >>> with quiet():
    ...     import tensorflow
    """
    asked = _LEVEL in os.environ
    os.environ.setdefault(_LEVEL, _WARNINGS)
    log = logging.getLogger("tensorflow")
    level = log.level
    try:
        if not asked:
            log.setLevel(logging.ERROR)
        with contextlib.nullcontext() if asked else _without_notices():
            yield
    finally:
        log.setLevel(level)
        if not asked:
            os.environ.pop(_LEVEL, None)


@contextlib.contextmanager
def _without_notices() -> Iterator[None]:
    """Standard error, C++'s too, without the lines that are notices."""
    grep = shutil.which("grep")
    if grep is None:
        yield
        return
    sys.stderr.flush()
    # A process, and no thread: what TensorFlow says as it crashes the process must come through.
    command = [grep, "--line-buffered", "-a", "-v", "-E", _NOTICES]
    stderr = os.dup(2)
    try:
        # In a process group of its own: Ctrl-C is for us, whose last words are to come through.
        with subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=stderr, process_group=0
        ) as sieve:
            assert sieve.stdin is not None
            os.dup2(sieve.stdin.fileno(), 2)
            try:
                yield
            finally:
                sys.stderr.flush()
                os.dup2(stderr, 2)
    finally:
        os.close(stderr)
