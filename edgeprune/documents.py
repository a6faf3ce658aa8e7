"""What `record.json`, `--json` and the report hold: one frozen value per document.

Times are integer nanoseconds, sizes integer bytes, metrics fractions. What a source cannot know is None. Fields may be
added to a schema, never renamed; a change of meaning is a new schema number.
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import ConfigDict, Field

from edgeprune.cost import BoardCounts, Budget, Correction, Cost, Measurement, Percentile, RamKind, Source, Violation
from edgeprune.spec import Spec
from edgeprune.units import Drop
from edgeprune.values import Value

Verdict = Literal["met", "missed", "infeasible"]
IntervalNs = tuple[int, int]


class BudgetRow(Value):
    """The limits in integer base units."""

    latency_ns: int | None = None
    at: Percentile = "p90"
    ram_bytes: int | None = None
    size_bytes: int | None = None
    macs: int | None = None
    energy_nj: int | None = None  # holds when the latency does, which was lowered for it
    max_drop: Drop | None = None


class ViolationRow(Value):
    """One limit that is not held; `needs` is None where the cost is not known."""

    what: Literal["latency_ns", "ram_bytes", "size_bytes", "macs", "drop"]
    needs: float | None
    limit: float
    text: str


class MetricRow(Value):
    """The primary metric on the test set, each artifact in its own runtime.

    Decisions rest on the validation set: `validation_*`; `drop` is the loss that was judged against `max_drop`.
    """

    name: str
    higher_is_better: bool = True
    dense: float | None = None
    pruned: float | None = None
    artifacts: dict[str, float] = {}
    validation_dense: float | None = None
    validation_pruned: float | None = None
    validation_artifacts: dict[str, float] = {}
    drop: float | None = None


class RoundRow(Value):
    """What the solver promised of a plan and what its file then cost: a round's final one, or a rehearsal's."""

    budget_ns: int | None
    predicted_ns: int | None
    profiled_ns: int | None
    source: Source
    predicted_interval_ns: IntervalNs | None = None
    profiled_interval_ns: IntervalNs | None = None
    predicted_ram_bytes: int | None = None
    profiled_ram_bytes: int | None = None
    size_bytes: int | None = None
    plan: str = ""  # name of the plan that won the race
    correction: float | None = None  # predicted over what the device model says without a correction
    metric: float | None = None  # validation
    solver_s: float | None = None
    solver_gap: float | None = None
    decision: str = ""
    reason: str = ""


class StageRow(Value):
    """One stage of a schedule before the search for the budget: its plan's predicted cost and channels."""

    plan: str
    predicted_ns: int | None
    kept: int
    dense: int
    regrown: int  # kept channels that the stage before had removed


class Figure(Value):
    """What something costs on one target by one source. Tables make one column per (source, target)."""

    source: Source
    target: str
    runtime: str = ""
    threads: int | None = None
    precision: str = ""
    latency_ns: int | None = None
    latency_interval_ns: IntervalNs | None = None
    ram_bytes: int | None = None
    ram_kind: RamKind | None = None


class CostRow(Value):
    """One row of the before/after table: the dense model, the pruned one, or an exported artifact."""

    name: str  # such as "dense fp32" or "tflite int8"
    role: Literal["dense", "pruned", "artifact"]
    precision: str
    metric: float | None = None
    size_bytes: int | None = None
    parameters: int | None = None
    macs: int | None = None
    figures: tuple[Figure, ...] = ()
    deployed: bool = False  # the verdict rests on this row


class KeepRow(Value):
    """How many output channels of one layer stay."""

    layer: str
    group: str
    dense: int
    kept: int


class FrozenRow(Value):
    """Channels that were left alone, and why."""

    group: str
    channels: int
    layers: tuple[str, ...]
    reason: str
    by_check: bool = False  # left whole because pruned and masked differed on real inputs


class Saving(Value):
    """What is spared by the device model; negative where it costs more. None is not known."""

    latency_ns: int | None = None
    ram_bytes: int | None = None
    size_bytes: int | None = None


