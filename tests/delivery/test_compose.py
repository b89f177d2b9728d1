"""deploy/compose.yaml as docker compose itself reads it (`config` needs no engine), and what it
gives to Prometheus and Grafana."""

import json
import os
import re
import subprocess
from pathlib import Path

import pytest
import yaml

from service.modelserver.command_line import parse
from sluice.wire.model_config import read_names

ROOT = Path(__file__).parents[2]
DEPLOY = ROOT / "deploy"
PROFILES = {"cpu": "modelserver-cpu", "gpu": "modelserver-gpu", "twin": "modelserver-twin"}
ALL = [*PROFILES, "monitoring"]

pytestmark = pytest.mark.clients


@pytest.fixture(scope="module")
def compose(tools):
    """`compose(*profiles)` -> the services, as `docker compose up` would start them."""

    def config(*profiles):
        chosen = [f"--profile={each}" for each in profiles]
        outcome = subprocess.run(
            [
                tools / "docker-compose",
                "-f",
                DEPLOY / "compose.yaml",
                *chosen,
                "config",
                "--format=json",
            ],
            capture_output=True,
            text=True,
            check=False,
            cwd=ROOT,
            env={"PATH": os.environ["PATH"], "HOME": os.environ["HOME"]},
        )
        assert outcome.returncode == 0, outcome.stderr
        assert not outcome.stderr, outcome.stderr
        return json.loads(outcome.stdout)["services"]

    return config


@pytest.mark.parametrize("document", ["README.md", "deploy/compose.yaml"])
def test_the_commands_that_the_documents_tell_to_type(tools, document):
    commands = re.findall(r"^(?:# +)?docker compose (.+) up\b", (ROOT / document).read_text(), re.M)
    assert commands
    for options in commands:
        subprocess.run(
            [tools / "docker-compose", *options.split(), "config", "--quiet"], cwd=ROOT, check=True
        )


def test_without_a_profile_it_is_the_gateway_and_tensorflow_serving(compose):
    assert set(compose()) == {"gateway", "modelserver-cpu"} == set(compose("cpu"))
    assert compose()["modelserver-cpu"]["image"].startswith("tensorflow/serving:")


@pytest.mark.parametrize("profile", PROFILES)
def test_every_profile_has_one_model_server_and_the_gateway_finds_it(compose, profile):
    services = compose(profile)
    assert set(services) == {"gateway", PROFILES[profile]}
    host, port = services["gateway"]["environment"]["SLUICE_MODEL_SERVER"].split(":")
    server = services[PROFILES[profile]]
    assert host in server["networks"]["default"]["aliases"]
    assert f"--port={port}" in server["command"]
    assert services["gateway"]["depends_on"][PROFILES[profile]]["condition"] == "service_healthy"


def test_the_gpu_profile_reserves_a_gpu_for_the_gpu_image(compose):
    server = compose("gpu")["modelserver-gpu"]
    (device,) = server["deploy"]["resources"]["reservations"]["devices"]
    assert (device["driver"], device["capabilities"]) == ("nvidia", ["gpu"])
    assert server["image"] == compose("cpu")["modelserver-cpu"]["image"] + "-gpu"
    flags = server["entrypoint"][server["entrypoint"].index("tensorflow_model_server") + 1 :]
    options, _ = parse([*flags, *server["command"]])
    assert 0 < options.per_process_gpu_memory_fraction < 1
    batching = on_this_machine(server, options.batching_parameters_file)
    assert batching == DEPLOY / "kubernetes/components/gpu/batching.config"


def test_every_container_is_locked_pinned_and_bounded(compose):
    for name, service in compose(*ALL).items():
        assert service["read_only"] and service["cap_drop"] == ["ALL"], name
        assert service["security_opt"] == ["no-new-privileges:true"], name
        assert int(service["mem_limit"]) > 0, name
        assert re.search(r":v?\d+\.\d+\.\d+(-gpu)?$", service["image"]), name
    (published,) = [
        port["published"] for port in compose("cpu")["gateway"]["ports"] if "host_ip" not in port
    ]
    assert published == "8080", "all else is for this machine alone"
    gateway = compose("cpu")["gateway"]
    targets = {str(port["target"]) for port in gateway["ports"]}
    assert gateway["environment"]["SLUICE_ADMIN_PORT"] not in targets
    assert {service["restart"] for service in compose(*ALL).values()} == {"unless-stopped"}


