"""An exported file against the float model, tensor by tensor: where the noise of int8 comes from.

A file's tensors are matched to the model's operators by shape, order and what they hold, because converters give
names of their own. A model whose channels were equalised holds other values on purpose; so each row also has the ratio
that is left when every channel may be scaled, and tensors are matched by that.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from edgeprune import backends
from edgeprune.against_document import AgainstRecord, TensorRow
from edgeprune.device.fusion import fuse
from edgeprune.errors import UsageError
from edgeprune.pruning.trace import Captured
from edgeprune.quantization.fake import quantised_nodes
from edgeprune.quantization.layers import folded, layers
from edgeprune.quantization.observed import node_values

Array = np.ndarray[Any, np.dtype[Any]]

_EXACT_DB = 200.0  # what an exact match counts as
_PLAIN_SHARE = 0.1
_MATCH_DB = 0.1  # being in order is worth this much, so that a tensor of noise alone is found too


def compare(path: Path, captured: Captured, samples: torch.Tensor) -> AgainstRecord:
    """Signal-to-noise ratios of a file's activations against the float model's, the worst first.

    Args:
        samples: Inputs (n, ...) float32.

    Raises:
        UnsupportedError: The file's runtime does not show its activations.
        UsageError: The file takes inputs of another shape, or none of its tensors is like one of the model's.
    """
    backend = backends.for_file(path)
    plain = folded(captured)
    nodes = quantised_nodes(plain)
    reference: dict[str, list[Array]] = {name: [] for name in nodes}
    for held in node_values(plain.module, nodes, samples):
        for name, value in held.items():
            reference[name].append(value.numpy())
    wanted = {name: np.concatenate(parts) for name, parts in reference.items()}
    found = backends.revealing(backend.NAME).values(path, samples.numpy())
    pairs = matched(wanted, found)
    if not pairs:
        raise UsageError("no tensor of the file is like one of the model's", where=str(path), hint="is it this model?")
    rows = _rows(plain, wanted, found, pairs)
    return AgainstRecord(
        artifact=path,
        runtime=backend.RUNTIME,
        samples=len(samples),
        tensors=tuple(sorted(rows, key=lambda row: _EXACT_DB if row.snr_db is None else row.snr_db)),
        unmatched=tuple(name for name in nodes if name not in pairs),
    )


def matched(wanted: dict[str, Array], found: dict[str, Array]) -> dict[str, str]:
    """Which tensor of the file holds each of the model's, both in execution order: the best match in that order."""
    rows, columns = list(wanted), list(found)
    scores = np.zeros((len(rows), len(columns)))
    for i, row in enumerate(rows):
        for j, column in enumerate(columns):
            if wanted[row].shape == found[column].shape:
                scores[i, j] = _score(wanted[row], found[column])
    best = np.zeros((len(rows) + 1, len(columns) + 1))
    for i in range(len(rows) - 1, -1, -1):
        for j in range(len(columns) - 1, -1, -1):
            taken = scores[i, j] + best[i + 1, j + 1] if scores[i, j] else 0.0
            best[i, j] = max(taken, best[i + 1, j], best[i, j + 1])
    pairs, i, j = {}, 0, 0
    while i < len(rows) and j < len(columns):
        if scores[i, j] and best[i, j] == scores[i, j] + best[i + 1, j + 1]:
            pairs[rows[i]] = columns[j]
            i, j = i + 1, j + 1
        elif best[i, j] == best[i + 1, j]:
            i += 1
        else:
            j += 1
    return pairs


def _score(reference: Array, values: Array) -> float:
    """How well a tensor matches: by its scaled channels, and of like ones the one that is also close as it is."""
    ratios = (scaled_snr_db(reference, values), plain_snr_db(reference, values))
    scaled, plain = (_EXACT_DB if ratio is None else min(max(ratio, 0.0), _EXACT_DB) for ratio in ratios)
    return scaled + _PLAIN_SHARE * plain + _MATCH_DB


def plain_snr_db(reference: Array, values: Array) -> float | None:
    """10·log10(mean(reference²) / mean((values − reference)²)); None when they are equal."""
    exact, given = reference.astype(np.float64), values.astype(np.float64)
    noise, signal = float(np.square(given - exact).mean()), float(np.square(exact).mean())
    if noise == 0:
        return None
    return float(10 * np.log10(signal / noise)) if signal else -np.inf


def scaled_snr_db(reference: Array, values: Array) -> float | None:
    """The same with every channel (axis 1, of two axes the last) scaled to come closest, and weighed alike."""
    exact, given = _by_channel(reference), _by_channel(values)
    power = np.square(given).sum(1, keepdims=True)
    scale = (exact * given).sum(1, keepdims=True) / np.where(power == 0, 1, power)
    size = np.sqrt(np.square(exact).mean(1, keepdims=True))
    size[size == 0] = 1
    return plain_snr_db(exact / size, given * np.maximum(scale, 0) / size)


def _by_channel(values: Array) -> Array:
    axis = 1 if values.ndim > 2 else values.ndim - 1
    return np.moveaxis(values.astype(np.float64), axis, 0).reshape(values.shape[axis], -1)


def _rows(
    captured: Captured, wanted: dict[str, Array], found: dict[str, Array], pairs: dict[str, str]
) -> Sequence[TensorRow]:
    named = {layer.node: layer.name for layer in layers(captured.module)}
    operators = {op.output: op for op in fuse(captured.graph)}
    ratios = {node: plain_snr_db(wanted[node], found[tensor]) for node, tensor in pairs.items()}
    rows = []
    for node, tensor in pairs.items():
        op = operators.get(node)
        before = [ratios[name] for name in op.inputs if name in ratios] if op is not None else []
        known = [_EXACT_DB if ratio is None else ratio for ratio in before]
        own = ratios[node]
        lost = min(known) - own if known and own is not None else None
        layer = next((named[name] for name in op.nodes if name in named), node) if op is not None else node
        rows.append(
            TensorRow(
                layer=layer,
                node=node,
                kind="input" if op is None else op.kind,
                tensor=tensor,
                snr_db=own,
                scaled_snr_db=scaled_snr_db(wanted[node], found[tensor]),
                lost_db=lost,
            )
        )
    return rows
