"""`python -m service.modelserver`: from flags to a server that runs until it is told to stop."""
import asyncio
import logging
import os
import sys
from collections.abc import Sequence

from service.modelserver.options import UsageError, parse, usage

log = logging.getLogger("service.modelserver")


def main(argv: Sequence[str] | None = None) -> int:
    """Serve until SIGTERM or SIGINT. Returns the exit status: 0 stopped, 1 failed, 2 usage."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    if "--help" in arguments:
        print(usage())
        return 0
    try:
        options, ignored = parse(arguments)
    except UsageError as error:
        print(f"{error}; --help lists the flags", file=sys.stderr)
        return 2
    logging.basicConfig(level=logging.INFO, stream=sys.stderr,
                        format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    for name in ignored:
        log.info("--%s has no meaning here and is ignored", name)
    _quieten_tensorflow()
    from service.modelserver.server import StartError, serve  # imports tensorflow: 5 s
    try:
        asyncio.run(serve(options))
    except StartError as error:
        log.error("Failed to start server. Error: %s", error)
        return 1
    return 0


def _quieten_tensorflow() -> None:
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    logging.getLogger("tensorflow").setLevel(logging.ERROR)


if __name__ == "__main__":
    sys.exit(main())
