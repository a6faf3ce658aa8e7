"""Shapes, constants and options of an operator as the whole numbers that shapes are worked out from."""

from __future__ import annotations

from edgeprune.backends.c.model import Model, Operator
from edgeprune.errors import UsageError

Shape = tuple[int, ...]

_MOST_VALUES = 256


def shape_of(model: Model, operator: Operator, position: int) -> Shape:
    """The shape of an input."""
    return model.tensor(operator.inputs[position]).shape


def values_of(model: Model, operator: Operator, position: int) -> list[int]:
    """A constant as a flat list of whole numbers.

    Raises:
        UsageError: It is longer than any list of sizes.
    """
    data = model.tensor(operator.inputs[position]).data
    assert data is not None
    if data.size > _MOST_VALUES:
        raise UsageError(f"its input {position} lists {data.size} sizes or axes")
    return [int(value) for value in data.ravel()]


def one_value(model: Model, operator: Operator, position: int) -> int:
    """A constant that is a single whole number."""
    values = values_of(model, operator, position)
    if len(values) != 1:
        raise UsageError(f"its input {position} holds {len(values)} numbers, not one")
    return values[0]


def option(operator: Operator, name: str) -> int:
    """An option that is a whole number."""
    return int(operator.options[name])


def axis_of(axis: int, rank: int) -> int:
    """An axis counted from the first one, where it may be counted from the last.

    Raises:
        UsageError: There is no such axis.
    """
    if not -rank <= axis < rank:
        raise UsageError(f"its axis {axis} is not one of {rank}")
    return axis % rank
