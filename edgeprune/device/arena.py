"""A straight-line program as its arena sees it: what each task reads and writes, and what may lie over what.

The one place that knows when bytes are held. `edgeprune.device.memory` asks it of fused operators, whose sizes are
estimates; the C backend asks it of the steps it is about to write, so that both plan the same arena.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from edgeprune.device.placement import Buffer


@dataclass(frozen=True)
class Task:
    """What runs at one step.

    Attributes:
        reads, writes: Tensors by name; a tensor that no task writes is an input of the program.
        over: Those of `reads` that the first of `writes` may lie exactly over, where nothing needs them later.
        scratch: Working memory, held while it runs, in the unit of the tensors' sizes.
    """

    name: str
    reads: tuple[str, ...]
    writes: tuple[str, ...]
    over: tuple[str, ...] = ()
    scratch: int = 0


def spans(tasks: Sequence[Task], outputs: Collection[str]) -> dict[str, tuple[int, int]]:
    """First and last step at which each tensor is held: what is written in order, then the inputs.

    An input is held from the start until its last reader, an output to the end, and what nobody reads while it is
    written.
    """
    end = len(tasks) - 1
    made = {name: step for step, task in enumerate(tasks) for name in task.writes}
    read = {name: step for step, task in enumerate(tasks) for name in task.reads}
    inputs = [name for name in read if name not in made]
    return {
        name: (made.get(name, 0), end if name in outputs else read.get(name, made.get(name, 0)))
        for name in (*made, *inputs)
    }


def shared(tasks: Sequence[Task], sizes: Mapping[str, int], outputs: Collection[str]) -> dict[str, str]:
    """For each tensor that is written over one that its task reads, that one: the one that was made last."""
    held, over = spans(tasks, outputs), {}
    for step, task in enumerate(tasks):
        dying = [name for name in task.over if held[name][1] == step and name not in outputs]
        fits = [name for name in dying if sizes[name] == sizes[task.writes[0]]]
        if fits:
            over[task.writes[0]] = max(fits, key=lambda name: held[name])
    return over


def held_at_steps(
    tasks: Sequence[Task], over: Mapping[str, str], outputs: Collection[str]
) -> tuple[tuple[str, ...], ...]:
    """The tensors that must be held while each task runs; what is written `over` another is not counted beside it."""
    held = spans(tasks, outputs)
    return tuple(
        tuple(n for n, (birth, death) in held.items() if birth <= step <= death and not (n in over and step == birth))
        for step in range(len(tasks))
    )


def peak(tasks: Sequence[Task], sizes: Mapping[str, int], outputs: Collection[str]) -> int:
    """The most that is held at one step, scratch included."""
    held = held_at_steps(tasks, shared(tasks, sizes, outputs), outputs)
    totals = (sum(sizes[name] for name in names) + task.scratch for task, names in zip(tasks, held, strict=True))
    return max(totals, default=0)


def buffers(
    tasks: Sequence[Task], sizes: Mapping[str, int], over: Mapping[str, str], outputs: Collection[str], alignment: int
) -> tuple[Buffer, ...]:
    """What the arena must hold: one buffer per tensor, or per chain of tensors that are written over one another.

    Returns:
        Buffers named by the first tensor that lies in them; those of working memory are named `scratch:TASK`.
    """
    held: dict[str, Buffer] = {}
    first: dict[str, str] = {}
    lives = spans(tasks, outputs)
    for name in sorted(lives, key=lambda name: (lives[name][0], name in over)):
        birth, death = lives[name]
        first[name] = first[over[name]] if name in over else name
        birth = held[first[name]].birth if name in over else birth
        held[first[name]] = Buffer(first[name], sizes[name], birth, death, alignment)
    scratch = tuple(
        Buffer(f"scratch:{task.name}", task.scratch, step, step, alignment)
        for step, task in enumerate(tasks)
        if task.scratch
    )
    return (*held.values(), *scratch)


def bottom(name: str, over: Mapping[str, str]) -> str:
    """The first tensor of the chain that a tensor lies in, by which its buffer is named."""
    while name in over:
        name = over[name]
    return name
