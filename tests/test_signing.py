"""Signed versions: what is served is what was signed, to the bit, and as what it was signed."""

import base64
import json
import os
import random
import shutil
import subprocess
from pathlib import Path

import pytest
from click.testing import CliRunner
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.asymmetric.utils import (
    decode_dss_signature,
    encode_dss_signature,
)
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    load_pem_private_key,
)

from service.cli import main
from sluice.wire.signed_files import (
    SIGNED_FILE,
    NotAsSigned,
    bundle_of,
    pre_authenticated,
    statement_of,
)
from sluice.wire.signing import BadKey, SigningKey, TrustedKeys
from tests.signing import Signed, key_pair
from training.publishing.version_directory import publish_directory

HERE = Path(__file__).parent


@pytest.fixture(scope="module")
def signed(tmp_path_factory):
    return Signed(tmp_path_factory.mktemp("signed"))


@pytest.fixture
def version(signed, tmp_path):
    """A copy of `digits` 2."""
    return shutil.copytree(signed.repository / "digits/2", tmp_path / "digits/2")


def test_what_was_signed_passes_and_tells_whose_it_is(signed, version):
    assert signed.check(version) == signed.key.id
    checked = signed.trusted.check_to_load(version, "digits", 2)
    checked.check_unchanged()
    assert checked.key_id == signed.key.id


def test_every_curve_that_model_signing_knows_signs(version, tmp_path):
    for curve in (ec.SECP256R1, ec.SECP384R1, ec.SECP521R1):
        private, public = key_pair(tmp_path, curve.name, ec.generate_private_key(curve()))
        SigningKey(private).sign(version, "digits", 2)
        TrustedKeys(public).check(version, "digits", 2)


# ---- mutations: each changes a copy of `digits` 2 ----


def files_in(version):
    return sorted(path for path in version.rglob("*") if path.is_file())


def flip_a_bit(version, chance, _):
    file = chance.choice(files_in(version))
    content = bytearray(file.read_bytes())
    content[chance.randrange(len(content))] ^= 1 << chance.randrange(8)
    file.write_bytes(content)


def cut_short(version, chance, _):
    file = chance.choice(files_in(version))
    os.truncate(file, chance.randrange(file.stat().st_size))


def lengthen(version, chance, _):
    with chance.choice(files_in(version)).open("ab") as file:
        file.write(chance.choice([b" ", b"\n", b"\0", b"}", b"more"]))


def remove(version, chance, _):
    chance.choice(files_in(version)).unlink()


def add(version, chance, _):
    beside = chance.choice(files_in(version))
    beside.with_name(chance.choice(["more", ".hidden", "saved_model.pbtxt", "model.sig.1"])).touch()


def exchange(version, chance, _):
    one, other = chance.sample(files_in(version), 2)
    content = one.read_bytes()
    one.write_bytes(other.read_bytes())
    other.write_bytes(content)


def rename(version, chance, _):
    file = chance.choice(files_in(version))
    file.rename(file.with_name(f"{file.name}{chance.randrange(10)}"))


def link(version, chance, _):
    """The same bytes, from where somebody else may change them."""
    file = chance.choice(files_in(version))
    elsewhere = version.parent / "elsewhere"
    elsewhere.write_bytes(file.read_bytes())
    file.unlink()
    file.symlink_to(elsewhere)


def take_an_older_file(version, chance, signed):
    file = chance.choice(files_in(version))
    shutil.copy(signed.repository / "digits/1" / file.relative_to(version), file)


def take_the_older_version(version, _, signed):
    shutil.rmtree(version)
    shutil.copytree(signed.repository / "digits/1", version)


def take_another_models_version(version, _, signed):
    shutil.rmtree(version)
    shutil.copytree(signed.repository / "photos/2", version)


def sign_as_a_stranger(version, _, signed):
    signed.stranger.sign(version, "digits", 2)


def sign_as_a_stranger_under_our_keys_name(version, _, signed):
    signed.stranger.sign(version, "digits", 2)
    file = version / SIGNED_FILE
    file.write_text(file.read_text().replace(signed.stranger.id, signed.key.id))


def write_the_bundle_otherwise(version, chance, _):
    """What JSON and base64 take for the same."""
    file = version / SIGNED_FILE
    bundle = json.loads(file.read_text())
    bundle["more"] = chance.random()
    file.write_text(
        chance.choice([json.dumps(bundle), file.read_text().replace('", "', '","'), "[" * 50_000])
    )


def write_ecdsas_other_signature(version, *_):
    """With each that is valid there is another, which takes no key."""
    file = version / SIGNED_FILE
    bundle = json.loads(file.read_text())
    (signature,) = bundle["dsseEnvelope"]["signatures"]
    r, s = decode_dss_signature(base64.b64decode(signature["sig"]))
    other = encode_dss_signature(r, ec.SECP256R1().group_order - s)
    signature["sig"] = base64.b64encode(other).decode()
    file.write_text(json.dumps(bundle))


