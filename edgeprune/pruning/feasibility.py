"""What can be reached at all, and what stands in the way where the budget cannot be."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from edgeprune.cost import Cost, Measurement
from edgeprune.device.estimate import as_run, op_bytes
from edgeprune.device.fusion import fuse
from edgeprune.device.memory import live_totals, overwrites, tensor_elements
from edgeprune.device.ops import Op
from edgeprune.graph import Graph
from edgeprune.pruning.allocation import Bounds, Costing, holds, plan_at, problem_of, smallest_plan
from edgeprune.pruning.limits import Levels
from edgeprune.pruning.plan import Plan, apply
from edgeprune.pruning.relaxation import cheapest

What = Literal["latency", "RAM", "size", "MACs"]

_NAMED = 5  # layers per limit


@dataclass(frozen=True)
class Shortfall:
    """A limit that not even the cheapest plan holds, in SI units, and the layers that cost most there."""

    what: What
    needs: float
    limit: float
    layers: tuple[str, ...]

    def __str__(self) -> str:
        return f"{self.what}: {', '.join(self.layers)}"


@dataclass(frozen=True)
class Reach:
    """The cheapest plan, what it costs, and what it falls short of: nothing where the budget can be met."""

    plan: Plan
    cost: Measurement
    shortfalls: tuple[Shortfall, ...]

    @property
    def feasible(self) -> bool:
        return not self.shortfalls


def reach(costing: Costing, bounds: Bounds, levels: Levels, time_limit_s: float = 20.0) -> Reach:
    """Whether any plan is within the bounds.

    RAM, size and MACs are least where every group is narrowest. Latency need not be, where a runtime is slower on odd
    widths; then the fastest plan within the other bounds is looked for, and that there is none is proven.
    """
    narrowest = smallest_plan(costing, levels)
    cost = costing.of(narrowest)
    if holds(bounds, cost):
        return Reach(narrowest, cost, ())
    if holds(replace(bounds, latency_s=None), cost) and (fastest := _fastest(costing, bounds, levels, time_limit_s)):
        other = costing.of(fastest)
        if holds(replace(bounds, latency_s=None), other) and _latency_s(other) < _latency_s(cost):
            narrowest, cost = fastest, other
    return Reach(narrowest, cost, shortfalls(costing, bounds, narrowest, cost.cost))


def _fastest(costing: Costing, bounds: Bounds, levels: Levels, time_limit_s: float) -> Plan | None:
    """The plan of least latency within the other bounds."""
    nothing = {g.name: np.zeros(len(widths)) for g, widths in zip(costing.groups.groups, levels, strict=True)}
    problem = problem_of(costing, bounds, levels, nothing)
    if bounds.latency_s is None or costing.model is None:
        return None
    choice = cheapest(problem, time_limit_s)
    return None if choice is None else plan_at(costing.groups, levels, choice, None)


def shortfalls(costing: Costing, bounds: Bounds, plan: Plan, cost: Cost) -> tuple[Shortfall, ...]:
    """The bounds that a plan does not hold, each with the layers that cost most of it, dearest first."""
    graph = apply(plan, costing.groups)
    ops = as_run(fuse(graph), costing.runtime)
    found = []
    if bounds.latency_s is not None and cost.latency_s is not None and cost.latency_s > bounds.latency_s:
        model = costing.model
        priced = [model.op_s(op) for op in ops] if model is not None else []
        found.append(Shortfall("latency", cost.latency_s, bounds.latency_s, _dearest(graph, ops, priced)))
    if bounds.ram_bytes is not None and cost.ram_bytes is not None and cost.ram_bytes > bounds.ram_bytes:
        held = live_totals(ops, tensor_elements(ops), overwrites(costing.runtime))
        found.append(Shortfall("RAM", cost.ram_bytes, bounds.ram_bytes, _dearest(graph, ops, held)))
    if bounds.size_bytes is not None and cost.size_bytes is not None and cost.size_bytes > bounds.size_bytes:
        written = [op_bytes(op, costing.precision, costing.latency) for op in ops]
        found.append(Shortfall("size", cost.size_bytes, bounds.size_bytes, _dearest(graph, ops, written)))
    if bounds.macs is not None and cost.macs is not None and cost.macs > bounds.macs:
        found.append(Shortfall("MACs", cost.macs, bounds.macs, _dearest(graph, ops, [op.macs for op in ops])))
    return tuple(found)


def _latency_s(cost: Measurement) -> float:
    return np.inf if cost.cost.latency_s is None else cost.cost.latency_s


def _dearest(graph: Graph, ops: Sequence[Op], costs: Sequence[float]) -> tuple[str, ...]:
    ranked = sorted(zip(ops, costs, strict=True), key=lambda pair: -pair[1])
    return tuple(layer_of(graph, op) for op, cost in ranked[:_NAMED] if cost > 0)


def layer_of(graph: Graph, op: Op) -> str:
    """The module of an operator's first parameter; its own name where it has none."""
    nodes = [graph.by_name[ref] for ref in graph.by_name[op.nodes[0]].refs]
    paths = [node.target for node in nodes if node.op == "parameter"]
    return (paths[0].rpartition(".")[0] or paths[0]) if paths else op.name
