"""The report of a sweep: one chart and one table per target and source, and the budgets that are not met, with why.

Numbers of different targets or sources never share a table, a chart or a line.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from edgeprune.cost import Source
from edgeprune.documents import MetricRow
from edgeprune.front.documents import DenseRow, PointRow, SweepRecord, axis
from edgeprune.record import write_text
from edgeprune.report.charts import Tick, nice
from edgeprune.report.markdown import markdown_table, plain
from edgeprune.report.page import page
from edgeprune.report.tables import Cell, Column, Table
from edgeprune.report.text import UNKNOWN, budget_text, interval_text, metric_text, threads_text, time_text
from edgeprune.units import format_size

_LEFT, _WIDTH, _RIGHT, _TOP, _HEIGHT = 90, 620, 40, 24, 300
_AXES = {"latency_ns": "latency", "ram_bytes": "RAM", "size_bytes": "size"}
_SPREADS = {Source.MEASURED: "99 % bounds", Source.EMULATED: "interval", Source.ESTIMATED: "80 % interval"}


@dataclass(frozen=True)
class Dot:
    """One model in a chart, in pixels; `style` is `result` on the front, `before` off it, `promise` if dense."""

    label: str
    title: str
    style: str
    x: float
    y: float
    low: float
    high: float


@dataclass(frozen=True)
class FrontChart:
    """The metric over one cost, in pixels; `line` joins the front, `levels` are ticks of the metric."""

    title: str
    width: int
    height: int
    left: int
    right: int
    top: int
    bottom: int
    dots: tuple[Dot, ...]
    line: str
    ticks: tuple[Tick, ...]
    levels: tuple[Tick, ...]
    legend: tuple[tuple[str, str], ...]
    bands: bool


@dataclass(frozen=True)
class Part:
    """What a report says of one target by one source."""

    heading: str
    chart: FrontChart | None
    table: Table


def write_sweep_reports(folder: Path, record: SweepRecord) -> None:
    """`report.html` and `report.md` in the sweep's folder, each written whole or not at all.

    Raises:
        NoRoomError: The disk is full.
    """
    write_text(folder / "report.html", render_front_html(record))
    write_text(folder / "report.md", render_front_markdown(record))


def render_front_html(record: SweepRecord) -> str:
    """The report as one HTML document."""
    return page("front.html.j2", record=record, title=front_title(record), parts=parts(record), misses=misses(record))


def render_front_markdown(record: SweepRecord) -> str:
    """The report as Markdown, with a last newline."""
    texts = [f"# {plain(front_title(record))}"]
    for part in parts(record):
        texts += [f"## {plain(part.heading)}", markdown_table(part.table)]
    if (missed := misses(record)).rows:
        texts += ["## Budgets that are not met", markdown_table(missed)]
    texts += ["## Go on with it", f"```\nedgeprune sweep --resume {record.run}\n```"]
    return "\n\n".join(texts) + "\n"


def front_summary(record: SweepRecord) -> str:
    """What `edgeprune sweep` prints at the end, with a last newline."""
    texts = [front_title(record)]
    for part in parts(record):
        texts.append(f"{part.heading}\n{part.table.as_text()}")
    if (missed := misses(record)).rows:
        texts.append(f"budgets that are not met\n{missed.as_text()}")
    texts.append(f"report: {record.run / 'report.html'}")
    return "\n\n".join(texts) + "\n"


def front_title(record: SweepRecord) -> str:
    """`digits: 5 of 6 budgets met, 1 failed`."""
    met = sum(row.verdict == "met" for row in record.points)
    failed = sum(row.verdict == "failed" for row in record.points)
    return f"{record.name}: {met} of {len(record.points)} budgets met" + (f", {failed} failed" if failed else "")


def parts(record: SweepRecord) -> tuple[Part, ...]:
    """The trained points, those of one target and one source together."""
    groups: dict[tuple[str, Source], list[PointRow]] = {}
    for row in record.points:
        if row.source is not None and row.verdict in ("met", "missed"):
            groups.setdefault((row.target, row.source), []).append(row)
    found = []
    for (target, source), rows in groups.items():
        dense = next((row for row in record.dense if (row.target, row.source) == (target, source)), None)
        judged = f"; latency: 99 % upper bound of {rows[0].budget.at}" if source is Source.MEASURED else ""
        heading = f"{target}, {source.value} ({rows[0].runtime}, {threads_text(rows[0].threads)}{judged})"
        found.append(Part(heading, front_chart(record, rows, dense), front_table(record, rows, dense)))
    return tuple(found)


def front_table(record: SweepRecord, rows: Sequence[PointRow], dense: DenseRow | None) -> Table:
    """The trained points of one target and one source; those on the front are stressed."""
    source = f"{rows[0].target}, {rows[0].source.value if rows[0].source else ''}"
    kinds = list(dict.fromkeys(row.ram_kind for row in rows if row.ram_kind))
    metric = _metric(record, dense)
    spread = _SPREADS[rows[0].source or Source.ESTIMATED]
    columns: list[Column] = [("", ""), ("budget", ""), ("verdict", ""), ("latency", source), (spread, "of latency")]
    columns += [("RAM", f"{kind}, {source}") for kind in kinds]
    columns += [("size", "file"), (record.metric, "validation"), (record.metric, "test set"), ("front", "")]
    lines = []
    if dense is not None:
        cells = [Cell(""), Cell("none: the dense model"), Cell(""), *_latency(dense)]
        cells += [Cell(_size(dense.ram_bytes)) for _ in kinds[:1]] + [Cell(UNKNOWN) for _ in kinds[1:]]
        cells += [Cell(_size(dense.size_bytes)), Cell(metric_text(dense.validation, metric))]
        lines.append((*cells, Cell(metric_text(dense.test, metric)), Cell("")))
    for row in rows:
        cells = [Cell(_number(record, row)), Cell(_budget(row)), Cell(row.verdict), *_latency(row)]
        cells += [Cell(_size(row.ram_bytes if row.ram_kind == kind else None)) for kind in kinds]
        cells += [Cell(_size(row.size_bytes)), Cell(metric_text(row.validation, metric))]
        cells.append(Cell(metric_text(row.test, metric)))
        beaten = next((other for other in record.points if other.name == row.dominated_by), None)
        cells.append(Cell("yes" if beaten is None else f"no: {_number(record, beaten)} is no worse"))
        lines.append(tuple(cells))
    strong = tuple(i + (dense is not None) for i, row in enumerate(rows) if row.dominated_by is None)
    return Table(tuple(columns), tuple(lines), tuple(range(3, len(columns) - 1)), strong)


def misses(record: SweepRecord) -> Table:
    """The budgets that are not met, each with its reason."""
    columns = (("", ""), ("target", ""), ("budget", ""), ("verdict", ""), ("why", ""))
    rows = tuple(
        tuple(map(Cell, (_number(record, row), row.target, _budget(row), row.verdict, row.reason)))
        for row in record.points
        if row.verdict != "met"
    )
    return Table(columns, rows)


def front_chart(record: SweepRecord, rows: Sequence[PointRow], dense: DenseRow | None) -> FrontChart | None:
    """The metric on validation over the cost that is swept, for the points of one target and one source."""
    name, metric = axis(record.points), _metric(record, dense)
    text: Callable[[float], str] = time_text if name == "latency_ns" else format_size
    models = [(_number(record, row), row, "before" if row.dominated_by else "result") for row in rows]
    entries: list[tuple[str, PointRow | DenseRow, str]] = [*models, *([("dense", dense, "promise")] if dense else [])]
    known = [(label, row, style) for label, row, style in entries if _known(row, name)]
    if not any(style != "promise" for *_, style in known):
        return None
    step = nice(max(max(_span(row, name)) for _, row, _ in known) / 5)
    end = step * math.ceil(max(max(_span(row, name)) for _, row, _ in known) * 1.02 / step)
    values = [row.validation or 0.0 for _, row, _ in known]
    rise = nice(max(max(values) - min(values), abs(max(values)) * 1e-3, 1e-6) / 4)
    floor, top = math.floor(min(values) / rise) * rise, math.ceil(max(values) / rise) * rise
    top = top if top > floor else floor + rise

    def x(value: float) -> float:
        return round(_LEFT + _WIDTH * value / end, 1)

    def y(value: float) -> float:
        return round(_TOP + _HEIGHT * (top - value) / (top - floor), 1)

    dots = []
    for label, row, style in known:
        low, here, high = _span(row, name)
        said = f"{label}: {metric_text(row.validation, metric)} at {text(here)}"
        dots.append(Dot(label, said, style, x(here), y(row.validation or 0.0), x(low), x(high)))
    line = sorted((dot.x, dot.y) for dot in dots if dot.style == "result")
    levels = range(round((top - floor) / rise) + 1)
    legend = (("result", "on the front"), ("before", "another is no worse"), ("promise", "dense"))
    used = {dot.style for dot in dots}
    source = rows[0].source.value if rows[0].source else ""
    return FrontChart(
        f"{record.metric} on validation over {_AXES[name]} on {rows[0].target}, {source}",
        _LEFT + _WIDTH + _RIGHT,
        _TOP + _HEIGHT + 26,
        _LEFT,
        _LEFT + _WIDTH,
        _TOP,
        _TOP + _HEIGHT,
        tuple(dots),
        " ".join(f"{a},{b}" for a, b in line) if len(line) > 1 else "",
        tuple(Tick(x(n * step), text(n * step) if n else "0") for n in range(round(end / step) + 1)),
        tuple(Tick(y(floor + n * rise), metric_text(floor + n * rise, metric)) for n in levels),
        tuple(entry for entry in legend if entry[0] in used),
        any(dot.high > dot.low for dot in dots),
    )


def _known(row: PointRow | DenseRow, name: str) -> bool:
    return row.validation is not None and getattr(row, name) is not None


def _span(row: PointRow | DenseRow, name: str) -> tuple[float, float, float]:
    """(low, value, high) of a cost."""
    value = float(getattr(row, name))
    if name == "latency_ns" and row.latency_interval_ns is not None:
        return float(row.latency_interval_ns[0]), value, float(row.latency_interval_ns[1])
    return value, value, value


def _metric(record: SweepRecord, dense: DenseRow | None) -> MetricRow:
    known = dense or next(iter(record.dense), None)
    return MetricRow(
        name=record.metric,
        higher_is_better=record.higher_is_better,
        dense=None if known is None else known.test,
    )


def _number(record: SweepRecord, row: PointRow) -> str:
    return str(record.points.index(row) + 1)


def _budget(row: PointRow) -> str:
    return budget_text(row.budget).removeprefix("budget: ")


def _latency(row: PointRow | DenseRow) -> tuple[Cell, Cell]:
    interval = row.latency_interval_ns
    return Cell(time_text(row.latency_ns)), Cell(UNKNOWN if interval is None else interval_text(interval))


def _size(count: int | None) -> str:
    return UNKNOWN if count is None else format_size(count)
