"""`python leash.py PARENT COMMAND...`: the command in place of this process, not to outlive PARENT.

Where `sluice up` is killed by SIGKILL it can stop nobody, and its children would stay on the
ports. Linux sends SIGTERM to a process that asked for it when its parent ends (prctl(2),
PR_SET_PDEATHSIG), and keeps to that across exec: so it can be asked for before any command,
TensorFlow Serving's too, without code between fork and exec (`preexec_fn`), which is not safe
beside threads. gunicorn's workers look for their parent themselves.
"""

import ctypes
import os
import signal
import sys

PR_SET_PDEATHSIG = 1


def main(parent: int, command: list[str]) -> None:
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
        if os.getppid() != parent:
            sys.exit("the parent has ended")  # before it could be asked for
    os.execvp(command[0], command)


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2:])
