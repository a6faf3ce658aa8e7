"""A picture of an inspected model: its layers in order, coloured by channel group; for a terminal and as one HTML file.

A group that several layers compute must shrink in all of them together: equal letters, equal colours, one line.
"""

from __future__ import annotations

from dataclasses import dataclass

from edgeprune.documents import InspectRecord, LayerRow, SegmentRow
from edgeprune.report.explain import by_reason
from edgeprune.report.page import page
from edgeprune.report.text import UNKNOWN, time_text
from edgeprune.units import format_size

_LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
_FIXED = "░"
_BAR = 32  # characters of the widest layer
_MOST_LINES = 60
_GOLDEN_ANGLE = 137.508  # degrees between the hues of neighbouring groups
_LEFT, _READS, _COMPUTES, _GAP, _LINE, _TOP, _LANE = 250, 250, 330, 24, 20, 30, 12


def letter(index: int) -> str:
    """The sign of a group in the terminal; they come round again after 52."""
    return _LETTERS[index % len(_LETTERS)]


def picture_text(record: InspectRecord) -> str:
    """One line per layer: its name, a bar of the channels it computes, and how many; fixed ones are shaded."""
    index = {group.name: i for i, group in enumerate(record.groups)}
    widest = max((_width(layer.computes) for layer in record.layers), default=1)
    shown = record.layers[:_MOST_LINES]
    names = max((len(layer.name) for layer in shown), default=0)
    lines = []
    for layer in shown:
        bar = "".join(
            (_FIXED if part.group is None else letter(index[part.group])) * max(1, round(_BAR * part.width / widest))
            for part in layer.computes
        )
        lines.append(f"{layer.name.ljust(names)}  {bar}  {_width(layer.computes)}")
    if len(record.layers) > len(shown):
        lines.append(f"and {len(record.layers) - len(shown)} more layers: --html FILE shows all")
    return "\n".join(lines)


@dataclass(frozen=True)
class Block:
    """A rectangle of the picture, in pixels; `group` is its index, -1 for fixed channels."""

    x: float
    width: float
    group: int
    title: str


@dataclass(frozen=True)
class Line:
    """One layer of the picture."""

    y: float
    name: str
    blocks: tuple[Block, ...]


@dataclass(frozen=True)
class Tie:
    """The upright line through all layers that compute channels of one group."""

    x: float
    top: float
    bottom: float
    dots: tuple[float, ...]
    group: int
    title: str


@dataclass(frozen=True)
class Picture:
    """All of it, in pixels; one hue in degrees per group."""

    width: float
    height: float
    reads_x: float
    computes_x: float
    lines: tuple[Line, ...]
    ties: tuple[Tie, ...]
    hues: tuple[float, ...]


def picture(record: InspectRecord) -> Picture:
    """The geometry of the HTML picture."""
    index = {group.name: i for i, group in enumerate(record.groups)}
    widest = max((_width(part) for layer in record.layers for part in (layer.reads, layer.computes)), default=1)
    computes_x = _LEFT + _READS + _GAP
    lines, rows = [], {i: list[float]() for i in index.values()}
    for number, layer in enumerate(record.layers):
        y = _TOP + _LINE * number
        blocks = _blocks(layer, layer.reads, index, "reads", _LEFT, _READS / widest)
        lines.append(
            Line(
                y,
                layer.name,
                blocks + _blocks(layer, layer.computes, index, "computes", computes_x, _COMPUTES / widest),
            )
        )
        for name in dict.fromkeys(part.group for part in layer.computes if part.group is not None):
            rows[index[name]].append(y + _LINE / 2)
    ties, lanes = _ties(record, rows, computes_x + _COMPUTES + _GAP)
    height = _TOP + _LINE * len(record.layers) + 10
    hues = tuple(round(_GOLDEN_ANGLE * i % 360, 1) for i in range(len(record.groups)))
    width = computes_x + _COMPUTES + _GAP + _LANE * (lanes + 1)
    return Picture(width, height, _LEFT, computes_x, tuple(lines), ties, hues)


def render_picture(record: InspectRecord) -> str:
    """The inspection as one self-contained HTML document: inline styles and SVG, no scripts, nothing fetched."""
    frozen = by_reason((entry.name, entry.width, "; ".join(entry.reasons)) for entry in record.frozen)
    return page("groups.html.j2", record=record, picture=picture(record), head=head_lines(record), frozen=frozen)


def head_lines(record: InspectRecord) -> tuple[str, str]:
    """The model in one line, and what it costs on the target in another."""
    cost = record.dense
    latency = "latency not known"
    if cost.latency_ns is not None:
        low, high = cost.latency_interval_ns or (cost.latency_ns, cost.latency_ns)
        latency = f"{time_text(cost.latency_ns)} ({time_text(low)} to {time_text(high)})"
    on = f"on {cost.target} ({cost.runtime}, {cost.precision}, {cost.threads} threads, {cost.source.value})"
    memory = "" if cost.ram_bytes is None else f", ram {format_size(cost.ram_bytes)} ({cost.ram_kind})"
    size = "" if cost.size_bytes is None else f", size {format_size(cost.size_bytes)}"
    return (
        f"{record.model}: input {'x'.join(map(str, record.input))}, "
        f"{record.parameters:,} parameters, {record.macs / 1e6:,.1f} M multiply-accumulates",
        f"dense {on}: {latency}{memory}{size}",
    )


def share_text(share: float | None) -> str:
    """`12.3 %`."""
    return UNKNOWN if share is None else f"{share * 100:.1f} %"


def _blocks(
    layer: LayerRow, parts: tuple[SegmentRow, ...], index: dict[str, int], verb: str, x: float, scale: float
) -> tuple[Block, ...]:
    blocks = []
    for part in parts:
        why = f": {'; '.join(layer.reasons)}" if verb == "computes" and layer.reasons else ""
        belongs = f"fixed{why}" if part.group is None else f"group {part.group}"
        title = f"{layer.name} ({layer.kind}) {verb} {part.width} of {_width(parts)} channels: {belongs}"
        width = round(max(part.width * scale, 1.0), 1)
        blocks.append(Block(round(x, 1), width, -1 if part.group is None else index[part.group], title))
        x += part.width * scale
    return tuple(blocks)


def _ties(record: InspectRecord, rows: dict[int, list[float]], x: float) -> tuple[tuple[Tie, ...], int]:
    """A line per group that several layers compute, in the first lane that is free there; how many lanes."""
    free: list[float] = []  # where each lane's last line ends
    ties = []
    for group, dots in sorted(rows.items(), key=lambda item: item[1][:1]):
        if len(dots) < 2:
            continue
        lane = next((i for i, end in enumerate(free) if end < dots[0]), len(free))
        free[lane : lane + 1] = [dots[-1]]
        entry = record.groups[group]
        title = f"group {entry.name}: {entry.width} channels shrink together in {', '.join(entry.layers)}"
        ties.append(Tie(x + _LANE * lane, dots[0], dots[-1], tuple(dots), group, title))
    return tuple(ties), len(free)


def _width(parts: tuple[SegmentRow, ...]) -> int:
    return sum(part.width for part in parts)
