"""Tokens of an issuer: what is believed of them, over every dialect, and how its keys are kept."""

import asyncio
import base64
import hashlib
import hmac
import json
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from service.gateway.access import key_sets
from service.gateway.access.access_list import read_access
from service.gateway.access.fields import BadAccessFile
from service.gateway.access.guard import guard_of
from service.gateway.access.key_sets import KeySet
from service.gateway.access.tokens import Tokens
from service.gateway.errors import Unauthenticated
from service.gateway.settings import Settings
from tests.gateway.access import CASES, GRPC, HTTP

ISSUER = "https://login.example"
OURS = rsa.generate_private_key(public_exponent=65537, key_size=2048)
THEIRS = rsa.generate_private_key(public_exponent=65537, key_size=2048)
PEM = OURS.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)


def jwk(key, kid):
    algorithms = {
        rsa.RSAPrivateKey: jwt.algorithms.RSAAlgorithm,
        ec.EllipticCurvePrivateKey: jwt.algorithms.ECAlgorithm,
        ed25519.Ed25519PrivateKey: jwt.algorithms.OKPAlgorithm,
    }
    kind = next(each for base, each in algorithms.items() if isinstance(key, base))
    return kind.to_jwk(key.public_key(), as_dict=True) | {"kid": kid}


class Keys(BaseHTTPRequestHandler):
    """`shown` are served as a JWKS, `asked` counts how often; without any it answers 500."""

    shown: list = []  # noqa: RUF012
    asked = 0

    def do_GET(self):
        type(self).asked += 1
        body = json.dumps({"keys": self.shown}).encode()
        self.send_response(200 if self.shown else 500)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


@pytest.fixture(scope="module")
def address():
    """Where Keys are served."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), Keys)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}/jwks.json"
    server.shutdown()
    thread.join()
    server.server_close()


def token(key=OURS, algorithm="RS256", headers=None, **claims):
    now = int(time.time())
    given = {"iss": ISSUER, "aud": "sluice", "sub": "joe", "exp": now + 600} | claims
    given = {name: value for name, value in given.items() if value is not None}
    return jwt.encode(given, key, algorithm, headers={"kid": "ours"} | (headers or {}))


def forged(algorithm, key):
    """Signed by hand, as no library does it any more."""

    def part(document):
        return base64.urlsafe_b64encode(json.dumps(document).encode()).rstrip(b"=")

    head = {"alg": algorithm, "kid": "ours", "typ": "JWT"}
    claims = {"iss": ISSUER, "aud": "sluice", "sub": "joe", "exp": int(time.time()) + 600}
    text = part(head) + b"." + part(claims)
    signature = b""
    if algorithm == "HS256":
        signature = base64.urlsafe_b64encode(hmac.digest(key, text, hashlib.sha256)).rstrip(b"=")
    return (text + b"." + signature).decode()


def table():
    """By case, the token and what comes of it. Made when it is asked for: they expire."""
    now = int(time.time())
    head, claims, signature = token().split(".")
    return {
        "good": (token(), ""),
        "for several": (token(aud=["other", "sluice"]), ""),
        "a slow clock": (token(exp=now - 20), ""),
        "a fast clock": (token(nbf=now + 20, iat=now + 20), ""),
        "expired": (token(exp=now - 60), "The token has expired"),
        "not yet": (token(nbf=now + 300), "The token is not valid yet"),
        "no end": (token(exp=None), "The token lacks one of exp"),
        "no subject": (token(sub=None), "The token lacks one of exp"),
        "another audience": (token(aud="other"), "The token is for another audience"),
        "another issuer": (token(iss="https://x"), "The token is of an issuer that is not known"),
        "another's key": (token(THEIRS), "The token has a signature that does not hold"),
        "changed": (f"{head}.{claims[:-4]}AAAA.{signature}", "The token "),
        "no signature": (forged("none", b""), "The token is signed in a way that is not taken"),
        "the public key as a secret": (
            forged("HS256", PEM),
            "The token is signed in a way that is not taken",
        ),
        "another algorithm": (token(algorithm="PS256"), "The token is signed in a way that is not"),
        "a kid that is not there": (
            token(THEIRS, headers={"kid": "theirs"}),
            "The token is signed with a key that its issuer does not show",
        ),
        "a kid that points elsewhere": (
            token(THEIRS, headers={"kid": "../../theirs.pem"}),
            "The token is signed with a key that its issuer does not show",
        ),
        "a jku that points elsewhere": (
            token(THEIRS, headers={"jku": "https://evil.example/jwks.json"}),
            "The token has a signature that does not hold",
        ),
        "a jwk of its own": (
            token(THEIRS, headers={"jwk": jwk(THEIRS, "ours")}),
            "The token has a signature that does not hold",
        ),
        "no token": ("a.b.c", "The token cannot be read"),
        "a password": ("secret-words", "The token cannot be read"),
    }


FILE = f"""
[issuers.login]
issuer = "{ISSUER}"
audience = "sluice"
jwks = "JWKS"
algorithms = ["RS256"]
leeway_s = 30
models = ["aff*"]
"""


@pytest.fixture(scope="module")
def doors(launch_grpc_gateway, launch_gateway, slow_server, tmp_path_factory):
    """By way, where it is asked; and the gateways' processes. The keys are in a file."""
    service, model_server = slow_server
    service.go.set()
    folder = tmp_path_factory.mktemp("tokens")
    keys = folder / "jwks.json"
    keys.write_text(json.dumps({"keys": [jwk(OURS, "ours")]}))
    path = folder / "access.toml"
    path.write_text(FILE.replace("JWKS", str(keys)))
    settings = {"models": "affine", "access_file": path}
    front, address = launch_grpc_gateway(model_server, **settings)
    wsgi = launch_gateway(model_server, "wsgi", **settings)
    return {"front": front.url, "wsgi": wsgi.url, "grpc": address}, [front, wsgi]


