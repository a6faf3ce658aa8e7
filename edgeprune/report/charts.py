"""The geometry of a report's charts; the template draws it as SVG.

An interval chart has one line per number: a dot at the value, a bar over its interval, and the budget as an upright
line. All values of one chart have one unit; where two sources meet (a solver's promise and a measurement) their marks
differ and the legend names them.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from edgeprune.documents import FitRecord, IntervalNs
from edgeprune.report.text import interval_text, time_text

LEFT, WIDTH, RIGHT, LINE, TOP = 190, 470, 130, 26, 26


@dataclass(frozen=True)
class Mark:
    """One line of an interval chart, in pixels; `style` is `promise`, `result` or `before`."""

    label: str
    value: str
    title: str
    style: str
    y: float
    x: float
    low: float
    high: float


@dataclass(frozen=True)
class Tick:
    """A number below the axis."""

    x: float
    text: str


@dataclass(frozen=True)
class Chart:
    """An interval chart in pixels."""

    title: str
    width: int
    height: int
    left: int
    right: int
    top: int
    bottom: int
    marks: tuple[Mark, ...]
    ticks: tuple[Tick, ...]
    limit_x: float | None
    limit: str
    legend: tuple[tuple[str, str], ...]  # (style, meaning)


@dataclass(frozen=True)
class Bar:
    """One layer of the keep chart: shares of the widest layer, in percent."""

    layer: str
    group: str
    dense: int
    kept: int
    dense_share: float
    kept_share: float

    @property
    def text(self) -> str:
        return f"{self.kept} of {self.dense}"


_Line = tuple[str, str, int, IntervalNs | None]  # label, style, value, interval


def rounds_chart(record: FitRecord) -> Chart | None:
    """Predicted and profiled latency of every round against the budget."""
    lines: list[_Line] = []
    for number, row in enumerate(record.rounds, 1):
        if row.predicted_ns is not None:
            lines.append((f"round {number}, predicted", "promise", row.predicted_ns, row.predicted_interval_ns))
        if row.profiled_ns is not None:
            lines.append((f"round {number}, profiled", "result", row.profiled_ns, row.profiled_interval_ns))
    sources = " or ".join(dict.fromkeys(row.source.value for row in record.rounds))
    legend = (("promise", "predicted by the solver (estimated)"), ("result", f"profiled from the file ({sources})"))
    return _chart("Latency of every round", lines, record.budget.latency_ns, legend)


def before_after_chart(record: FitRecord) -> Chart | None:
    """Latency of the dense and the deployed model by the source that the verdict rests on."""
    lines: list[_Line] = []
    for row in record.costs:
        for figure in row.figures:
            if (figure.target, figure.source) == (record.target, record.source) and figure.latency_ns is not None:
                style = "result" if row.role == "artifact" else "before"
                lines.append((row.name, style, figure.latency_ns, figure.latency_interval_ns))
    legend = (("before", "before export"), ("result", "exported file"))
    title = f"Latency on {record.target}, {record.source.value}"
    return _chart(title, lines, record.budget.latency_ns, legend) if len(lines) > 1 else None


def keep_bars(record: FitRecord) -> tuple[Bar, ...]:
    """How much of every layer stays."""
    widest = max((row.dense for row in record.layers), default=1)
    return tuple(
        Bar(
            row.layer,
            row.group,
            row.dense,
            row.kept,
            round(100 * row.dense / widest, 2),
            round(100 * row.kept / widest, 2),
        )
        for row in record.layers
    )


def _chart(title: str, lines: list[_Line], limit_ns: int | None, legend: tuple[tuple[str, str], ...]) -> Chart | None:
    if not lines:
        return None
    most = max([limit_ns or 0, *(value for _, _, value, _ in lines), *(i[1] for *_, i in lines if i is not None)])
    step = nice(max(most, 1) / 5)
    end = step * math.ceil(most * 1.02 / step)

    def x(ns: float) -> float:
        return round(LEFT + WIDTH * ns / end, 1)

    marks = tuple(
        Mark(
            label,
            time_text(value),
            f"{label}: {time_text(value)}" + (f" ({interval_text(interval)})" if interval else ""),
            style,
            TOP + LINE * (i + 0.5),
            x(value),
            x(interval[0] if interval else value),
            x(interval[1] if interval else value),
        )
        for i, (label, style, value, interval) in enumerate(lines)
    )
    bottom = TOP + LINE * len(lines)
    used = {style for _, style, _, _ in lines}
    return Chart(
        title,
        LEFT + WIDTH + RIGHT,
        bottom + 22,
        LEFT,
        LEFT + WIDTH,
        TOP,
        bottom,
        marks,
        tuple(Tick(x(n * step), time_text(n * step) if n else "0") for n in range(round(end / step) + 1)),
        None if limit_ns is None else x(limit_ns),
        "" if limit_ns is None else f"budget {time_text(limit_ns)}",
        tuple(entry for entry in legend if entry[0] in used),
    )


def nice(step: float) -> float:
    """The next of 1, 2, 5 times a power of ten."""
    power = 10.0 ** math.floor(math.log10(step))
    return next(n * power for n in (1, 2, 5, 10) if n * power >= step * 0.999)
