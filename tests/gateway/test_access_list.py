"""The file of keys as it is read, and keys as they are made and compared."""

import asyncio

import pytest

from service.gateway.access.access_list import read_access
from service.gateway.access.fields import BadAccessFile
from service.gateway.access.grant import (
    MOST_LETTERS,
    MOST_NAMES,
    OPERATION_OF,
    OPERATIONS,
    PREDICT,
    Grant,
)
from service.gateway.access.guard import check_reach, guard_of
from service.gateway.access.keys import digest_of, is_of, new_key
from service.gateway.app import create_app
from service.gateway.errors import Forbidden, Unauthenticated
from service.gateway.gateway import Gateway
from service.gateway.routes.model_paths import FlaskView
from service.gateway.rpc import oip, tfs
from service.gateway.settings import Settings
from service.gateway.variables import InvalidSetting

DIGEST = "0" * 64


def test_a_key_has_its_id_and_256_random_bits():
    first, second = new_key("acme-2.x"), new_key("acme-2.x")
    assert is_of(first, "acme-2.x") and not is_of(first, "acme-2")
    assert len({first[-64:], second[-64:]}) == 2
    assert first not in digest_of(first)


@pytest.mark.parametrize(
    "text", ["", "sluice_", f"sluice_{DIGEST}", "sluice_a_secret", f"sluice_a_{DIGEST}0", "é"]
)
def test_what_is_no_key_is_none_whatever_the_file_has(text, tmp_path):
    """Somebody has thought it up, and somebody else may as well."""
    path = tmp_path / "access.toml"
    path.write_text(f'[keys.a]\nsha256="{digest_of(text)}"\nmodels=["*"]')
    guard = guard_of(Settings(access_file=str(path)))
    with pytest.raises(Unauthenticated):
        asyncio.run(guard.identify({"x-api-key": text}, b"", "-"))


def test_what_a_file_says():
    access = read_access(
        f'[keys.a]\nsha256="{DIGEST}"\nmodels=["m-*"]\nexpires=2026-01-01T00:00:00Z\n'
        '[anonymous]\nmodels=["open"]\noperations=["predict"]'
    )
    entry = access.keys["a"]
    assert (entry.digest, entry.expires, entry.revoked) == (DIGEST, 1767225600, False)
    assert (entry.grant.id, entry.grant.operations) == ("a", frozenset(OPERATIONS))
    assert entry.grant.names("m-1") and not entry.grant.names("n") and not entry.grant.names("xm-")
    with pytest.raises(Forbidden, match="A caller without a key may not do"):
        access.anonymous.check("open", "status")
    with pytest.raises(Forbidden, match='The key "a" may not do "status" with every model'):
        entry.grant.check_all("status")
    assert read_access("").anonymous is None


@pytest.mark.parametrize(
    "text, message",
    [
        ("[keys", "this is no TOML"),
        ("keyz = 1", "keyz is not known; did you mean keys?"),
        ("keys = 1", "keys: expected a table, got 1"),
        ("keys.a = 1", "keys.a: expected a table"),
        ("[keys.'a b']", "keys.a b: a name is of letters"),
        ("[keys.a]", "keys.a.sha256: expected 64 hexadecimal digits"),
        (f'[keys.a]\nsha256="{DIGEST}"', "keys.a.models is missing"),
        (f'[keys.a]\nsha256="{DIGEST}"\nmodels="m"', "keys.a.models: expected a list"),
        (f'[keys.a]\nsha256="{DIGEST}"\nmodels=[""]', "keys.a.models: expected a list"),
        (f'[keys.a]\nsha256="{DIGEST}"\nmodel=["m"]', "keys.a.model is not known; did you mean"),
        ('[anonymous]\nmodels=[]\noperations=["write"]', "anonymous.operations: expected some of"),
        ('[anonymous]\nmodels=[]\nsha256=""', "anonymous.sha256 is not known"),
        (
            f'[keys.a]\nsha256="{DIGEST}"\nmodels=[]\nexpires=2026-01-01T00:00:00',
            "keys.a.expires: expected a time with its zone",
        ),
        (f'[keys.a]\nsha256="{DIGEST}"\nmodels=[]\nrevoked=1', "keys.a.revoked: expected true or"),
        (
            f'[keys.a]\nsha256="{DIGEST}"\nmodels=[]\n[keys.b]\nsha256="{DIGEST}"\nmodels=[]',
            "keys.b.sha256: it is the key a's already",
        ),
        ("[keys.a]\ncertificates=[]\nmodels=[]", "keys.a.sha256: expected 64 hexadecimal digits"),
        ('[keys.a]\ncertificates="DNS:a"\nmodels=[]', "keys.a.certificates: expected a list of"),
        *(
            (
                f'[keys.a]\ncertificates=["DNS:a", "{name}"]\nmodels=[]',
                "keys.a.certificates: expected names of one of the kinds subject, DNS, URI, email",
            )
            for name in ("a.example", "dns:a", "CN:a", "DNS:", "IP:a", "subject:a", "subject:CN")
        ),
        (
            '[keys.a]\ncertificates=["DNS:A"]\nmodels=[]\n[keys.b]\ncertificates=["DNS:a"]\nmodels=[]',
            "keys.b.certificates: DNS:a is the key a's already",
        ),
    ],
)
def test_a_bad_file_is_refused_with_the_place(text, message):
    with pytest.raises(BadAccessFile) as refusal:
        read_access(text)
    assert str(refusal.value).startswith(message)