def change_what_is_signed(version, chance, _):
    file = version / SIGNED_FILE
    bundle = json.loads(file.read_text())
    envelope = bundle["dsseEnvelope"]
    statement = json.loads(base64.b64decode(envelope["payload"]))
    chance.choice(statement["predicate"]["resources"])["digest"] = "00" * 32
    envelope["payload"] = base64.b64encode(json.dumps(statement).encode()).decode()
    file.write_text(json.dumps(bundle))


MUTATIONS = (
    flip_a_bit,
    cut_short,
    lengthen,
    remove,
    add,
    exchange,
    rename,
    link,
    take_an_older_file,
    take_the_older_version,
    take_another_models_version,
    sign_as_a_stranger,
    sign_as_a_stranger_under_our_keys_name,
    write_the_bundle_otherwise,
    write_ecdsas_other_signature,
    change_what_is_signed,
)


@pytest.mark.parametrize("count", [60, pytest.param(1_000, marks=pytest.mark.slow)])
def test_no_mutation_passes(signed, tmp_path, count):
    chance = random.Random(count)
    for turn in range(count):
        version = shutil.copytree(signed.repository / "digits/2", tmp_path / f"{turn}/digits/2")
        signed.check(version)
        mutate = MUTATIONS[turn // 2 % len(MUTATIONS)] if turn % 2 else flip_a_bit
        mutate(version, chance, signed)
        with pytest.raises(NotAsSigned):
            signed.check(version)
            pytest.fail(f"{mutate.__name__}, {turn} of {count}, passes")


# ---- what is said ----


@pytest.mark.parametrize(
    ("mutate", "said"),
    [
        (lambda v: (v / "a.png").write_bytes(b"short"), "a.png has 5 bytes, and was signed with"),
        (lambda v: (v / "more").touch(), "holds 'more', which was not signed"),
        (lambda v: (v / "a.png").unlink(), "lacks 'a.png', which was signed"),
        (lambda v: (v / SIGNED_FILE).unlink(), "is not signed; sluice sign does that"),
        (lambda v: (v / SIGNED_FILE).write_text("{}"), "model.sig is damaged"),
        (lambda v: os.mkfifo(v / "pipe"), "holds 'pipe', which is no file"),
        (lambda v: (v / os.fsdecode(b"\xff")).touch(), r"holds '\\udcff', which was not signed"),
        (lambda v: os.mkfifo(v.parent / "p") or (v.parent / "p").replace(v / SIGNED_FILE), "no f"),
    ],
)
def test_a_refusal_says_which_file_and_why(signed, version, mutate, said):
    mutate(version)
    with pytest.raises(NotAsSigned, match=said):
        signed.check(version)


def test_a_version_is_served_as_what_it_was_signed(signed, version):
    with pytest.raises(NotAsSigned, match="was signed as digits/2, and is to be served as x/3"):
        signed.trusted.check(version, "x", 3)


def write_anew(version):
    """In the same clock tick, where the machine is quick, and with the time that it had."""
    file = version / "a.png"
    before = file.stat()
    file.write_bytes(file.read_bytes()[::-1])
    os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))


def exchange_for_a_moment(*names):
    """Another directory lies there for a moment, and then the one that was looked at again."""

    def exchange(version):
        looked_at, other = version.joinpath(*names), version.parent / "other"
        shutil.copytree(looked_at, other)
        aside = looked_at.rename(version.parent / "aside")
        other.rename(looked_at)
        looked_at.rename(other)
        aside.rename(looked_at)

    return exchange


@pytest.mark.parametrize(
    "write",
    [
        write_anew,
        exchange_for_a_moment("variables"),
        exchange_for_a_moment(),
        lambda version: (version / "more").touch(),
    ],
)
def test_what_is_written_to_after_the_look_is_found_out(signed, version, write):
    for _ in range(5):
        (version / "a.png").write_bytes((version / "a.png").read_bytes())  # just before the look
        checked = signed.trusted.check_to_load(version, "digits", 2)
        write(version)
        with pytest.raises(NotAsSigned, match="was written to while it was loaded"):
            checked.check_unchanged()
        shutil.rmtree(version)
        shutil.rmtree(version.parent / "other", ignore_errors=True)
        shutil.copytree(signed.repository / "digits/2", version)


def bundle_with(signed, change):
    """A model.sig by our key whose statement `change` has had."""
    statement = json.loads(statement_of(signed.repository / "digits/2", "digits", 2))
    change(statement["predicate"]["resources"])
    payload = json.dumps(statement).encode()
    key = load_pem_private_key(signed.key_file.read_bytes(), None)
    made = key.sign(pre_authenticated(payload), ec.ECDSA(hashes.SHA256()))
    r, s = decode_dss_signature(made)
    lower = encode_dss_signature(r, min(s, key.curve.group_order - s))
    return bundle_of(signed.key.id, payload, lower)


