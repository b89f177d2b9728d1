"""The series of models' versions, let go once enough others have answered since.

prometheus_client keeps a series for as long as the process lives: of a model that is replaced every
few minutes each version would leave 100 kB in every worker. Where workers count together, a
version's numbers lie in files of its own among prometheus_client's, in the same form, and whichever
worker is scraped reads them with the others.
"""

import os
import time
import warnings
from bisect import bisect_left
from collections import Counter as Tally
from collections.abc import Iterable, Sequence
from pathlib import Path
from threading import Lock
from typing import Any

from prometheus_client import CollectorRegistry, Counter, Histogram, values
from prometheus_client.metrics import MetricWrapperBase
from prometheus_client.metrics_core import Metric
from prometheus_client.mmap_dict import MmapedDict, mmap_key
from prometheus_client.multiprocess import MultiProcessCollector
from prometheus_client.utils import floatToGoString

MULTIPROCESS_DIR = "PROMETHEUS_MULTIPROC_DIR"
# Of a model so many keep theirs, and those that have answered in the last minutes: somebody may
# scrape every two.
MOST_VERSIONS, QUIET_S = 8, 120.0
TRIES = 5  # to read files, of which another worker may let one go meanwhile

_Version = tuple[str, str]  # of which model


class VersionCounter(Counter):
    """One whose series may be a version's."""

    def _metric_init(self) -> None:
        self._created = time.time()
        self._value = _value_of(self, "_total")


class VersionHistogram(Histogram):
    """The same, and takes many at once: prometheus_client writes twice for each that it is told
    of."""

    def _metric_init(self) -> None:
        self._created = time.time()
        self._sum = _value_of(self, "_sum")
        self._buckets = [
            _value_of(self, "_bucket", ["le"], [floatToGoString(bound)])  # type: ignore[no-untyped-call]
            for bound in self._upper_bounds
        ]

    def observe_all(self, observed: Sequence[float]) -> None:
        if not observed:
            return
        self._sum.inc(sum(observed))
        places = Tally([bisect_left(self._upper_bounds, each) for each in observed])
        for place, count in places.items():
            self._buckets[place].inc(count)


class Versions:
    """Of one registry: which versions of each model have series, the last to be counted last."""

    def __init__(self) -> None:
        self._counted: dict[str, dict[str, float]] = {}  # when, on the monotonic clock

    def count(self, model: str, version: str) -> list[str]:
        """The versions that are to be let go now that this one has answered."""
        now = time.monotonic()
        counted = self._counted.setdefault(model, {})
        counted.pop(version, None)
        counted[version] = now
        old = []
        while len(counted) > MOST_VERSIONS:
            oldest, when = next(iter(counted.items()))
            if now - when < QUIET_S:
                break
            del counted[oldest]
            old.append(oldest)
        return old

    @staticmethod
    def let_go(model: str, version: str, metrics: Iterable[MetricWrapperBase]) -> None:
        """Take the version's series out of these metrics."""
        with warnings.catch_warnings():
            # What prometheus_client does not do where workers count together is what is done here.
            warnings.simplefilter("ignore", UserWarning)
            for metric in metrics:
                metric.remove_by_labels({"model": model, "version": version})
        _FILES.let_go((model, version))


def registry_of_all_workers() -> CollectorRegistry:
    """What all workers have counted."""
    registry = CollectorRegistry()
    _AllWorkers(registry)  # type: ignore[no-untyped-call]
    return registry


class _AllWorkers(MultiProcessCollector):
    def collect(self) -> Iterable[Metric]:
        for left in reversed(range(TRIES)):
            try:
                # prometheus_client cannot read one that has only just been made, and is empty.
                files = [str(file) for file in Path(self._path).glob("*.db") if file.stat().st_size]
                found: Iterable[Metric] = self.merge(files)  # type: ignore[no-untyped-call]
                return found
            except FileNotFoundError:
                if not left:
                    raise
        raise AssertionError("the last try returns or raises")


class _Files:
    """A file for each type of metric and version, of this process. Those of one that was killed
    stay for as long as the gateway lives, as all that it has counted does."""

    def __init__(self) -> None:
        self._open: dict[_Version, dict[str, MmapedDict]] = {}
        self._made = 0

    def of(self, kind: str, version: _Version) -> MmapedDict:
        files = self._open.setdefault(version, {})
        if kind not in files:
            self._made += 1
            name = f"{kind}_{os.getpid()}_{self._made}.db"
            path = Path(os.environ[MULTIPROCESS_DIR], name)
            files[kind] = MmapedDict(str(path))  # type: ignore[no-untyped-call]
        return files[kind]

    def let_go(self, version: _Version) -> None:
        for file in self._open.pop(version, {}).values():
            file.close()  # type: ignore[no-untyped-call]
            Path(file._fname).unlink(missing_ok=True)


class _VersionValue:
    """One number, as prometheus_client.values has them."""

    _multiprocess = True

    def __init__(self, file: MmapedDict, key: str) -> None:
        self._file, self._key = file, key
        with _LOCK:
            self._value: float = file.read_value(key)[0]  # type: ignore[no-untyped-call]

    def inc(self, amount: float) -> None:
        with _LOCK:
            self._value += amount
            self._file.write_value(self._key, self._value, 0.0)  # type: ignore[no-untyped-call]

    def get(self) -> float:
        return self._value


def _value_of(
    metric: Any, suffix: str, names: Sequence[str] = (), texts: Sequence[str] = ()
) -> Any:
    """A number of a series that these labels tell from the metric's others."""
    labels = dict(zip(metric._labelnames, metric._labelvalues, strict=True))
    about: tuple[Any, ...] = (
        metric._name,
        metric._name + suffix,
        (*metric._labelnames, *names),
        (*metric._labelvalues, *texts),
        metric._documentation,
    )
    version = labels.get("model", ""), labels.get("version", "")
    if MULTIPROCESS_DIR not in os.environ or not all(version):
        return values.ValueClass(metric._type, *about)
    return _VersionValue(_FILES.of(metric._type, version), mmap_key(*about))


_FILES, _LOCK = _Files(), Lock()
