"""What the kernels of the C library do for an operator: how often each of their loops runs, by the loops in `csrc`.

The core cycles of a step are these amounts times prices that are counted (`edgeprune.device.counted`). Amounts follow
from sizes alone. Where only the number of positions is known, a map is taken to be square.
"""

from __future__ import annotations

from math import isqrt, sqrt
from typing import Literal, NamedTuple

from edgeprune.device.ops import Op

Variant = Literal["plain", "dsp"]
Amounts = tuple[float, ...]

# What every core is counted on, by `law_name`.
LAWS = frozenset(
    "pointwise spatial depthwise.3x3 depthwise.any dense matmul add mul activation.table activation.clamp pool.max "
    "pool.average mean concat pad resize softmax move.slice move.strided move.transpose".split()
)
# Those of them that a few shapes stand for: a copy takes what its runs of bytes are long.
_ROUGH = frozenset(("move.strided", "move.transpose"))
# What no design counts, by its name or its kind: the law that comes nearest.
STAND_INS = {
    "add.squared_difference": "matmul",
    "transposed": "matmul",
    "activation": "mul",
    "add": "activation.table",
    "mean": "mul",
    "move": "move.slice",
    "norm": "mul",
    "other": "mul",
    "pool": "pool.max",
    "quantize": "activation.table",
    "resize": "move.slice",
    "rnn": "dense",
}
_SUMMING = ("conv", "depthwise")
_TABLES = frozenset("abs exp gelu hard_swish leaky_relu log logistic rsqrt sqrt tanh".split())
_CLAMPS = frozenset("relu relu6 relu_0_to_1 relu_n1_to_1 hardtanh clamp clamp_min clamp_max".split())


class Tile(NamedTuple):
    """What a product takes at once: rows of weights, those where it has a single column, values of a column."""

    rows: int
    rows_alone: int
    values: int


_TILES: dict[Variant, Tile] = {"dsp": Tile(4, 4, 4), "plain": Tile(2, 1, 1)}
_UNROLLED = 4  # steps of a product between two jumps


def law_name(op: Op) -> str:
    """What prices an op: its kernel in `csrc` and, where that matters, which axis it works along."""
    if op.kind == "conv" or (op.kind == "depthwise" and op.in_channels == 1):
        return "transposed" if op.transposed else "spatial" if op.kernel > 1 else "pointwise"
    if op.kind == "depthwise":
        slides = op.kernel == 9 and op.kernel_rows in (0, 3) and op.stride in (1, 4)
        return "depthwise.3x3" if slides else "depthwise.any"
    if op.kind == "activation":
        kernel = "table" if op.function in _TABLES else "clamp" if op.function in _CLAMPS else op.function
        return f"activation.{kernel}"
    if op.kind == "mean" and (op.out_positions > 1 or op.out_channels != op.in_channels):
        return "mean.channels"
    if op.kind == "concat" or op.function == "slice":
        whole = "move.slice" if op.kind == "move" else "concat"
        return whole if op.in_positions == op.out_positions else f"{whole}.positions"
    return f"{op.kind}.{op.function}" if op.function else op.kind


def pricing_law(op: Op) -> str:
    """The law of `LAWS` that prices an op: its own, or the one that stands in for it."""
    name = law_name(op)
    return name if name in LAWS else STAND_INS.get(name) or STAND_INS.get(op.kind, op.kind)


def is_guessed(op: Op) -> bool:
    """Whether an op is priced by the law of another kernel, or by one that knows only a few of its forms."""
    return law_name(op) not in LAWS - _ROUGH


