"""An int8 model as the C backend sees it: tensors and operators of a .tflite file's only subgraph, as plain values.

`read` (in `reader`) makes it from a file and checks everything; what lowers an operator may rely on that.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from math import prod
from typing import Literal

from edgeprune.backends import Array

DataType = Literal["int8", "uint8", "int16", "int32", "int64", "bool", "float32"]
Option = int | float | bool | str


@dataclass(frozen=True)
class Quantization:
    """real = scale * (stored - zero_point), with one pair for the tensor or one per index of `axis`.

    Attributes:
        scales: As stored, exactly representable in float32.
    """

    scales: tuple[float, ...]
    zero_points: tuple[int, ...]
    axis: int = 0

    @property
    def scale(self) -> float:
        """The only scale."""
        (scale,) = self.scales
        return scale

    @property
    def zero_point(self) -> int:
        """The only zero point."""
        (zero_point,) = self.zero_points
        return zero_point


@dataclass(frozen=True, eq=False)
class Tensor:
    """A tensor; `data` has its shape and type where it is constant and is None where it is computed.

    A variable one is a state, which an operator reads and writes and which is zero at first.
    """

    name: str
    shape: tuple[int, ...]
    dtype: DataType
    quantization: Quantization | None = None
    data: Array | None = None
    variable: bool = False

    @property
    def size(self) -> int:
        """Elements."""
        return prod(self.shape)

    @property
    def scale(self) -> float:
        """The scale of a tensor that has one for all."""
        assert self.quantization is not None
        return self.quantization.scale

    @property
    def zero_point(self) -> int:
        """The zero point of a tensor that has one for all."""
        assert self.quantization is not None
        return self.quantization.zero_point


@dataclass(frozen=True)
class Operator:
    """One operator.

    Attributes:
        kind: Its name in the schema's `BuiltinOperator`, such as `CONV_2D`.
        inputs: Indices of tensors; None where an optional input is left out.
        options: Fields of its options table by their names in the schema, in snake case (`stride_h`); enumerations by
            name (`"SAME"`, `"RELU6"`).
        intermediates: Tensors that only tell the quantisation of what is computed within, as of an LSTM.
    """

    kind: str
    inputs: tuple[int | None, ...]
    outputs: tuple[int, ...]
    options: Mapping[str, Option] = field(default_factory=dict)
    version: int = 1
    intermediates: tuple[int, ...] = ()


@dataclass(frozen=True, eq=False)
class Model:
    """Operators in execution order, and the tensors they name by index."""

    tensors: tuple[Tensor, ...]
    operators: tuple[Operator, ...]
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    sha256: str = ""

    def tensor(self, index: int | None) -> Tensor:
        """The tensor of an index that is there."""
        assert index is not None
        return self.tensors[index]

    def activations(self, operator: Operator) -> tuple[int, ...]:
        """The inputs that are computed, in order: those without data that are no states."""
        given = [(i, self.tensors[i]) for i in operator.inputs if i is not None]
        return tuple(i for i, tensor in given if tensor.data is None and not tensor.variable)

    @cached_property
    def readers(self) -> Mapping[int, tuple[int, ...]]:
        """Positions of the operators that read each tensor."""
        found: dict[int, list[int]] = {i: [] for i in range(len(self.tensors))}
        for position, operator in enumerate(self.operators):
            for index in dict.fromkeys(operator.inputs):
                if index is not None:
                    found[index].append(position)
        return {index: tuple(positions) for index, positions in found.items()}
