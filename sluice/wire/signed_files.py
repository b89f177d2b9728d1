"""`model.sig`, which says what files a version has: how it is written, read and compared.

The format is that of OpenSSF's Model Signing 1.0, so that other tools read it too: the SHA-256 of
every file as an in-toto statement, in a DSSE envelope, in a Sigstore bundle. Beyond it, the
statement's subject names model and version (`digits/3`), so that no version passes for another;
each file's size is there, so that one that has grown is refused unread; and the bundle's bytes are
fixed, so that not one of them can change. Which keys sign it is `signing.py`'s;
docs/decisions/0021-signed-versions.md tells why so.
"""

import base64
import errno
import hashlib
import json
import os
import stat
from collections.abc import Iterator, Mapping
from io import BufferedReader
from pathlib import Path
from typing import NamedTuple

SIGNED_FILE = "model.sig"
_STATEMENT = "https://in-toto.io/Statement/v1"
_PREDICATE = "https://model_signing/signature/v1.0"
_PAYLOAD = "application/vnd.in-toto+json"
_BUNDLE = "application/vnd.dev.sigstore.bundle.v0.3+json"
_MOST_BYTES = 64 << 20  # of model.sig, which has about 200 for a file

Times = frozenset[tuple[str, int, int, int]]


class NotAsSigned(Exception):
    """A version that is not, to the bit, what a trusted key has signed."""


class SignedFile(NamedTuple):
    """What is signed of a file. size: bytes; sha256: hexadecimal.

    >>> SignedFile(5, "00" * 32).size
    5
    """

    size: int
    sha256: str


def statement_of(version: Path, model: str, number: int) -> bytes:
    """What is signed: every file that is in `version` now, and that it is `model` `number`.

    Raises NotAsSigned for links and the like, which nobody signs; OSError.

    >>> from tempfile import TemporaryDirectory
    >>> with TemporaryDirectory() as version:
    ...     _ = Path(version, "saved_model.pb").write_bytes(b"graph")
    ...     b"saved_model.pb" in statement_of(Path(version), "digits", 3)
    True
    """
    files = sorted(_files(version))
    digests = [_sha256(version / name) for name in files]
    statement = {
        "_type": _STATEMENT,
        "subject": [
            {
                "name": f"{model}/{number}",
                "digest": {"sha256": hashlib.sha256(b"".join(digests)).hexdigest()},
            }
        ],
        "predicateType": _PREDICATE,
        "predicate": {
            "serialization": {
                "method": "files",
                "hash_type": "sha256",
                "allow_symlinks": False,
                "ignore_paths": [SIGNED_FILE],
            },
            "resources": [
                {
                    "name": name,
                    "algorithm": "sha256",
                    "digest": digest.hex(),
                    "size": (version / name).stat().st_size,
                }
                for name, digest in zip(files, digests, strict=True)
            ],
        },
    }
    return json.dumps(statement).encode()


def read_statement(payload: bytes) -> tuple[str, dict[str, SignedFile]]:
    """Model and version as `digits/3`, and what is signed of each file, by its name.

    payload: whose signature has been verified. Raises ValueError where it is something else.

    >>> read_statement(b'{"_type": "a letter"}')
    Traceback (most recent call last):
    ValueError: no statement of a model's files
    """
    statement = json.loads(payload)
    if (statement.get("_type"), statement.get("predicateType")) != (_STATEMENT, _PREDICATE):
        raise ValueError("no statement of a model's files")
    files: dict[str, SignedFile] = {}
    for each in statement["predicate"]["resources"]:
        if each["algorithm"] != "sha256" or each["name"] in files:
            raise ValueError("another kind of sum, or a name twice")
        files[each["name"]] = SignedFile(int(each["size"]), each["digest"])
    return statement["subject"][0]["name"], files


def compare(version: Path, signed: Mapping[str, SignedFile]) -> None:
    """Raises NotAsSigned for the first file that is missing, too many or another; OSError.

    >>> from tempfile import TemporaryDirectory
    >>> with TemporaryDirectory() as version:
    ...     compare(Path(version), {})
    """
    # Names and sizes first, which cost nothing, then what is in the files.
    sizes = {}
    for name in _files(version):
        if name not in signed:
            raise NotAsSigned(f"{version} holds {name!r}, which was not signed")
        sizes[name] = (version / name).lstat().st_size
    if missing := sorted(signed.keys() - sizes):
        raise NotAsSigned(f"{version} lacks {missing[0]!r}, which was signed")
    for name, size in sizes.items():
        if size != signed[name].size:
            raise NotAsSigned(
                f"{version / name} has {size:,} bytes, and was signed with {signed[name].size:,}"
            )
    for name in sizes:
        if _sha256(version / name).hex() != signed[name].sha256:
            raise NotAsSigned(f"{version / name} is not the file that was signed")


def _files(version: Path) -> Iterator[str]:
    """The names of the files below, but for `model.sig`. Raises NotAsSigned, OSError."""
    for name, is_directory in entries(version):
        if not is_directory and name != SIGNED_FILE:
            yield name


