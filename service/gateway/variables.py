"""The environment variables SLUICE_*: that of each setting, those that are read elsewhere, and what
is said of one that nothing reads, so that a mistyped one is found out."""

import re
from collections.abc import Iterable, Mapping

from sluice.wire.nearest import nearest


class InvalidSetting(Exception):
    """An environment variable that there is not, or whose value cannot be used."""


PREFIX = "SLUICE_"
# Read elsewhere than in the gateway; a test finds those that are missing.
OTHER_VARIABLES = {
    "SLUICE_URL": "the server that `sluice predict` and `make test-remote` ask",
    "SLUICE_API_KEY": "the key that `sluice predict` shows the server",
    "SLUICE_GRPC": "HOST:PORT of the gRPC port that `make test-remote` asks too",
    "SLUICE_FASHION_MNIST_DIR": "folder of Fashion-MNIST's files, for `sluice train`",
    "SLUICE_GPUS": "the least number of GPUs that `sluice train` must see; it ends at once else",
    "SLUICE_VERSION": "tag of the images in `deploy/compose.yaml`",
    "SLUICE_CLIENT_ENVS": "where `make test-marked` keeps other projects' clients",
    "SLUICE_TESTS_MADE": "where the suites of one `.ci/run` keep the models that all of them take",
}

# https://kubernetes.io/docs/concepts/services-networking/service/#environment-variables
_SERVICE_LINK = re.compile(
    r"(\w+?)_(SERVICE_HOST|SERVICE_PORT(_\w+)?|PORT(_\d+_(TCP|UDP|SCTP)(_(PROTO|PORT|ADDR))?)?)"
)


def environment_variable(setting: str) -> str:
    """`http_port` -> `SLUICE_HTTP_PORT`."""
    return f"{PREFIX}{setting.upper()}"


def check_known(environment: Mapping[str, str], settings: Iterable[str]) -> None:
    """Raises InvalidSetting for a variable SLUICE_* that is none of these settings' and that
    nothing else reads."""
    known = [*map(environment_variable, settings), *OTHER_VARIABLES]
    for variable in environment:
        if not variable.startswith(PREFIX) or variable in known:
            continue
        if not _is_service_link(variable, environment):
            meant = nearest(variable[len(PREFIX) :], [name[len(PREFIX) :] for name in known])
            advice = (
                f"did you mean {PREFIX}{meant}?"
                if meant
                else "docs/settings.md lists those there are"
            )
            raise InvalidSetting(f"{variable}: there is no such setting; {advice}")


def _is_service_link(variable: str, environment: Mapping[str, str]) -> bool:
    """Whether Kubernetes sets it, unasked, for a Service whose name begins with `sluice`:
    SLUICE_WEB_PORT and the like, beside SLUICE_WEB_SERVICE_HOST."""
    link = _SERVICE_LINK.fullmatch(variable)
    return link is not None and f"{link[1]}_SERVICE_HOST" in environment
