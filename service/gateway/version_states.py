"""What the model server said last of the versions of the named models, for Prometheus.

It is read as it is scraped, not counted: each worker tells what it heard itself, so the numbers of
several are not added up. A model of which nothing has been heard for a while has no series, since
nobody knows.
"""

import time
from collections.abc import Iterable
from typing import NamedTuple

from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

from sluice.wire.contract import State
from sluice.wire.protos.serving_pb2 import ModelVersionStatus

OLDEST_S = 30.0
# TensorFlow Serving has no state for it: END, with the error beside.
FAILED = "FAILED"


class _Heard(NamedTuple):
    at: float  # on the monotonic clock
    states: dict[str, str]  # by version


class VersionStates(Collector):
    """`sluice_model_version_state{model,version,state}`: 1 for the state that a version is in."""

    def __init__(self) -> None:
        self._heard: dict[str, _Heard] = {}

    def hear(self, model: str, statuses: Iterable[ModelVersionStatus]) -> None:
        """All versions of a model, as GetModelStatus answers them."""
        states = {str(each.version): _state(each) for each in statuses}
        self._heard[model] = _Heard(time.monotonic(), states)

    def collect(self) -> Iterable[GaugeMetricFamily]:
        family = GaugeMetricFamily(
            "sluice_model_version_state",
            "1 for the state that a version of a named model is in; FAILED: it does not load.",
            labels=["model", "version", "state"],
        )
        after = time.monotonic() - OLDEST_S
        for model, heard in list(self._heard.items()):
            if heard.at > after:
                for version, state in heard.states.items():
                    family.add_metric([model, version, state], 1)
        yield family


def _state(status: ModelVersionStatus) -> str:
    if status.state == State.END and status.status.error_code:
        return FAILED
    return State.Name(status.state)
