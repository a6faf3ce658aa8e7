"""Picking along axes by constant indices: GATHER, and resizing to the nearest pixel."""

from __future__ import annotations

from collections.abc import Mapping
from math import prod

import numpy as np

from edgeprune.backends import Array
from edgeprune.backends.c.copies import KERNEL
from edgeprune.backends.c.lowering import Constant, Lowered, Step, Variant
from edgeprune.backends.c.model import Model, Operator, Option, Tensor
from edgeprune.errors import UnsupportedError

KINDS = ("GATHER", "RESIZE_NEAREST_NEIGHBOR")


def check(model: Model, operator: Operator) -> None:
    """Refuse indices that are computed, per batch or out of range; a resize that changes the scale."""
    source, picked = model.tensor(operator.inputs[0]), model.tensor(operator.inputs[1])
    if operator.kind == "RESIZE_NEAREST_NEIGHBOR":
        if source.quantization != model.tensor(operator.outputs[0]).quantization:
            raise UnsupportedError("its input and its output have different scales or zero points")
        return
    if picked.data is None:
        raise UnsupportedError("its indices are computed")
    if operator.options.get("batch_dims", 0):
        raise UnsupportedError(f"its batch_dims is {operator.options['batch_dims']}, not 0")
    size = source.shape[int(operator.options["axis"])]
    if picked.size and not 0 <= int(picked.data.min()) <= int(picked.data.max()) < size:
        raise UnsupportedError(f"its indices go up to {picked.data.max()} of {size}, from {picked.data.min()}")


def lower(model: Model, step: Step, variant: Variant) -> Lowered:
    """Runs of bytes picked by two tables of offsets."""
    operator = step.operator
    source, result = model.tensor(operator.inputs[0]), model.tensor(step.output)
    bytes_each = np.dtype(source.dtype).itemsize
    if operator.kind == "GATHER":
        indices = model.tensor(operator.inputs[1]).data
        assert indices is not None
        axis = int(operator.options["axis"]) % len(source.shape)
        run = prod(source.shape[axis + 1 :]) * bytes_each
        return _picked(source, prod(source.shape[:axis]), indices.ravel() * run, np.zeros(1), run)
    rows, columns = (nearest(source.shape[at], result.shape[at], operator.options) for at in (1, 2))
    run = source.shape[3] * bytes_each
    return _picked(source, source.shape[0], rows * source.shape[2] * run, columns * run, run)


def _picked(source: Tensor, blocks: int, rows: Array, columns: Array, run: int) -> Lowered:
    block = source.size * np.dtype(source.dtype).itemsize // blocks
    call = (
        f"EP(gather)({{in0}}, {{out0}}, {blocks}, {block}, {{rows}}, {rows.size}, {{columns}}, {columns.size}, {run});"
    )
    return Lowered(
        call, (KERNEL,), (Constant("rows", rows.astype(np.int32)), Constant("columns", columns.astype(np.int32)))
    )


def nearest(size: int, resized: int, options: Mapping[str, Option]) -> Array:
    """The index (resized,) int64 of the source that each index of the result takes, in float32 as the reference."""
    aligned = bool(options.get("align_corners", False)) and resized > 1
    step = np.float32(size - 1) / np.float32(resized - 1) if aligned else np.float32(size) / np.float32(resized)
    shift = np.float32(0.5 if options.get("half_pixel_centers", False) else 0)
    at = (np.arange(resized, dtype=np.float32) + shift) * step
    whole = np.floor(at + np.float32(0.5 if options.get("align_corners", False) else 0))
    index: Array = np.clip(whole.astype(np.int64), 0, size - 1)
    return index
