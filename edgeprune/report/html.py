"""One self-contained HTML file of a record: inline styles and charts, no scripts, nothing fetched.

Names in a record come from files that others wrote, so everything is escaped.
"""

from __future__ import annotations

from dataclasses import dataclass

from edgeprune.cost import Source
from edgeprune.documents import FitRecord
from edgeprune.report import charts, tables
from edgeprune.report.page import page
from edgeprune.report.text import (
    UNKNOWN,
    budget_text,
    evidence,
    interval_text,
    metric_text,
    time_text,
    title,
    verdict_line,
)
from edgeprune.units import format_count, format_size


@dataclass(frozen=True)
class Tile:
    """One headline number: the value, its limit, and where it comes from."""

    name: str
    value: str
    limit: str
    source: str
    share: float | None  # of the limit, 0 and up; None without a limit


def render_html(record: FitRecord) -> str:
    """The report as one HTML document."""
    return page(
        "report.html.j2",
        record=record,
        title=title(record),
        verdict=verdict_line(record),
        budget=budget_text(record.budget),
        evidence=evidence(record),
        tiles=tiles(record),
        before_after=tables.before_after(record),
        before_after_chart=charts.before_after_chart(record),
        rounds_chart=charts.rounds_chart(record),
        rounds=tables.rounds(record),
        rehearsals=tables.rehearsals(record),
        quantization=tables.quantization(record),
        bars=charts.keep_bars(record),
        race=tables.race(record),
        operators=tables.operators(record),
        frozen=tables.frozen(record),
        artifacts=tables.artifacts(record),
        facts=tables.facts(record),
    )


def tiles(record: FitRecord) -> tuple[Tile, ...]:
    """The headline numbers: latency, memory, size and the metric, each with its limit and source."""
    if record.verdict == "infeasible":
        return _smallest(record)
    budget, metric = record.budget, record.metric
    spread = "" if record.latency_interval_ns is None else f", {interval_text(record.latency_interval_ns)}"
    by_interval = record.source is not Source.MEASURED and record.latency_interval_ns is not None
    judged = record.latency_interval_ns[1] if by_interval and record.latency_interval_ns else record.latency_ns
    found = [
        Tile(
            "Latency",
            time_text(record.latency_ns),
            "" if budget.latency_ns is None else f"{_judged(judged, by_interval)}of {time_text(budget.latency_ns)}",
            f"{record.source.value}{spread}",
            _share(judged, budget.latency_ns),
        ),
        Tile(
            "Peak RAM",
            UNKNOWN if record.ram_bytes is None else format_size(record.ram_bytes),
            "" if budget.ram_bytes is None else f"of {format_size(budget.ram_bytes)}",
            f"{record.ram_kind or ''}, {record.source.value}".removeprefix(", "),
            _share(record.ram_bytes, budget.ram_bytes),
        ),
        Tile(
            "Size",
            UNKNOWN if record.size_bytes is None else format_size(record.size_bytes),
            "" if budget.size_bytes is None else f"of {format_size(budget.size_bytes)}",
            "of the deployed file",
            _share(record.size_bytes, budget.size_bytes),
        ),
    ]
    if budget.macs is not None and record.macs is not None:
        share = _share(record.macs, budget.macs)
        found.append(Tile("MACs", format_count(record.macs), f"of {format_count(budget.macs)}", "of the design", share))
    deployed = next((row for row in record.costs if row.deployed), None)
    allowed = budget.max_drop.allowed(metric.validation_dense or metric.dense or 0.0) if budget.max_drop else None
    drop = "" if metric.drop is None else f"drop {metric.drop * 100:.2f} pp on validation"
    found.append(
        Tile(
            metric.name.capitalize(),
            metric_text(deployed.metric if deployed else metric.pruned, metric),
            "" if allowed is None else f"{drop}, {allowed * 100:.2f} pp allowed".removeprefix(", "),
            f"test set, dense {metric_text(metric.dense, metric)}",
            None if metric.drop is None or not allowed else max(metric.drop, 0.0) / allowed,
        )
    )
    return tuple(found)


def _smallest(record: FitRecord) -> tuple[Tile, ...]:
    """What an infeasible budget could reach at most."""
    smallest, budget = record.smallest, record.budget
    if smallest is None:
        return ()
    high = smallest.latency_interval_ns[1] if smallest.latency_interval_ns else smallest.latency_ns
    ram = smallest.ram_bytes
    return (
        Tile(
            "Smallest latency",
            time_text(high),
            "" if budget.latency_ns is None else f"of {time_text(budget.latency_ns)}",
            f"{smallest.source.value}, upper end",
            _share(high, budget.latency_ns),
        ),
        Tile(
            "Smallest peak RAM",
            UNKNOWN if ram is None else format_size(ram),
            "" if budget.ram_bytes is None else f"of {format_size(budget.ram_bytes)}",
            f"{smallest.ram_kind or ''}, {smallest.source.value}".removeprefix(", "),
            _share(ram, budget.ram_bytes),
        ),
    )


def _judged(ns: int | None, by_interval: bool) -> str:
    """What was not measured is judged by the upper end of its interval."""
    return f"upper end {time_text(ns)} " if by_interval else ""


def _share(value: float | None, limit: float | None) -> float | None:
    return None if value is None or not limit else value / limit
