"""DEPTHWISE_CONV_2D, alone or with the addition that reads it; the kernels are `csrc/ep_depthwise*.c`."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from edgeprune.backends import Array
from edgeprune.backends.c.addition import addition, check_addition
from edgeprune.backends.c.fixed_point import FixedPoint, fixed_point
from edgeprune.backends.c.lowering import Constant, Lowered, Step, Variant
from edgeprune.backends.c.model import Model, Operator
from edgeprune.backends.c.ops import conv
from edgeprune.backends.c.quantized import clamps, refuse_other_formats
from edgeprune.backends.c.structures import structure
from edgeprune.backends.c.windows import Windows, windows
from edgeprune.errors import UnsupportedError

KINDS = ("DEPTHWISE_CONV_2D",)
PADS = True

_FILTER, _BIAS = 1, 2  # positions of the inputs
_VECTOR = 16  # bytes of a register with lanes
_MOST_TAPS = 255  # of a strip, whose places in the filter are bytes
_LONGEST_STEP = 2**16 // 7  # along a strip: seven of them fit the lanes that hold places
_LARGEST_SHIFT = 22  # of the sliding kernel, whose offset holds the output's zero point times 2**shift


@dataclass(frozen=True, eq=False)
class _Layer:
    """A depthwise convolution in numbers.

    Attributes:
        weights: int64, (channels of the output, height, width).
        bias: int64, (channels of the output,).
        folded: The same less the input's zero point times the sum of the weights.
        factors: One for each channel of the output.
        bounds: What the magnitude of each channel's sum cannot exceed, bias counted, whatever the input.
    """

    weights: Array
    bias: Array
    folded: Array
    factors: tuple[FixedPoint, ...]
    bounds: Array
    height: Windows
    width: Windows
    batches: int
    input_channels: int
    zero: int
    output_zero: int
    clamps: tuple[int, int]

    @property
    def multiplier(self) -> int:
        """Channels of the output for each of the input."""
        return len(self.bias) // self.input_channels

    @property
    def is_short(self) -> bool:
        """Whether one rounding high multiplication and one shift rescale all sums."""
        shifts = all(1 <= -factor.shift <= _LARGEST_SHIFT for factor in self.factors)
        return shifts and bool(self.bounds.max() < 2**30)

    @property
    def slides(self) -> bool:
        """Whether the kernel for 3x3 filters computes it."""
        directions = (self.height, self.width)
        shape = all(d.size == 3 and d.dilation == 1 and d.before <= 1 and d.after <= 1 for d in directions)
        return shape and self.multiplier == 1 and self._along.stride in (1, 2) and self.is_short

    @property
    def _along(self) -> Windows:
        """The direction that the filter slides along: the longer one, or the width."""
        return self.height if self.height.output > self.width.output else self.width

    @property
    def along_height(self) -> bool:
        """Whether that is the height."""
        return self._along is self.height


def check(model: Model, operator: Operator) -> None:
    """Refuse other types than int8, computed filters and sums that overflow.

    Raises:
        UnsupportedError: See there.
    """
    tensors = [model.tensor(operator.inputs[0]), model.tensor(operator.outputs[0])]
    weights = model.tensor(operator.inputs[_FILTER])
    refuse_other_formats(*tensors, weights)
    bias = model.tensor(operator.inputs[_BIAS]) if _has_bias(operator) else None
    if weights.data is None or (bias is not None and bias.data is None):
        raise UnsupportedError("its filter or bias is computed, not constant")
    if bias is not None and bias.dtype != "int32":
        raise UnsupportedError(f"its bias is {bias.dtype}, not int32")
    assert weights.quantization is not None
    if any(weights.quantization.zero_points):
        raise UnsupportedError("its filter has a zero point")
    if len(weights.quantization.scales) not in (1, weights.shape[3]):
        raise UnsupportedError("its filter's scales are neither one nor one for each channel")
    layer = _layer(model, operator)
    for bound, factor in zip(layer.bounds.tolist(), layer.factors, strict=True):
        if max(bound, 1) << max(factor.shift, 0) >= 2**31:
            raise UnsupportedError("its sums can exceed 32 bits")


def lower(model: Model, step: Step, variant: Variant) -> Lowered:
    """A call of the kernel for vectors or for 3x3 filters where that is possible, else of the one for any filter.

    Of a single input channel it is a convolution.
    """
    check(model, step.operator)
    if step.added is not None:
        check_addition(model, step.added)
    if model.tensor(step.operator.inputs[0]).shape[3] == 1:
        return conv.lower(*_as_convolution(model, step), variant)
    layer = _layer(model, step.operator)
    if variant == "mve" and (along_height := _strips_along_height(layer)) is not None:
        return _lower_strips(model, step, layer, along_height)
    return _lower_sliding(model, step, layer) if layer.slides else _lower_any(model, step, layer)


def _as_convolution(model: Model, step: Step) -> tuple[Model, Step]:
    """What filters one channel, as a convolution, whose filter has the axes in another order."""
    weights = model.tensor(step.operator.inputs[_FILTER])
    assert weights.data is not None and weights.quantization is not None
    data = np.ascontiguousarray(weights.data.transpose(3, 1, 2, 0))
    quantization = replace(weights.quantization, axis=0)
    tensors = list(model.tensors)
    tensors[model.tensors.index(weights)] = replace(weights, shape=data.shape, data=data, quantization=quantization)
    changed = replace(model, tensors=tuple(tensors))
    return changed, replace(step, operator=replace(step.operator, kind="CONV_2D"))


def _has_bias(operator: Operator) -> bool:
    return len(operator.inputs) > _BIAS and operator.inputs[_BIAS] is not None


def _layer(model: Model, operator: Operator) -> _Layer:
    source, weights = model.tensor(operator.inputs[0]), model.tensor(operator.inputs[_FILTER])
    output = model.tensor(operator.outputs[0])
    assert weights.data is not None and weights.quantization is not None
    taps = np.moveaxis(weights.data[0].astype(np.int64), 2, 0)  # (channels of the output, height, width)
    bias = np.zeros(len(taps), np.int64)
    if _has_bias(operator):
        stored = model.tensor(operator.inputs[_BIAS]).data
        assert stored is not None
        bias += stored.ravel()
    folded = bias - source.zero_point * taps.sum(axis=(1, 2))
    scales = weights.quantization.scales
    factors = [_factor(source.scale * scale / output.scale) for scale in scales]
    return _Layer(
        weights=taps,
        bias=bias,
        folded=folded,
        factors=tuple(factors * len(taps) if len(factors) == 1 else factors),
        bounds=np.maximum(np.abs(bias), np.abs(folded)) + 255 * np.abs(taps).sum(axis=(1, 2)),
        height=windows(operator, "h", source.shape[1], weights.shape[1]),
        width=windows(operator, "w", source.shape[2], weights.shape[2]),
        batches=source.shape[0],
        input_channels=source.shape[3],
        zero=source.zero_point,
        output_zero=output.zero_point,
        clamps=clamps(operator, output),
    )


def _factor(real: float) -> FixedPoint:
    """The factor of a channel; one of zero has a shift that the short rescaling takes."""
    factor = fixed_point(real)
    return factor if factor.multiplier else FixedPoint(0, -1)


def _lower_sliding(model: Model, step: Step, layer: _Layer) -> Lowered:
    channels = layer.input_channels
    row, output_row = layer.width.input * channels, layer.width.output * channels
    steps, lines = (layer.height, layer.width) if layer.along_height else (layer.width, layer.height)
    places = [row, channels, output_row, channels] if layer.along_height else [channels, row, channels, output_row]
    taps = layer.weights.transpose(0, 2, 1) if layer.along_height else layer.weights  # (channels, line, step)
    sliding = [layer.batches, channels, steps.input, lines.input, steps.output, lines.output, *places]
    sliding += [lines.stride, steps.before, lines.before, layer.zero, layer.output_zero, *layer.clamps]
    definitions = structure("sliding", "sliding_{step}", sliding)
    arguments = ["{in0}", "{out0}", "{packed}", "&sliding_{step}"]
    ending = "saturated" if layer.clamps == (-128, 127) else "clamped"
    if step.added is not None:
        definitions += addition(model, step.added, step.operator.outputs[0]).definition("addition_{step}")
        arguments += [_other(model, step)[0], "&addition_{step}"]
        ending = "added"
    return Lowered(
        call=f"EP(depthwise_stride_{steps.stride}_{ending})({', '.join(arguments)});",
        kernels=("ep_depthwise_3x3",),
        constants=(Constant("packed", _packed(taps, layer)),),
        definitions=definitions,
        overwrites=_other(model, step)[1],
    )


def _other(model: Model, step: Step) -> tuple[str, tuple[int, ...]]:
    """The value that is added, and what the output may lie over: it, unless the filter still reads it."""
    if step.added is None:
        return "NULL", ()
    others = [index for index in step.added.inputs if index != step.operator.outputs[0]]
    return ("{in0}", ()) if others == [step.operator.inputs[0]] else ("{in1}", (1,))


def _packed(taps: Array, layer: _Layer) -> Array:
    """Five int32 words for each channel, as `csrc/ep_depthwise.h` lists them."""
    shifts = np.array([[-factor.shift] for factor in layer.factors])
    order = [(0, 0), (0, 1), (1, 0), (1, 1), (0, 2), (2, 0), (1, 2), (2, 1), (2, 2)]
    places = np.stack([taps[:, line, step] for line, step in order], axis=1)
    padding = np.zeros((len(places), 2), np.int64)
    words = np.ascontiguousarray(np.hstack([places, shifts, padding]).astype(np.int8)).view("<i4")
    multipliers = np.array([[f.multiplier] for f in layer.factors])
    packed: Array = np.hstack([words, 2 * layer.folded[:, None], multipliers]).astype(np.int32)
    return packed


def _strips_along_height(layer: _Layer) -> bool | None:
    """Whether strips run along the height, the longer direction if both will do; None where neither does."""
    steps = {True: layer.width.input * layer.input_channels, False: layer.input_channels}
    fitting = [
        (windows.output, along_height)
        for along_height, windows in ((True, layer.height), (False, layer.width))
        if windows.dilation == 1 and steps[along_height] <= _LONGEST_STEP
    ]
    if not fitting or layer.height.size * layer.width.size > _MOST_TAPS:
        return None
    return max(fitting)[1] if len({output for output, _ in fitting}) > 1 else fitting[-1][1]


def _lower_strips(model: Model, step: Step, layer: _Layer, along_height: bool) -> Lowered:
    """For cores with Helium."""
    steps, lines = (layer.height, layer.width) if along_height else (layer.width, layer.height)
    channels, outputs = layer.input_channels, layer.input_channels * layer.multiplier
    places = [channels, layer.width.input * channels, outputs, layer.width.output * outputs]
    if along_height:
        places = [places[1], places[0], places[3], places[2]]
    vectors = -(-steps.size * lines.size // _VECTOR)
    read = (-(-steps.output // 4) * 4 - 1) * steps.stride * lines.size + _VECTOR * vectors
    strip_bytes = max(read, ((steps.output - 1) * steps.stride + steps.size) * lines.size)
    members: list[int | str] = [layer.batches, channels, layer.multiplier, steps.structure, lines.structure, *places]
    members += [vectors, strip_bytes, layer.zero, layer.output_zero, *layer.clamps, int(layer.is_short)]
    definitions, adding = structure("strips", "strips_{step}", members), "NULL"
    if step.added is not None:
        definitions += addition(model, step.added, step.operator.outputs[0]).definition("addition_{step}")
        adding = "&addition_{step}"
    arguments = ["{in0}", "{out0}", "{scratch}", "{weights}", "{turns}", "{channels}", "&strips_{step}"]
    factors = np.array([(factor.multiplier, factor.shift) for factor in layer.factors])
    return Lowered(
        call=f"EP(depthwise_strips)({', '.join([*arguments, _other(model, step)[0], adding])});",
        kernels=("ep_depthwise_strips",),
        constants=(
            Constant("weights", layer.weights.astype(np.int8)),
            Constant("turns", _turns(layer.weights.shape[1:], along_height, _VECTOR * vectors), 1),
            Constant("channels", np.hstack([layer.folded[:, None], factors]).astype(np.int32)),
        ),
        scratch_bytes=_VECTOR * vectors + strip_bytes,
        definitions=definitions,
        overwrites=_other(model, step)[1],
    )


def _turns(shape: tuple[int, ...], along_height: bool, lanes: int) -> Array:
    """(lines, lanes) uint8: the tap that each lane meets where a line of the filter is the first line's place."""
    taps = np.arange(shape[0] * shape[1]).reshape(shape)
    columns = taps if along_height else taps.T  # (steps, lines)
    turned = [np.roll(columns, place, axis=1).ravel() for place in range(columns.shape[1])]
    return np.pad(np.stack(turned), ((0, 0), (0, lanes - taps.size))).astype(np.uint8)


