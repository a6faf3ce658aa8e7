"""RESIZE_BILINEAR; where each row and column of the result lies in the source is a table."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from edgeprune.backends import Array
from edgeprune.backends.c.lowering import Constant, Lowered, Step, Variant
from edgeprune.backends.c.model import Model, Operator, Option
from edgeprune.errors import UnsupportedError

KINDS = ("RESIZE_BILINEAR",)
_FINE = 1024  # steps between two pixels


def check(model: Model, operator: Operator) -> None:
    """Refuse other formats than int8, a change of scale, and sizes at which the reference reads beyond its input.

    It counts in 1/1024 of a pixel, and what its step is rounded up by adds up: from 2 rows to 65 it reads a third one.
    """
    source, result = model.tensor(operator.inputs[0]), model.tensor(operator.outputs[0])
    if source.dtype != "int8":
        raise UnsupportedError(f"its input is {source.dtype}, not int8")
    if source.quantization != result.quantization:
        raise UnsupportedError("its input and its output have different scales or zero points")
    if operator.options.get("align_corners", False) and operator.options.get("half_pixel_centers", False):
        raise UnsupportedError("it aligns corners and has half pixel centres, which contradict each other")
    for axis in (1, 2):
        size, resized = source.shape[axis], result.shape[axis]
        if _between(size, resized, 1, operator.options)[:, 0].max() >= size:
            raise UnsupportedError(f"from {size} to {resized} the reference reads beyond its input")


def lower(model: Model, step: Step, variant: Variant) -> Lowered:
    """One pass over the result."""
    source, result = model.tensor(step.operator.inputs[0]), model.tensor(step.output)
    batches, height, width, channels = source.shape
    rows = _between(height, result.shape[1], width * channels, step.operator.options)
    columns = _between(width, result.shape[2], channels, step.operator.options)
    call = (
        f"EP(resize_bilinear)({{in0}}, {{out0}}, {{rows}}, {len(rows)}, {{columns}}, {len(columns)}, {batches}, "
        f"{source.size // batches}, {channels});"
    )
    return Lowered(call, ("ep_resize",), (Constant("rows", rows), Constant("columns", columns)))


def _between(size: int, resized: int, pitch: int, options: Mapping[str, Option]) -> Array:
    """Offsets of two neighbours and how far each index lies from the first, int32 (resized, 3)."""
    spans = (size - 1, resized - 1) if options.get("align_corners", False) and resized > 1 else (size, resized)
    step = (_FINE * spans[0] + spans[1] // 2) // spans[1]
    at = np.arange(resized) * step
    if options.get("half_pixel_centers", False):
        at += step // 2 - _FINE // 2
    first = np.maximum(at, 0) // _FINE
    second = np.minimum(np.maximum(at + _FINE - 1, 0) // _FINE, size - 1)
    return np.stack([first * pitch, second * pitch, at - first * _FINE], 1).astype(np.int32)
