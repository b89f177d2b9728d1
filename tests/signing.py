"""Keys, and a repository that is signed with one."""

from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
)

from sluice.wire.signing import SigningKey, TrustedKeys


def key_pair(directory, name, key=None, encryption=None):
    """(private, public): PEM files."""
    key = key or ec.generate_private_key(ec.SECP256R1())
    private, public = directory / f"{name}.pem", directory / f"{name}-public.pem"
    private.write_bytes(
        key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, encryption or NoEncryption())
    )
    public.write_bytes(
        key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    )
    return private, public


class Signed:
    """A repository of `digits` 1 and 2 and `photos` 2, of the same files, signed with `key`."""

    def __init__(self, directory):
        self.key_file, self.trusted_file = key_pair(directory, "ours")
        self.key, self.trusted = SigningKey(self.key_file), TrustedKeys(self.trusted_file)
        self.stranger = SigningKey(key_pair(directory, "stranger")[0])
        self.repository = directory / "repository"
        for model, number in (("digits", 1), ("digits", 2), ("photos", 2)):
            self.make(model, number)

    def make(self, model, number, signed=True):
        version = self.repository / model / str(number)
        for name in ("saved_model.pb", "variables/variables.index", "assets.extra/warmup", "a.png"):
            (version / name).parent.mkdir(parents=True, exist_ok=True)
            (version / name).write_bytes(f"{name} of {model} {number}".encode() * 9)
        if signed:
            self.key.sign(version, model, number)
        return version

    def check(self, version):
        return self.trusted.check(version, "digits", 2)
