"""What `sluice up` says once it serves: where, what, how to try it, and who can reach it."""

import shlex
from pathlib import Path

from service.up.ports import ANY
from sluice.wire.hosts import is_loopback
from sluice.wire.versions import published_versions


def welcome(
    repository: Path,
    names: list[str],
    missing: list[str],
    host: str,
    http_port: int,
    grpc_port: int,
    asks_for_keys: bool,
    scheme: str = "http",
    ca_file: str = "",
    grpc_is_open: bool = False,
) -> str:
    """`names` are served, `missing` not or not yet; `ca_file` is what to trust for HTTPS, where it
    is no usual authority; `grpc_is_open`, whether gRPC is listened on at every address."""
    shown = "localhost" if is_loopback(host) or host in ANY else host
    shown = f"[{shown}]" if ":" in shown else shown
    lines = [f"HTTP on {scheme}://{shown}:{http_port}, gRPC on {shown}:{grpc_port}"]
    lines.append(_reach(host, asks_for_keys, grpc_is_open))
    if names:
        url = f"{scheme}://{shown}:{http_port}/v1/models/{names[0]}"
        curl = f"curl --cacert {shlex.quote(ca_file)}" if ca_file else "curl"
        image = shlex.quote(str(_sample(repository / names[0])))
        lines += [
            f"Serving {', '.join(names)} from {repository}. Try:",
            f"    {curl} {url}",
            f"    {curl} --data-binary @{image} -H 'Content-Type: image/png' {url}:predict",
            f"    {curl} -F image=@{image} {url}:predict",
        ]
    elif not missing:
        lines += [
            f"No model is in {repository} yet; train one and it is picked up:",
            f"    sluice train digits --model-repository {shlex.quote(str(repository))}",
        ]
    if missing:
        lines.append(
            f"Not served: {', '.join(missing)}; the lines above say why. Each is taken up as soon "
            "as it loads"
        )
    return "\n".join(lines)


def _sample(model: Path) -> Path:
    samples = [
        sample
        for version in published_versions(model).values()
        for sample in sorted(version.glob("samples/*.png"), reverse=True)
    ]
    return samples[-1] if samples else Path("IMAGE.png")


def _reach(host: str, asks_for_keys: bool, grpc_is_open: bool) -> str:
    if grpc_is_open and (asks_for_keys or is_loopback(host)):
        how = "asks for keys (SLUICE_ACCESS_FILE)" if asks_for_keys else "is for this machine alone"
        return (
            f"HTTP {how}. Other machines reach gRPC, without a password: keep its port, which is "
            "TensorFlow Serving's own, from those you do not trust"
        )
    if asks_for_keys:
        return "HTTP asks for keys (SLUICE_ACCESS_FILE); gRPC is for this machine alone"
    if is_loopback(host):
        return "For this machine alone; --host 0.0.0.0 (or ::) opens both to others"
    return (
        "Other machines reach both, without a password: keep the gRPC port, which is the model "
        "server's own, from those you do not trust"
    )