def test_the_images_are_those_that_make_images_builds(compose):
    version = re.search(r'^version = "(.+)"', (ROOT / "pyproject.toml").read_text(), re.M)[1]
    dockerfile = (ROOT / "Dockerfile").read_text()
    for service in compose(*ALL).values():
        if "build" in service:
            target = service["build"]["target"]
            assert f" AS {target}\n" in dockerfile
            assert service["image"] == f"sluice-{target}:{version}"


def test_every_file_that_is_mounted_is_there(compose):
    for service in compose(*ALL).values():
        for mount in service.get("volumes", []):
            if mount["type"] == "bind" and mount["target"] != "/models":
                assert Path(mount["source"]).exists(), mount["source"]


@pytest.mark.parametrize("server", PROFILES.values())
def test_the_flags_are_the_model_servers_own(compose, server):
    service = compose(*PROFILES)[server]
    options, _ = parse(service["command"])  # an unknown flag is an error
    for flag in ("model_config_file", "batching_parameters_file", "monitoring_config_file"):
        assert on_this_machine(service, getattr(options, flag)).exists(), flag


def test_the_gateway_waits_for_the_models_that_the_server_serves(compose):
    services = compose()
    options, _ = parse(services["modelserver-cpu"]["command"])
    gateway = services["gateway"]
    known = on_this_machine(gateway, gateway["environment"]["SLUICE_MODEL_CONFIG_FILE"])
    assert known == on_this_machine(services["modelserver-cpu"], options.model_config_file)
    assert "digits" in read_names(known), "what the README trains"


def on_this_machine(service, path):
    """The file that a container sees at `path`."""
    mounts = [each for each in service["volumes"] if path.startswith(each["target"])]
    mount = max(mounts, key=lambda each: len(each["target"]))
    return Path(mount["source"]) / Path(path).relative_to(mount["target"])


def test_prometheus_scrapes_what_is_there(compose):
    services = compose(*ALL)
    jobs = yaml.safe_load((DEPLOY / "prometheus/prometheus.yml").read_text())["scrape_configs"]
    targets = {
        job["job_name"]: (job.get("metrics_path", "/metrics"), *job["static_configs"][0]["targets"])
        for job in jobs
    }
    settings = services["gateway"]["environment"]
    options, _ = parse(services["modelserver-cpu"]["command"])
    monitoring = (DEPLOY / "kubernetes/base/monitoring.config").read_text()
    path = re.search(r'path: "(.+?)"', monitoring)[1]
    assert targets == {
        "gateway": ("/metrics", f"gateway:{settings['SLUICE_ADMIN_PORT']}"),
        "modelserver": (path, f"modelserver:{options.rest_api_port}"),
    }


def test_prometheus_loads_the_rules_of_kubernetes(compose):
    prometheus = compose(*ALL)["prometheus"]
    (named,) = yaml.safe_load((DEPLOY / "prometheus/prometheus.yml").read_text())["rule_files"]
    loaded = yaml.safe_load(on_this_machine(prometheus, named).read_text())
    alerts = DEPLOY / "kubernetes/components/monitoring/alerts.yaml"
    assert loaded == {"groups": yaml.safe_load(alerts.read_text())["spec"]["groups"]}


def test_grafana_finds_the_dashboard_and_prometheus(compose):
    grafana = compose(*ALL)["grafana"]
    mounts = {Path(each["target"]): Path(each["source"]) for each in grafana["volumes"]}
    provisioning = mounts[Path("/etc/grafana/provisioning")]
    (provider,) = yaml.safe_load((provisioning / "dashboards/sluice.yaml").read_text())["providers"]
    dashboards = [target for target in mounts if target.parent == Path(provider["options"]["path"])]
    assert [json.loads(mounts[each].read_text())["title"] for each in dashboards] == ["Sluice"]
    home = grafana["environment"]["GF_DASHBOARDS_DEFAULT_HOME_DASHBOARD_PATH"]
    assert [str(each) for each in dashboards] == [home]
    (source,) = yaml.safe_load((provisioning / "datasources/prometheus.yaml").read_text())[
        "datasources"
    ]
    assert source["url"] == "http://prometheus:9090"
