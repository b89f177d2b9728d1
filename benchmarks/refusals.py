"""How soon a signed version with one flipped bit is refused.

    python benchmarks/refusals.py [--rounds 20] [--docs]

Versions appear, at any moment between two looks, where the embedded model server serves signed ones
and where `sluice admit --follow` lets them in; of each a bit of one file is another than was
signed. Seconds run from the rename that makes the version appear to the line in the log that
refuses it.
"""

import argparse
import random
import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import date
from pathlib import Path

from cases import write_models
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
)
from measuring import HERE, cores, free_port, running, until_serving, write_docs

from sluice.wire.signing import SigningKey

WORK = HERE.parent / ".work" / "bench"
MODEL = "small"
MEGABYTES = (1, 100)
LOOK_EVERY_S, WAIT_S = 0.5, 60.0
TWIN, ADMIT = "the embedded model server", "`sluice admit --follow`"
REFUSED = {TWIN: "Loading {{name: {0} version: {1}}} failed", ADMIT: "{0} {1} is refused"}


def main() -> None:
    options = _options()
    write_models(WORK / "models")
    rows = []
    for name, start in ((TWIN, _twin), (ADMIT, _admit)):
        for megabytes in MEGABYTES:
            with tempfile.TemporaryDirectory(dir=WORK) as directory:
                home = Path(directory)
                with start(home) as log:
                    seconds = list(_refusals(home, log, REFUSED[name], megabytes, options.rounds))
            rows.append(
                f"| {name} | {megabytes} | {statistics.median(seconds):.2f} | {max(seconds):.2f} |"
            )
    head = f"{date.today()}, {cores()} CPUs, {options.rounds} versions each:"
    table = ["| refused by | MB | median s | slowest s |", "|---|---|---|---|", *rows]
    text = "\n".join([head, "", *table])
    print(text)
    if options.docs:
        write_docs("security.md", "benchmarks/refusals.py", text)


def _refusals(home: Path, log: Path, said: str, megabytes: int, rounds: int) -> Iterator[float]:
    chance = random.Random(megabytes)
    for number in range(2, rounds + 2):
        version = _spoilt(home, number, megabytes, chance)
        time.sleep(chance.uniform(0, LOOK_EVERY_S))
        appeared = time.monotonic()
        version.rename(home / "models" / MODEL / str(number))
        line = said.format(MODEL, number)
        while line not in log.read_text():
            if time.monotonic() > appeared + WAIT_S:
                raise SystemExit(f"version {number} was not refused; the log is {log}")
            time.sleep(0.002)
        yield time.monotonic() - appeared
        shutil.rmtree(home / "models" / MODEL / str(number))


def _spoilt(home: Path, number: int, megabytes: int, chance: random.Random) -> Path:
    """A version of that size, signed, with another bit in its largest file, where nobody looks."""
    version = shutil.copytree(WORK / "models" / MODEL / "1", home / "beside" / str(number))
    largest = version / "assets.extra" / "weights"
    largest.parent.mkdir(exist_ok=True)
    largest.write_bytes(chance.randbytes(megabytes * 1_000_000))
    SigningKey(home / "ours.pem").sign(version, MODEL, number)
    with largest.open("r+b") as file:
        file.seek(chance.randrange(megabytes * 1_000_000))
        byte = file.read(1)[0]
        file.seek(-1, 1)
        file.write(bytes([byte ^ 1 << chance.randrange(8)]))
    return version


@contextmanager
def _twin(home: Path) -> Iterator[Path]:
    """Its log, once it serves version 1."""
    _sign_the_first(home)
    port, log = free_port(), home / "log"
    command = [sys.executable, "-m", "service.modelserver", f"--port={port}"]
    command += [f"--model_repository={home}/models", f"--trusted_keys={home}/trusted.pem"]
    with running(command, {}, log) as process:
        until_serving(process, f"127.0.0.1:{port}", [MODEL], log)
        yield log


@contextmanager
def _admit(home: Path) -> Iterator[Path]:
    """Its log, once it has let version 1 in."""
    _sign_the_first(home)
    log = home / "log"
    command = [sys.executable, "-m", "service.cli", "admit", f"{home}/models", "--follow"]
    command += [f"--model-repository={home}/served", f"--trusted-keys={home}/trusted.pem"]
    with running(command, {}, log) as process:
        while f"{MODEL} 1 is admitted" not in log.read_text():
            if process.poll() is not None:
                raise SystemExit(log.read_text())
            time.sleep(0.02)
        yield log


def _sign_the_first(home: Path) -> None:
    """Keys, and a repository with version 1."""
    key = ec.generate_private_key(ec.SECP256R1())
    private = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    public = key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    (home / "ours.pem").write_bytes(private)
    (home / "trusted.pem").write_bytes(public)
    first = shutil.copytree(WORK / "models" / MODEL / "1", home / "models" / MODEL / "1")
    SigningKey(home / "ours.pem").sign(first, MODEL, 1)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=20, help="versions of each size")
    parser.add_argument("--docs", action="store_true", help="write docs/security.md")
    return parser.parse_args()


if __name__ == "__main__":
    main()
