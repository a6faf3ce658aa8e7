"""Samples from array files: `npz:FILE` and `idx:DIR`, brought to the layout that models take."""

from __future__ import annotations

import gzip
import zipfile
import zlib
from math import prod
from pathlib import Path

import numpy as np
import torch

from edgeprune.errors import TrustError, UsageError, did_you_mean
from edgeprune.spec import DataSpec
from edgeprune.workload import Array
from edgeprune.workload.samples import TensorSet

Parts = dict[str, TensorSet]  # by role: train, validation, test

_NPZ_KEYS = {"train": ("x", "y"), "validation": ("x_val", "y_val"), "test": ("x_test", "y_test")}
_IDX_NAMES = {"train": "train", "test": "t10k"}
_IDX_DTYPES = {8: ">u1", 9: ">i1", 11: ">i2", 12: ">i4", 13: ">f4", 14: ">f8"}
_CHANNELS = (1, 3, 4)


def read_npz(path: Path, spec: DataSpec) -> tuple[Parts, list[str]]:
    """The parts in an .npz file: `x`, `y` and, when there, `x_val`, `y_val`, `x_test`, `y_test`.

    Returns:
        The parts and notes on how the arrays were understood.

    Raises:
        UsageError: Missing or unreadable file, no samples or no labels, lengths that differ, an unclear layout.
        TrustError: The file holds pickled objects.
    """
    arrays = _npz_arrays(path)
    if "x" not in arrays:
        raise UsageError(f"no array 'x' in {path.name}", where="--data", hint=did_you_mean("x", arrays))
    known = {key for pair in _NPZ_KEYS.values() for key in pair}
    if unknown := sorted(set(arrays) - known):
        hint = f"known: {', '.join(sorted(known))}"
        raise UsageError(f"unknown array {unknown[0]!r} in {path.name}", where="--data", hint=hint)
    parts: Parts = {}
    notes: list[str] = []
    for role, (x, y) in _NPZ_KEYS.items():
        if x in arrays:
            parts[role], note = _samples(arrays[x], arrays.get(y), spec, f"{path.name}: {x}")
            notes.append(note)
    return parts, list(dict.fromkeys(notes))


def _npz_arrays(path: Path) -> dict[str, Array]:
    if not path.is_file():
        raise UsageError(f"no such file: {path}", where="--data")
    try:
        with path.open("rb") as file:
            content = np.load(file, allow_pickle=False)
            if isinstance(content, np.ndarray):
                raise UsageError(f"{path.name} is a single array", where="--data", hint="np.savez(FILE, x=…, y=…)")
            return {key: content[key] for key in content.files}
    except (ValueError, OSError, EOFError, zipfile.BadZipFile, zlib.error) as err:
        if "allow_pickle" in str(err):
            raise TrustError(
                f"{path.name} holds pickled objects, which can run code",
                where="--data",
                hint="save plain number arrays of one shape",
            ) from None
        raise UsageError(f"cannot read {path.name}: {err}", where="--data", hint="np.savez(FILE, x=…, y=…)") from None


def read_idx(folder: Path, spec: DataSpec) -> tuple[Parts, list[str]]:
    """The parts in a folder of idx files (`train-images-idx3-ubyte`, `t10k-labels-idx1-ubyte.gz`, …).

    Returns:
        The parts and notes on how the arrays were understood.

    Raises:
        UsageError: Missing folder or files, or files that are not idx.
    """
    if not folder.is_dir():
        raise UsageError(f"no such folder: {folder}", where="--data")
    parts: Parts = {}
    notes: list[str] = []
    for role, name in _IDX_NAMES.items():
        images, labels = _idx_file(folder, f"{name}-images"), _idx_file(folder, f"{name}-labels")
        if images is None and role == "train":
            raise UsageError(f"no {name}-images-idx3-ubyte in {folder}", where="--data")
        if images is not None:
            y = None if labels is None else _read_idx(labels)
            parts[role], note = _samples(_read_idx(images), y, spec, images.name)
            notes.append(note)
    return parts, list(dict.fromkeys(notes))


def _idx_file(folder: Path, stem: str) -> Path | None:
    return next((f for f in sorted(folder.glob(f"{stem}*")) if f.suffix in ("", ".gz") or "idx" in f.suffix), None)


