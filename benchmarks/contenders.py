"""Who is compared: the processes of each, in the order of their starting, and how each is asked.

`{http}`, `{grpc}`, `{front_grpc}` and `{admin}` stand for ports, `{models}` for the repository,
`{model}` for the one model of a server that has one, `{environments}` for where the peers' lie,
`{peers}` for their scripts.
"""

import sys
from collections.abc import Mapping
from dataclasses import dataclass, field

from cases import (
    BASE64,
    DIRECT,
    GRPC,
    JPEG,
    JSON,
    NPY,
    OIP,
    OIP_HEADER_LENGTH,
    PAUSED,
    SMALL,
    Request,
)

GATEWAY, MODEL_SERVER, SERVER = "gateway", "model server", "server"
BOTH, ONE_BY_ONE = (("small", "large"),), (("small",), ("large",))
RAW, UVICORN, FLASK = "raw ASGI, gunicorn", "raw ASGI, uvicorn", "Flask hello"
TWIN, BEHIND_US, REST = "Sluice, twin", "Sluice, TensorFlow Serving", "TensorFlow Serving, its REST"
PEERS = ("LitServe", "BentoML", "MLServer", "KServe", "Ray Serve")

JSON_TYPE = {"Content-Type": "application/json"}


@dataclass(frozen=True)
class Process:
    """`role`: whose CPU time it is."""

    role: str
    command: tuple[str, ...]
    environment: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Contender:
    """`groups`: the models that are served at the same time. `address`: of a server that runs
    already; `model_server`: of the one behind it."""

    name: str
    requests: Mapping[str, Request]  # by kind
    processes: tuple[Process, ...] = ()
    groups: tuple[tuple[str, ...], ...] = BOTH
    address: str = "127.0.0.1:{http}"
    model_server: str = ""


PREDICT = "/v1/models/{model}:predict"
OURS = {
    SMALL: Request(PREDICT, "small.json", JSON_TYPE),
    JSON: Request(PREDICT, "large.json", JSON_TYPE),
    JPEG: Request(PREDICT, "jpeg", {"Content-Type": "image/jpeg"}),
    BASE64: Request(PREDICT, "base64.json", JSON_TYPE),
    NPY: Request(PREDICT, "npy", {"Content-Type": "application/x-npy"}),
    OIP: Request(
        "/v2/models/{model}/infer",
        "oip",
        {
            "Content-Type": "application/octet-stream",
            "Inference-Header-Content-Length": str(OIP_HEADER_LENGTH),
        },
    ),
    GRPC: Request("{front_grpc}", "small.predict"),
    DIRECT: Request("{grpc}", "small.predict"),
}
HELLO = dict.fromkeys((SMALL, PAUSED), Request("/", "small.json", JSON_TYPE))
GUNICORN = (sys.executable, "-m", "gunicorn", "--bind=127.0.0.1:{http}", "--workers=2")
GUNICORN += ("--no-control-socket", "--log-level=warning")


def _gateway(model_server: str) -> Process:
    """With every setting as it comes, but for its ports."""
    return Process(
        GATEWAY,
        (sys.executable, "-m", "service.cli", "gateway"),
        {
            "SLUICE_MODEL_SERVER": model_server,
            "SLUICE_HTTP_HOST": "127.0.0.1",
            "SLUICE_HTTP_PORT": "{http}",
            "SLUICE_GRPC_PORT": "{front_grpc}",
            "SLUICE_ADMIN_PORT": "{admin}",
        },
    )


def _peer(name: str, *arguments: str, **variables: str) -> tuple[Process, ...]:
    """A server in an environment of its own."""
    command = (f"{{environments}}/{name}/bin/python", *arguments)
    environment = {"MODELS": "{models}", "MODEL": "{model}", "PYTHONPATH": "{peers}"}
    environment |= {"TF_CPP_MIN_LOG_LEVEL": "2"} | variables
    return (Process(SERVER, command, environment),)