def amounts(op: Op, variant: Variant) -> Amounts:
    """The amounts of an op that its pricing law has prices for; how many depends on that law and the variant alone."""
    name = pricing_law(op)
    if name in ("spatial", "pointwise"):
        return _convolution(op, _TILES[variant], name == "spatial")
    if name == "depthwise.3x3":
        return _sliding(op)
    if name == "depthwise.any":
        return _filtering(op)
    if name == "dense":
        return _dense(op, _TILES[variant])
    if name == "matmul":
        return 1, op.macs, op.out_elements, op.out_positions, op.in_elements
    if op.kind == "pool":
        return _pool(op)
    if name == "mean":
        return 1, op.out_channels, op.in_positions * (op.in_channels // 4), op.in_positions * (op.in_channels % 4)
    if op.kind in ("mean", "other") or op.function == "split":  # what they read is not less than what they write
        return 1, max(op.in_elements, op.out_elements), max(op.in_positions, op.out_positions), op.out_channels
    return 1, op.out_elements, op.out_positions, op.out_channels


def is_summing(op: Op) -> bool:
    """Whether it adds a second tensor to its result."""
    return op.kind in _SUMMING and len(op.inputs) > 1


class Slide(NamedTuple):
    """How a window slides along one direction.

    Attributes:
        outputs: Positions of the window.
        size: Its taps.
        taps: Those within the input, over all positions.
        before: Positions whose windows begin before the input.
        inside: Positions whose windows lie within the input.
    """

    outputs: float
    size: float
    taps: float
    before: float
    inside: float


def _slides(op: Op) -> tuple[Slide, Slide]:
    """Along rows and along columns; what is padded is taken to be what makes the sizes come out, half of it before."""
    side = isqrt(op.out_positions)
    root = side if side * side == op.out_positions else sqrt(op.out_positions)
    columns = op.columns or root
    rows, kernel_rows = op.out_positions / columns, op.kernel_rows or sqrt(op.kernel)
    grown, stride = sqrt(op.in_positions / op.out_positions), sqrt(op.stride)
    return _slide(rows, kernel_rows, stride, rows * grown), _slide(
        columns, op.kernel / kernel_rows, stride, columns * grown
    )


def _slide(outputs: float, size: float, stride: float, inputs: float) -> Slide:
    padded = max(0.0, (outputs - 1) * stride + size - inputs)
    ends = [padded // 2, padded - padded // 2]
    clipped = [sum(end - at * stride for at in range(int(-(-end // stride)))) for end in ends]
    before, after = (-(-end // stride) for end in ends)
    taps = max(outputs, outputs * size - sum(clipped))
    return Slide(outputs, size, taps, min(before, outputs), max(0.0, outputs - before - after))


def _up(size: int, step: int) -> int:
    return -(-size // step)


def _convolution(op: Op, tile: Tile, is_spatial: bool) -> Amounts:
    """Pairs of pixels, and a single one where a line is odd; each with all its values in fours, by rows in blocks."""
    groups = op.groups if op.kind == "conv" else 1
    rows, depth, pixels = op.out_channels // groups, op.in_channels // groups, op.out_positions
    along_rows, along_columns = _slides(op)
    values, lines = depth * op.kernel, along_rows.size
    blocks, blocks_alone, steps = _up(rows, tile.rows), _up(rows, tile.rows_alone), _up(values, tile.values)
    is_flat = op.kernel == 1 and op.stride == 1
    is_odd = pixels % 2 if is_flat else along_columns.outputs % 2
    singles = (1 if is_flat else along_rows.outputs) if is_odd == 1 else 0
    pairs = (pixels - singles) / 2
    rest = lines * (values / lines % tile.values)
    products = (
        pairs * blocks,
        pairs * blocks * steps,
        pairs * blocks * _up(steps, _UNROLLED),
        singles * blocks_alone,
        singles * blocks_alone * steps,
        singles * blocks_alone * _up(steps, _UNROLLED),
        0 if op.activation else pairs * blocks,
        pixels * rest,
        pixels * lines if rest else 0,
    )
    finished = _finished(op, pixels, rows, tile)
    gathered: Amounts = (singles, singles * steps, pairs, pairs * steps)
    if is_spatial:
        gathered = _gathered(along_rows, along_columns, singles, depth, steps, groups > 1)
    return (1, *(groups * amount for amount in (*products, *finished, *gathered)))


def _finished(op: Op, pixels: int, rows: int, tile: Tile) -> Amounts:
    """Results that are not stored where they are computed: copied, or a sum is taken along."""
    summed, is_whole = is_summing(op), rows % 4 == 0
    copied = 0 if summed or rows % tile.rows == 0 else pixels
    quick, slow = (pixels if summed and is_whole == whole else 0 for whole in (True, False))
    return copied, copied * rows, quick, quick * rows, slow, slow * rows


def _gathered(
    along_rows: Slide, along_columns: Slide, singles: float, depth: int, steps: int, is_grouped: bool
) -> Amounts:
    """Columns of values: of pairs within the image, of others line by line, and lines that are put together.

    Lines are put together where they reach beyond the image, and always where they lie in a group of channels.
    """
    lines, columns = along_rows.size, along_columns.outputs
    pixels = along_rows.outputs * columns
    inner = 0.0 if is_grouped else along_rows.inside * _inner_pairs(along_columns)
    others = pixels - 2 * inner - singles
    joined = (lines * along_rows.outputs - along_rows.taps) * columns
    joined += along_rows.taps * (columns - along_columns.inside)
    copied = along_rows.taps * max(0.0, along_columns.taps - along_columns.inside * along_columns.size)
    if is_grouped:
        joined, copied = pixels * lines, along_rows.taps * along_columns.taps
    filled = lines * along_columns.size * pixels - along_rows.taps * along_columns.taps
    found = [amount * count for count in (singles, inner, others) for amount in (1, lines, steps)]
    found += [joined, filled, filled * depth, copied, copied * _up(depth, 4), copied * (depth % 4)]
    straight = pixels * lines - joined
    return (*found, straight, straight * along_columns.size * depth)


def _inner_pairs(along_columns: Slide) -> float:
    """Pairs of one line that lie within the image."""
    columns, before = along_columns.outputs, along_columns.before
    after = max(0.0, columns - along_columns.inside - before - columns % 2)
    return max(0.0, columns // 2 - -(-before // 2) - -(-after // 2))


def _sliding(op: Op) -> Amounts:
    """Channel by channel, line by line."""
    every_second = op.stride > 1
    lines = op.out_channels * min(slide.outputs for slide in _slides(op))
    outputs = op.out_channels * op.out_positions
    return (
        1,
        op.out_channels,
        0 if every_second else lines,
        lines if every_second else 0,
        0 if every_second else outputs,
        outputs if every_second else 0,
        outputs if is_summing(op) else 0,
    )


def _filtering(op: Op) -> Amounts:
    """Four neighbours of a line at once, those at its ends one by one."""
    along_rows, along_columns = _slides(op)
    channels, lines = op.out_channels, along_rows.outputs
    together = along_columns.inside // 4 * 4
    alone = along_columns.outputs - together
    taps_alone = max(0.0, along_columns.taps - together * along_columns.size)
    return (
        1,
        lines,
        channels * lines,
        channels * along_rows.taps * along_columns.size,
        channels * lines * together,
        channels * along_rows.taps * together,
        channels * along_rows.taps * together * along_columns.size,
        channels * lines * alone,
        channels * along_rows.taps * alone,
        channels * along_rows.taps * taps_alone,
        channels * op.out_positions if is_summing(op) else 0,
    )


def _pool(op: Op) -> Amounts:
    """Window by window, four channels at once, what is left of them one by one."""
    along_rows, along_columns = _slides(op)
    lines, taps = along_rows.taps * along_columns.outputs, along_rows.taps * along_columns.taps
    whole, left = op.out_channels // 4, op.out_channels % 4
    return (
        1,
        op.out_positions,
        op.out_positions * whole,
        op.out_positions * left,
        lines * whole,
        lines * left,
        taps * whole,
        taps * left,
    )


def _dense(op: Op, tile: Tile) -> Amounts:
    """Vectors by rows in blocks; a recurrent layer reads the input and the state at each step."""
    rows, depth = op.out_channels, op.in_channels
    if op.kind == "rnn":
        rows, depth = op.out_channels * op.kernel, op.in_channels + op.out_channels // op.groups
    blocks, steps = _up(rows, tile.rows_alone), _up(depth, tile.values)
    vectors = op.out_positions
    return (
        1,
        vectors,
        vectors * blocks,
        vectors * blocks * steps,
        vectors * steps,
        vectors * blocks * _up(steps, _UNROLLED),
        vectors * rows if rows % tile.rows_alone else 0,
        vectors * (depth % tile.values),
    )


def kernels_of(op: Op) -> tuple[str, ...]:
    """The parts of the kernels' code that a step calls, by names of their own."""
    name, summing = law_name(op), is_summing(op)
    if name in ("spatial", "pointwise"):
        first = () if op.activation else ("convolution, negative results",)
        return ("convolution", *first, *(("convolution, sum",) if summing else ()))
    if name == "depthwise.3x3":
        return ("depthwise.3x3", f"depthwise.3x3, stride {'1' if op.stride == 1 else '2'}{', sum' if summing else ''}")
    if op.kind in ("concat", "move", "pad"):
        return ("layout",)
    if op.kind == "activation":
        return ("clamp" if name == "activation.clamp" else "table",)
    if op.kind in ("add", "mul"):
        return ("elementwise", op.kind)
    return ("pool", name) if op.kind == "pool" else (name,)


# Bytes of the structures that a call is described by.
_DESCRIBED = {"conv": 104, "depthwise": 64, "dense": 20, "add": 108, "mul": 96, "pool": 72, "mean": 60, "resize": 0}
_ADDITION = 48
_TABLE = 256


def constant_bytes(op: Op, variant: Variant) -> int:
    """Bytes of the arrays and structures that a step reads from flash, with a scale for each output channel."""
    described = _DESCRIBED.get(op.kind, 0) + (_ADDITION if is_summing(op) else 0)
    name = law_name(op)
    if name == "depthwise.3x3":
        return described + 20 * op.out_channels
    if name == "depthwise.any":
        return described + (op.kernel + 9) * op.out_channels
    if op.kind in ("conv", "depthwise", "dense") and not op.transposed:
        groups = op.groups if op.kind == "conv" else 1
        rows, values = op.out_channels // groups, op.in_channels // groups * op.kernel
        each = 12 * _up(rows, 4) * 4 + _up(rows, 4) * (16 + 16 * _up(values, 4))
        if variant == "plain":
            each = rows * (values + 4 + (12 if op.kind == "dense" else 8))
        return described + groups * each
    if op.weights:
        return described + op.weights + 12 * op.out_channels
    return described + (_TABLE if op.kind == "activation" and name != "activation.clamp" else 0)


def scratch_bytes(op: Op, variant: Variant) -> int:
    """Bytes of working memory that a step takes in the arena while it runs: columns, results and rests of lines."""
    if op.transposed or op.kind not in ("conv", "depthwise", "dense") or law_name(op).startswith("depthwise"):
        return 0
    groups = op.groups if op.kind == "conv" else 1
    rows, values = op.out_channels // groups, op.in_channels // groups * op.kernel
    is_last = not is_summing(op) and (variant == "plain" or rows % 4 == 0)
    if op.kind == "dense":
        return 0 if variant == "plain" else 8 * _up(values, 4) + (0 if is_last else 4 * _up(rows, 4))
    if variant == "plain":
        return 2 * values + (0 if is_last else 2 * rows)
    lines = op.kernel_rows or isqrt(op.kernel)
    run = values // lines
    kept = 0 if is_last else 8 * _up(rows, 4)
    line = 0 if op.kernel == 1 else 4 * _up(run, 4)
    return 16 * _up(values, 4) + kept + 8 * _up(lines * (run % 4), 4) + line
