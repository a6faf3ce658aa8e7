"""The options of operators: which fields the options table of each has, by position, format and default."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any

from edgeprune.backends.c.flatbuffer import Format, Table, damaged
from edgeprune.backends.c.model import Option
from edgeprune.errors import UnsupportedError


@dataclass(frozen=True)
class Field:
    """A field of an options table.

    Attributes:
        name: In the schema, in snake case.
        form: Its number format; None for a vector, which is not told since the tensors' shapes say the same.
        enumeration: The schema's enumeration that names its values.
        known: The values that are known here; all where empty.
    """

    name: str
    form: Format | None = None
    default: int | float | bool = 0
    enumeration: str = ""
    known: tuple[Option, ...] = ()


_ACTIVATION_TYPE = "ActivationFunctionType"
_CLAMPS = ("NONE", "RELU", "RELU_N1_TO_1", "RELU6")
_ACTIVATION = Field("fused_activation_function", "b", 0, _ACTIVATION_TYPE, _CLAMPS)
_BIAS_TYPE = Field("quantized_bias_type", "b", 0, "TensorType", ("FLOAT32", "INT32"))  # float stands for: not said
_PADDING = Field("padding", "b", 0, "Padding")
_STRIDES = (Field("stride_w", "i"), Field("stride_h", "i"))
_DILATIONS = (Field("dilation_w_factor", "i", 1), Field("dilation_h_factor", "i", 1))
_POWER_OF_TWO = Field("pot_scale_int16", "?", True)
_AXIS = Field("axis", "i")
_ASYMMETRIC = Field("asymmetric_quantize_inputs", "?", False)
_RESIZE = (Field("align_corners", "?", False), Field("half_pixel_centers", "?", False))
_REMOVED = Field("")

# Fields in the order of their positions, by the name of the table in the schema without "Options".
TABLES: dict[str, tuple[Field, ...]] = {
    "Conv2D": (_PADDING, *_STRIDES, _ACTIVATION, *_DILATIONS, _BIAS_TYPE),
    "DepthwiseConv2D": (_PADDING, *_STRIDES, Field("depth_multiplier", "i"), _ACTIVATION, *_DILATIONS),
    "TransposeConv": (_PADDING, *_STRIDES, _ACTIVATION, _BIAS_TYPE),
    "FullyConnected": (
        _ACTIVATION,
        Field("weights_format", "b", 0, "FullyConnectedOptionsWeightsFormat", ("DEFAULT",)),
        Field("keep_num_dims", "?", False),
        _ASYMMETRIC,
        _BIAS_TYPE,
    ),
    "BatchMatMul": (Field("adj_x", "?", False), Field("adj_y", "?", False), _ASYMMETRIC),
    "Add": (_ACTIVATION, _POWER_OF_TWO),
    "Sub": (_ACTIVATION, _POWER_OF_TWO),
    "Mul": (_ACTIVATION,),
    "MaximumMinimum": (),
    "SquaredDifference": (),
    "Pool2D": (_PADDING, *_STRIDES, Field("filter_width", "i"), Field("filter_height", "i"), _ACTIVATION),
    "Reducer": (Field("keep_dims", "?", False),),
    "Softmax": (Field("beta", "f", 0.0),),
    "LeakyRelu": (Field("alpha", "f", 0.0),),
    "HardSwish": (),
    "Gelu": (Field("approximate", "?", False),),
    "Abs": (),
    "Exp": (),
    "Pad": (),
    "PadV2": (),
    "MirrorPad": (Field("mode", "b", 0, "MirrorPadMode", ("REFLECT", "SYMMETRIC")),),
    "Reshape": (Field("new_shape"),),
    "Squeeze": (Field("squeeze_dims"),),
    "ExpandDims": (),
    "Concatenation": (_AXIS, _ACTIVATION),
    "Split": (Field("num_splits", "i"),),
    "SplitV": (Field("num_splits", "i"),),
    "Slice": (),
    "StridedSlice": (
        *(Field(f"{name}_mask", "i") for name in ("begin", "end", "ellipsis", "new_axis", "shrink_axis")),
        Field("offset", "?", False),
    ),
    "Transpose": (),
    "ReverseV2": (),
    "Tile": (),
    "BroadcastTo": (),
    "SpaceToDepth": (Field("block_size", "i"),),
    "DepthToSpace": (Field("block_size", "i"),),
    "SpaceToBatchND": (),
    "BatchToSpaceND": (),
    "ResizeNearestNeighbor": _RESIZE,
    "ResizeBilinear": (_REMOVED, _REMOVED, *_RESIZE),
    "Quantize": (),
    "UnidirectionalSequenceLSTM": (
        Field("fused_activation_function", "b", 0, _ACTIVATION_TYPE, ("TANH",)),
        Field("cell_clip", "f", 0.0),
        Field("proj_clip", "f", 0.0),
        Field("time_major", "?", False),
        _ASYMMETRIC,
        Field("diagonal_recurrent_tensors", "?", False, known=(False,)),
    ),
    "Pack": (Field("values_count", "i"), _AXIS),
    "Unpack": (Field("num", "i"), _AXIS),
    "Gather": (_AXIS, Field("batch_dims", "i")),
}


def read_options(owner: Table, table: str, schema: Any) -> dict[str, Option]:
    """The options of an operator, defaults filled in.

    Args:
        owner: The operator's table.
        table: What its options table must be, in `TABLES`; empty for none.
        schema: The module with the enumerations.

    Raises:
        UnsupportedError: A field or value that is not known here.
        UsageError: Another table, a value outside its enumeration, a number that is not finite.
    """
    expected = getattr(schema.BuiltinOptions, f"{table}Options") if table else 0
    found, options = owner.integer(3, "B"), owner.table(4)
    if found not in (0, expected) or (found == 0) != (options is None):
        raise damaged(f"its options are of kind {found}, not {expected}")
    if owner.integer(11, "B") != 0:
        raise UnsupportedError("its options are of a newer kind")
    fields = TABLES[table] if table else ()
    if options is not None:
        options.content.charge(options.slots)
        if any(options.has(slot) for slot in range(len(fields), options.slots)):
            raise UnsupportedError(f"its options have a field that is newer than {len(fields)} known ones")
    return {
        field.name: _value(options, slot, field, schema) for slot, field in enumerate(fields) if field.form is not None
    }


@cache
def names_of(enumeration: Any) -> Mapping[int, str]:
    """Names of an enumeration of the schema by value."""
    return {value: name for name, value in vars(enumeration).items() if isinstance(value, int)}


def _value(options: Table | None, slot: int, field: Field, schema: Any) -> Option:
    assert field.form is not None
    value = field.default if options is None else options.number(slot, field.form, field.default)
    told: Option = value
    if field.enumeration:
        names = names_of(getattr(schema, field.enumeration))
        if value not in names:
            raise damaged(f"its {field.name} is {value}, which is not in {', '.join(names.values())}")
        told = names[int(value)]
    if field.known and told not in field.known:
        raise UnsupportedError(f"its {field.name} {told} is not known here", hint=f"known: {field.known}")
    if isinstance(told, float) and not math.isfinite(told):
        raise damaged(f"its {field.name} is not finite")
    return told