class WorthRow(Value):
    """What one group's channels are worth, and what removing some of them bought."""

    group: str
    layers: tuple[str, ...]
    dense: int
    kept: int
    importance: float | None = None  # share of the group's summed score that stays
    damage: float | None = None  # of the measured loss curve at this width; None without curves
    alone: Saving = Saving()  # the dense model less the dense model with only this group shrunk
    final: Saving = Saving()  # the plan with this group whole less the plan


class RankingRow(Value):
    """By what channels were ranked, and whether two halves of the samples rank them alike."""

    criterion: str
    samples: int  # 0 where the criterion needs none
    agreement: float | None = None  # Spearman's rank correlation of the halves, mean over groups by width
    groups: dict[str, float] = {}  # the same per group


class LimitRow(Value):
    """One limit the plan was solved under, by the device model: a limit binds where no wider group fits."""

    what: Literal["latency_ns", "ram_bytes", "size_bytes", "macs"]
    limit: float  # of the device model's central value
    dense: float
    planned: float
    blocked: int  # of the shrunk groups, how many would break this limit with their next wider level
    shrunk: int


class RaceRow(Value):
    """One raced plan."""

    round: int
    plan: str
    metric: float | None  # validation, after the short fine-tune
    predicted_ns: int | None = None
    chosen: bool = False


class ArtifactRow(Value):
    """One exported file and what the gates found."""

    name: str
    path: Path
    precision: str
    size_bytes: int | None  # on the device: None of a C library that was not linked
    sha256: str
    float_ops: tuple[str, ...] = ()  # the listed exceptions of an int8 file
    snr_db: float | None = None
    notes: tuple[str, ...] = ()


class QuantizeRow(Value):
    """One step that was tried so that int8 holds; it builds on the kept ones before it."""

    step: str
    metrics: dict[str, float]  # of each judged file on validation, by format
    drop: float | None  # of the worst file against the float model; None where no file could be written
    kept: bool = False
    note: str = ""  # why no file could be written
    in_float: tuple[str, ...] = ()  # weights whose layers were left in float


class OpRow(Value):
    """One operator of the deployed file."""

    name: str
    type: str
    ns: int | None
    macs: int
    instructions: int | None = None  # where they were counted


class TimingRow(Value):
    """Wall time of one stage of the fit itself."""

    stage: str
    seconds: float


class FitRecord(Value):
    """Everything a fit has to say: the document `edgeprune.fit/1`."""

    model_config = ConfigDict(populate_by_name=True)

    schema_: Literal["edgeprune.fit/1"] = Field("edgeprune.fit/1", alias="schema")
    workload: Literal["demo", "user"]
    verdict: Verdict
    violations: tuple[ViolationRow, ...] = ()
    source: Source
    target: str
    runtime: str
    threads: int
    budget: BudgetRow
    latency_ns: int | None = None
    latency_interval_ns: IntervalNs | None = None
    ram_bytes: int | None = None
    ram_kind: RamKind | None = None
    size_bytes: int | None = None
    macs: int | None = None  # of the design
    metric: MetricRow
    rounds: tuple[RoundRow, ...] = ()  # plans that were trained and confirmed on their final files, in order
    artifacts: dict[str, Path] = {}
    run: Path

    # For the report and for repeating the run.
    name: str = ""
    created: str = ""  # UTC, ISO 8601
    edgeprune: str = ""  # version
    spec: Spec | None = None
    smallest: Figure | None = None  # of an infeasible budget: the cheapest reachable model
    binding: tuple[str, ...] = ()  # the layers that hold the cost up, dearest first
    samples: dict[str, int] = {}  # train, validation, calibration, test
    costs: tuple[CostRow, ...] = ()
    layers: tuple[KeepRow, ...] = ()
    frozen: tuple[FrozenRow, ...] = ()
    ranking: RankingRow | None = None
    worth: tuple[WorthRow, ...] = ()
    limits: tuple[LimitRow, ...] = ()
    race: tuple[RaceRow, ...] = ()
    stages: tuple[StageRow, ...] = ()  # of the schedule, which `spec` names
    rehearsals: tuple[RoundRow, ...] = ()  # plans whose untrained files were profiled before one was trained, in order
    correction: Correction | None = None  # of the device model, that the plan was solved with
    details: tuple[ArtifactRow, ...] = ()
    quantization: tuple[QuantizeRow, ...] = ()  # of the chosen round, in the order in which the steps were tried
    ops: tuple[OpRow, ...] = ()
    timings: tuple[TimingRow, ...] = ()
    environment: dict[str, str] = {}
    notes: tuple[str, ...] = ()

    @property
    def exit_code(self) -> int:
        """0 met; 3 a cost limit is violated or the budget is infeasible; 4 only the metric's drop is."""
        if self.verdict == "met":
            return 0
        if self.violations and all(row.what == "drop" for row in self.violations):
            return 4
        return 3

    def to_json(self) -> str:
        """The document, with two-space indent and a last newline."""
        return self.model_dump_json(by_alias=True, indent=2) + "\n"


