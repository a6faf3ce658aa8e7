"""Ed25519 signatures of manifests: who made a release, said by a key that stays with its maker.

Keys are files in PEM, as `openssl` reads and writes them, without a passphrase: what protects a private key is its file
mode, which is checked. A check names the key that signed or raises; nothing missing ever counts as checked.
"""

from __future__ import annotations

import base64
import contextlib
import hashlib
import importlib
import os
from pathlib import Path
from typing import Any

from pydantic import ConfigDict, Field, ValidationError

from edgeprune.deploy.manifest import SIGNATURE, Manifest
from edgeprune.errors import TrustError, UsageError, missing_extra
from edgeprune.values import Value

_DOMAIN = b"edgeprune.release/1\n"  # no signature of anything else is one of a release


class Signature(Value):
    """What `manifest.sig` holds."""

    model_config = ConfigDict(populate_by_name=True)

    schema_: str = Field("edgeprune.signature/1", alias="schema", pattern=r"^edgeprune\.signature/1$")
    key: str
    ed25519: str  # base64


def new_keys(file: Path) -> str:
    """Make a key pair: the private one in `file`, readable by its owner only, the public one beside it with `.pub`.

    Returns:
        The id of the key.

    Raises:
        MissingExtraError: The extra `sign` is not installed.
        TrustError: The file would lie in a run folder, which is handed on.
        UsageError: One of the files is there already, or cannot be written.
    """
    ed25519, serialization = _library("making keys")
    _outside_runs(file)
    public_file = file.with_name(file.name + ".pub")
    private = ed25519.Ed25519PrivateKey.generate()
    pem, plain = serialization.Encoding.PEM, serialization.NoEncryption()
    secret = private.private_bytes(pem, serialization.PrivateFormat.PKCS8, plain)
    public = private.public_key().public_bytes(pem, serialization.PublicFormat.SubjectPublicKeyInfo)
    if public_file.exists() or file.exists():
        raise UsageError("a key is never overwritten", where=str(file), hint="choose another file")
    try:
        _written(file, secret, 0o600)
        _written(public_file, public, 0o644)
    except OSError as error:
        raise UsageError(f"cannot write the key: {error.strerror}", where=str(file)) from None
    return _key_id(private.public_key(), serialization)


def signer(file: Path) -> str:
    """The id of a private key.

    Raises:
        As `sign`.
    """
    private, serialization = _private(file)
    return _key_id(private.public_key(), serialization)


def sign(document: bytes, file: Path) -> bytes:
    """The signature file of a manifest.

    Raises:
        MissingExtraError: The extra `sign` is not installed.
        TrustError: Others can read the key, or it lies in a run folder.
        UsageError: It is no private key.
    """
    private, serialization = _private(file)
    raw = base64.b64encode(private.sign(_DOMAIN + document)).decode()
    found = Signature(key=_key_id(private.public_key(), serialization), ed25519=raw)
    return (found.model_dump_json(by_alias=True) + "\n").encode()


def check_signature(document: bytes, manifest: Manifest, signature: bytes | None, key: Path, where: str) -> str:
    """Check that a manifest is signed with this public key.

    Args:
        document: The manifest's bytes, as they were read.
        signature: The signature file's; None when there is none.

    Returns:
        The id of the key that signed.

    Raises:
        MissingExtraError: The extra `sign` is not installed.
        TrustError: It is not signed, or not with this key, or the signature is of something else.
        UsageError: `key` is no public key.
    """
    ed25519, serialization = _library("checking signatures")
    exceptions = importlib.import_module("cryptography.exceptions")
    public = _public(key, ed25519, serialization)
    identity = _key_id(public, serialization)
    if not manifest.signed_by or not signature:
        raise TrustError("the release is not signed", where=where, hint="deploy it with --sign KEYFILE")
    try:
        found = Signature.model_validate_json(signature)
        raw = base64.b64decode(found.ed25519, validate=True)
    except (ValidationError, ValueError):
        raise TrustError(f"{SIGNATURE} is no signature", where=where) from None
    if {manifest.signed_by, found.key} != {identity}:
        raise TrustError(f"signed with the key {found.key[:16]}, not with {identity}", where=where, hint=str(key))
    try:
        public.verify(raw, _DOMAIN + document)
    except exceptions.InvalidSignature:
        raise TrustError("the signature is not of this manifest", where=where) from None
    return identity


def _library(needed_for: str) -> tuple[Any, Any]:
    try:
        ed25519 = importlib.import_module("cryptography.hazmat.primitives.asymmetric.ed25519")
        serialization = importlib.import_module("cryptography.hazmat.primitives.serialization")
    except ImportError:
        raise missing_extra("sign", needed_for) from None
    return ed25519, serialization


def _private(file: Path) -> tuple[Any, Any]:
    ed25519, serialization = _library("signing")
    _outside_runs(file)
    content = _read(file)
    mode = file.stat().st_mode & 0o777
    if mode & 0o077:
        raise TrustError(f"others may read the private key (mode {mode:o})", where=str(file), hint=f"chmod 600 {file}")
    found = None
    with contextlib.suppress(ValueError, TypeError):
        found = serialization.load_pem_private_key(content, None)
    if not isinstance(found, ed25519.Ed25519PrivateKey):
        hint = "edgeprune keys new FILE makes one; one with a passphrase cannot be used"
        raise UsageError("not a private Ed25519 key in PEM", where=str(file), hint=hint)
    return found, serialization


def _public(file: Path, ed25519: Any, serialization: Any) -> Any:
    found = None
    with contextlib.suppress(ValueError, TypeError):
        found = serialization.load_pem_public_key(_read(file))
    if not isinstance(found, ed25519.Ed25519PublicKey):
        raise UsageError("not a public Ed25519 key in PEM", where=str(file), hint="it ends with .pub")
    return found


def _key_id(public: Any, serialization: Any) -> str:
    raw = public.public_bytes(serialization.Encoding.Raw, serialization.PublicFormat.Raw)
    return hashlib.sha256(raw).hexdigest()[:16]


def _read(file: Path) -> bytes:
    try:
        return file.read_bytes()
    except OSError as error:
        raise UsageError(f"cannot read the key: {error.strerror}", where=str(file)) from None


def _outside_runs(file: Path) -> None:
    for folder in file.resolve().parents:
        if (folder / "spec.json").is_file() or (folder / "record.json").is_file():
            hint = "run folders are handed on; keep keys apart"
            raise TrustError("a private key in a run folder", where=str(file), hint=hint)


def _written(file: Path, content: bytes, mode: int) -> None:
    handle = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, mode)
    with os.fdopen(handle, "wb") as stream:
        stream.write(content)
        stream.flush()
        os.fsync(stream.fileno())
