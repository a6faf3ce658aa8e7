"""How numbers and verdicts are worded, the same in every form of a report."""

from __future__ import annotations

from edgeprune.cost import Source
from edgeprune.documents import BudgetRow, FitRecord, IntervalNs, MetricRow, RankingRow
from edgeprune.units import format_count, format_energy, format_size, format_time

UNKNOWN = "–"


def title(record: FitRecord) -> str:
    """`demo on rpi4`."""
    name = record.name.removesuffix(f"-{record.target}") or record.workload
    return f"{name} on {record.target}"


def verdict_line(record: FitRecord) -> str:
    """One sentence: met or not, the number it rests on, where that number comes from, and the limits."""
    parts: list[str] = [record.verdict]
    if record.latency_ns is not None:
        smallest = "the smallest reachable is " if record.verdict == "infeasible" else ""
        parts.append(f"{smallest}{time_text(record.latency_ns)} on {record.target} ({evidence(record)})")
    elif record.verdict != "infeasible":
        parts.append(f"on {record.target} ({evidence(record)})")
    line = ": ".join(parts) + f"; {budget_text(record.budget)}"
    if record.violations:
        line += f"; violated: {'; '.join(row.text for row in record.violations)}"
    if record.binding:
        line += f"; held up by {', '.join(record.binding[:5])}"
    return line


def evidence(record: FitRecord) -> str:
    """Where the latency of the verdict comes from and how sure it is."""
    parts = [record.source.value]
    if record.latency_interval_ns is not None:
        low, high = record.latency_interval_ns
        if record.source is Source.MEASURED:
            parts.append(f"99 % upper bound of {record.budget.at}")
        else:
            share = "80 % " if record.source is Source.ESTIMATED else ""
            parts.append(f"{share}interval {interval_text((low, high))}")
    threads = "" if record.source is Source.EMULATED else f", {threads_text(record.threads)}"
    parts.append(f"{record.runtime}{threads}")
    return "; ".join(parts)


def ranking_text(row: RankingRow) -> str:
    """By what channels were ranked, and how far two halves of the samples agree."""
    if row.agreement is None:
        on = f"on {row.samples} samples" if row.samples else "without data"
        return f"channels ranked by {row.criterion} {on}"
    worst = min(row.groups, key=lambda name: row.groups[name])
    return (
        f"channels ranked by {row.criterion} on {row.samples} samples; two halves of them agree to "
        f"{row.agreement:.2f} (Spearman, mean by width; least in {worst}: {row.groups[worst]:.2f})"
    )


def budget_text(budget: BudgetRow) -> str:
    """`budget: latency 20 ms at p90, drop 1pp`."""
    limits = []
    if budget.latency_ns is not None:
        limits.append(f"latency {time_text(budget.latency_ns)} at {budget.at}")
    if budget.ram_bytes is not None:
        limits.append(f"RAM {format_size(budget.ram_bytes)}")
    if budget.size_bytes is not None:
        limits.append(f"size {format_size(budget.size_bytes)}")
    if budget.energy_nj is not None:
        limits.append(f"energy {format_energy(budget.energy_nj * 1e-9)}")
    if budget.macs is not None:
        limits.append(f"MACs {format_count(budget.macs)}")
    if budget.max_drop is not None:
        limits.append(f"drop {budget.max_drop}")
    return "budget: " + (", ".join(limits) or "none")


def time_text(ns: int | float | None) -> str:
    """`17.3 ms`."""
    return UNKNOWN if ns is None else format_time(ns / 1e9)


def interval_text(interval: IntervalNs) -> str:
    """`14.3 to 19.4 ms`, the unit said once when both ends share it."""
    low, high = (time_text(end) for end in interval)
    value, _, unit = low.partition(" ")
    return f"{value} to {high}" if high.endswith(f" {unit}") else f"{low} to {high}"


def threads_text(threads: int | None) -> str:
    """`4 threads`."""
    return UNKNOWN if threads is None else f"{threads} thread{'s' if threads != 1 else ''}"


def metric_text(value: float | None, metric: MetricRow) -> str:
    """A share as `97.35 %`, anything else with four significant digits."""
    if value is None:
        return UNKNOWN
    is_share = metric.higher_is_better and metric.dense is not None and 0 <= metric.dense <= 1
    return f"{value * 100:.2f} %" if is_share else f"{value:.4g}"