def _read_idx(path: Path) -> Array:
    try:
        raw = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    except (OSError, EOFError, zlib.error) as err:
        raise UsageError(f"cannot read {path.name}: {err}", where="--data") from None
    if len(raw) < 4 or raw[:2] != b"\0\0" or raw[2] not in _IDX_DTYPES or len(raw) < 4 + 4 * raw[3]:
        raise UsageError(f"{path.name} is no idx file: it starts with {raw[:4].hex() or 'nothing'}", where="--data")
    shape = tuple(int(n) for n in np.frombuffer(raw, ">u4", raw[3], 4))
    dtype = np.dtype(_IDX_DTYPES[raw[2]])
    body = raw[4 + 4 * raw[3] :]
    if len(body) != prod(shape) * dtype.itemsize:
        needed = prod(shape) * dtype.itemsize
        raise UsageError(f"{path.name} is cut off: {len(body)} of {needed} bytes", where="--data")
    return np.frombuffer(body, dtype).reshape(shape).astype(dtype.newbyteorder("="))


def _samples(x: Array, y: Array | None, spec: DataSpec, where: str) -> tuple[TensorSet, str]:
    if y is None:
        raise UsageError(
            f"data without labels: {where} has no array of targets beside it",
            where="--data",
            hint="fine-tuning needs a target for every sample",
        )
    if len(x) != len(y) or not len(x):
        raise UsageError(f"{where}: {len(x)} samples but {len(y)} targets", where="--data")
    inputs, note = _as_inputs(x, spec, where)
    return TensorSet(inputs, _as_targets(y, where)), note


def _as_targets(y: Array, where: str) -> torch.Tensor:
    if y.dtype.kind not in "iubf":
        raise UsageError(
            f"{where}: targets are {y.dtype}, not numbers", where="--data", hint="use 0, 1, 2, … as labels"
        )
    if y.dtype.kind == "f":
        return torch.from_numpy(y.astype(np.float32))
    return torch.from_numpy((y[:, 0] if y.ndim == 2 and y.shape[1] == 1 else y).astype(np.int64))


def _as_inputs(x: Array, spec: DataSpec, where: str) -> tuple[torch.Tensor, str]:
    """float32, images as NCHW: bytes divided by 255, then mean, std and size of the spec."""
    if x.dtype.kind not in "iubf":
        raise UsageError(f"{where}: {x.dtype} are not numbers", where="--data")
    images, layout = _channels_first(x, where)
    values = torch.from_numpy(np.ascontiguousarray(images)).float()
    notes = [f"{where} {x.shape} {x.dtype}: {layout}"]
    if x.dtype == np.uint8:
        values /= 255
        notes.append("divided by 255")
    if not bool(torch.isfinite(values).all()):
        count = int((~torch.isfinite(values)).sum())
        raise UsageError(f"{where}: {count} of {values.numel()} values are not finite", where="--data")
    if spec.size is not None and values.ndim == 4 and tuple(values.shape[2:]) != spec.size:
        values = torch.nn.functional.interpolate(values, size=spec.size, mode="bilinear", antialias=True)
        notes.append(f"scaled to {spec.size[0]}x{spec.size[1]}")
    return standardised(values, spec, where), ", ".join(notes)


def _channels_first(x: Array, where: str) -> tuple[Array, str]:
    if x.ndim == 3:
        return x[:, None], "grey images"
    if x.ndim != 4:
        return x, "taken as it is"
    first, last = x.shape[1] in _CHANNELS, x.shape[3] in _CHANNELS
    if first and last:
        raise UsageError(
            f"{where}: shape {x.shape} could be channels first or last",
            where="--data",
            hint="give the data as file.py:name, which returns (channels, height, width)",
        )
    return (x.transpose(0, 3, 1, 2), "channels last") if last else (x, "channels first")


def standardised(values: torch.Tensor, spec: DataSpec, where: str) -> torch.Tensor:
    """(x - mean) / std per channel of (n, channels, ...) as the spec says.

    Raises:
        UsageError: Another number of means or deviations than channels, or a deviation that is not positive.
    """
    if spec.mean is None and spec.std is None:
        return values
    channels = values.shape[1]
    mean, std = spec.mean or (0.0,), spec.std or (1.0,)
    if len(mean) not in (1, channels) or len(std) not in (1, channels):
        raise UsageError(
            f"{where}: {channels} channels but {len(mean)} means and {len(std)} deviations", where="data.mean, data.std"
        )
    if min(std) <= 0:
        raise UsageError(f"deviation {min(std):g} is not above zero", where="data.std")
    shape = (1, -1, *(1 for _ in values.shape[2:]))
    return (values - torch.tensor(mean).reshape(shape)) / torch.tensor(std).reshape(shape)
