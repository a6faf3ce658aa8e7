"""What one step of a model becomes in C: a call, its constants, its scratch memory.

A step is one operator, or a convolution with the addition that reads it. Each kind of operator is lowered by one module
in `ops`, found by what its `KINDS` lists; the kernels that the calls name lie in `edgeprune/csrc`, one `.c` a family.
"""

from __future__ import annotations

import importlib
import pkgutil
from dataclasses import dataclass
from functools import cache
from typing import Literal, Protocol, cast

from edgeprune.backends import Array
from edgeprune.backends.c import ops
from edgeprune.backends.c.model import Model, Operator
from edgeprune.errors import UnsupportedError

Variant = Literal["plain", "dsp", "mve"]


@dataclass(frozen=True)
class Step:
    """One operator; or a convolution and, as `added`, the ADD that alone reads its output.

    Of an addition the output is that of the addition, and the last activation is the other summand, which the output
    may lie over.
    """

    operator: Operator
    added: Operator | None = None

    @property
    def output(self) -> int:
        """The tensor it makes first."""
        return (self.added or self.operator).outputs[0]


@dataclass(frozen=True, eq=False)
class Constant:
    """An array in flash. Its name is unique within the step; the generator makes it unique in the library."""

    name: str
    values: Array
    alignment: int = 4


@dataclass(frozen=True, eq=False)
class Lowered:
    """A step in C99.

    Attributes:
        call: Statements, in which `{in0}`, `{in1}`, ... stand for pointers to the step's activations in order,
            `{out0}`, ... for its outputs (typed by their number formats, never overlapping an input unless
            `overwrites` allows it), `{scratch}` for `scratch_bytes` bytes aligned to 8, and `{name}` for each constant
            (typed by its array). Literal braces are doubled.
        kernels: Stems of the files in `edgeprune/csrc` that the call needs.
        definitions: C at file scope that the call needs, such as a specialised function. Names carry `{step}` to be
            unique; constants and doubled braces as in `call`.
        overwrites: Positions of the activations that output 0 may lie exactly over.
    """

    call: str
    kernels: tuple[str, ...]
    constants: tuple[Constant, ...] = ()
    scratch_bytes: int = 0
    definitions: str = ""
    overwrites: tuple[int, ...] = ()


class Lowering(Protocol):
    """What a module in `ops` provides.

    Attributes:
        KINDS: Operators it lowers, by their names in the schema.

    One that also says `PADS = True` is given operators with `padding` EXPLICIT, see `edgeprune.backends.c.rewrite`.
    """

    KINDS: tuple[str, ...]

    def check(self, model: Model, operator: Operator) -> None:
        """Refuse what cannot be lowered exactly.

        Raises:
            UnsupportedError: Says what, in a sentence without the operator's name.
        """
        ...

    def lower(self, model: Model, step: Step, variant: Variant) -> Lowered: ...


@cache
def lowerings() -> dict[str, Lowering]:
    """The module that lowers each kind of operator."""
    found: dict[str, Lowering] = {}
    for module in pkgutil.iter_modules(ops.__path__):
        lowering = cast(Lowering, importlib.import_module(f"{ops.__name__}.{module.name}"))
        found |= dict.fromkeys(lowering.KINDS, lowering)
    return found


def lowering(kind: str) -> Lowering:
    """The module for a kind of operator.

    Raises:
        UnsupportedError: None lowers it.
    """
    if kind not in lowerings():
        known = ", ".join(sorted(lowerings()))
        raise UnsupportedError(f"the operator {kind} cannot be written as C", hint=f"what can: {known}")
    return lowerings()[kind]