def test_certificates_are_for_a_gateway_that_asks_for_them():
    text = '[keys.a]\ncertificates=["DNS:A.example"]\nmodels=[]'
    assert read_access(text).certificates == {"DNS:a.example": "a"}
    with pytest.raises(BadAccessFile, match=r"^keys\.a\.certificates: .* SLUICE_TLS_CLIENT_"):
        read_access(text, asks_clients=False)


def test_a_key_in_place_of_its_hash_is_not_repeated():
    key = new_key("a")
    with pytest.raises(BadAccessFile) as refusal:
        read_access(f'[keys.a]\nsha256="{key}"\nmodels=[]')
    assert key[-64:] not in str(refusal.value)


def test_names_of_models_that_clients_invent_do_not_fill_the_memory():
    grant = Grant("a", ("m-*", "n*"), frozenset({PREDICT}), within=("m*",))
    cached = grant._cached_fit
    for letters, kept in ((MOST_LETTERS + 1, 0), (MOST_LETTERS, 2)):
        assert grant.names("m-".ljust(letters, "x"))
        assert not grant.names("n".ljust(letters, "x"))
        assert cached.cache_info().currsize == kept
    for number in range(2 * MOST_NAMES):
        assert grant.names(f"m-{number}")
    assert cached.cache_info().currsize == MOST_NAMES


def test_every_verb_is_an_operation():
    settings = Settings()
    gateway = Gateway.of(settings)
    views = create_app(settings, gateway).view_functions.values()
    verbs = {view.view.verb for view in views if isinstance(view, FlaskView)}
    dialect = tfs.Tfs(gateway.predictions)
    for methods in (
        dialect.prediction_service(),
        dialect.model_service(),
        oip.Oip(gateway.predictions).methods(),
    ):
        verbs |= {method.verb for method in methods.values()}
    assert verbs <= OPERATION_OF.keys()


@pytest.mark.parametrize(
    "given, message",
    [
        ({"access": "open", "access_file": "x"}, "SLUICE_ACCESS is open, and SLUICE_ACCESS_FILE"),
        ({"access": "keys"}, "SLUICE_ACCESS is keys: SLUICE_ACCESS_FILE is to name"),
        ({"access_file": "nowhere.toml"}, "SLUICE_ACCESS_FILE: nowhere.toml cannot be read"),
    ],
)
def test_settings_that_contradict_one_another(given, message):
    with pytest.raises(InvalidSetting, match=message):
        guard_of(Settings(**given))


def test_nobody_is_let_in_from_other_machines_unless_told_so():
    with pytest.raises(InvalidSetting, match=r"^SLUICE_ACCESS: whoever reaches 0\.0\.0\.0 would"):
        check_reach(Settings())
    for given in ({"access": "open"}, {"http_host": "::1"}, {"access_file": "keys.toml"}):
        check_reach(Settings(**given))
