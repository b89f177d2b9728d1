"""What this worker has seen of the rollouts: counted, written down, and kept in files."""

import logging
import os
import secrets
import socket
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Protocol

from service.gateway.capturing import NO_CAPTURE, AnyCapture
from service.gateway.routing import Route
from service.gateway.shadow_line import Pair
from service.replay.changes import Change, Reply
from service.rollout.counting import count, count_pair
from service.rollout.evidence import Answers, Evidence, evidence_directory, write_evidence
from service.rollout.state import ASKED_STAGES
from sluice.wire.rollouts import Rollout
from sluice.wire.tensors import Array

log = logging.getLogger(__name__)


class Counts(Protocol):
    """Where it is counted what became of the requests."""

    def shadowed(self, model: str, outcome: str) -> None:
        """One that was to be asked again: `same` or `changed`, or not asked for want of `room`, as
        the next version was `away`, or as the rollout was `over`."""

    def changed(self, model: str, kind: str) -> None:
        """Of those that are changed, one with a change of this kind."""

    def canary_failed(self, model: str) -> None:
        """A request that the next version was to answer, and failed."""


class NoCounts:
    """Counts nothing."""

    def shadowed(self, model: str, outcome: str) -> None:
        pass

    def changed(self, model: str, kind: str) -> None:
        pass

    def canary_failed(self, model: str) -> None:
        pass


class Witness:
    """Of one worker and `repository`, the model repository's directory; None: of no rollouts.

    `samples` keeps the requests whose answers differ. `problem`: why what it has seen cannot be
    written; "" where it can.
    """

    def __init__(
        self,
        repository: Path | None = None,
        counts: Counts | None = None,
        samples: AnyCapture = NO_CAPTURE,
    ) -> None:
        self.repository, self._samples = repository, samples
        self._counts = counts or NoCounts()
        self._file = f"{socket.gethostname()}-{os.getpid()}-{secrets.token_hex(4)}.json"
        self._seen: dict[tuple[str, str], Evidence] = {}
        self._written: dict[tuple[str, str], Evidence] = {}
        self.problem = ""

    def answered(self, way: Route, seconds: float, outputs: Mapping[str, Array]) -> None:
        """The version whose turn it was has answered a caller."""
        if (of := self._answers(way)) is not None:
            count(of, seconds, outputs)

    def failed(self, way: Route) -> None:
        """The version whose turn it was has not."""
        if (of := self._answers(way)) is not None:
            of.fail()
            if way.is_canary:
                self._counts.canary_failed(way.model.name)

    def not_asked(self, model: str, rollout: Rollout, why: str) -> None:
        """The next version, for want of `room`, or as it was `away` or the rollout `over`."""
        if why == "room":
            self._of(model, rollout).dropped += 1
        self._counts.shadowed(model, why)

    def compared(
        self, pair: Pair, live: Reply, ours: Reply, found: Sequence[Change], *, timed: bool
    ) -> None:
        """What both have replied to a question, the next one to nobody, as `count_pair`."""
        count_pair(self._of(pair.model, pair.rollout), live, ours, found, timed=timed)
        self._counts.shadowed(pair.model, "changed" if found else "same")
        for kind in {change.kind for change in found}:
            self._counts.changed(pair.model, kind)
        if found:
            pair.question.write_to(self._samples, pair.rollout.answering, pair.caller)

    def due(self, in_force: Mapping[str, Rollout]) -> dict[tuple[str, str], Evidence]:
        """Copies of what has not been written yet of the rollouts in force. That of others is
        forgotten: their folders go when the next one begins, and would come back."""
        keys = {(model, rollout.id) for model, rollout in in_force.items()}
        for gone in self._seen.keys() - keys:
            del self._seen[gone]
            self._written.pop(gone, None)
        return {
            key: evidence + Evidence(evidence.rollout)
            for key, evidence in self._seen.items()
            if evidence != self._written.get(key)
        }

    def write(self, due: Mapping[tuple[str, str], Evidence]) -> None:
        """Into this worker's file of each rollout; from any thread, one at a time."""
        problem = ""
        for (model, rollout), evidence in due.items():
            assert self.repository is not None
            directory = evidence_directory(self.repository / model, rollout)
            if not (self.repository / model).is_dir():
                continue  # it is not made anew
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

    def close(self) -> None:
        """The samples; from any thread."""
        self._samples.close()

    def _answers(self, way: Route) -> Answers | None:
        """None while nothing is on trial: once it is promoted, next's answers are not live's."""
        if way.rollout is None or way.rollout.stage not in ASKED_STAGES:
            return None
        evidence = self._of(way.model.name, way.rollout)
        return evidence.canary if way.is_canary else evidence.stable

    def _of(self, model: str, rollout: Rollout) -> Evidence:
        """What has been seen so far, to count on."""
        key = model, rollout.id
        found = self._seen.get(key)
        if found is None:
            found = self._seen[key] = Evidence(rollout.id)
        return found
