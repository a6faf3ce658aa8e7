"""What `fit --budget-only --json` and `prune --json` print: one plan and its predicted cost, units as in
`documents`.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from pydantic import ConfigDict, Field

from edgeprune.documents import BudgetRow, Figure, LimitRow, RankingRow, ViolationRow
from edgeprune.values import Value


class PlannedCost(Figure):
    """A predicted cost."""

    size_bytes: int | None = None
    macs: int | None = None


class WidthRow(Value):
    """How many channels of one group stay; in an infeasible document those of the cheapest plan."""

    group: str
    layers: tuple[str, ...]
    dense: int
    kept: int


class BudgetPlan(Value):
    """A budget without a fit: the document `edgeprune.budget/1`."""

    model_config = ConfigDict(populate_by_name=True)

    schema_: Literal["edgeprune.budget/1"] = Field("edgeprune.budget/1", alias="schema")
    model: str
    verdict: Literal["feasible", "infeasible"]
    budget: BudgetRow
    criterion: str
    dense: PlannedCost
    planned: PlannedCost  # of an infeasible budget: the cheapest plan
    groups: tuple[WidthRow, ...]
    allocation: str = ""
    gap: float | None = None  # proven distance to the optimum; None where none was proven
    seconds: float | None = None
    limits: tuple[LimitRow, ...] = ()
    violations: tuple[ViolationRow, ...] = ()
    binding: tuple[str, ...] = ()  # per limit that cannot be held, the layers that cost most there
    plan: dict[str, Any] | None = None  # as `plan.json` holds it
    notes: tuple[str, ...] = ()

    @property
    def exit_code(self) -> int:
        """0 feasible, 3 not."""
        return 0 if self.verdict == "feasible" else 3

    def to_json(self) -> str:
        """The document, with two-space indent and a last newline."""
        return self.model_dump_json(by_alias=True, indent=2) + "\n"


class PrunedDocument(Value):
    """A model pruned to a budget without training: the document `edgeprune.pruned/1`."""

    model_config = ConfigDict(populate_by_name=True)

    schema_: Literal["edgeprune.pruned/1"] = Field("edgeprune.pruned/1", alias="schema")
    budget: BudgetPlan
    ranking: RankingRow
    error: float | None = None  # max |pruned - masked| / max |masked|; None where nothing was cut
    checked_on: int = 0  # samples; 0: seeded noise
    parameters: tuple[int, int] | None = None  # dense, pruned
    files: dict[str, Path] = {}
    notes: tuple[str, ...] = ()

    @property
    def exit_code(self) -> int:
        """0 pruned, 3 out of reach."""
        return self.budget.exit_code

    def to_json(self) -> str:
        """The document, with two-space indent and a last newline."""
        return self.model_dump_json(by_alias=True, indent=2) + "\n"
