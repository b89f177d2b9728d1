"""Where the rollouts in force stand, for Prometheus."""

from collections.abc import Callable, Iterable, Mapping

from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

from sluice.wire.rollouts import Rollout


class RolloutStates(Collector):
    """`sluice_rollout{model,stage,live,next}`: the share of requests that the next version answers
    to callers. Read as it is scraped, as every worker reads the same files; `in_force` tells."""

    def __init__(self) -> None:
        self.in_force: Callable[[], Mapping[str, Rollout]] = dict

    def collect(self) -> Iterable[GaugeMetricFamily]:
        family = GaugeMetricFamily(
            "sluice_rollout",
            "The share of requests that the next version of a rollout answers.",
            labels=["model", "stage", "live", "next"],
        )
        for model, each in self.in_force().items():
            share = 1.0 if each.answering == each.next else each.canary
            family.add_metric([model, each.stage, str(each.live), str(each.next)], share)
        yield family
