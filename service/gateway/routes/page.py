"""The page of a model, made from its live signatures: try it, see what it is, watch it.

Its scripts are modules in service/gateway/static, by hand: they make a field for each input and
draw each output, which is all there is to do, and a framework would need a build step that the
repository does not hold.
"""

import hashlib
from collections.abc import Mapping
from functools import lru_cache
from math import isinf
from pathlib import Path
from typing import Any

from flask import (
    Blueprint,
    Response,
    abort,
    g,
    jsonify,
    render_template,
    request,
    send_from_directory,
    url_for,
)

from service.gateway.error_responses import error_response
from service.gateway.errors import DeadlineExceeded, GatewayError, ModelServerError, NotFound
from service.gateway.plain import gateway, page_caller, runner
from service.gateway.settings import Settings
from service.gateway.showcase import Showcase
from service.gateway.signatures import Signatures
from service.gateway.statistics import Statistics
from sluice.wire.contract import (
    CLASSIFY_SIGNATURE,
    ENCODED_SIGNATURE,
    EXPLAINED_BY,
    PIXELS_SIGNATURE,
    State,
)
from sluice.wire.model_ref import ModelRef
from sluice.wire.signature import Signature, TensorSpec

routes = Blueprint("page", __name__)

_STATIC = Path(__file__).parents[1] / "static"
_YEAR_S = 365 * 24 * 3600
# Nothing is loaded from anywhere else, and nothing runs that is not a file of ours.
_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob: data:; "
    "connect-src 'self'; media-src blob:; base-uri 'none'; form-action 'self'; "
    "frame-ancestors 'none'"
)
HEADERS = {
    "Content-Security-Policy": _POLICY,
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
}


@routes.before_request
def _check_open() -> None:
    if _settings().page != "on":
        abort(404)


@routes.after_request
def _protect(response: Response) -> Response:
    response.headers.update(HEADERS)
    return response


@routes.errorhandler(NotFound)
@routes.errorhandler(DeadlineExceeded)
@routes.errorhandler(ModelServerError)
def _problem(error: GatewayError) -> Response:
    """For whoever looks, in place of the machines' document."""
    g.reason = str(error)
    refusal = error_response(error)
    model = (request.view_args or {}).get("model", "Sluice")
    text = render_template("problem.html", model=model, problem=str(error), digest=static_digest())
    return Response(text, refusal.status, refusal.headers)


@routes.get("/models/")
def index() -> str:
    states = {name: _states(name) for name in gateway().predictions.names(page_caller())}
    return render_template("models.html", models=states, digest=static_digest())


@routes.get("/models/<model>")
def page(model: str) -> str:
    signatures = _signatures(model)
    shown = _showcase().describe(model)
    newest = next(iter(shown), None)
    facts = {
        "model": model,
        "signatures": _callable(signatures),
        "explaining": _explaining(signatures),
        "labels": _labels(shown[newest]["metrics"]) if newest else {},
        "kinds": (shown[newest]["metrics"].get("kinds") or {}) if newest else {},
        "grpc": _grpc_address(_settings()),
    }
    return render_template(
        "page.html",
        model=model,
        facts=facts,
        versions=_states(model),
        signatures=[signatures.get(name) for name in signatures.names()],
        shown=shown,
        rollouts=_showcase().rollouts(model),
        newest=newest,
        samples=_sample_addresses(model, newest, shown[newest]["samples"]) if newest else [],
        digest=static_digest(),
    )


@routes.get("/models/<model>/<int:version>/<path:name>")
def picture(model: str, version: int, name: str) -> Response:
    path = _showcase().file(model, version, name)
    if path is None:
        abort(404)
    # A version never changes once it is published.
    return send_from_directory(path.parent, path.name, max_age=_YEAR_S)


@routes.get("/models/<model>/now")
def now(model: str) -> Response:
    """What has been counted of the model's versions, of all workers: the model server is not asked.

    By version `answered` and `failed`, and of each step [seconds, how many took at most so long].
    """
    counted = gateway().telemetry.statistics().get(model, {})
    return jsonify(
        {version: _counted(statistics) for version, statistics in sorted(counted.items())}
    )


