"""What the rendered manifests promise, held against each other, the code and the docs.

The rules are those of the field: see docs/operations.md and docs/decisions/0008-kubernetes.md.
"""

import json
import re
import tomllib
from pathlib import Path
from urllib.parse import urlsplit

import click
import pytest
import yaml
from google.protobuf import text_format

from service.cli import main
from service.gateway.access_log import AccessLog
from service.gateway.app import create_app
from service.gateway.dialling import SERVICE_CONFIG
from service.gateway.front.admin import STALLED_S
from service.gateway.readiness import PROBE_TIMEOUT_S
from service.gateway.settings import Settings
from service.gateway.telemetry import Telemetry
from service.gateway.variables import OTHER_VARIABLES, environment_variable
from service.modelserver.command_line import parse
from service.modelserver.metrics import DEFAULT_PATH, Metrics
from service.modelserver.options import Options
from service.rollout.evidence import evidence_directory
from sluice.wire.protos.serving_pb2 import BatchingParameters, ModelServerConfig

pytestmark = pytest.mark.clients

ROOT = Path(__file__).parents[3]
OPERATIONS = ROOT / "docs" / "operations.md"

ENDPOINTS_S = 10  # until every proxy has heard that a pod is going
DNS_S = ENDPOINTS_S + 30  # until DNS, with the caches before it, no longer names it
AGE_JITTER = 1.1  # gRPC lets a connection live a tenth longer or shorter
SIDE_CARS = {"follow-models", "admit-models"}
CALLS = 16  # of one worker at one model server: the limiter settles at a handful
WORKER_BYTES = 100 * 2**20
# A PNG of 49 megapixels took TensorFlow Serving from 0.5 to 3.1 GB.
PIXEL_BYTES = 53
MODELS_BYTES = 2**30
MONITORING = {"monitoring", "gmp-system", "gke-gmp-system"}  # namespaces of who scrapes


def gateway_settings(manifests):
    """The gateway's Settings, as its pod has them."""
    container = manifests.pod("gateway").container("gateway")
    return Settings.from_environment(manifests.environment(container))


def server_options(manifests):
    """The model server's flags, read by the twin's own parser."""
    return parse(manifests.pod("modelserver").container("modelserver")["args"])[0]


def pre_stop_s(container):
    return container["lifecycle"]["preStop"]["sleep"]["seconds"]


def left_after_s(settings):
    """Until nobody is connected to a gateway that no proxy gives any more."""
    age_s = settings.grpc_max_connection_age_s if settings.grpc_port else 0
    return ENDPOINTS_S + AGE_JITTER * age_s


def bytes_of(quantity):
    """`512Mi` -> bytes."""
    number, unit = re.fullmatch(r"(\d+)([MG])i", quantity).groups()
    return int(number) * 2 ** {"M": 20, "G": 30}[unit]


def served(pod):
    """The containers that answer requests."""
    return [
        each
        for each in pod.spec["containers"]
        if pod.kind != "Job" and each["name"] not in SIDE_CARS
    ]


# Images, commands, settings


def test_every_image_is_pinned_and_ours_are_of_this_version(manifests):
    version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    for pod in manifests.pods():
        for container in pod.containers():
            name, colon, tag = container["image"].rpartition(":")
            assert colon and re.match(r"\d+\.\d+\.\d+", tag), container["image"]
            if name.startswith("sluice-"):
                assert tag == version


def test_every_command_of_ours_is_one(manifests):
    for pod in manifests.pods():
        for container in pod.containers():
            command, arguments = container.get("command", []), container.get("args", [])
            if command[:2] == ["sluice", "train"]:
                train = main.get_command(click.Context(main), "train")
                train.make_context("train", [*command[2:], *arguments])
            elif command == ["sluice", "admit"]:
                admit = main.get_command(click.Context(main), "admit")
                admit.make_parser(click.Context(admit)).parse_args([*arguments])
            elif command[-1:] == ["rollout"]:
                verbs = main.get_command(click.Context(main), "rollout")
                _, verb, rest = verbs.resolve_command(click.Context(verbs), [*arguments])
                verb.make_parser(click.Context(verb)).parse_args(rest)
            elif "modelserver" in command or command[-1:] == ["tensorflow_model_server"]:
                parse(arguments)  # every flag is one of TensorFlow Serving's, or the twin's own
            else:
                assert not command or command[0] == "sh", command


def test_every_setting_of_the_gateway_exists_and_is_valid(manifests):
    known = {environment_variable(name) for name in Settings.__dataclass_fields__}
    known |= set(OTHER_VARIABLES)
    for pod in manifests.pods():
        for container in pod.containers():
            given = {
                name: value
                for name, value in manifests.environment(container).items()
                if name.startswith("SLUICE_")
            }
            assert given.keys() <= known
            Settings.from_environment(given)


def test_every_config_file_is_read_where_it_is_written(overlay):
    server, gateway = overlay.pod("modelserver"), overlay.pod("gateway")
    container, options = server.container("modelserver"), server_options(overlay)
    models = overlay.file(server, container, options.model_config_file)
    assert models == overlay.file(
        gateway, gateway.container("gateway"), gateway_settings(overlay).model_config_file
    )
    (mount,) = [each["mountPath"] for each in container["volumeMounts"] if each["name"] == "models"]
    for model in text_format.Parse(models, ModelServerConfig()).model_config_list.config:
        assert model.base_path == f"{mount}/{model.name}"
    monitoring = overlay.file(server, container, options.monitoring_config_file)
    assert f'path: "{DEFAULT_PATH}"' in monitoring


