"""Why a run came out as it did: what was pruned, what it was worth, what it bought, and what held the rest back.

Everything is read from the record; no model code is needed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from edgeprune.documents import FitRecord, LimitRow, Saving
from edgeprune.report.tables import Cell, Column, Table
from edgeprune.report.text import UNKNOWN, metric_text, ranking_text, time_text, title, verdict_line
from edgeprune.units import format_count, format_size

_BINDS = 0.5  # share of the shrunk groups that a limit must hold back to be called binding


def explanation(record: FitRecord) -> dict[str, Any]:
    """The document `edgeprune.explain/1`: times in ns, sizes in bytes, shares as fractions."""
    kept = record.model_dump(mode="json", by_alias=True)
    return {
        "schema": "edgeprune.explain/1",
        "run": kept["run"],
        "verdict": record.verdict,
        "source": record.source.value,
        "target": record.target,
        "latency_ns": record.latency_ns,
        "budget": kept["budget"],
        "violations": kept["violations"],
        "binding_layers": list(record.binding),
        "ranking": kept["ranking"],
        "groups": kept["worth"],
        "limits": [{**row.model_dump(mode="json"), "binds": binds(row)} for row in record.limits],
        "race": kept["race"],
        "why": why(record),
        "left_whole": [row for row in kept["frozen"] if row["by_check"]],
        "frozen": [row for row in kept["frozen"] if not row["by_check"]],
        "notes": list(record.notes),
    }


def explain_text(record: FitRecord) -> str:
    """The same for a terminal, with a last newline."""
    parts = [f"{title(record)}: {verdict_line(record)}"]
    if record.worth:
        parts.append(groups_table(record).as_text())
        parts.append(
            "saved alone: by this group on the dense model; in the plan: what keeping it whole would cost now;\n"
            "by the device model. Groups share operators, so single savings do not add up."
        )
    parts += [ranking_text(record.ranking)] if record.ranking is not None else []
    parts += ["\n".join(found) for found in (limit_lines(record.limits), why(record)) if found]
    frozen = {True: [row for row in record.frozen if row.by_check], False: [r for r in record.frozen if not r.by_check]}
    if frozen[True]:
        parts.append("\n".join(["left whole by the check:"] + [f"  {r.group}: {r.reason}" for r in frozen[True]]))
    if frozen[False]:
        reasons = by_reason((row.group, row.channels, row.reason) for row in frozen[False])
        parts.append("\n".join(["frozen:"] + [f"  {text}" for text in reasons]))
    if record.notes:
        parts.append("\n".join(["notes:"] + [f"  {note}" for note in record.notes]))
    return "\n\n".join(parts) + "\n"


def groups_table(record: FitRecord) -> Table:
    """One row per group, the one that bought most latency (or size) in the final plan first."""
    curves = any(row.damage is not None for row in record.worth)
    columns: tuple[Column, ...] = (("group", ""), ("channels", ""), ("kept", ""), ("importance", ""))
    columns += (("damage", ""),) if curves else ()
    for name in ("saved alone", "in the plan"):
        columns += ((name, "latency"), ("", "RAM"), ("", "size"))
    rows = []
    for row in sorted(record.worth, key=lambda row: (-(row.final.latency_ns or 0), -(row.final.size_bytes or 0))):
        change = f"{row.dense} → {row.kept}" if row.kept < row.dense else f"{row.dense}"
        cells = [Cell(row.group), Cell(change), Cell(f"{row.kept / row.dense:.0%}"), Cell(_share(row.importance))]
        cells += [Cell(UNKNOWN if row.damage is None else f"{row.damage:.3g}")] if curves else []
        cells += [*_saved(row.alone), *_saved(row.final)]
        rows.append(tuple(cells))
    return Table(columns, tuple(rows), tuple(range(1, len(columns))))


def binds(row: LimitRow) -> bool:
    """Whether a limit holds the plan back: most shrunk groups would break it with their next wider level."""
    return row.shrunk > 0 and row.blocked / row.shrunk >= _BINDS


def why(record: FitRecord) -> list[str]:
    """Why this plan: the race, the stages, the rounds, or what made the budget unreachable."""
    if record.verdict == "infeasible":
        return [f"no plan reaches the budget; what costs most at the smallest widths: {', '.join(record.binding)}"]
    lines = []
    winner = next((row for row in reversed(record.race) if row.chosen), None)
    others = [row for row in record.race if winner is not None and not row.chosen and row.round == winner.round]
    if winner is not None and winner.metric is not None and others:
        rest = ", ".join(f"{row.plan} {metric_text(row.metric, record.metric)}" for row in others)
        steps = f" after {record.spec.fit.race_steps} steps" if record.spec is not None else ""
        lines.append(
            f"plan {winner.plan} won the race: {record.metric.name} {metric_text(winner.metric, record.metric)} "
            f"on validation{steps}, against {rest}"
        )
    elif winner is not None:
        lines.append(f"plan {winner.plan} was taken without a race")
    for i, stage in enumerate(record.stages, 1):
        back = f", {stage.regrown} of them back from an earlier stage" if stage.regrown else ""
        lines.append(f"stage {i}: {stage.kept} of {stage.dense} channels left{back}")
    lines += [f"round {i}: {row.decision}: {row.reason}" for i, row in enumerate(record.rounds, 1) if row.reason]
    return lines


def by_reason(entries: Iterable[tuple[str, int, str]]) -> list[str]:
    """Frozen layers as `reason: names (channels)`, equal reasons together, most channels first."""
    found: dict[str, list[tuple[str, int]]] = {}
    for name, channels, reason in entries:
        found.setdefault(reason, []).append((name, channels))
    ordered = sorted(found.items(), key=lambda item: -sum(channels for _, channels in item[1]))
    return [f"{reason}: {_listed(layers)}" for reason, layers in ordered]


def _listed(layers: list[tuple[str, int]]) -> str:
    names = ", ".join(name for name, _ in layers[:4])
    more = f" and {len(layers) - 4} more" if len(layers) > 4 else ""
    total = sum(channels for _, channels in layers)
    return f"{names}{more} ({total} channel{'s' * (total != 1)})"


def limit_lines(limits: Iterable[LimitRow]) -> list[str]:
    """One sentence per limit: what the plan needs of it, and whether it holds the plan back."""
    lines = []
    for row in limits:
        name, text = _NAMES[row.what]
        held = f"binds: the next wider level of {row.blocked} of {row.shrunk} shrunk groups would break it"
        loose = f"does not bind: {row.blocked} of {row.shrunk} shrunk groups would break it with their next wider level"
        lines.append(
            f"{name}: dense {text(row.dense)}, plan {text(row.planned)} of "
            f"{text(row.limit)}; {held if binds(row) else loose}"
        )
    return lines


def _size(count: float) -> str:
    return format_size(round(count))


_NAMES: dict[str, tuple[str, Callable[[float], str]]] = {
    "latency_ns": ("latency", time_text),
    "ram_bytes": ("RAM", _size),
    "size_bytes": ("size", _size),
    "macs": ("MACs", format_count),
}


def _share(value: float | None) -> str:
    return UNKNOWN if value is None else f"{value:.0%}"


def _saved(saving: Saving) -> tuple[Cell, Cell, Cell]:
    return (
        Cell(_signed(saving.latency_ns, time_text)),
        Cell(_signed(saving.ram_bytes, _size)),
        Cell(_signed(saving.size_bytes, _size)),
    )


def _signed(value: int | None, text: Any) -> str:
    if value is None:
        return UNKNOWN
    return "0" if value == 0 else f"-{text(-value)}" if value < 0 else str(text(value))
