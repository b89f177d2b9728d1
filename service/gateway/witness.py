"""What this worker has seen of the rollouts, and the files that it keeps of it."""

import logging
import os
import secrets
import socket
from collections.abc import Mapping
from pathlib import Path

from service.rollout.evidence import (
    Evidence,
    evidence_directory,
    write_evidence,
)
from sluice.wire.rollouts import Rollout

MOST = 100  # rollouts that are remembered

log = logging.getLogger(__name__)


class Witness:
    """Of one worker. `problem`: why what it has seen cannot be written; "" where it can."""

    def __init__(self, repository: Path | None) -> None:
        self._repository = repository
        self._file = f"{socket.gethostname()}-{os.getpid()}-{secrets.token_hex(4)}.json"
        self._seen: dict[tuple[str, str], Evidence] = {}
        self._written: dict[tuple[str, str], Evidence] = {}
        self.problem = ""

    def of(self, model: str, rollout: Rollout) -> Evidence:
        """What has been seen so far, to count on."""
        key = model, rollout.id
        found = self._seen.get(key)
        if found is None:
            if len(self._seen) >= MOST:
                oldest = next(iter(self._seen))
                del self._seen[oldest]
                self._written.pop(oldest, None)
            found = self._seen[key] = Evidence(rollout.id)
        return found

    def due(self) -> dict[tuple[str, str], Evidence]:
        """Copies of what has not been written yet."""
        return {
            key: evidence + Evidence(evidence.rollout)
            for key, evidence in self._seen.items()
            if evidence != self._written.get(key)
        }

    def write(self, due: Mapping[tuple[str, str], Evidence]) -> None:
        """Into this worker's file of each rollout; from any thread, one at a time."""
        problem = ""
        for (model, rollout), evidence in due.items():
            assert self._repository is not None
            directory = evidence_directory(self._repository / model, rollout)
            try:
                write_evidence(directory / self._file, evidence)
            except OSError as error:
                problem = f"{directory} cannot be written ({error.strerror})"
            else:
                self._written[model, rollout] = evidence
        if problem and problem != self.problem:
            log.error("%s: what is seen of the rollout is kept in memory until it can", problem)
        if due:
            self.problem = problem
