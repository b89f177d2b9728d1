"""What has been counted of one version of a model, as Triton's statistics want it."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Protocol

PREDICTING = frozenset({"predict", "infer"})  # the verbs that are counted
ANSWERED = frozenset({"200", "OK"})
NO_VERSION = ""  # of what failed before one answered


class Sample(Protocol):
    """One number of Prometheus's, as prometheus_client has it."""

    @property
    def name(self) -> str: ...

    @property
    def labels(self) -> Mapping[str, str]: ...

    @property
    def value(self) -> float: ...


@dataclass
class Duration:
    """How often something was done, and how long that took in all. `within` has how often it took
    so many seconds at most, as the histogram's buckets say."""

    count: float = 0.0
    seconds: float = 0.0
    within: dict[float, float] = field(default_factory=dict)


@dataclass
class Statistics:
    """`rows` were answered by `calls` to the model server: fewer than requests, as they join."""

    rows: float = 0.0
    calls: float = 0.0
    success: Duration = field(default_factory=Duration)
    fail: Duration = field(default_factory=Duration)
    queue: Duration = field(default_factory=Duration)
    decode: Duration = field(default_factory=Duration)
    upstream: Duration = field(default_factory=Duration)


def statistics_of(samples: Iterable[Sample]) -> dict[str, dict[str, Statistics]]:
    """By model and version; what failed before a version answered has the version ""."""
    found: dict[str, dict[str, Statistics]] = {}
    for sample in samples:
        labels = sample.labels
        if not labels.get("model") or "version" not in labels:
            continue
        each = found.setdefault(labels["model"], {}).setdefault(labels["version"], Statistics())
        _add(each, sample.name.removeprefix("sluice_"), labels, sample.value)
    for versions in found.values():
        for version, each in versions.items():
            if version:  # of requests that a version answered, some could not be written down
                each.success.count -= each.fail.count
                each.success.seconds -= each.fail.seconds
        if NO_VERSION in versions and not versions[NO_VERSION].fail.count:
            del versions[NO_VERSION]
    return found


def _add(found: Statistics, name: str, labels: Mapping[str, str], value: float) -> None:
    if name == "rows_total":
        found.rows += value
    elif name == "calls_total":
        found.calls += value
    elif name == "failed_seconds_total":
        found.fail.seconds += value
    elif name == "requests_total":
        if labels["verb"] in PREDICTING and labels["status"] not in ANSWERED:
            found.fail.count += value
    elif step := _step(found, name, labels["version"]):
        if name.endswith("_count"):
            step.count += value
        elif name.endswith("_sum"):
            step.seconds += value
        elif name.endswith("_bucket"):
            bound = float(labels["le"])
            step.within[bound] = step.within.get(bound, 0.0) + value


def _step(found: Statistics, name: str, version: str) -> Duration | None:
    """Requests without a version are also those that ask for no prediction."""
    steps = {"queued": found.queue, "decode": found.decode, "upstream": found.upstream}
    if version:
        steps["request"] = found.success
    step, _, rest = name.partition("_")
    return steps.get(step) if rest.startswith("seconds_") else None
