"""A budget's plan as text, and the model that was pruned by it."""

from __future__ import annotations

from edgeprune.plan_document import BudgetPlan, PlannedCost, PrunedDocument
from edgeprune.report.explain import limit_lines
from edgeprune.report.tables import Cell, Table
from edgeprune.report.text import UNKNOWN, budget_text, interval_text, ranking_text, threads_text, time_text
from edgeprune.units import format_count, format_size


def budget_plan_text(document: BudgetPlan) -> str:
    """What `edgeprune fit --budget-only` prints, with a last newline."""
    planned = document.planned
    where = f"{planned.target} ({planned.source.value}; {planned.runtime}, {threads_text(planned.threads)})"
    lines = [f"{document.verdict} on {where}; {budget_text(document.budget)}"]
    if document.violations:
        lines[0] += f"; violated: {'; '.join(row.text for row in document.violations)}"
    parts = ["\n".join([*lines, *(f"held up by {text}" for text in document.binding)])]
    parts += [_costs(document).as_text(), _widths(document).as_text()]
    if document.verdict == "feasible":
        gap = "no gap proven" if document.gap is None else f"gap {document.gap * 100:.2g} %"
        lines = [f"plan {document.allocation}: {gap}, {document.seconds or 0.0:.2f} s"]
        parts.append("\n".join([*lines, *limit_lines(document.limits)]))
    if document.notes:
        parts.append("\n".join(document.notes))
    return "\n\n".join(parts) + "\n"


def pruned_text(document: PrunedDocument) -> str:
    """What `edgeprune prune` prints, with a last newline."""
    lines = [ranking_text(document.ranking)]
    if document.parameters is not None:
        before, after = document.parameters
        on = f"{document.checked_on} samples" if document.checked_on else "seeded noise"
        lines += [
            f"parameters: {format_count(before)} → {format_count(after)}",
            f"exact: pruned equals masked to {document.error:.1e} on {on}; not trained since",
        ]
    lines += list(document.notes)
    lines += [f"{name}: {path}" for name, path in document.files.items()]
    return budget_plan_text(document.budget) + "\n" + "\n".join(lines) + "\n"


def _costs(document: BudgetPlan) -> Table:
    name = "cheapest plan" if document.verdict == "infeasible" else "plan"
    kind = document.planned.ram_kind or ""
    columns = (("model", ""), ("latency", "80 % interval"), ("RAM", kind), ("size", "file"), ("MACs", "computed"))
    rows = tuple(_cost(label, cost) for label, cost in (("dense", document.dense), (name, document.planned)))
    return Table(columns, rows, (1, 2, 3, 4))


def _cost(label: str, cost: PlannedCost) -> tuple[Cell, ...]:
    interval = "" if cost.latency_interval_ns is None else interval_text(cost.latency_interval_ns)
    return (
        Cell(label),
        Cell(time_text(cost.latency_ns), interval),
        Cell(UNKNOWN if cost.ram_bytes is None else format_size(cost.ram_bytes)),
        Cell(UNKNOWN if cost.size_bytes is None else format_size(cost.size_bytes)),
        Cell(UNKNOWN if cost.macs is None else format_count(cost.macs)),
    )


def _widths(document: BudgetPlan) -> Table:
    columns = (("group", ""), ("dense", ""), ("kept", ""), ("share", ""))
    rows = tuple(
        (Cell(row.group), Cell(str(row.dense)), Cell(str(row.kept)), Cell(f"{row.kept / row.dense:.0%}"))
        for row in document.groups
    )
    return Table(columns, rows, (1, 2, 3))
