"""Operators that change only the shape: no copy where input and output lie in the same place."""

from __future__ import annotations

from dataclasses import replace

from edgeprune.backends.c.copies import copy, lowered, place
from edgeprune.backends.c.lowering import Lowered, Step, Variant
from edgeprune.backends.c.model import Model, Operator

KINDS = ("RESHAPE", "SQUEEZE", "EXPAND_DIMS")


def check(model: Model, operator: Operator) -> None:
    """All can be written."""


def lower(model: Model, step: Step, variant: Variant) -> Lowered:
    """One copy of all bytes."""
    source, result = place(model.tensor(step.operator.inputs[0]), "in0"), place(model.tensor(step.output), "out0")
    whole = copy(source.whole.reshape(-1), source, result.whole.reshape(-1), result)
    return replace(lowered([whole]), overwrites=(0,))