def test_batches_and_queues_have_sizes_that_fit(overlay):
    server, options = overlay.pod("modelserver"), server_options(overlay)
    batching = text_format.Parse(
        overlay.file(server, server.container("modelserver"), options.batching_parameters_file),
        BatchingParameters(),
    )
    allowed = batching.allowed_batch_sizes
    assert not allowed or (
        allowed[-1] == batching.max_batch_size.value and list(allowed) == sorted(allowed)
    )
    assert batching.batch_timeout_micros.value == 0
    assert batching.max_enqueued_batches.value >= options.grpc_max_threads


def test_a_joined_call_is_a_batch_that_the_model_server_takes(overlay):
    server, options = overlay.pod("modelserver"), server_options(overlay)
    batching = overlay.file(
        server, server.container("modelserver"), options.batching_parameters_file
    )
    (largest,) = re.findall(r"max_batch_size { value: (\d+) }", batching)
    assert gateway_settings(overlay).max_joined_rows == int(largest)


def test_the_model_server_has_a_thread_for_every_call_that_may_come(overlay):
    settings, scaler = gateway_settings(overlay), overlay.find("HorizontalPodAutoscaler", "gateway")
    pods = (scaler or overlay.find("Deployment", "gateway"))["spec"]
    gateways = pods["maxReplicas"] if scaler else pods["replicas"]
    assert server_options(overlay).grpc_max_threads >= gateways * settings.workers * CALLS


def test_the_largest_bodies_fit_into_the_gateways_memory(overlay):
    """A body, its tensors and the call to the model server are three times its bytes."""
    settings = gateway_settings(overlay)
    limit = overlay.pod("gateway").container("gateway")["resources"]["limits"]["memory"]
    worker = WORKER_BYTES + 3 * settings.max_bytes_in_flight
    assert settings.workers * worker < bytes_of(limit)
    assert settings.max_body_bytes < settings.max_bytes_in_flight / 4


def test_two_of_the_largest_pictures_fit_into_the_model_servers_memory(overlay):
    limit = overlay.pod("modelserver").container("modelserver")["resources"]["limits"]["memory"]
    pixels = gateway_settings(overlay).max_image_pixels
    assert MODELS_BYTES + 2 * PIXEL_BYTES * pixels < bytes_of(limit)


def test_in_kserves_pod_too(kserve):
    (pod,) = kserve.pods()
    settings = Settings.from_environment(kserve.environment(pod.running("sluice-gateway")))
    limit = pod.running("tensorflow/serving")["resources"]["limits"]["memory"]
    assert MODELS_BYTES + 2 * PIXEL_BYTES * settings.max_image_pixels < bytes_of(limit)


def test_labels_may_name_a_version_that_is_still_loading(overlay):
    assert server_options(overlay).allow_version_labels_for_unavailable_models


# Life and death


def test_the_gateway_stops_after_everyone_has_left_it(serving):
    settings, pod = gateway_settings(serving), serving.pod("gateway")
    sleep_s = pre_stop_s(pod.container("gateway"))
    assert settings.grpc_port and sleep_s >= left_after_s(settings)
    assert settings.drain_timeout_s >= settings.request_timeout_s
    assert pod.spec["terminationGracePeriodSeconds"] > sleep_s + settings.drain_timeout_s


def test_the_model_server_stops_after_the_last_request(serving):
    options, pod = server_options(serving), serving.pod("modelserver")
    container = pod.container("modelserver")
    age_s = dict(options.channel_arguments())["grpc.max_connection_age_ms"] / 1000
    deadline_s = gateway_settings(serving).request_timeout_s
    sleep_s = pre_stop_s(container)
    assert sleep_s >= DNS_S + AGE_JITTER * age_s + deadline_s
    drains = "sluice" in container["command"]
    assert pod.spec["terminationGracePeriodSeconds"] > (
        sleep_s + (options.drain_seconds if drains else 0)
    )


def test_in_kserves_pod_the_model_server_outlives_the_gateway(kserve):
    (pod,) = kserve.pods()
    gateway = pod.running("sluice-gateway")
    settings = Settings.from_environment(kserve.environment(gateway))
    gateway_ends_s = pre_stop_s(gateway) + settings.drain_timeout_s
    assert pre_stop_s(gateway) >= left_after_s(settings)
    assert pre_stop_s(pod.running("tensorflow/serving")) >= gateway_ends_s
    assert pod.spec["terminationGracePeriodSeconds"] > gateway_ends_s


def test_in_kserves_pod_the_model_server_batches_as_elsewhere_and_is_watched(kserve):
    (pod,) = kserve.pods()
    server = pod.running("tensorflow/serving")
    options = parse(server["args"])[0]
    batching = text_format.Parse(
        kserve.file(pod, server, options.batching_parameters_file), BatchingParameters()
    )
    assert batching.max_enqueued_batches.value >= options.grpc_max_threads
    gateway = Settings.from_environment(kserve.environment(pod.running("sluice-gateway")))
    assert gateway.max_joined_rows == batching.max_batch_size.value
    assert f'path: "{DEFAULT_PATH}"' in kserve.file(pod, server, options.monitoring_config_file)
    assert all(
        {"startupProbe", "readinessProbe", "livenessProbe"} <= each.keys()
        for each in pod.containers()
    )
    notes = kserve.of("InferenceService")[0]["metadata"]["annotations"]
    for each in kserve.of("ServingRuntime"):
        assert notes["serving.kserve.io/enable-prometheus-scraping"] == "true"
        notes = each["spec"]["annotations"]
    (port,) = [value for name, value in notes.items() if name.endswith("/port")]
    assert port == str(gateway.admin_port)