class GroupRow(Value):
    """One channel group of an inspected model; what goes with all but one of its channels, alone."""

    name: str
    width: int
    unit: int  # positions that one channel takes on each of its axes, at least
    layers: tuple[str, ...]
    parameters: int
    macs: int
    latency_share: float | None  # of the dense model's estimated latency
    dead: int = 0  # channels that do nothing
    removable: bool = False  # whether a skip path keeps the model alive without the group


class FrozenGroupRow(Value):
    """Channels of an inspected layer that cannot shrink, and why."""

    name: str
    width: int
    reasons: tuple[str, ...]


class SegmentRow(Value):
    """Neighbouring channels of one group, or (None) fixed ones."""

    group: str | None
    width: int


class LayerRow(Value):
    """One layer of an inspected model, in execution order: the channels it reads and those it computes."""

    name: str
    kind: str
    reads: tuple[SegmentRow, ...]
    computes: tuple[SegmentRow, ...]
    macs: int
    latency_ns: int | None
    reasons: tuple[str, ...] = ()  # why computed channels are fixed


class InspectedCost(Figure):
    """What the dense model costs."""

    size_bytes: int | None = None


class InspectRecord(Value):
    """What can be pruned in a model, what cannot and why: the document `edgeprune.inspect/1`."""

    model_config = ConfigDict(populate_by_name=True)

    schema_: Literal["edgeprune.inspect/1"] = Field("edgeprune.inspect/1", alias="schema")
    model: str
    input: tuple[int, ...]
    parameters: int
    macs: int
    by_head: bool
    groups: tuple[GroupRow, ...]
    frozen: tuple[FrozenGroupRow, ...]
    layers: tuple[LayerRow, ...]
    dense: InspectedCost
    notes: tuple[str, ...] = ()

    def to_json(self) -> str:
        """The document, with two-space indent and a last newline."""
        return self.model_dump_json(by_alias=True, indent=2) + "\n"


class ProfileRecord(Value):
    """One profile of one artifact: the document `edgeprune.profile/1`."""

    model_config = ConfigDict(populate_by_name=True)

    schema_: Literal["edgeprune.profile/1"] = Field("edgeprune.profile/1", alias="schema")
    source: Source
    runtime: str
    threads: int
    precision: str
    runs: int
    p50_ns: int | None
    p90_ns: int | None
    p99_ns: int | None
    latency_ns: int | None
    latency_interval_ns: IntervalNs | None
    ram_bytes: int | None
    ram_kind: RamKind | None
    size_bytes: int | None
    instructions: int | None = None
    cycles: tuple[int, int] | None = None
    arena_bytes: int | None = None
    arena_bound_bytes: int | None = None
    stack_bytes: int | None = None
    flash_bytes: int | None = None
    code_bytes: int | None = None
    weights_bytes: int | None = None
    mismatches: int | None = None  # output values that differ from the reference kernels
    compared: int | None = None  # inputs on which they were compared
    board: BoardCounts | None = None  # of an emulated Linux board
    ops: tuple[OpRow, ...]
    artifact: Path
    target: str
    runtime_version: str
    load_ns: int | None = None
    environment: dict[str, str] = {}
    notes: tuple[str, ...] = ()

    def to_json(self) -> str:
        """The document, with two-space indent and a last newline."""
        return self.model_dump_json(by_alias=True, indent=2) + "\n"