@pytest.mark.parametrize("way, dialect", CASES, ids=map(" ".join, CASES))
def test_what_is_believed(doors, way, dialect):
    found, expected = {}, {}
    for case, (shown, message) in table().items():
        headers = {"Authorization": f"Bearer {shown}"}
        reply = (HTTP | GRPC)[dialect](doors[0][way], "affine", headers)
        found[case] = reply.status, reply.message[: len(message)]
        expected[case] = (401 if message else 200), message
    assert found == expected
    reply = (HTTP | GRPC)[dialect](doors[0][way], "nothing", {"Authorization": f"Bearer {token()}"})
    assert reply.status == 403


def test_the_log_has_the_subject_and_nothing_of_a_token(doors):
    shown = [each for each, _ in table().values()]
    parts = {part for each in shown for part in each.split(".") if len(part) > 8}
    for process in doors[1]:
        for each in shown:
            HTTP["json"](process.url, "affine", {"Authorization": f"Bearer {each}"})
        HTTP["json"](process.url, "affine", {"X-API-Key": token(), "X-Request-Id": "the-last"})
        process.wait_for(r"login:joe@127\.0\.0\.1 the-last POST /v1/models/affine:predict 200")
        assert not [part for part in parts if part in process.log]


def grant_of(shown, jwks, **fields):
    """What comes of a token, by the file of keys with other fields."""
    text = FILE.replace("JWKS", str(jwks))
    text += "".join(f"{name} = {json.dumps(value)}\n" for name, value in fields.items())
    issuers = read_access(text).issuers
    return asyncio.run(Tokens().grant(shown, issuers))


@pytest.fixture
def jwks(tmp_path):
    path = tmp_path / "jwks.json"
    path.write_text(json.dumps({"keys": [jwk(OURS, "ours")]}))
    return path


def test_claims_say_less_than_the_file_and_never_more(jwks):
    shown = token(m=["affine", "pair"], scope="predict admin", sub="a b@c")
    grant = grant_of(shown, jwks, models_claim="m", operations_claim="scope")
    assert (grant.id, grant.operations) == ("login:a%20b@c", {"predict"})
    assert [grant.names(model) for model in ("affine", "affinity", "pair")] == [True, False, False]
    silent = grant_of(token(), jwks, models_claim="m", operations_claim="scope")
    assert not silent.names("affine") and not silent.operations


@pytest.mark.parametrize("claims", [{"exp": 10**400}, {"sub": "\ud800"}], ids=["exp", "sub"])
def test_claims_that_json_can_say_and_nobody_can_mean_are_none(jwks, claims):
    with pytest.raises(Unauthenticated, match="The token cannot be read"):
        grant_of(token(**claims), jwks)


def test_limits_are_each_subjects(jwks):
    grant = grant_of(token(), jwks, requests_per_s=5, limits_claim="lim")
    assert [each.per_s for each in grant.limits.rates] == [5]
    own = grant_of(token(lim={"rows_per_s": 7}), jwks, requests_per_s=5, limits_claim="lim")
    assert [(each.kind, each.per_s) for each in own.limits.rates] == [("rows", 7)]
    for wrong in ("many", {"rows_per_s": "many"}, {"row_per_s": 7}, [1]):
        with pytest.raises(Unauthenticated, match="limits cannot be read"):
            grant_of(token(lim=wrong), jwks, limits_claim="lim")


