"""What a sweep's files hold: the job that its folder was made for, and the record of what came out.

Times are integer nanoseconds, sizes integer bytes, metrics fractions, as in the record of one fit.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from pydantic import ConfigDict, Field

from edgeprune.cost import RamKind, Source
from edgeprune.documents import BudgetRow, FitRecord, IntervalNs
from edgeprune.errors import EdgepruneError
from edgeprune.front.grid import Point
from edgeprune.values import Value

AXES = ("latency_ns", "ram_bytes", "size_bytes")


class Sweep(Value):
    """What `sweep.json` holds: the points, and the threads each of them computes with."""

    model_config = ConfigDict(populate_by_name=True)

    schema_: Literal["edgeprune.sweep-job/1"] = Field("edgeprune.sweep-job/1", alias="schema")
    edgeprune: str
    created: str
    name: str
    cpus: int = Field(ge=1)
    points: tuple[Point, ...] = Field(min_length=1)


class Failure(Value):
    """An error as it travels between processes."""

    code: str
    exit_code: int
    message: str
    where: str = ""
    hint: str = ""

    @property
    def text(self) -> str:
        """One line."""
        parts = [self.message, *([f"at {self.where}"] if self.where else []), *([self.hint] if self.hint else [])]
        return "; ".join(" ".join(part.split()) for part in parts)


class PointRow(Value):
    """What became of one point. The costs are those of its deployed file; None where nothing was trained."""

    name: str
    target: str
    runtime: str = ""
    threads: int | None = None
    budget: BudgetRow
    verdict: Literal["met", "missed", "infeasible", "failed"]
    exit_code: int
    source: Source | None = None
    latency_ns: int | None = None
    latency_interval_ns: IntervalNs | None = None
    ram_bytes: int | None = None
    ram_kind: RamKind | None = None
    size_bytes: int | None = None
    validation: float | None = None  # of the deployed file: what points are compared by
    test: float | None = None  # of the deployed file: what to report of a chosen point
    drop: float | None = None
    dominated_by: str | None = None  # a point that is no worse in anything and better in something
    reason: str = ""  # why it is not met
    run: Path

    @property
    def latency_upper_ns(self) -> int | None:
        """What a verdict rests on: the upper end of the interval of what was not measured."""
        if self.source not in (None, Source.MEASURED) and self.latency_interval_ns is not None:
            return self.latency_interval_ns[1]
        return self.latency_ns


class DenseRow(Value):
    """The dense model's int8 file on one target."""

    target: str
    source: Source
    latency_ns: int | None = None
    latency_interval_ns: IntervalNs | None = None
    ram_bytes: int | None = None
    size_bytes: int | None = None
    validation: float | None = None  # of the model before export
    test: float | None = None


class SweepRecord(Value):
    """Everything a sweep has to say: the document `edgeprune.sweep/1`."""

    model_config = ConfigDict(populate_by_name=True)

    schema_: Literal["edgeprune.sweep/1"] = Field("edgeprune.sweep/1", alias="schema")
    workload: Literal["demo", "user"] | None = None  # None when every point failed
    metric: str = ""
    higher_is_better: bool = True
    points: tuple[PointRow, ...]
    dense: tuple[DenseRow, ...] = ()
    cpus: int
    run: Path
    name: str
    created: str
    edgeprune: str

    @property
    def exit_code(self) -> int:
        """0 every budget is met; else the code of the first point that failed; else 3 when a cost limit is not held
        or out of reach; else 4: only metrics dropped too far."""
        failed = [row.exit_code for row in self.points if row.verdict == "failed"]
        codes = {row.exit_code for row in self.points}
        return failed[0] if failed else 3 if 3 in codes else max(codes)

    def to_json(self) -> str:
        """The document, with two-space indent and a last newline."""
        return self.model_dump_json(by_alias=True, indent=2) + "\n"


def failure(err: Exception) -> Failure:
    """The error as a value; what is not meant for users is a bug, which the message says."""
    if isinstance(err, EdgepruneError):
        return Failure(code=err.code, exit_code=err.exit_code, message=err.message, where=err.where, hint=err.hint)
    return Failure(
        code="EDGEPRUNE",
        exit_code=1,
        message=f"a bug in edgeprune: {type(err).__name__}: {err}",
        hint="run this point alone with --debug for the traceback and report it",
    )