@pytest.mark.parametrize(
    "change",
    [
        lambda files: files[0].pop("size"),
        lambda files: files[0].pop("digest"),
        lambda files: files.append(files[0]),
        lambda files: files[0].update(algorithm="md5"),
        lambda files: files[0].update(size="many"),
        lambda files: files.insert(0, None),
    ],
)
def test_a_statement_of_another_make_is_refused_though_our_key_signed_it(signed, version, change):
    (version / SIGNED_FILE).write_bytes(bundle_with(signed, list))
    signed.check(version)
    (version / SIGNED_FILE).write_bytes(bundle_with(signed, change))
    with pytest.raises(NotAsSigned, match="says nothing of a model's files"):
        signed.check(version)


@pytest.mark.parametrize("name", ["", "../digits", "a\nb", ".digits", os.fsdecode(b"\xff")])
def test_what_is_no_models_name_is_never_as_signed(signed, version, name):
    signed.key.sign(version, name, 2)
    with pytest.raises(NotAsSigned, match="is no name of a model: expected"):
        signed.trusted.check(version, name, 2)


def test_an_empty_directory_is_nothing(signed, version):
    """A SavedModel has an empty `assets`, which no object store keeps."""
    (version / "assets").mkdir()
    signed.check(version)


def test_keys_can_be_added_and_taken_away(signed, version, tmp_path):
    trusted = tmp_path / "trusted.pem"
    _, other = key_pair(tmp_path, "other")
    trusted.write_bytes(other.read_bytes() + signed.trusted_file.read_bytes())
    keys = TrustedKeys(trusted)
    keys.check(version, "digits", 2)
    trusted.write_bytes(other.read_bytes())
    with pytest.raises(NotAsSigned, match=r"with a key that .*trusted\.pem does not hold"):
        keys.check(version, "digits", 2)


def test_a_key_that_cannot_be_used_is_told(tmp_path):
    other = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    rsa_key, rsa_public = key_pair(tmp_path, "rsa", other)
    encrypted, public = key_pair(tmp_path, "encrypted", None, BestAvailableEncryption(b"x"))
    for make, file, said in (
        (SigningKey, encrypted, "is encrypted, expected a key that is not: openssl pkey"),
        (SigningKey, public, "holds no private key in PEM"),
        (SigningKey, rsa_key, "expected a key of P-256, P-384 or P-521"),
        (TrustedKeys, rsa_public, "expected keys of P-256, P-384 or P-521"),
        (TrustedKeys, encrypted, "holds a private key, which is for who signs alone"),
        (TrustedKeys, HERE / "__init__.py", "cannot be read: No such file"),
        (TrustedKeys, Path(__file__), "holds no public key in PEM"),
    ):
        with pytest.raises(BadKey, match=said):
            make(file)


# ---- the commands ----


def run(*words):
    result = CliRunner().invoke(main, [*map(str, words)])
    assert result.exception is None or isinstance(result.exception, SystemExit)
    return result.exit_code, result.output


def test_sign_and_verify(signed, version):
    repository = f"--model-repository={version.parent.parent}"
    trusted = f"--trusted-keys={signed.trusted_file}"
    (version / SIGNED_FILE).unlink()
    status, said = run("verify", trusted, repository)
    assert (status, "digits 2 is refused" in said) == (1, True)
    assert run("sign", "digits", f"--key={signed.key_file}", repository)[0] == 0
    assert run("verify", "digits", trusted, repository)[0] == 0
    version.rename(version.with_name(".withdrawn-2"))
    (version.parent / "1").mkdir()
    assert run("verify", "digits", 2, trusted, repository) == (
        0,
        f"digits 2 is as the key {signed.key.id} signed it\n",
    )
    assert run("verify", "digits", 1, trusted, repository)[0] == 1


def test_a_published_version_appears_signed_as_the_number_that_it_gets(signed, tmp_path):
    (tmp_path / "digits/7").mkdir(parents=True)
    published = publish_directory(
        tmp_path / "digits",
        lambda staging: (staging / "saved_model.pb").write_bytes(b"graph"),
        key=signed.key,
    )
    signed.trusted.check(published, "digits", 8)
    assert sorted(each.name for each in published.parent.iterdir()) == ["7", "8"]


@pytest.mark.parametrize("command", [("train", "digits"), ("publish", "no.keras")])
def test_a_key_that_cannot_sign_stops_before_anything_is_done(signed, tmp_path, command):
    repository = tmp_path / "repository"
    status, said = run(
        *command, f"--sign={signed.trusted_file}", f"--model-repository={repository}"
    )
    assert (status, repository.exists()) == (2, False)
    assert "holds no private key in PEM" in said


@pytest.mark.clients
def test_the_reference_tool_reads_what_we_sign(signed, version, installed):
    tool = installed(HERE / "clients/model-signing-requirements.txt") / "model_signing"
    command = [tool, "verify", "key", "--signature", version / SIGNED_FILE]
    command += ["--public_key", signed.trusted_file, version]
    subprocess.run(command, check=True, capture_output=True)
    (version / "a.png").write_bytes(b"another")
    assert subprocess.run(command, check=False, capture_output=True).returncode != 0