@pytest.mark.parametrize(
    "algorithm, key",
    [
        ("ES256", ec.generate_private_key(ec.SECP256R1())),
        ("EdDSA", ed25519.Ed25519PrivateKey.generate()),
        ("PS256", OURS),
    ],
)
def test_each_algorithm_has_keys_of_its_kind(tmp_path, algorithm, key):
    path = tmp_path / "jwks.json"
    path.write_text(json.dumps({"keys": [jwk(key, "ours"), {"kty": "oct", "k": "AA"}]}))
    text = FILE.replace("JWKS", str(path)).replace('"RS256"', f'"RS256", "{algorithm}"')
    issuers = read_access(text).issuers
    assert asyncio.run(Tokens().grant(token(key, algorithm), issuers)).id == "login:joe"
    if algorithm != "PS256":
        with pytest.raises(Unauthenticated, match="a key that its issuer does not show"):
            asyncio.run(Tokens().grant(token(), issuers))


@pytest.mark.parametrize(
    "change, message",
    [
        (('"RS256"', '"none"'), "issuers.login.algorithms: expected some of RS256"),
        (('"RS256"', '"HS256"'), "issuers.login.algorithms: expected some of RS256"),
        (('["RS256"]', "[]"), "issuers.login.algorithms: expected some of RS256"),
        (("JWKS", "http://login.example/"), "issuers.login.jwks: over http:// anybody"),
        (("leeway_s = 30", "leeway_s = 3000"), "issuers.login.leeway_s: expected a number from 0"),
        (("audience", "audiance"), "issuers.login.audiance is not known; did you mean audience?"),
        (('audience = "sluice"', 'audience = ""'), "issuers.login.audience: expected a text"),
    ],
)
def test_a_bad_issuer_is_refused_with_the_place(change, message):
    with pytest.raises(BadAccessFile) as refusal:
        read_access(FILE.replace(*change))
    assert str(refusal.value).startswith(message)


def test_unknown_keys_are_looked_for_within_a_bound_and_the_last_good_ones_stay(
    address, monkeypatch
):
    monkeypatch.setattr(key_sets, "AGAIN_S", 0.5)
    monkeypatch.setattr(key_sets, "PATIENCE_S", 60.0)

    async def run():
        began = time.monotonic()
        Keys.shown, Keys.asked = [jwk(OURS, "ours")], 0
        keys = KeySet(address)
        found = await asyncio.gather(*(keys.find("ours", "RS256") for _ in range(20)))
        assert all(found) and Keys.asked == 1
        assert not any([await keys.find(f"invented {number}", "RS256") for number in range(50)])
        assert Keys.asked <= 2 + (time.monotonic() - began) / key_sets.AGAIN_S
        Keys.shown = [jwk(THEIRS, "new")]
        await eventually(lambda: keys.find("new", "RS256"))
        version = keys.version
        Keys.shown = []

        async def has_problem():
            await keys.find("newer", "RS256")
            return keys.problem

        await eventually(has_problem)
        assert "500" in keys.problem and await keys.find("new", "RS256")
        assert keys.version == version == 2

    async def eventually(condition):
        async with asyncio.timeout(30):
            while not await condition():
                await asyncio.sleep(0.02)

    asyncio.run(run())


def test_whatever_keeps_keys_from_being_had_is_told(tmp_path):
    deep = tmp_path / "deep.json"
    deep.write_text("[" * 100_000)

    async def problem(source):
        keys = KeySet(source)
        assert await keys.find("ours", "RS256") is None
        return keys.problem

    for source in (str(deep), "https://login.example:many/jwks.json"):
        said = asyncio.run(problem(source))
        assert said.startswith(f"the keys of {source} cannot be had (")


def test_a_token_that_held_is_forgotten_with_its_issuer_and_its_time(jwks):
    text = FILE.replace("JWKS", str(jwks))

    async def run():
        tokens, issuers, shown = Tokens(), read_access(text).issuers, token()
        first = await tokens.grant(shown, issuers)
        assert await tokens.grant(shown, issuers) is first
        narrower = read_access(text.replace("aff*", "pair")).issuers
        assert not (await tokens.grant(shown, narrower)).names("affine")
        with pytest.raises(Unauthenticated, match="an issuer that is not known here"):
            await tokens.grant(shown, {})

    asyncio.run(run())


def test_an_issuer_may_be_named_later(jwks, tmp_path):
    path = tmp_path / "access.toml"
    path.write_text("")
    guard = guard_of(Settings(access_file=str(path)))

    async def run():
        shown = {"authorization": f"Bearer {token()}"}
        with pytest.raises(Unauthenticated, match="The key is not known here"):
            await guard.identify(shown, b"", "-")
        path.write_text(FILE.replace("JWKS", str(jwks)))
        guard._file.look()
        assert (await guard.identify(shown, b"", "-")).grant.id == "login:joe"
        path.write_text("[keys]\n")
        guard._file.look()
        with pytest.raises(Unauthenticated, match="The key is not known here"):
            await guard.identify(shown, b"", "-")

    asyncio.run(run())
