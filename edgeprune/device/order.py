"""In which order to run operators so that the least memory is held at once.

Where a graph branches, finishing one branch before the next can halve the peak. What has run so far decides what is
held, whatever the order was, so orders are searched over sets of finished operators, as in Ahn et al., "Ordering
chaos" (MLSys 2020), a step at a time and with a limit on the sets that are kept.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from edgeprune.device.memory import ELEMENTWISE, lifetimes, live_totals, tensor_elements
from edgeprune.device.ops import Op

_KEPT = 256  # sets of finished operators per step; more are only met where very many branches run side by side


class _State(NamedTuple):
    peak: int  # most elements held at a step so far
    held: int  # elements that later operators and the outputs still need
    done: int  # bit set of finished operators
    order: tuple[int, ...]


def ordered(ops: Sequence[Op]) -> tuple[Op, ...]:
    """The same operators in an order that needs no more memory than the given one, the least that is found.

    The order given stays where nothing is gained. Exact as long as no more than 256 different sets of finished
    operators are possible after any step.
    """
    sequence = tuple(ops)
    graph = _Graph(sequence)
    states = {0: _State(graph.inputs, graph.inputs, 0, ())}
    for _ in sequence:
        following: dict[int, _State] = {}
        for state in states.values():
            for step in graph.ready(state.done):
                after = graph.run(state, step)
                known = following.get(after.done)
                if known is None or after.peak < known.peak:
                    following[after.done] = after
        kept = sorted(following.values(), key=lambda s: (s.peak, s.held, s.order))[:_KEPT]
        states = {state.done: state for state in kept}
    (best,) = states.values()
    found = tuple(sequence[step] for step in best.order)
    return found if _peak(found) < _peak(sequence) else sequence


def _peak(ops: Sequence[Op]) -> int:
    return max(live_totals(ops, tensor_elements(ops), in_place=True), default=0)


class _Graph:
    """Who reads whom, as bit sets over the operators' places in the given order."""

    def __init__(self, ops: Sequence[Op]) -> None:
        self.ops = ops
        self.elements = tensor_elements(ops)
        made = {op.output: step for step, op in enumerate(ops)}
        self.needs = [sum({1 << made[name] for name in op.inputs if name in made}) for op in ops]
        self.readers: dict[str, int] = dict.fromkeys(lifetimes(ops), 0)
        for step, op in enumerate(ops):
            for name in set(op.inputs):
                self.readers[name] |= 1 << step
        self.inputs = sum(self.elements[name] for name in self.readers if name not in made)

    def ready(self, done: int) -> list[int]:
        """Operators that have not run and whose inputs are there."""
        return [s for s in range(len(self.ops)) if not done >> s & 1 and self.needs[s] & ~done == 0]

    def run(self, state: _State, step: int) -> _State:
        op, done = self.ops[step], state.done | 1 << step
        dying = [name for name in dict.fromkeys(op.inputs) if self.readers[name] & ~done == 0]
        size = self.elements[op.output]
        over = op.kind in ELEMENTWISE and any(self.elements[name] == size for name in dying)
        now = state.held + (0 if over else size)
        held = state.held + size - sum(self.elements[name] for name in dying)
        return _State(max(state.peak, now), held, done, (*state.order, step))