def test_kserves_runtime_has_its_parts_where_kserve_looks_for_them(runtime):
    """pkg/controller/v1beta1/inferenceservice of KServe: the Service gets the ports of the
    container `transformer-container`, the first as port 80; the model is mounted at /mnt/models of
    `kserve-container`; a name in braces is filled in there, and each pod has the label."""
    (pod,) = runtime.pods()
    gateway, server = pod.container("transformer-container"), pod.container("kserve-container")
    assert gateway is pod.running("sluice-gateway") and server is pod.running("tensorflow/serving")
    settings = Settings.from_environment(runtime.environment(gateway))
    http, grpc = gateway["ports"]
    assert http["containerPort"] == settings.http_port
    assert grpc["containerPort"] == settings.grpc_port and "grpc" in grpc["name"]
    options = parse(server["args"])[0]
    assert (options.model_name, options.model_base_path) == ("{{.Name}}", "/mnt/models")
    assert settings.models == "metadata.labels['serving.kserve.io/inferenceservice']"
    assert settings.model_server == f"127.0.0.1:{options.port}"


def test_kserves_runtime_speaks_both_protocols_and_is_chosen_by_name(runtime):
    (spec,) = [each["spec"] for each in runtime.of("ServingRuntime")]
    (service,) = [each["spec"]["predictor"] for each in runtime.of("InferenceService")]
    assert {"v1", "v2", "grpc-v2"} == set(spec["protocolVersions"])
    assert service["model"]["protocolVersion"] in spec["protocolVersions"]
    assert service["model"]["modelFormat"] in spec["supportedModelFormats"]


def test_a_rollout_is_given_up_later_than_the_slowest_start(overlay):
    for deployment in overlay.of("Deployment"):
        (container, *_) = deployment["spec"]["template"]["spec"]["containers"]
        probe = container["startupProbe"]
        start_s = probe["periodSeconds"] * probe["failureThreshold"]
        assert deployment["spec"].get("progressDeadlineSeconds", 600) > start_s
    for budget in overlay.of("PodDisruptionBudget"):
        assert budget["spec"]["unhealthyPodEvictionPolicy"] == "AlwaysAllow"


def test_a_surge_never_goes_below_what_is_wanted(overlay):
    for deployment in overlay.of("Deployment"):
        rolling = deployment["spec"]["strategy"]["rollingUpdate"]
        has_gpu = "nvidia.com/gpu" in json.dumps(deployment["spec"]["template"])
        assert rolling["maxUnavailable"] == (1 if has_gpu else 0)
        assert overlay.find("PodDisruptionBudget", deployment["metadata"]["name"])


# Who finds whom


def test_the_gateway_finds_every_model_server_by_a_headless_service(overlay):
    host, _, port = gateway_settings(overlay).model_server.partition(":")
    service = overlay.find("Service", host)["spec"]
    assert service["clusterIP"] == "None"
    assert int(port) in {each["port"] for each in service["ports"]}
    assert int(port) == server_options(overlay).port  # the names are the pods': no port is mapped


def test_every_model_server_tells_the_gateways_when_it_loads_and_stops(manifests):
    assert SERVICE_CONFIG["healthCheckConfig"] == {"serviceName": ""}
    for pod in manifests.pods():
        for container in pod.containers():
            if any(each.startswith("--port=") for each in container.get("args", [])):
                assert "--enable_grpc_healthcheck_service=true" in container["args"]


def test_every_service_budget_and_policy_names_pods_and_ports_that_exist(overlay):
    for service in overlay.of("Service"):
        (pod,) = chosen(overlay, service["spec"]["selector"])
        assert {each["targetPort"] for each in service["spec"]["ports"]} <= port_names(pod)
    for kind in ("PodDisruptionBudget", "Deployment"):
        for each in overlay.of(kind):
            assert chosen(overlay, each["spec"]["selector"]["matchLabels"])
    for policy in overlay.of("NetworkPolicy"):
        pods = chosen(overlay, policy["spec"]["podSelector"].get("matchLabels", {}))
        named = {
            port["port"] for rule in policy["spec"].get("ingress", []) for port in rule["ports"]
        }
        assert all(named <= port_names(pod) for pod in pods)


def chosen(manifests, labels):
    return [pod for pod in manifests.pods() if labels.items() <= pod.labels.items()]


def port_names(pod):
    return {port["name"] for each in pod.spec["containers"] for port in each.get("ports", [])}


def test_every_name_that_a_pod_uses_exists(overlay):
    for pod in overlay.pods():
        account = pod.spec.get("serviceAccountName", "default")
        assert account == "default" or overlay.find("ServiceAccount", account)
        volumes = {each["name"]: each for each in pod.spec["volumes"]}
        for kind, key, name in (
            ("ConfigMap", "configMap", "name"),
            ("PersistentVolumeClaim", "persistentVolumeClaim", "claimName"),
        ):
            for volume in volumes.values():
                assert key not in volume or overlay.find(kind, volume[key][name])
        for container in pod.containers():
            assert {each["name"] for each in container["volumeMounts"]} <= volumes.keys()
            assert all(
                overlay.find("ConfigMap", each["configMapRef"]["name"])
                for each in container.get("envFrom", [])
                if "configMapRef" in each
            )