def _lower_any(model: Model, step: Step, layer: _Layer) -> Lowered:
    members: list[int | str] = [
        layer.batches,
        layer.input_channels,
        layer.multiplier,
        layer.height.structure,
        layer.width.structure,
    ]
    members += [layer.zero, layer.output_zero, *layer.clamps, int(layer.is_short)]
    definitions = structure("depthwise", "depthwise_{step}", members)
    adding = "NULL"
    if step.added is not None:
        definitions += addition(model, step.added, step.operator.outputs[0]).definition("addition_{step}")
        adding = "&addition_{step}"
    arguments = ["{in0}", "{out0}", "{weights}", "{bias}", "{multipliers}", "{shifts}", "&depthwise_{step}"]
    arguments += [_other(model, step)[0], adding]
    constants = (
        Constant("weights", layer.weights.astype(np.int8)),
        Constant("bias", layer.bias.astype(np.int32)),
        Constant("multipliers", np.array([f.multiplier for f in layer.factors], np.int32)),
        Constant("shifts", np.array([f.shift for f in layer.factors], np.int8)),
    )
    return Lowered(
        call=f"EP(depthwise)({', '.join(arguments)});",
        kernels=("ep_depthwise",),
        constants=constants,
        definitions=definitions,
        overwrites=_other(model, step)[1],
    )