def nanoseconds(seconds: float | None) -> int | None:
    """Whole nanoseconds, or None for what is not known."""
    return None if seconds is None else round(seconds * 1e9)


def interval_ns(seconds: tuple[float, float] | None) -> IntervalNs | None:
    """(low, high) in whole nanoseconds, or None for what is not known."""
    return None if seconds is None else (round(seconds[0] * 1e9), round(seconds[1] * 1e9))


def budget_row(budget: Budget) -> BudgetRow:
    """The budget as a document holds it."""
    return BudgetRow(
        latency_ns=nanoseconds(budget.latency_s),
        at=budget.at,
        ram_bytes=budget.ram_bytes,
        size_bytes=budget.size_bytes,
        macs=budget.macs,
        energy_nj=None if budget.energy_j is None else round(budget.energy_j * 1e9),
        max_drop=budget.max_drop,
    )


def violation_row(violation: Violation) -> ViolationRow:
    """The violation as a document holds it: latency in ns, the drop as a fraction."""
    scale = 1e9 if violation.what == "latency_s" else 1.0
    known = violation.needs != float("inf")
    text = str(violation) if known else f"{violation.what.split('_')[0]}: not known from this source"
    return ViolationRow(
        what="latency_ns" if violation.what == "latency_s" else violation.what,
        needs=violation.needs * scale if known else None,
        limit=violation.limit * scale,
        text=text,
    )


def figure(cost: Cost, target: str, *, runtime: str = "", threads: int | None = None, precision: str = "") -> Figure:
    """The cost as one cell of a table."""
    return Figure(
        source=cost.source,
        target=target,
        runtime=runtime,
        threads=threads,
        precision=precision,
        latency_ns=nanoseconds(cost.latency_s),
        latency_interval_ns=interval_ns(cost.latency_interval_s),
        ram_bytes=cost.ram_bytes,
        ram_kind=cost.ram_kind,
    )


def op_rows(measurement: Measurement) -> tuple[OpRow, ...]:
    """The per-operator table of a measurement."""
    return tuple(
        OpRow(name=op.name, type=op.kind, ns=nanoseconds(op.latency_s), macs=op.macs, instructions=op.instructions)
        for op in measurement.ops
    )


def profile_record(measurement: Measurement, artifact: Path) -> ProfileRecord:
    """The measurement of `artifact` as the document `edgeprune.profile/1`."""
    cost = measurement.cost
    return ProfileRecord(
        source=cost.source,
        runtime=measurement.runtime,
        threads=measurement.threads,
        precision=measurement.precision,
        runs=measurement.runs,
        p50_ns=nanoseconds(measurement.p50_s),
        p90_ns=nanoseconds(measurement.p90_s),
        p99_ns=nanoseconds(measurement.p99_s),
        latency_ns=nanoseconds(cost.latency_s),
        latency_interval_ns=interval_ns(cost.latency_interval_s),
        ram_bytes=cost.ram_bytes,
        ram_kind=cost.ram_kind,
        size_bytes=cost.size_bytes,
        **({} if measurement.counts is None else measurement.counts.model_dump()),
        board=measurement.board,
        ops=op_rows(measurement),
        artifact=artifact,
        target=measurement.target,
        runtime_version=measurement.runtime_version,
        load_ns=nanoseconds(measurement.load_s),
        environment=measurement.environment,
        notes=measurement.notes,
    )