def test_only_the_gateway_and_labelled_clients_dial_the_model_server(overlay):
    (policy,) = [
        each for each in overlay.of("NetworkPolicy") if each["metadata"]["name"] == "modelserver"
    ]
    (rule,) = policy["spec"]["ingress"]
    who = [each["podSelector"]["matchLabels"] for each in rule["from"]]
    assert who == [{"app.kubernetes.io/name": "gateway"}, {"sluice/grpc-client": "true"}]
    assert "egress" not in policy["spec"] and "Egress" in policy["spec"]["policyTypes"]
    others = [
        port["port"]
        for each in overlay.of("NetworkPolicy")
        if each is not policy
        for rule in each["spec"].get("ingress", [])
        for port in rule["ports"]
        if each["spec"]["podSelector"].get("matchLabels")
        == policy["spec"]["podSelector"]["matchLabels"]
    ]
    assert set(others) <= {"metrics"}


def test_clients_of_grpc_are_led_to_the_gateway_and_nothing_of_ours_is_an_exception(serving):
    for route in serving.of("GRPCRoute") + serving.of("HTTPRoute"):
        backends = [each for rule in route["spec"]["rules"] for each in rule["backendRefs"]]
        assert {each["name"] for each in backends} == {"gateway"}
    for ingress in serving.of("Ingress"):
        assert '"name": "modelserver"' not in json.dumps(ingress)
    # No proxy, no port of a node and no load balancer leads to the model servers.
    assert serving.find("Service", "modelserver")["spec"]["clusterIP"] == "None"
    assert not [pod.name for pod in serving.pods() if "sluice/grpc-client" in pod.labels]


def test_only_monitoring_reaches_the_gateways_admin_port(serving):
    gateway = {"app.kubernetes.io/name": "gateway"}
    for policy in serving.of("NetworkPolicy"):
        if policy["spec"]["podSelector"].get("matchLabels") != gateway:
            continue
        for rule in policy["spec"].get("ingress", []):
            if {"port": "admin"} in rule["ports"]:
                (who,) = rule["from"]
                assert namespaces(who["namespaceSelector"]) <= MONITORING
                assert len(rule["ports"]) == 1
    used = [
        path["backend"]["service"]["port"]["name"]
        for ingress in serving.of("Ingress")
        for rule in ingress["spec"]["rules"]
        for path in rule["http"]["paths"]
    ]
    assert set(used) <= {"http"}


def namespaces(selector):
    """The names that a namespaceSelector chooses by."""
    by_label = [
        {"key": label, "operator": "In", "values": [name]}
        for label, name in selector.get("matchLabels", {}).items()
    ]
    (rule,) = [*by_label, *selector.get("matchExpressions", [])]
    assert (rule["key"], rule["operator"]) == ("kubernetes.io/metadata.name", "In")
    return set(rule["values"])


def test_the_gateway_may_ask_dns_and_the_model_server(overlay):
    servers, dns = overlay.find("NetworkPolicy", "gateway")["spec"]["egress"]
    assert servers["to"] == [
        {"podSelector": {"matchLabels": {"app.kubernetes.io/name": "modelserver"}}}
    ]
    assert servers["ports"] == [{"port": server_options(overlay).port}]
    assert {(each["port"], each["protocol"]) for each in dns["ports"]} == {(53, "UDP"), (53, "TCP")}


def test_no_egress_rule_names_a_port(manifests):
    """A name may be another number in each pod; older Ciliums pass over such a rule."""
    for policy in manifests.of("NetworkPolicy"):
        for rule in policy["spec"].get("egress", []):
            assert all(isinstance(each["port"], int) for each in rule["ports"])


# Probes


@pytest.fixture(scope="session")
def routes():
    """The paths that the gateway answers GET on."""
    return create_app(Settings()).url_map.bind("localhost")


def test_every_probe_asks_what_is_really_there(manifests, routes):
    for pod in manifests.pods():
        for container in served(pod):
            ports = {each["name"]: each["containerPort"] for each in container.get("ports", [])}
            for probe in (
                container.get(f"{each}Probe") for each in ("startup", "readiness", "liveness")
            ):
                if probe and "httpGet" in probe:
                    port = probe["httpGet"]["port"]
                    settings = Settings.from_environment(manifests.environment(container))
                    assert ports.get(port, port) == settings.admin_port
                    assert probe["httpGet"]["path"] in ("/healthz", "/readyz")
                    assert routes.match(probe["httpGet"]["path"], "GET")
                elif probe:
                    assert probe["grpc"]["port"] == parse(container["args"])[0].port
                    assert "--enable_grpc_healthcheck_service=true" in container["args"]


def test_every_server_is_probed_and_not_restarted_for_being_busy(overlay):
    deadline_s = gateway_settings(overlay).request_timeout_s
    for pod in overlay.pods():
        for container in served(pod):
            assert {"startupProbe", "readinessProbe", "livenessProbe"} <= container.keys()
            probe = container["livenessProbe"]
            # The gateway's admin port waits for no request.
            patience_s = STALLED_S if pod.name == "gateway" else deadline_s
            assert probe["periodSeconds"] * probe["failureThreshold"] > patience_s
    gateway = overlay.pod("gateway").container("gateway")
    assert gateway["livenessProbe"]["httpGet"]["path"] == "/healthz"
    assert gateway["readinessProbe"]["httpGet"]["path"] == "/readyz"
    assert gateway["readinessProbe"]["timeoutSeconds"] > PROBE_TIMEOUT_S


def test_every_port_is_one_that_something_listens_on(overlay):
    settings, options = gateway_settings(overlay), server_options(overlay)
    listening = {
        "gateway": {settings.http_port, settings.grpc_port, settings.admin_port},
        "modelserver": {options.port, options.rest_api_port},
    }
    for name, ports in listening.items():
        declared = overlay.pod(name).container(name)["ports"]
        assert {each["containerPort"] for each in declared} == ports