def failed_row(point: Point, budget: BudgetRow, run: Path, why: Failure) -> PointRow:
    """The row of a point that ended with an error."""
    return PointRow(
        name=point.name,
        target=point.target,
        budget=budget,
        verdict="failed",
        exit_code=why.exit_code,
        reason=why.text,
        run=run,
    )


def point_row(point: Point, record: FitRecord) -> PointRow:
    """The row of a point that ran to its end."""
    row = PointRow(
        name=point.name,
        target=point.target,
        runtime=record.runtime,
        threads=record.threads,
        budget=record.budget,
        verdict=record.verdict,
        exit_code=record.exit_code,
        source=record.source,
        reason="; ".join(violation.text for violation in record.violations),
        run=record.run,
    )
    if record.verdict == "infeasible":
        held = f"; held up by {', '.join(record.binding[:5])}" if record.binding else ""
        return row.model_copy(update={"reason": f"the smallest reachable model: {row.reason}{held}"})
    deployed = next((cost for cost in record.costs if cost.deployed), None)
    return row.model_copy(
        update={
            "latency_ns": record.latency_ns,
            "latency_interval_ns": record.latency_interval_ns,
            "ram_bytes": record.ram_bytes,
            "ram_kind": record.ram_kind,
            "size_bytes": record.size_bytes,
            "validation": next(iter(record.metric.validation_artifacts.values()), None),
            "test": None if deployed is None else deployed.metric,
            "drop": record.metric.drop,
        }
    )


def dense_row(target: str, record: FitRecord) -> DenseRow | None:
    """The dense int8 file as a fit that trained something has found it."""
    for row in record.costs:
        if row.role == "dense" and row.precision == "int8" and row.figures:
            found = row.figures[0]
            return DenseRow(
                target=target,
                source=found.source,
                latency_ns=found.latency_ns,
                latency_interval_ns=found.latency_interval_ns,
                ram_bytes=found.ram_bytes,
                size_bytes=row.size_bytes,
                validation=record.metric.validation_dense,
                test=record.metric.dense,
            )
    return None


def axis(rows: Sequence[PointRow]) -> str:
    """The cost that the sweep varies most: `latency_ns`, `ram_bytes` or `size_bytes`, in that order when equal."""
    return max(AXES, key=lambda name: len({getattr(row.budget, name) for row in rows} - {None}))


def marked(rows: Sequence[PointRow], *, higher_is_better: bool) -> tuple[PointRow, ...]:
    """The rows, each that another one dominates naming it.

    Compared are trained points of one target and one source, by the metric on validation and by every cost that some
    point of them limits; of latencies the end that a verdict rests on. Of equal points the first one dominates.
    """
    sign = 1 if higher_is_better else -1
    limited = [name for name in AXES if any(getattr(row.budget, name) is not None for row in rows)]

    def worth(row: PointRow) -> tuple[float, ...] | None:
        judged = {"latency_ns": row.latency_upper_ns, "ram_bytes": row.ram_bytes, "size_bytes": row.size_bytes}
        costs = [-cost for name in limited if (cost := judged[name]) is not None]
        if row.validation is None or len(costs) < len(limited):
            return None
        return (sign * row.validation, *costs)

    def better(one: int, other: int) -> bool:
        """Whether row `one` dominates row `other`."""
        a, b = worth(rows[one]), worth(rows[other])
        alike = (rows[one].target, rows[one].source) == (rows[other].target, rows[other].source)
        if a is None or b is None or not alike or one == other:
            return False
        return all(x >= y for x, y in zip(a, b, strict=True)) and (a != b or one < other)

    found = []
    for number, row in enumerate(rows):
        over = [i for i in range(len(rows)) if better(i, number)]
        best = max(over, key=lambda i: worth(rows[i]) or ()) if over else None
        found.append(row.model_copy(update={"dominated_by": None if best is None else rows[best].name}))
    return tuple(found)
