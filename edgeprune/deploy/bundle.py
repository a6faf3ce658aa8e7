"""Making a release: the files in one folder, the answers they must give, and the manifest over all of it."""

from __future__ import annotations

import hashlib
import json
import shutil
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

import edgeprune
from edgeprune import backends
from edgeprune.children import TimeOutError, TooMuchError, run_child
from edgeprune.deploy.examples import examples
from edgeprune.deploy.manifest import GOLDEN, MANIFEST, SIGNATURE, FileRow, Golden, Manifest, release_id
from edgeprune.deploy.origin import Origin
from edgeprune.deploy.signing import sign, signer
from edgeprune.errors import MissingExtraError, QualityError, UsageError
from edgeprune.runner import bench, check

STEPS = 2  # that an integer output may differ by under another version of the runtime
INT8_SHARE, FP32_SHARE = 0.05, 1e-3  # of the largest kept value, that a float output may differ by
LICENCE = "the model's is its owner's; the runner and the examples of edgeprune are Apache-2.0"

_PREPARE_S = 600.0


@dataclass(frozen=True)
class Bundle:
    """A release in a folder here.

    Attributes:
        document: The manifest's bytes.
    """

    folder: Path
    document: bytes
    manifest: Manifest

    @property
    def name(self) -> str:
        """The release's id."""
        return release_id(self.document)

    @property
    def size_bytes(self) -> int:
        """Of all its files."""
        return sum((self.folder / name).stat().st_size for name in self.manifest.listed)


def make_bundle(origin: Origin, folder: Path, key: Path | None = None) -> Bundle:
    """Write a release into an empty folder.

    Args:
        key: Private key that signs it; None leaves it unsigned.

    Raises:
        MissingExtraError: The file's runtime, or the extra `sign`, is not installed here.
        QualityError: The file gives answers that are not finite.
        TrustError: The key may be read by others.
        UsageError: The runtime cannot run the file, or the samples are not for it; or the key is none.
    """
    signed_by = signer(key) if key else ""
    model = _copied(origin, folder)
    golden = _golden(origin, folder, model)
    for script in (Path(check.__file__), Path(bench.__file__)):
        shutil.copyfile(script, folder / script.name)
    for name, text in examples(origin.backend, origin.threads).items():
        (folder / name).write_text(text, encoding="utf-8")
    manifest = Manifest(
        edgeprune=edgeprune.__version__,
        app=origin.app,
        model=model,
        backend=origin.backend,
        precision=origin.precision,
        threads=origin.threads,
        target=origin.target.name if origin.target else "",
        files={file.name: file_row(file) for file in sorted(folder.iterdir())},
        golden=golden,
        signed_by=signed_by,
        budget=origin.budget,
        figures=origin.figures,
        metric=dict(origin.metric),
        licence=LICENCE,
        notes=origin.notes,
    )
    return sealed(folder, manifest, key)


def sealed(folder: Path, manifest: Manifest, key: Path | None = None) -> Bundle:
    """The bundle of a folder that holds the manifest's files: writes the manifest and its signature."""
    document = manifest.to_bytes()
    (folder / MANIFEST).write_bytes(document)
    if key is not None:
        (folder / SIGNATURE).write_bytes(sign(document, key))
    return Bundle(folder, document, manifest)


def file_row(file: Path) -> FileRow:
    """Size and hash of a file."""
    with file.open("rb") as stream:
        digest = hashlib.file_digest(stream, "sha256").hexdigest()
    return FileRow(bytes=file.stat().st_size, sha256=digest)


def tolerances(precision: str, kinds: list[str], ranges: list[float]) -> tuple[float, ...]:
    """How far each output may be from the kept one, for its number format and the largest kept magnitude."""
    share = INT8_SHARE if precision == "int8" else FP32_SHARE
    return tuple(
        float(STEPS) if np.dtype(kind).kind in "iu" else max(share * largest, 1e-6)
        for kind, largest in zip(kinds, ranges, strict=True)
    )


def _copied(origin: Origin, folder: Path) -> str:
    """The model's files under their names in a release; the name of the first."""
    names = []
    for file in backends.files(origin.backend, origin.path):
        if not file.is_file():
            raise UsageError(f"no such file: {file}", where=str(origin.path))
        names.append(f"model{file.suffix}")
        shutil.copyfile(file, folder / names[-1])
    return names[0]


def _golden(origin: Origin, folder: Path, model: str) -> Golden:
    """Keep the file's own answers, found in a process of its own: what the model file is, it can end only that."""
    samples = folder / "samples.npy"
    np.save(samples, origin.samples.astype(np.float32), allow_pickle=False)
    words = {"runtime": origin.backend, "model": model, "golden": GOLDEN, "inputs": samples.name}
    found = _run_check(folder, [*(f"--{key}={value}" for key, value in words.items()), f"--threads={origin.threads}"])
    samples.unlink()
    if not found["finite"]:
        raise QualityError("the model answers a test vector with values that are not finite", where=str(origin.path))
    integers = all(np.dtype(kind).kind in "iu" for kind in (found["input"], *found["outputs"]))
    return Golden(
        real=found["real"],
        vectors=found["vectors"],
        runtime_version=found["runtime_version"],
        exact=origin.exact and integers,
        tolerances=tolerances(origin.precision, found["outputs"], found["ranges"]),
    )


def _run_check(folder: Path, options: list[str]) -> Mapping[str, Any]:
    try:
        done = run_child([sys.executable, "-B", check.__file__, *options], timeout_s=_PREPARE_S, folder=folder)
    except (TimeOutError, TooMuchError):
        raise UsageError(f"the model did not answer within {_PREPARE_S:g} s", where=options[1]) from None
    if done.status == check.EXIT_NO_RUNTIME:
        raise MissingExtraError(f"the model's runtime is not here: {done.last_line}", hint="edgeprune doctor")
    if done.status < 0:
        raise UsageError(f"the model ended its process with signal {-done.status}", where=options[1])
    if done.status != 0:
        raise UsageError(f"the model cannot be run: {done.last_line}", where=options[1])
    answer: Mapping[str, Any] = json.loads(done.stdout)
    return answer
