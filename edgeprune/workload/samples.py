"""Sets of samples in memory, of user code and parts of them, and how batches are taken from any of them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from math import prod
from typing import Any

import numpy as np
import torch

from edgeprune.errors import UsageError
from edgeprune.workload import Array, Dataset

MEMORY_LIMIT_BYTES = 2 * 2**30  # sets below this are decoded once and kept


@dataclass(frozen=True)
class TensorSet:
    """Samples in memory: `x` (n, ...) float32 as the model takes it, `y` (n, ...)."""

    x: torch.Tensor
    y: torch.Tensor

    def __len__(self) -> int:
        return len(self.x)

    def __getitem__(self, index: int) -> tuple[Array, Any]:
        return self.x[index].numpy(), self.y[index].numpy()


@dataclass(frozen=True)
class Subset:
    """Some samples of another set, in the order of `indices`."""

    whole: Dataset
    indices: tuple[int, ...]

    def __len__(self) -> int:
        return len(self.indices)

    def __getitem__(self, index: int) -> tuple[Array, Any]:
        return self.whole[self.indices[index]]


@dataclass(frozen=True)
class UserSet:
    """What user code returned; may give a sample another face each time, so it is never kept in memory.

    Attributes:
        items: Anything with a length and an index that yields (x, y).
        where: Name for messages.
    """

    items: Any
    where: str

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, index: int) -> tuple[Array, Any]:
        sample = self.items[index]
        if not isinstance(sample, tuple | list) or len(sample) != 2 or sample[1] is None:
            raise UsageError(
                f"data without labels: sample {index} is not a pair (x, y) but {_described(sample)}",
                where=self.where,
                hint="return (x, y) for every sample",
            )
        x, y = (_array(part, f"sample {index}", self.where) for part in sample)
        if x.dtype.kind != "f":
            raise UsageError(
                f"sample {index}: x is {x.dtype}, not floating point",
                where=self.where,
                hint="return x as the model takes it, such as float32 scaled to 0..1",
            )
        return x.astype(np.float32, copy=False), y


def _described(sample: Any) -> str:
    return "(x, None)" if isinstance(sample, tuple | list) and len(sample) == 2 else type(sample).__name__


def _array(value: Any, what: str, where: str) -> Array:
    if isinstance(value, torch.Tensor):
        return value.detach().cpu().numpy()
    array = np.asarray(value)
    if array.dtype.kind not in "fiub":
        raise UsageError(
            f"{what} holds {type(value).__name__}, not numbers", where=where, hint="return arrays, tensors or numbers"
        )
    return array


def part(dataset: Dataset, indices: Sequence[int]) -> Dataset:
    """The samples at `indices`, in that order."""
    if isinstance(dataset, TensorSet):
        chosen = torch.as_tensor(list(indices), dtype=torch.long)
        return TensorSet(dataset.x[chosen], dataset.y[chosen])
    return Subset(dataset, tuple(int(i) for i in indices))


def batch_of(dataset: Dataset, indices: Sequence[int] | torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Inputs (n, ...) float32 and targets (n, ...) of the samples at `indices`.

    Raises:
        UsageError: Samples of one batch differ in shape.
    """
    chosen = torch.as_tensor(indices, dtype=torch.long)
    if isinstance(dataset, TensorSet):
        return dataset.x[chosen], dataset.y[chosen]
    xs, ys = zip(*(dataset[int(i)] for i in chosen))
    for index, x in zip(chosen, xs):
        if x.shape != xs[0].shape:
            raise UsageError(
                f"samples differ in shape: sample {int(chosen[0])} is {xs[0].shape}, sample {int(index)} is {x.shape}",
                where="data",
                hint="scale or pad all samples to one shape",
            )
    targets = torch.from_numpy(np.stack([np.asarray(y) for y in ys]))
    return torch.from_numpy(np.stack(xs)), targets.long() if not targets.is_floating_point() else targets.float()


def batches(dataset: Dataset, size: int) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """All samples in order, `size` at a time; the last batch may be smaller."""
    for start in range(0, len(dataset), size):
        yield batch_of(dataset, range(start, min(start + size, len(dataset))))


def batch_count(dataset: Dataset, size: int) -> int:
    """How many batches of `size` hold all samples."""
    return -(-len(dataset) // size)


def labels_of(dataset: Dataset) -> Array:
    """The targets (n, ...) of all samples, without decoding inputs where the set knows them."""
    if isinstance(dataset, TensorSet):
        return dataset.y.numpy()
    if isinstance(dataset, Subset):
        return labels_of(dataset.whole)[list(dataset.indices)]
    known = getattr(dataset, "labels", None)
    if known is None:
        known = [dataset[i][1] for i in range(len(dataset))]
    return np.stack([np.asarray(y) for y in known])


def in_memory(dataset: Dataset, limit_bytes: int = MEMORY_LIMIT_BYTES) -> Dataset:
    """The set as tensors when it always gives the same samples and they fit, else the set itself."""
    source = dataset.whole if isinstance(dataset, Subset) else dataset
    if isinstance(dataset, TensorSet) or isinstance(source, UserSet) or not len(dataset):
        return dataset
    size_bytes = prod(dataset[0][0].shape) * 4 * len(dataset)
    if size_bytes > limit_bytes:
        return dataset
    return TensorSet(*batch_of(dataset, range(len(dataset))))


def as_items(value: Iterable[Any]) -> Any:
    """Something indexable: the value itself, or its items when it can only be walked through."""
    return value if hasattr(value, "__getitem__") else list(value)