HELLOS = [
    Contender(RAW, HELLO, (Process(SERVER, (*GUNICORN, "-k", "asgi", "hello:asgi")),)),
    Contender(
        UVICORN,
        HELLO,
        (Process(SERVER, (*GUNICORN, "-k", "uvicorn_worker.UvicornWorker", "hello:asgi")),),
    ),
    Contender(
        FLASK,
        HELLO,
        (Process(SERVER, (*GUNICORN, "-k", "gthread", "--threads=16", "hello:app")),),
    ),
]
OUR_STACK = Contender(
    TWIN,
    OURS,
    (
        Process(
            MODEL_SERVER,
            (
                *(sys.executable, "-m", "service.modelserver", "--port={grpc}"),
                *("--grpc_max_threads=64", "--model_repository={models}"),
            ),
        ),
        _gateway("127.0.0.1:{grpc}"),
    ),
)
OTHERS = {
    "LitServe": Contender(
        "LitServe",
        {
            SMALL: Request("/predict", "small.json", JSON_TYPE),
            JSON: Request("/predict", "large.json", JSON_TYPE),
            BASE64: Request("/predict", "base64.json", JSON_TYPE),
        },
        _peer("litserve", "peers/litserve_server.py", "{http}"),
        ONE_BY_ONE,
    ),
    "BentoML": Contender(
        "BentoML",
        {
            SMALL: Request("/predict", "small.json", JSON_TYPE),
            JSON: Request("/predict", "large.json", JSON_TYPE),
            BASE64: Request("/pictures", "picture.json", JSON_TYPE),
        },
        _peer(
            *("bentoml", "-m", "bentoml", "serve", "bentoml_server:Service", "--port", "{http}"),
            *("--working-dir", "peers"),
            BENTOML_DO_NOT_TRACK="1",
        ),
        ONE_BY_ONE,
    ),
    "MLServer": Contender(
        "MLServer",
        {
            SMALL: Request("/v2/models/{model}/infer", "small.oip.json", JSON_TYPE),
            JSON: Request("/v2/models/{model}/infer", "large.oip.json", JSON_TYPE),
        },
        _peer("mlserver", "peers/mlserver_server.py", "{http}", "{model}"),
        ONE_BY_ONE,
    ),
    "KServe": Contender(
        "KServe",
        {
            SMALL: Request(PREDICT, "small.json", JSON_TYPE),
            JSON: Request(PREDICT, "large.json", JSON_TYPE),
            BASE64: Request(PREDICT, "base64.json", JSON_TYPE),
            OIP: OURS[OIP],
        },
        _peer("kserve", "peers/kserve_server.py", "{http}", "{model}"),
        ONE_BY_ONE,
    ),
    "Ray Serve": Contender(
        "Ray Serve",
        {
            SMALL: Request("/", "small.json", JSON_TYPE),
            JSON: Request("/", "large.json", JSON_TYPE),
            JPEG: Request("/", "jpeg", {"Content-Type": "image/jpeg"}),
        },
        _peer(
            *("rayserve", "peers/rayserve_server.py", "{http}"),
            RAY_SERVE_ENABLE_HA_PROXY="1",
            RAY_SERVE_FALLBACK_PROXY_HTTP_PORT="{grpc}",
            RAY_SERVE_HAPROXY_METRICS_PORT="{front_grpc}",
            RAY_SERVE_HAPROXY_STATS_PORT="{admin}",
        ),
        ONE_BY_ONE,
    ),
}


def contenders(model_server: str, rest: str, peers: bool) -> list[Contender]:
    """`model_server`: HOST:PORT of a TensorFlow Serving's gRPC; `rest`: of its REST, or of several
    with different settings, separated by commas. "": there is none."""
    chosen = [*HELLOS, OUR_STACK]
    if model_server:
        requests = OURS | {DIRECT: OURS[DIRECT]._replace(path=model_server)}
        front = (_gateway(model_server),)
        chosen.append(Contender(BEHIND_US, requests, front, model_server=model_server))
    for number, address in enumerate(filter(None, rest.split(","))):
        name = f"{REST} {number + 1}" if number else REST
        asked = {kind: OURS[kind] for kind in (SMALL, JSON, BASE64)}
        chosen.append(Contender(name, asked, address=address))
    return chosen + (list(OTHERS.values()) if peers else [])
