"""One Deployment of a rendered overlay as `podman play kube` can run it; stderr says what changed.

    for_podman.py DEPLOYMENT --name POD --port 8080=41234 ... < rendered.yaml > pod.yaml

podman is no cluster. It runs the same pods with the same ConfigMaps, but it has no scheduler, no
Service, no DNS and, here, no network of its own: pods share the host's, so each needs ports of its
own. A claim is a volume of that name, made before.
"""

import argparse
import sys
from collections.abc import Iterable
from typing import Any

import yaml

Document = dict[str, Any]
Ports = dict[str, str]


def transformed(
    documents: Iterable[Document], deployment: str, name: str, ports: Ports
) -> tuple[list[Document], list[str]]:
    """What podman gets, and a line for each change. `ports` maps a declared port to a free one."""
    kept, left = [], []
    for document in documents:
        kind = document["kind"]
        wanted = kind == "ConfigMap" or (
            kind == "Deployment" and document["metadata"]["name"] == deployment
        )
        (kept if wanted else left).append(document)
    said = [f"left out, for a control plane: {', '.join(sorted({each['kind'] for each in left}))}"]
    for document in kept:
        said += CHANGES[document["kind"]](document, name, ports)
    return kept, said


def change_deployment(document: Document, name: str, ports: Ports) -> list[str]:
    document["metadata"]["name"] = name
    spec = document["spec"]["template"]["spec"]
    spec["hostNetwork"] = True
    said = ["hostNetwork: there is no network of pods"]
    for container in spec["containers"]:
        container["image"] = f"localhost/{container['image']}"
        said.append(f"{container['image']}: an image that was built here, not pulled")
        del container["ports"]
        said.append("no ports: none is mapped in the host's network")
        container["args"] = [with_port(each, ports) for each in container.get("args", [])]
        for probe in ("startupProbe", "readinessProbe", "livenessProbe"):
            del container[probe]
    set_apart(spec, name)
    return [
        *said,
        "no probes: podman would not ask them; the test does",
        f"{name}-…: a ConfigMap or an emptyDir is a volume of the whole machine's",
    ]


def set_apart(spec: Document, name: str) -> None:
    """Put the pod's name before the names of its ConfigMaps and emptyDirs."""
    for volume in spec["volumes"]:
        if "configMap" in volume:
            volume["configMap"]["name"] = f"{name}-{volume['configMap']['name']}"
        if "emptyDir" in volume:
            for container in spec["containers"]:
                for mount in container["volumeMounts"]:
                    if mount["name"] == volume["name"]:
                        mount["name"] = f"{name}-{mount['name']}"
            volume["name"] = f"{name}-{volume['name']}"
    for container in spec["containers"]:
        for source in container.get("envFrom", []):
            source["configMapRef"]["name"] = f"{name}-{source['configMapRef']['name']}"


def with_port(flag: str, ports: Ports) -> str:
    name, _, value = flag.partition("=")
    return f"{name}={ports[value]}" if name in ("--port", "--rest_api_port") else flag


def change_settings(document: Document, name: str, ports: Ports) -> list[str]:
    said, data = [], document["data"]
    document["metadata"]["name"] = f"{name}-{document['metadata']['name']}"
    for variable in ("SLUICE_HTTP_PORT", "SLUICE_ADMIN_PORT", "SLUICE_GRPC_PORT"):
        if data.get(variable) in ports:
            data[variable] = ports[data[variable]]
            said.append(f"{variable}={data[variable]}: a port of its own on the host")
    if "SLUICE_MODEL_SERVER" in data:
        port = data["SLUICE_MODEL_SERVER"].partition(":")[2]
        data["SLUICE_MODEL_SERVER"] = f"127.0.0.1:{ports.get(port, port)}"
        said.append(f"SLUICE_MODEL_SERVER={data['SLUICE_MODEL_SERVER']}: there is no Service")
        data["SLUICE_MAX_WAIT_S"] = "20"
        said.append("SLUICE_MAX_WAIT_S=20: one machine starts and serves what a cluster's would")
    return said


CHANGES = {"Deployment": change_deployment, "ConfigMap": change_settings}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("deployment")
    parser.add_argument("--name", required=True)
    parser.add_argument("--port", action="append", default=[], metavar="DECLARED=FREE")
    given = parser.parse_args()
    documents = [each for each in yaml.safe_load_all(sys.stdin) if each]
    kept, said = transformed(
        documents, given.deployment, given.name, dict(pair.split("=") for pair in given.port)
    )
    print("\n".join(said), file=sys.stderr)
    yaml.safe_dump_all(kept, sys.stdout)


if __name__ == "__main__":
    main()
