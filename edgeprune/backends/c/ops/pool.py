"""AVERAGE_POOL_2D and MAX_POOL_2D; the kernels are in `csrc/ep_pool.c`."""

from __future__ import annotations

from edgeprune.backends.c.lowering import Lowered, Step, Variant
from edgeprune.backends.c.model import Model, Operator
from edgeprune.backends.c.quantized import clamps, refuse_other_formats
from edgeprune.backends.c.structures import structure
from edgeprune.backends.c.windows import Windows, windows
from edgeprune.errors import UnsupportedError

KINDS = ("AVERAGE_POOL_2D", "MAX_POOL_2D")

_SAME_SCALE = 1e-6  # scales this close are one for the reference


def check(model: Model, operator: Operator) -> None:
    """Refuse other types than int8, and an output that is quantised otherwise than the input.

    Raises:
        UnsupportedError: See there.
    """
    source, output = model.tensor(operator.inputs[0]), model.tensor(operator.outputs[0])
    refuse_other_formats(source, output)
    if abs(source.scale - output.scale) > _SAME_SCALE or source.zero_point != output.zero_point:
        raise UnsupportedError("the output is not quantised as the input")
    clamps(operator, output)
    _directions(model, operator)


def lower(model: Model, step: Step, variant: Variant) -> Lowered:
    """A call of the kernel for averages or for maxima."""
    operator = step.operator
    check(model, operator)
    source, output = model.tensor(operator.inputs[0]), model.tensor(operator.outputs[0])
    height, width = _directions(model, operator)
    values: list[int | str] = [source.shape[0], source.shape[3], height.structure, width.structure]
    values += clamps(operator, output)
    kernel = "average_pool" if operator.kind == "AVERAGE_POOL_2D" else "max_pool"
    return Lowered(
        call=f"EP({kernel})({{in0}}, {{out0}}, &pool_{{step}});",
        kernels=("ep_pool",),
        definitions=structure("pool", "pool_{step}", values),
    )


def _directions(model: Model, operator: Operator) -> tuple[Windows, Windows]:
    _, height, width, _ = model.tensor(operator.inputs[0]).shape
    return (
        windows(operator, "h", height, int(operator.options["filter_height"])),
        windows(operator, "w", width, int(operator.options["filter_width"])),
    )
