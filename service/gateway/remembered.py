"""The signatures that models had when they last were asked for."""

import math
import time
from typing import NamedTuple

from service.gateway.signatures import Signatures
from sluice.wire.model_ref import ModelRef

MOST = 1000  # models; names come from clients


class _Kept(NamedTuple):
    signatures: Signatures
    version: int
    at: float  # on the monotonic clock


class Remembered:
    """Of models that have answered, the last ones of which are kept."""

    def __init__(self) -> None:
        self._kept: dict[ModelRef, _Kept] = {}

    def __len__(self) -> int:
        return len(self._kept)

    def get(self, model: ModelRef, max_age_s: float) -> Signatures | None:
        """Those that are not older."""
        kept = self._kept.get(model)
        return kept.signatures if kept and time.monotonic() - kept.at < max_age_s else None

    def keep(
        self, model: ModelRef, signatures: Signatures, version: int, asked: float
    ) -> Signatures:
        """The same, or their equals that were kept already, in which more is parsed. `asked`: when,
        on the monotonic clock."""
        before = self._kept.get(model)
        if before and before.signatures == signatures:
            signatures = before.signatures
        while len(self._kept) >= MOST:
            self._kept.pop(next(iter(self._kept)), None)
        self._kept[model] = _Kept(signatures, version, asked)
        return signatures

    def version_of(self, model: ModelRef) -> int:
        """Whose they are; 0 where none are kept."""
        kept = self._kept.get(model)
        return kept.version if kept else 0

    def forget_if_replaced(self, model: ModelRef, version: int) -> None:
        """What was another version's than the one that answers now: it is too old for everybody,
        and there for `keep` to find equal."""
        kept = self._kept.get(model)
        if kept and kept.version != version:
            self._kept[model] = kept._replace(at=-math.inf)