# Locked down


def test_every_container_is_locked_down(manifests):
    for pod in manifests.pods():
        assert pod.spec["automountServiceAccountToken"] is False
        security = pod.spec["securityContext"]
        assert security["runAsNonRoot"] is True and security["runAsUser"] >= 10000
        assert security["seccompProfile"] == {"type": "RuntimeDefault"}
        for container in pod.containers():
            assert container["securityContext"] == {
                "allowPrivilegeEscalation": False,
                "readOnlyRootFilesystem": True,
                "capabilities": {"drop": ["ALL"]},
            }, container["name"]
            assert container["resources"]["requests"].keys() >= {"cpu", "memory"}
            assert "memory" in container["resources"]["limits"]


def test_models_on_a_nodes_disk_have_asked_for_the_room(serving):
    pod = serving.pod("modelserver")
    for volume in pod.spec["volumes"]:
        if volume["name"] == "models" and volume.get("emptyDir"):
            asked = pod.container("modelserver")["resources"]
            room = bytes_of(volume["emptyDir"]["sizeLimit"])
            assert bytes_of(asked["requests"]["ephemeral-storage"]) >= room
            assert bytes_of(asked["limits"]["ephemeral-storage"]) > room


def test_only_what_was_admitted_is_served(signed_models):
    pod = signed_models.pod("modelserver")
    mounts = {
        name: {each["mountPath"]: each for each in pod.container(name)["volumeMounts"]}
        for name in ("modelserver", "admit-models")
    }
    served = mounts["modelserver"]["/models"]
    assert served["readOnly"] and served["name"] == mounts["admit-models"]["/models"]["name"]
    incoming = mounts["admit-models"]["/incoming"]
    assert incoming["readOnly"] and incoming["name"] == "models"
    assert "models" not in {each["name"] for each in pod.container("modelserver")["volumeMounts"]}


def test_gateways_that_follow_rollouts_write_what_they_see_of_them_and_nothing_else(rollouts, cpu):
    volume = volume_of_rollouts(rollouts)
    claim = cpu.find("PersistentVolumeClaim", volume["persistentVolumeClaim"]["claimName"])
    assert claim["spec"]["accessModes"] == ["ReadWriteMany"]  # that of models-from-pvc


def test_so_do_those_that_follow_rollouts_in_a_bucket(bucket_rollouts):
    volume = volume_of_rollouts(bucket_rollouts)
    assert volume["emptyDir"]["sizeLimit"]


def volume_of_rollouts(manifests):
    """Of the gateway, which may write into it where evidence lies."""
    pod = manifests.pod("gateway")
    container = pod.container("gateway")
    repository = Settings.from_environment(manifests.environment(container)).model_repository
    [mount] = [each for each in container["volumeMounts"] if each["mountPath"] == repository]
    assert mount["readOnly"]
    [seen] = [
        each
        for each in container["volumeMounts"]
        if each["name"] == mount["name"] and each is not mount
    ]
    assert Path(seen["mountPath"]) in evidence_directory(Path(repository, "digits"), "a").parents
    assert seen["subPath"] == str(Path(seen["mountPath"]).relative_to(repository))
    [volume] = [each for each in pod.spec["volumes"] if each["name"] == mount["name"]]
    return volume


def test_what_carries_rollouts_is_there_before_the_gateway_and_after_it(bucket_rollouts):
    """Without, a gateway would take the newest version for live; and it answers while it drains."""
    pod = bucket_rollouts.pod("gateway")
    first, beside = pod.spec["initContainers"]
    assert (first["command"][-1], "restartPolicy" in first) == ("fetch", False)
    assert (beside["command"][-1], beside["restartPolicy"]) == ("follow", "Always")
    for container in (first, beside):
        models = bucket_rollouts.environment(container).get("MODELS", "/models")
        mounted = [
            each["name"] for each in container["volumeMounts"] if each["mountPath"] == models
        ]
        assert mounted == [volume_of_rollouts(bucket_rollouts)["name"]]


def test_whoever_carries_from_a_bucket_has_the_script_and_may_reach_the_bucket(
    bucket_rollouts, guard
):
    carriers = 0
    for manifests in (bucket_rollouts, guard):
        policy = next(
            each
            for each in manifests.of("NetworkPolicy")
            if each["metadata"]["name"].startswith("model-store")
        )
        for pod in manifests.pods():
            for container in pod.containers():
                folder, _, name = container.get("command", ["", "/"])[1].rpartition("/")
                if name in ("store.sh", "rollouts.sh"):
                    carriers += 1
                    assert manifests.file(pod, container, f"{folder}/store.sh")
                    assert manifests.file(pod, container, f"{folder}/{name}")
                    assert manifests.environment(container)["MODEL_STORE"]
                    assert is_chosen(pod, policy["spec"]["podSelector"])
    assert carriers == 5  # two of the model server, two of the gateway, the Job


def is_chosen(pod, selector):
    labels, rules = selector.get("matchLabels", {}), selector.get("matchExpressions", [])
    assert all(rule["operator"] == "In" for rule in rules)
    return labels.items() <= pod.labels.items() and all(
        pod.labels.get(rule["key"]) in rule["values"] for rule in rules
    )


