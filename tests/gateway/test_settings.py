"""Settings: what an environment variable may say, and what is said of it when it may not."""

import re
import subprocess
from dataclasses import fields
from pathlib import Path

import pytest

from service.gateway.settings import Settings
from service.gateway.variables import OTHER_VARIABLES, InvalidSetting, environment_variable

NUMBERS = [each for each in fields(Settings) if each.type in (int, float)]
CHOICES = [each for each in fields(Settings) if each.metadata["choices"]]


def read(**variables):
    return Settings.from_environment({f"SLUICE_{name}": text for name, text in variables.items()})


def test_nothing_given_is_every_default():
    assert Settings.from_environment({}) == Settings()


@pytest.mark.parametrize("setting", fields(Settings), ids=lambda each: each.name)
def test_every_default_is_a_value_that_may_be_given(setting):
    variable = environment_variable(setting.name)
    settings = Settings.from_environment({variable: str(setting.default)})
    assert settings == Settings()
    assert type(getattr(settings, setting.name)) is setting.type
    assert setting.metadata["meaning"]


@pytest.mark.parametrize("setting", CHOICES, ids=lambda each: each.name)
def test_a_choice_is_one_of_those_that_there_are(setting):
    variable = environment_variable(setting.name)
    for choice in setting.metadata["choices"]:
        assert getattr(Settings.from_environment({variable: choice}), setting.name) == choice
    for wrong in ("", "nonsense", setting.default.upper(), f" {setting.default}"):
        with pytest.raises(InvalidSetting, match=f"^{variable}: expected .*, got '{wrong}'$"):
            Settings.from_environment({variable: wrong})


@pytest.mark.parametrize("text", ["nan", "inf", "-inf", "x", "", "1e400", "-1", "1 2", "0x10"])
@pytest.mark.parametrize("setting", NUMBERS, ids=lambda each: each.name)
def test_a_number_is_one_that_can_be_used(setting, text):
    variable = environment_variable(setting.name)
    with pytest.raises(InvalidSetting, match=f"^{variable}: expected "):
        Settings.from_environment({variable: text})


@pytest.mark.parametrize("setting", NUMBERS, ids=lambda each: each.name)
def test_a_number_has_its_bound(setting):
    variable, least = environment_variable(setting.name), setting.metadata["least"]
    given = Settings.from_environment({variable: str(least)})
    assert getattr(given, setting.name) == least
    with pytest.raises(InvalidSetting, match=r"expected a (whole )?number, "):
        Settings.from_environment({variable: str(least - 1)})


@pytest.mark.parametrize("text", ["", "0.0.0.0:80", "a b", "http://host", "[::]", "::g"])
def test_a_host_comes_without_a_port(text):
    with pytest.raises(InvalidSetting, match="SLUICE_HTTP_HOST: expected a name or an address"):
        read(HTTP_HOST=text)


@pytest.mark.parametrize("text", ["127.0.0.1", "localhost", "::", "fe80::1"])
def test_a_host_is_a_name_or_an_address(text):
    assert read(HTTP_HOST=text).http_host == text


@pytest.mark.parametrize(
    ("wrong", "meant"),
    [
        ("SLUICE_HTTP_PROT", "did you mean SLUICE_HTTP_PORT?"),
        ("SLUICE_WORKER", "did you mean SLUICE_WORKERS?"),
        ("SLUICE_http_port", "did you mean SLUICE_HTTP_PORT?"),
        ("SLUICE_FASHION_DIR", "did you mean SLUICE_FASHION_MNIST_DIR?"),
        ("SLUICE_XYZ", "docs/settings.md lists those there are"),
    ],
)
def test_a_variable_that_there_is_not_is_answered_with_the_nearest(wrong, meant):
    for read_all in (Settings.from_environment, Settings.check_variables):
        with pytest.raises(InvalidSetting) as raised:
            read_all({"PATH": "/bin", wrong: "1"})
        assert str(raised.value) == f"{wrong}: there is no such setting; {meant}"


def test_every_variable_that_anything_here_reads_is_known():
    root = Path(__file__).parents[2]
    files = subprocess.run(
        ["git", "ls-files", "-z", ":!tests/gateway", ":!tests/test_cli.py"],
        cwd=root,
        capture_output=True,
        text=True,
        check=True,
    ).stdout.split("\0")
    named = {
        name
        for file in filter(None, files)
        if not file.endswith(".png")
        for name in re.findall(r"\bSLUICE_[A-Z0-9_]*[A-Z0-9]\b", (root / file).read_text())
    }
    assert set(OTHER_VARIABLES) <= named
    Settings.check_variables(dict.fromkeys(named, ""))


def test_what_kubernetes_sets_for_a_service_is_none_of_ours():
    links = {
        "SLUICE_WEB_SERVICE_HOST": "10.0.0.1",
        "SLUICE_WEB_SERVICE_PORT": "8080",
        "SLUICE_WEB_SERVICE_PORT_HTTP": "8080",
        "SLUICE_WEB_PORT": "tcp://10.0.0.1:8080",
        "SLUICE_WEB_PORT_8080_TCP_ADDR": "10.0.0.1",
    }
    Settings.check_variables(links)
    Settings.check_variables({name.replace("_WEB", ""): value for name, value in links.items()})
    with pytest.raises(InvalidSetting, match="SLUICE_WEB_PORT"):
        Settings.check_variables({"SLUICE_WEB_PORT": "8080"})
    with pytest.raises(InvalidSetting, match="SLUICE_WORKER: "):
        Settings.check_variables({"SLUICE_SERVICE_HOST": "10.0.0.1", "SLUICE_WORKER": "2"})
    with pytest.raises(InvalidSetting, match=r"SLUICE_HTTP_PORT: .*enableServiceLinks: false"):
        read(HTTP_PORT="tcp://10.0.0.1:8080")


@pytest.mark.parametrize("name", ["HTTP_PORT", "GRPC_PORT", "ADMIN_PORT"])
def test_a_port_is_one_that_there_can_be(name):
    assert read(**{name: "65535"})
    with pytest.raises(InvalidSetting, match=f"SLUICE_{name}: expected "):
        read(**{name: "65536"})


@pytest.mark.parametrize(
    "text", ["host", "host:", ":8500x", "host:port", "host:99999", "host:1,other", "", ","]
)
def test_a_model_servers_address_is_a_host_and_a_port(text):
    with pytest.raises(InvalidSetting, match="SLUICE_MODEL_SERVER: expected HOST:PORT"):
        read(MODEL_SERVER=text)


@pytest.mark.parametrize(
    "text", ["h:1", "10.0.0.1:8500, b.c:8500", "[::1]:8500", "unix:/tmp/socket", "h:1,"]
)
def test_several_addresses_and_those_of_ipv6_and_unix(text):
    assert read(MODEL_SERVER=text).model_server == text