@routes.get("/static/<digest>/<name>")
def static(digest: str, name: str) -> Response:
    """The digest is of all files together, so that the modules name one another without it."""
    kept = digest == static_digest()
    return send_from_directory(_STATIC, name, max_age=_YEAR_S if kept else 0)


def _counted(statistics: Statistics) -> dict[str, Any]:
    steps = {"all": statistics.success, "queue": statistics.queue, "model": statistics.upstream}
    return {
        "answered": statistics.success.count,
        "failed": statistics.fail.count,
        # JSON has no infinity: the last bucket's bound is null.
        **{
            step: [
                [None if isinf(bound) else bound, each.within[bound]]
                for bound in sorted(each.within)
            ]
            for step, each in steps.items()
        },
    }


def _settings() -> Settings:
    return gateway().settings


def _showcase() -> Showcase:
    repository = _settings().model_repository
    return Showcase(Path(repository) if repository else None)


@lru_cache(1)
def static_digest() -> str:
    """Of all static files together, by which a browser may keep them for ever."""
    content = b"".join(path.read_bytes() for path in sorted(_STATIC.iterdir()))
    return hashlib.sha256(content).hexdigest()[:12]


def _signatures(model: str) -> Signatures:
    return runner().run(gateway().predictions.signatures(ModelRef(model), page_caller()))


def _states(model: str) -> list[tuple[int, str]]:
    """(version, state), newest first; [] for a model that the server does not have."""
    try:
        found = runner().run(gateway().predictions.status(ModelRef(model), page_caller()))
    except NotFound:
        return []
    return [(each.version, State.Name(each.state)) for each in found]


def _callable(signatures: Signatures) -> list[dict[str, Any]]:
    """What can be asked by names, `encoded` first, as the scripts read it; `pixels` says nothing
    that the default signature does not."""
    names = sorted(signatures.names(), key=lambda name: (name != ENCODED_SIGNATURE, name))
    return [
        _described_signature(signatures.get(name))
        for name in names
        if name not in (PIXELS_SIGNATURE, CLASSIFY_SIGNATURE, *EXPLAINED_BY.values())
    ]


def _explaining(signatures: Signatures) -> dict[str, Any]:
    """By a signature's name the one that says why it answers what it does."""
    return {
        name: _described_signature(signatures.get(by))
        for name, by in EXPLAINED_BY.items()
        if by in signatures
    }


def _labels(metrics: Mapping[str, Any]) -> dict[str, list[tuple[int, str]]]:
    """By head (index, label) of each class."""
    labels = metrics.get("labels") or {}
    return {head: list(enumerate(names)) for head, names in labels.items() if names}


def _described_signature(signature: Signature) -> dict[str, Any]:
    return {
        "name": signature.name,
        "inputs": [_described(spec) for spec in signature.inputs.values()],
        "outputs": [_described(spec) for spec in signature.outputs.values()],
    }


def _described(spec: TensorSpec) -> dict[str, Any]:
    return {
        "name": spec.name,
        "dtype": "string" if spec.is_string else spec.dtype.name,
        "shape": list(spec.shape or ()),
    }


def _sample_addresses(
    model: str, version: int, samples: dict[str, dict[str, str]]
) -> list[dict[str, Any]]:
    """Each sample's name, and by input name where its picture is."""
    return [
        {
            "name": name,
            "files": {
                input_name: url_for("page.picture", model=model, version=version, name=file)
                for input_name, file in sample.items()
            },
        }
        for name, sample in samples.items()
    ]


def _grpc_address(settings: Settings) -> str:
    """Where a reader of the page reaches gRPC: the gateway's port, or under `sluice up` the model
    server's; "" where neither is known to be open to them."""
    host = request.host.rpartition(":")[0] or request.host
    if settings.grpc_port:
        return f"{host}:{settings.grpc_port}"
    address = settings.model_server
    is_here = address.startswith(("127.0.0.1:", "localhost:")) and host in (
        "127.0.0.1",
        "localhost",
    )
    return address if is_here else ""