def test_a_version_that_was_stopped_is_not_rolled_out_again_by_its_job(guard):
    """`sluice rollout` ends with 1 then, and asked once more would begin anew."""
    pod = guard.pod("rollout-guard")
    (container,) = pod.spec["containers"]
    stopped, *_ = guard.find("Job", "rollout-guard")["spec"]["podFailurePolicy"]["rules"]
    assert stopped["action"] == "FailJob" and 1 in stopped["onExitCodes"]["values"]
    assert 75 not in stopped["onExitCodes"]["values"]  # the bucket is away: it is tried again
    assert stopped["onExitCodes"]["containerName"] == container["name"]
    assert pod.spec["restartPolicy"] == "Never"  # else there is no such policy


def test_servers_spread_over_nodes_and_zones(overlay):
    for deployment in overlay.of("Deployment"):
        spec = deployment["spec"]["template"]["spec"]
        for each in spec["topologySpreadConstraints"]:
            assert (
                each["labelSelector"]["matchLabels"]
                == deployment["spec"]["selector"]["matchLabels"]
            )
        assert {each["topologyKey"] for each in spec["topologySpreadConstraints"]} == {
            "kubernetes.io/hostname",
            "topology.kubernetes.io/zone",
        }


# The way in


def test_the_way_in_leaves_the_metrics_inside_and_waits_longer_than_the_gateway(manifests, routes):
    paths = [
        (path["path"], path["pathType"])
        for ingress in manifests.of("Ingress")
        for rule in ingress["spec"]["rules"]
        for path in rule["http"]["paths"]
    ]
    paths += [
        (match["path"]["value"], match["path"]["type"])
        for route in manifests.of("HTTPRoute")
        for rule in route["spec"]["rules"]
        for match in rule["matches"]
    ]
    known = [rule.rule for rule in routes.map.iter_rules()]
    for path, kind in paths:
        assert any(rule == path or rule.startswith(f"{path}/") for rule in known), path
        assert path != "/metrics" if kind == "Exact" else not "/metrics".startswith(path)
    deadline_s = Settings().request_timeout_s
    for ingress in manifests.of("Ingress"):
        notes = ingress["metadata"]["annotations"]
        prefix = "nginx.ingress.kubernetes.io/proxy-"
        assert float(notes[f"{prefix}read-timeout"]) > deadline_s
        limit = int(notes[f"{prefix}body-size"].removesuffix("m")) * 2**20
        assert limit >= gateway_settings(manifests).max_body_bytes
        assert ingress["spec"]["tls"]
    for route in manifests.of("HTTPRoute"):
        for rule in route["spec"]["rules"]:
            assert float(rule["timeouts"]["request"].removesuffix("s")) > deadline_s


def test_the_page_and_what_it_loads_come_the_same_way(serving):
    for kind in ("Ingress", "HTTPRoute"):
        for way in serving.of(kind):
            text = json.dumps(way["spec"])
            assert all(f'"{path}"' in text for path in ("/", "/models", "/static", "/docs")), kind


def test_every_route_of_grpc_leads_to_a_port_that_says_so(serving):
    for route in serving.of("GRPCRoute"):
        for backend in (each for rule in route["spec"]["rules"] for each in rule["backendRefs"]):
            ports = serving.find("Service", backend["name"])["spec"]["ports"]
            (port,) = [each for each in ports if each["port"] == backend["port"]]
            assert port["appProtocol"] == "kubernetes.io/h2c"


def test_gkes_load_balancers_probe_what_is_there(serving, routes):
    for policy in serving.of("HealthCheckPolicy"):
        check = policy["spec"]["default"]["config"]["httpHealthCheck"]
        assert check["port"] == gateway_settings(serving).http_port
        assert routes.match(check["requestPath"], "GET")


def test_every_listener_of_the_gateway_api_ends_tls(manifests):
    for gateway in manifests.of("Gateway"):
        names = {each["name"] for each in gateway["spec"]["listeners"]}
        assert all(each["tls"]["mode"] == "Terminate" for each in gateway["spec"]["listeners"])
        routes = manifests.of("HTTPRoute") + manifests.of("GRPCRoute")
        used = [parent["sectionName"] for route in routes for parent in route["spec"]["parentRefs"]]
        assert sorted(used) == sorted(names)  # one kind of route for each


# Metrics, alerts, scaling


def known_metrics():
    """Every series that the gateway and a model server give, and Prometheus's own `up`."""
    text = Telemetry(AccessLog("off")).exposition()[0].decode() + Metrics().render()
    names = set(re.findall(r"^# TYPE (\S+) (?:gauge|counter)", text, re.M))
    for name in re.findall(r"^# TYPE (\S+) histogram", text, re.M):
        names |= {f"{name}_{part}" for part in ("bucket", "sum", "count")}
    return names | {"up"}


LABELS = {
    "dialect",
    "model",
    "live",
    "next",
    "stage",
    "outcome",
    "kind",
    "version",
    "status",
    "reason",
    "server",
    "state",
    "le",
    "model_name",
    "API",
    "entrypoint",
    "model_path",
    "job",
    "namespace",
    "pod",
    "instance",
}


def metrics_in(expression):
    """The series that a PromQL expression reads, and the labels that it looks at."""
    strings_out = re.sub(r'"[^"]*"', '""', expression)
    labels = set(re.findall(r"(\w+)\s*(?:=~|!=|!~|=)\s*\"\"", strings_out))
    grouping = r"\b(?:by|on) \(([^)]*)\)"
    for group in re.findall(grouping, strings_out):
        labels |= {each.strip() for each in group.split(",")} - {""}
    bare = re.sub(rf"\{{[^}}]*\}}|\[[^\]]*\]|{grouping}", " ", strings_out)
    words = re.findall(r"(?<![\w:])[a-zA-Z_:][\w:]*(?![\w:]|\s*\()", bare)
    return set(words) - {"or", "and", "on", "unless", "offset"}, labels


