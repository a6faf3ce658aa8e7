"""In which order to run operators so that the least memory is held at once.

Where a graph branches, finishing one branch before the next can halve the peak. What has run so far decides what is
held, whatever the order was, so orders are searched over sets of finished operators, as in Ahn et al., "Ordering
chaos" (MLSys 2020), a step at a time and with a limit on the sets that are kept.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import NamedTuple

from edgeprune.device.arena import Task, peak
from edgeprune.device.memory import outputs_of, tasks, tensor_elements
from edgeprune.device.ops import Op

_KEPT = 256  # sets of finished tasks per step; more are only met where very many branches run side by side


class _State(NamedTuple):
    peak: int  # most that is held at a step so far
    held: int  # what later tasks and the outputs still need
    done: int  # bit set of finished tasks
    order: tuple[int, ...]


def ordered(ops: Sequence[Op]) -> tuple[Op, ...]:
    """The same operators in an order that needs no more memory than the given one, the least that is found.

    The order given stays where nothing is gained. Exact as long as no more than 256 different sets of finished
    operators are possible after any step.
    """
    return tuple(ops[at] for at in arranged(tasks(ops), tensor_elements(ops), outputs_of(ops)))


def arranged(run: Sequence[Task], sizes: Mapping[str, int], outputs: Collection[str]) -> tuple[int, ...]:
    """Positions of the tasks in such an order; see `ordered`.

    Args:
        outputs: Tensors that are held to the end.
    """
    graph = _Graph(run, sizes, outputs)
    states = {0: _State(graph.inputs, graph.inputs, 0, ())}
    for _ in run:
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
    gains = peak([run[step] for step in best.order], sizes, outputs) < peak(run, sizes, outputs)
    return best.order if gains else tuple(range(len(run)))


class _Graph:
    """Who reads whom, as bit sets over the tasks' places in the given order; one bit more is the program's end."""

    def __init__(self, run: Sequence[Task], sizes: Mapping[str, int], outputs: Collection[str]) -> None:
        self.tasks, self.sizes = run, sizes
        made = {name: step for step, task in enumerate(run) for name in task.writes}
        self.needs = [sum({1 << made[name] for name in task.reads if name in made}) for task in run]
        self.readers: dict[str, int] = dict.fromkeys((*made, *(name for task in run for name in task.reads)), 0)
        for name in outputs:
            self.readers[name] = 1 << len(run)
        for step, task in enumerate(run):
            for name in set(task.reads):
                self.readers[name] |= 1 << step
        self.inputs = sum(sizes[name] for name in self.readers if name not in made)

    def ready(self, done: int) -> list[int]:
        """Tasks that have not run and whose inputs are there."""
        return [s for s in range(len(self.tasks)) if not done >> s & 1 and self.needs[s] & ~done == 0]

    def run(self, state: _State, step: int) -> _State:
        task, done = self.tasks[step], state.done | 1 << step
        dying = [name for name in dict.fromkeys(task.reads) if self.readers[name] & ~done == 0]
        written = sum(self.sizes[name] for name in task.writes)
        size = self.sizes[task.writes[0]]
        over = any(self.sizes[name] == size for name in dying if name in task.over)
        now = state.held + written - (size if over else 0) + task.scratch
        kept = sum(self.sizes[name] for name in task.writes if self.readers[name])
        held = state.held + kept - sum(self.sizes[name] for name in dying)
        return _State(max(state.peak, now), held, done, (*state.order, step))