def entries(version: Path) -> Iterator[tuple[str, bool]]:
    """What is below, by name, a directory before what is in it, and whether it is a directory.

    Raises NotAsSigned for links and the like; OSError.

    >>> from tempfile import TemporaryDirectory
    >>> with TemporaryDirectory() as version:
    ...     Path(version, "variables").mkdir()
    ...     list(entries(Path(version)))
    [('variables', True)]
    """
    waiting = [""]
    while waiting:
        above = waiting.pop()
        with os.scandir(version / above) as entries:
            for entry in entries:
                name = f"{above}{entry.name}"
                is_directory = entry.is_dir(follow_symlinks=False)
                if is_directory:
                    waiting.append(f"{name}/")
                elif not entry.is_file(follow_symlinks=False):
                    raise NotAsSigned(
                        f"{version} holds {name!r}, which is no file but a link or the like"
                    )
                yield name, is_directory


def times_of(version: Path) -> Times:
    """What changes when a file is written, or when another file or directory takes its place, the
    version's own included, and were it for a moment. Raises NotAsSigned, OSError.

    >>> from tempfile import TemporaryDirectory
    >>> with TemporaryDirectory() as version:
    ...     _ = Path(version, SIGNED_FILE).write_bytes(b"{}")
    ...     sorted(name for name, *_ in times_of(Path(version)))
    ['', 'model.sig']
    """
    names = ["", *(name for name, _ in entries(version))]
    found = [(version / name).lstat() for name in names]
    return frozenset(
        (name, each.st_ino, each.st_mtime_ns, each.st_ctime_ns)
        for name, each in zip(names, found, strict=True)
    )


def _sha256(path: Path) -> bytes:
    with open_file(path) as file:
        return hashlib.file_digest(file, "sha256").digest()


def open_file(path: Path) -> BufferedReader:
    """One that is no link, and no pipe to wait at, whatever it was a moment ago.

    Raises NotAsSigned where it is; OSError.

    >>> open_file(Path("."))
    Traceback (most recent call last):
    sluice.wire.signed_files.NotAsSigned: . is no file
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    except OSError as error:
        if error.errno == errno.ELOOP:
            raise NotAsSigned(f"{path} is a link") from None
        raise
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise NotAsSigned(f"{path} is no file")
    return os.fdopen(descriptor, "rb")


def bundle_of(key_id: str, payload: bytes, signed: bytes) -> bytes:
    """The bytes of `model.sig`. key_id: of the key that made `signed` of the payload.

    >>> bundle_of("7f83", b"statement", b"signed").count(b"7f83")
    1
    """
    bundle = {
        "mediaType": _BUNDLE,
        "verificationMaterial": {"publicKey": {"hint": key_id}, "tlogEntries": []},
        "dsseEnvelope": {
            "payload": base64.b64encode(payload).decode(),
            "payloadType": _PAYLOAD,
            "signatures": [{"sig": base64.b64encode(signed).decode(), "keyid": ""}],
        },
    }
    return json.dumps(bundle).encode()


def read_bundle(version: Path) -> tuple[str, bytes, bytes]:
    """What `bundle_of` was given for the `model.sig` of `version`.

    Raises NotAsSigned where there is none, and for any other bytes; OSError.

    >>> read_bundle(Path("digits/3"))
    Traceback (most recent call last):
    sluice.wire.signed_files.NotAsSigned: digits/3 is not signed; sluice sign does that
    """
    file = version / SIGNED_FILE
    try:
        with open_file(file) as opened:
            raw = opened.read(_MOST_BYTES + 1)
    except FileNotFoundError:
        raise NotAsSigned(f"{version} is not signed; sluice sign does that") from None
    if len(raw) > _MOST_BYTES:
        raise NotAsSigned(f"{file} has more than {_MOST_BYTES:,} bytes")
    try:
        bundle = json.loads(raw)
        envelope = bundle["dsseEnvelope"]
        key_id = str(bundle["verificationMaterial"]["publicKey"]["hint"])
        payload = base64.b64decode(envelope["payload"])
        signed = base64.b64decode(envelope["signatures"][0]["sig"])
    except (ValueError, KeyError, TypeError, IndexError, RecursionError):
        raise NotAsSigned(f"{file} is damaged") from None
    if bundle_of(key_id, payload, signed) != raw:
        raise NotAsSigned(f"{file} is damaged, or was not written by Sluice")
    return key_id, payload, signed


def pre_authenticated(payload: bytes) -> bytes:
    """DSSE's PAE, the bytes that a key signs: https://github.com/secure-systems-lab/dsse.

    >>> pre_authenticated(b"statement")
    b'DSSEv1 28 application/vnd.in-toto+json 9 statement'
    """
    return f"DSSEv1 {len(_PAYLOAD)} {_PAYLOAD} {len(payload)} ".encode() + payload