def rules(manifests):
    """Alerts, and what is recorded for them."""
    return [
        each
        for rule in manifests.of("PrometheusRule")
        for group in rule["spec"]["groups"]
        for each in group["rules"]
    ]


def expressions(manifests):
    yield from (each["expr"] for each in rules(manifests))
    for scaler in manifests.of("ScaledObject"):
        yield from (each["metadata"]["query"] for each in scaler["spec"]["triggers"])
    for scaler in manifests.of("HorizontalPodAutoscaler"):
        yield from (
            each["pods"]["metric"]["name"]
            for each in scaler["spec"]["metrics"]
            if each["type"] == "Pods"
        )
    for board in dashboards(manifests):
        yield from (
            target["expr"] for panel in board["panels"] for target in panel.get("targets", [])
        )


def dashboards(manifests):
    return [
        json.loads(each["data"]["sluice-dashboard.json"])
        for each in manifests.of("ConfigMap")
        if each["metadata"]["name"] == "sluice-dashboard"
    ]


def test_every_metric_and_label_that_is_asked_for_exists(manifests):
    known = known_metrics() | {each["record"] for each in rules(manifests) if "record" in each}
    for expression in expressions(manifests):
        metrics, labels = metrics_in(expression)
        assert metrics and metrics <= known, expression
        assert labels <= LABELS, expression


def test_the_whole_of_it_is_watched(gpu):
    assert len(list(expressions(gpu))) > 15
    assert dashboards(gpu)
    for monitor in gpu.of("ServiceMonitor"):
        (service,) = [
            each
            for each in gpu.of("Service")
            if each["metadata"]["labels"].items()
            >= monitor["spec"]["selector"]["matchLabels"].items()
        ]
        (endpoint,) = monitor["spec"]["endpoints"]
        assert endpoint["port"] in {each["name"] for each in service["spec"]["ports"]}
        assert endpoint["path"] == (
            "/metrics" if service["metadata"]["name"] == "gateway" else DEFAULT_PATH
        )
        jobs = re.findall(r'job="(\w+)"', " ".join(expressions(gpu)))
        assert all(gpu.find("Service", job) for job in jobs)  # a job is its Service's name


def test_every_alert_has_its_paragraph(manifests):
    anchors = {
        heading.lower().replace(" ", "-")
        for heading in re.findall(r"^#+ (.+)$", OPERATIONS.read_text(), re.M)
    }
    for alert in rules(manifests):
        if "alert" in alert:
            page, _, anchor = alert["annotations"]["runbook"].partition("#")
            assert ROOT / page == OPERATIONS
            assert anchor == alert["alert"].lower() and anchor in anchors


def test_scaling_begins_before_a_gateway_is_full(gpu):
    scaler = gpu.find("HorizontalPodAutoscaler", "gateway")
    settings = gateway_settings(gpu)
    places = settings.workers * min(settings.places, settings.model_places)
    (wanted,) = [
        float(each["pods"]["target"]["averageValue"])
        for each in scaler["spec"]["metrics"]
        if each["type"] == "Pods"
    ]
    (full,) = [
        float(each["expr"].rpartition(">")[2].split("#")[0])
        for each in rules(gpu)
        if each.get("alert") == "SluiceGatewayFull"
    ]
    assert wanted < full < places


def test_the_gateways_places_let_the_model_servers_scale_to_their_maximum(gpu):
    settings, scaler = gateway_settings(gpu), gpu.find("ScaledObject", "modelserver")["spec"]
    gateways = gpu.find("HorizontalPodAutoscaler", "gateway")["spec"]["minReplicas"]
    places = gateways * settings.workers * min(settings.places, settings.model_places)
    for trigger in scaler["triggers"]:
        assert scaler["maxReplicaCount"] * float(trigger["metadata"]["threshold"]) < places


def test_scaling_down_waits_and_nobody_sets_the_count_back(gpu):
    servers = gpu.find("ScaledObject", "modelserver")
    behaviours = [
        gpu.find("HorizontalPodAutoscaler", "gateway")["spec"]["behavior"],
        servers["spec"]["advanced"]["horizontalPodAutoscalerConfig"]["behavior"],
    ]
    assert all(each["scaleDown"]["stabilizationWindowSeconds"] >= 300 for each in behaviours)
    assert not any("replicas" in each["spec"] for each in gpu.of("Deployment"))


def test_turning_autoscaling_on_takes_no_server_away(cpu, autoscaled):
    """Of a live Deployment `apply` takes back the `replicas` that are applied no more, and what is
    left is 1: the page hands each over first, and an autoscaler counts it from then on."""
    counted = {name_of(each) for each in cpu.of("Deployment") if "replicas" in each["spec"]}
    left = {name_of(each) for each in autoscaled.of("Deployment") if "replicas" in each["spec"]}
    said = re.findall(r"apply edit-last-applied deployment/(\w+)", OPERATIONS.read_text())
    scalers = autoscaled.of("HorizontalPodAutoscaler") + autoscaled.of("ScaledObject")
    scaled = [each["spec"]["scaleTargetRef"]["name"] for each in scalers]
    assert counted - left
    assert sorted(counted - left) == sorted(said) == sorted(scaled)


def test_a_prometheus_of_another_release_is_told_in_one_place(gpu_elsewhere):
    """kube-prometheus-stack takes what wears the label `release`, with its own release's name."""
    chosen_by_it = gpu_elsewhere.of("ServiceMonitor") + gpu_elsewhere.of("PrometheusRule")
    assert {each["kind"] for each in chosen_by_it} == {"ServiceMonitor", "PrometheusRule"}
    assert {each["metadata"]["labels"]["release"] for each in chosen_by_it} == {"elsewhere"}


