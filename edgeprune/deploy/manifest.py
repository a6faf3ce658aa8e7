"""What a release is: one document that lists its files, how it must answer, and what is known of it.

The first 16 digits of the document's SHA-256 name the release, so that a folder's name vouches for its manifest and
the manifest for every other file. Nothing in it depends on when or where it was made: the same model, data and tool
give the same release.
"""

from __future__ import annotations

import hashlib
import re
from typing import Literal

from pydantic import ConfigDict, Field, ValidationError

from edgeprune.documents import BudgetRow, Figure
from edgeprune.errors import TrustError
from edgeprune.values import Value

MANIFEST = "manifest.json"
SIGNATURE = "manifest.sig"
GOLDEN = "golden.npz"
CHECK, BENCH = "check.py", "bench.py"
MOST_BYTES = 2**20  # of a manifest

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")
_RELEASE = re.compile(r"([0-9a-f]{16})(\.[1-9][0-9]{0,3})?")


class FileRow(Value):
    """One file of a release."""

    bytes: int = Field(ge=0)
    sha256: str = Field(pattern=r"^[0-9a-f]{64}$")


class Golden(Value):
    """What the kept vectors are and how near the device's answers must be.

    Attributes:
        real, vectors: How many inputs are of the user's data, and how many there are with the made ones.
        runtime_version: Of the runtime here that gave the kept outputs.
        exact: Whether the same runtime version must give the same outputs to the last bit.
        tolerances: For each output the largest allowed distance, in units of the file's own output.
    """

    real: int
    vectors: int
    runtime_version: str
    exact: bool
    tolerances: tuple[float, ...]


class Manifest(Value):
    """A release, as it lies on the device: the document `edgeprune.release/1`.

    Attributes:
        app: What is deployed, a name.
        model: The model's file; an OpenVINO .xml goes with its .bin.
        backend: Whose runtime runs it.
        signed_by: Id of the key that `manifest.sig` is made with; empty when the release is not signed.
        budget, figures, metric: Of the run that the model came from, each figure with its source.
    """

    model_config = ConfigDict(populate_by_name=True)

    schema_: Literal["edgeprune.release/1"] = Field("edgeprune.release/1", alias="schema")
    edgeprune: str
    app: str
    model: str
    backend: str
    precision: str
    threads: int
    target: str
    files: dict[str, FileRow]
    golden: Golden
    signed_by: str = ""
    budget: BudgetRow | None = None
    figures: tuple[Figure, ...] = ()
    metric: dict[str, float] = {}
    licence: str
    notes: tuple[str, ...] = ()

    def to_bytes(self) -> bytes:
        """The document as it is hashed and signed."""
        return (self.model_dump_json(by_alias=True, indent=1) + "\n").encode()

    @property
    def listed(self) -> frozenset[str]:
        """Every file that the release's folder holds, the manifest and its signature included."""
        return frozenset(self.files) | {MANIFEST} | ({SIGNATURE} if self.signed_by else set())


def release_id(document: bytes) -> str:
    """The name of the release with this manifest."""
    return hashlib.sha256(document).hexdigest()[:16]


def is_release(name: str) -> bool:
    """Whether a release's folder may be called so: its id, with `.2` and so on where a damaged one lies in the way."""
    return _RELEASE.fullmatch(name) is not None


def same_release(name: str, identity: str) -> bool:
    """Whether a folder is of the release with this id."""
    return is_release(name) and name.partition(".")[0] == identity


def is_plain_name(name: str) -> bool:
    """Whether an app or a file of a release may be called so."""
    return _NAME.fullmatch(name) is not None


def read_manifest(document: bytes, where: str) -> Manifest:
    """The manifest in a document that came from anywhere.

    Raises:
        TrustError: It is none, or lists files outside its folder.
    """
    if len(document) > MOST_BYTES:
        raise TrustError(f"a manifest of {len(document)} bytes, at most {MOST_BYTES} are read", where=where)
    try:
        found = Manifest.model_validate_json(document)
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(map(str, first["loc"])) or "JSON"
        raise TrustError(f"not a manifest of this version ({key}: {first['msg']})", where=where) from None
    odd = [name for name in (*found.files, found.app) if not is_plain_name(name)]
    if odd or {MANIFEST, SIGNATURE} & set(found.files) or found.model not in found.files:
        named = odd[0] if odd else found.model
        raise TrustError(f"a manifest that lists its files wrongly: {named!r}", where=where)
    return found
