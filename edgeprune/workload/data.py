"""The user's data in four disjoint roles, from `npz:FILE`, `idx:DIR`, `images:DIR` or `file.py:name`."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from edgeprune.errors import UsageError, did_you_mean
from edgeprune.spec import DataSpec
from edgeprune.workload import Data, Dataset
from edgeprune.workload.arrays import read_idx, read_npz
from edgeprune.workload.entries import call_entry, is_entry, load_entry
from edgeprune.workload.images import read_images
from edgeprune.workload.samples import UserSet, as_items, in_memory, labels_of, part
from edgeprune.workload.splits import stratified_draw, stratified_split

SHARE = 0.15  # of the training samples, for each of validation and test that is not given
_SCHEMES = ("npz", "idx", "images")


def load_data(spec: DataSpec, seed: int = 0, calibration_samples: int = 256) -> Data:
    """Train, validation, calibration and test sets. What is not given is split off the training set.

    Args:
        spec: The source, and how images are scaled.
        seed: Of the splits; the same seed gives the same sets.
        calibration_samples: Drawn from the training set, classes in turns.

    Raises:
        UsageError: No such source, or data that cannot be used; the message names the place and the remedy.
        TrustError: A file that could run code.
    """
    if spec.source is None:
        raise UsageError("no data given", where="--data", hint="npz:FILE, images:DIR, idx:DIR or file.py:name")
    parts, notes = _read(spec, spec.source)
    for name, dataset in parts.items():
        check_samples(dataset, name)
    for offset, role in enumerate(("test", "validation")):
        if role not in parts:
            labels = labels_of(parts["train"])
            stay, off = stratified_split(labels, SHARE, seed + offset)
            parts[role] = part(parts["train"], off.tolist())
            parts["train"] = part(parts["train"], stay.tolist())
            notes.append(f"{role}: {len(off)} samples split off the training set, seed {seed}")
    drawn = stratified_draw(labels_of(parts["train"]), calibration_samples, seed)
    parts = {role: in_memory(dataset) for role, dataset in parts.items()}
    notes.append(f"calibration: {len(drawn)} of the {len(parts['train'])} training samples, seed {seed}")
    return Data(
        train=parts["train"],
        validation=parts["validation"],
        calibration=part(parts["train"], drawn.tolist()),
        test=parts["test"],
        notes=tuple(notes),
    )


def _read(spec: DataSpec, source: str) -> tuple[dict[str, Dataset], list[str]]:
    scheme, _, place = source.partition(":")
    readers: Mapping[str, Any] = {"npz": read_npz, "idx": read_idx, "images": read_images}
    if scheme in readers and place:
        parts, notes = readers[scheme](Path(place), spec)
        return dict(parts), notes
    if is_entry(source):
        return _from_code(spec, source)
    hint = did_you_mean(scheme, _SCHEMES) if ":" in source else "npz:FILE, images:DIR, idx:DIR or file.py:name"
    raise UsageError(f"unknown data source {source!r}", where="--data", hint=hint)


def _from_code(spec: DataSpec, source: str) -> tuple[dict[str, Dataset], list[str]]:
    if spec.size is not None or spec.mean is not None or spec.std is not None:
        raise UsageError(
            "size, mean and std are for files of images, not for data from code",
            where="[data]",
            hint=f"return the samples of {source} as the model takes them",
        )
    found = load_entry(source, "--data")
    value = call_entry(found, {}, "--data") if callable(found) else found
    if not isinstance(value, tuple | list) or len(value) not in (2, 3):
        raise UsageError(
            f"{source} gave {type(value).__name__}, not (train, validation) or (train, validation, test)",
            where="--data",
            hint="return two or three sets of (x, y) with a length",
        )
    roles = ("train", "validation", "test")[: len(value)]
    return {role: _user_set(items, f"{source} ({role})") for role, items in zip(roles, value)}, []


def _user_set(items: Any, where: str) -> Dataset:
    from torch.utils.data import DataLoader

    if isinstance(items, DataLoader):
        raise UsageError("a DataLoader gives batches, not samples", where=where, hint="return its dataset instead")
    if not hasattr(items, "__len__") or not (hasattr(items, "__getitem__") or hasattr(items, "__iter__")):
        raise UsageError(
            f"{type(items).__name__} has no length or no samples", where=where, hint="return a list or Dataset"
        )
    return UserSet(as_items(items), where)


def check_samples(dataset: Dataset, name: str, count: int = 8) -> None:
    """Look at the first samples: there are some, they agree in shape, are finite and have labels.

    Raises:
        UsageError: They cannot be used; says why.
    """
    if not len(dataset):
        raise UsageError(f"the {name} set is empty", where="--data")
    shapes = set()
    for index in range(min(count, len(dataset))):
        x, y = dataset[index]
        shapes.add(x.shape)
        if not np.isfinite(x).all():
            raise UsageError(f"{name} sample {index} has values that are not finite", where="--data")
        if y is None or np.asarray(y).dtype.kind not in "iubf":
            raise UsageError(f"data without labels: {name} sample {index} has {y!r}", where="--data")
    if len(shapes) > 1:
        raise UsageError(
            f"{name} samples differ in shape: {' and '.join(str(s) for s in sorted(shapes))}",
            where="--data",
            hint="scale or pad all samples to one shape",
        )