def test_the_gpu_overlay_asks_for_gpus(overlay):
    pod = overlay.pod("modelserver")
    container = pod.container("modelserver")
    if "nvidia.com/gpu" not in container["resources"]["limits"]:
        assert not container["image"].endswith("-gpu")
        return
    assert container["image"].endswith("-gpu")
    assert pod.spec["tolerations"]
    # What is set once a node is there keeps an autoscaler from making the first one.
    assert "nvidia.com/gpu.present" not in json.dumps(overlay.documents)
    assert 0 < server_options(overlay).per_process_gpu_memory_fraction < 1


def test_graphs_are_compiled_by_xla_where_that_is_asked_for(compiled, gpu):
    flags = [
        each.pod("modelserver").container("modelserver")["args"][-1] for each in (compiled, gpu)
    ]
    assert flags[0] == "--xla_gpu_compilation_enabled=true" != flags[1]


def test_a_run_that_is_given_gpus_has_their_libraries_and_must_see_them(manifests):
    for pod in manifests.pods():
        for container in pod.containers():
            if container.get("command", [])[:2] == ["sluice", "train"]:
                given = container["resources"]["limits"].get("nvidia.com/gpu", 0)
                image = container["image"].partition(":")[0]
                assert image == ("sluice-training-gpu" if given else "sluice-training")
                assert manifests.environment(container).get("SLUICE_GPUS", "0") == str(given)


def test_what_is_deleted_with_a_run_is_no_servers(bucket_run, overlay):
    """`kubectl delete -k` of a run takes what has the same kind, namespace and name."""
    assert not identities(bucket_run) & identities(overlay)
    servers = [pod for pod in overlay.pods() if pod.kind == "Deployment"]
    for policy in bucket_run.of("NetworkPolicy"):
        selector = policy["spec"]["podSelector"]
        assert not [pod.name for pod in servers if is_chosen(pod, selector)]
        assert any(is_chosen(pod, selector) for pod in bucket_run.pods())


def identities(manifests):
    return {
        (each["kind"], each["metadata"].get("namespace"), name_of(each))
        for each in manifests.documents
    }


def name_of(document):
    return document["metadata"]["name"]


def test_a_run_that_has_ended_makes_room_for_the_next_within_the_hour(training_run):
    """A Job is not changed: while this one is there, the next is refused."""
    (job,) = training_run.of("Job")
    assert 0 < job["spec"]["ttlSecondsAfterFinished"] <= 3600


def test_options_are_read_as_written():
    """The rules read flags with the twin's parser: it must not pass over one."""
    assert parse(["--port=1", "--model_base_path=/m"])[0] == Options(port=1, model_base_path="/m")


# The docs


def test_every_directory_that_the_page_applies_exists():
    applied = re.findall(r"-k (deploy/\S+)", OPERATIONS.read_text())
    assert applied
    assert all((ROOT / each / "kustomization.yaml").exists() for each in applied)


def test_what_git_rolls_out_is_there():
    """The examples for Argo CD and Flux are YAML, and lead to folders that kubectl applies."""
    page = (ROOT / "docs/decisions/0019-no-chart.md").read_text()
    blocks = re.findall(r"```yaml\n(.*?)```", page, re.S)
    documents = [each for block in blocks for each in yaml.safe_load_all(block)]
    assert {each["kind"] for each in documents} == {"Application", "GitRepository", "Kustomization"}
    paths = re.findall(r"path: ([\w./]+)", page)
    assert len(paths) == 2
    assert all((ROOT / each / "kustomization.yaml").exists() for each in paths)


def test_every_figure_of_the_page_is_a_measured_one():
    figures = re.findall(r"at ([\d.,]+) requests/s", OPERATIONS.read_text())
    measured = (ROOT / "docs" / "benchmarks.md").read_text()
    assert figures
    assert all(f"| {figure} |" in measured for figure in figures)


def test_the_gateway_may_reach_the_collector_that_it_sends_traces_to(traced):
    (container,) = traced.pod("gateway").containers()
    given = traced.environment(container)
    assert given["SLUICE_TRACING"] == "on"
    address = urlsplit(given["OTEL_EXPORTER_OTLP_ENDPOINT"])
    (rule,) = traced.find("NetworkPolicy", "gateway-traces")["spec"]["egress"]
    assert rule["ports"] == [{"port": address.port}]
    (peer,) = rule["to"]
    assert address.hostname.split(".")[1] in namespaces(peer["namespaceSelector"])


def test_the_gateways_certificate_is_read_from_the_secret_that_cert_manager_writes(over_tls):
    pod = over_tls.pod("gateway")
    (container,) = pod.spec["containers"]
    (secret,) = [volume["secret"] for volume in pod.spec["volumes"] if "secret" in volume]
    assert secret["secretName"] == over_tls.find("Certificate", "gateway")["spec"]["secretName"]
    (folder,) = [each["mountPath"] for each in container["volumeMounts"] if each["name"] == "tls"]
    given = over_tls.environment(container)
    # By these names does a Secret of the type kubernetes.io/tls hold them.
    assert given["SLUICE_TLS_CERTIFICATE_FILE"] == f"{folder}/tls.crt"
    assert given["SLUICE_TLS_KEY_FILE"] == f"{folder}/tls.key"
    assert secret["defaultMode"] == 0o440
    ports = {each["name"]: each for each in over_tls.find("Service", "gateway")["spec"]["ports"]}
    assert "appProtocol" not in ports["grpc"]
