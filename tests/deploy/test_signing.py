"""Signatures fail closed: whatever is missing, foreign or changed is refused, and deleting the check is noticed."""

from __future__ import annotations

import base64
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from edgeprune.deploy import signing
from edgeprune.deploy.bundle import Bundle, sealed
from edgeprune.deploy.manifest import SIGNATURE
from edgeprune.deploy.signing import check_signature, new_keys, sign, signer
from edgeprune.errors import EdgepruneError, MissingExtraError, TrustError, UsageError
from tests.deploy.board import Board, bundle, put, tried


@pytest.fixture
def key(tmp_path: Path) -> Path:
    pytest.importorskip("cryptography", reason="needs the extra sign")
    new_keys(tmp_path / "key")
    return tmp_path / "key"


def signed(folder: Path, key: Path, model: str = "one") -> Bundle:
    made = bundle(folder, model)
    (folder / "manifest.json").unlink()
    return sealed(folder, made.manifest.model_copy(update={"signed_by": signer(key)}), key)


def public(key: Path) -> Path:
    return key.with_name("key.pub")


def checked(release: Bundle, pair: Path, **changes: Any) -> str:
    """The key that a release is found to be signed with."""
    given = {"document": release.document, "manifest": release.manifest, "key": public(pair), "where": "here"}
    given["signature"] = (release.folder / SIGNATURE).read_bytes()
    return check_signature(**{**given, **changes})


def test_what_is_signed_is_found_signed_by_that_key(tmp_path: Path, key: Path) -> None:
    release = signed(tmp_path / "r", key)
    assert checked(release, key) == signer(key) == release.manifest.signed_by


def test_the_private_key_is_its_owner_s_and_never_overwritten(tmp_path: Path, key: Path) -> None:
    assert key.stat().st_mode & 0o777 == 0o600
    with pytest.raises(UsageError, match="a key is never overwritten"):
        new_keys(key)
    with pytest.raises(UsageError, match="cannot write the key: No such file"):
        new_keys(tmp_path / "none" / "key")
    key.chmod(0o640)
    with pytest.raises(TrustError, match=r"others may read the private key \(mode 640\)"):
        sign(b"", key)


def test_no_private_key_lies_in_a_run(tmp_path: Path, key: Path) -> None:
    run = tmp_path / "run"
    (run / "artifacts").mkdir(parents=True)
    (run / "spec.json").write_text("{}")
    with pytest.raises(TrustError, match="a private key in a run folder"):
        new_keys(run / "artifacts" / "key")
    key.rename(run / "key")
    with pytest.raises(TrustError, match="a private key in a run folder"):
        sign(b"", run / "key")


def test_openssl_reads_the_keys(key: Path) -> None:
    done = subprocess.run(["openssl", "pkey", "-in", key, "-pubout"], capture_output=True, check=False)
    assert done.returncode == 0 and done.stdout == public(key).read_bytes()


def test_every_change_to_what_was_signed_is_refused(tmp_path: Path, key: Path) -> None:
    release = signed(tmp_path / "r", key)
    raw = json.loads((release.folder / SIGNATURE).read_bytes())
    bits = base64.b64decode(raw["ed25519"])
    changed = {**raw, "ed25519": base64.b64encode(bytes([bits[0] ^ 1]) + bits[1:]).decode()}
    cases: list[tuple[dict[str, Any], str]] = [
        ({"document": release.document + b" "}, "the signature is not of this manifest"),
        ({"signature": json.dumps(changed).encode()}, "the signature is not of this manifest"),
        ({"signature": json.dumps({**raw, "ed25519": ""}).encode()}, "the signature is not of this manifest"),
        ({"signature": json.dumps({**raw, "ed25519": "?"}).encode()}, "manifest.sig is no signature"),
        ({"signature": json.dumps({**raw, "key": "0" * 16}).encode()}, "not with"),
        ({"signature": b"{}"}, "manifest.sig is no signature"),
        ({"signature": b""}, "the release is not signed"),
        ({"signature": None}, "the release is not signed"),
        ({"manifest": release.manifest.model_copy(update={"signed_by": ""})}, "the release is not signed"),
    ]
    for changes, message in cases:
        with pytest.raises(TrustError, match=message):
            checked(release, key, **changes)


def test_another_key_is_refused(tmp_path: Path, key: Path) -> None:
    release = signed(tmp_path / "r", key)
    new_keys(tmp_path / "other")
    with pytest.raises(TrustError, match=f"signed with the key {signer(key)}, not with"):
        checked(release, key, key=tmp_path / "other.pub")


@pytest.mark.parametrize("content", [None, b"", b"-----BEGIN PUBLIC KEY-----\nxx\n-----END PUBLIC KEY-----\n"])
def test_what_is_no_key_is_said(tmp_path: Path, key: Path, content: bytes | None) -> None:
    release = signed(tmp_path / "r", key)
    none = tmp_path / "none"
    if content is not None:
        none.write_bytes(content)
        none.chmod(0o600)
    message = "cannot read the key" if content is None else "not a p.* Ed25519 key in PEM"
    with pytest.raises(UsageError, match=message):
        checked(release, key, key=none)
    with pytest.raises(UsageError, match=message):
        sign(b"", none)


def test_without_the_library_nothing_counts_as_checked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "cryptography.hazmat.primitives.asymmetric.ed25519", None)
    release = bundle(tmp_path / "r", "one")
    with pytest.raises(MissingExtraError, match="needs the extra 'sign'"):
        check_signature(release.document, release.manifest, b"", tmp_path / "key.pub", "here")
    for call in (new_keys, signer):
        with pytest.raises(MissingExtraError, match="needs the extra 'sign'"):
            call(tmp_path / "key")
    board = Board(tmp_path / "board")
    put(board, release)
    assert verified(board, key=tmp_path / "key.pub") == 7


def verified(board: Board, **options: Any) -> int:
    """The exit code that `verify` would end with."""
    from edgeprune.deploy import flow, trial

    try:
        flow.verify(board.link, "app", trial.by_python, flow.Options(root=str(board.root), **options))
    except EdgepruneError as error:
        return error.exit_code
    return 0


def test_a_device_s_releases_are_held_to_the_key(tmp_path: Path, key: Path) -> None:
    board = Board(tmp_path / "board")
    assert tried(board, signed(tmp_path / "one", key)) == 0
    assert verified(board, key=public(key)) == 0
    assert verified(board) == 8  # signed, and nothing to check it with
    assert verified(board, unsigned=True) == 0
    new_keys(tmp_path / "other")
    assert verified(board, key=tmp_path / "other.pub") == 8
    file = board.app / "current" / SIGNATURE
    kept = file.read_bytes()
    file.write_bytes(kept.replace(b"A", b"B", 1) if b"A" in kept else kept[::-1])
    assert verified(board, key=public(key)) == 8
    file.unlink()
    assert verified(board, unsigned=True) in (5, 8) and verified(board, key=public(key)) in (5, 8)
    assert tried(board, bundle(tmp_path / "two", "two")) == 0  # the user may deploy unsigned ones too
    assert verified(board, key=public(key)) == 8


def test_verify_calls_the_check(tmp_path: Path, key: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Signature code that nobody calls has been seen in the field."""
    from edgeprune.deploy import session

    board, asked = Board(tmp_path / "board"), []
    put(board, signed(tmp_path / "one", key))
    monkeypatch.setattr(session, "check_signature", lambda *given: asked.append(given) or signing.signer(key))
    assert verified(board, key=public(key)) == 0 and len(asked) == 1
