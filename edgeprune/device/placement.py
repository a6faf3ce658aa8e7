"""Where buffers lie in one arena: offsets, what the arena needs, and a proof of how little it could need.

Buffers that are held at the same step must not overlap; all others may share bytes. This is dynamic storage
allocation, NP-hard in general. Several greedy orders are tried first; on the graphs of neural networks one of them
usually reaches the lower bound. What is left goes through a local search and, up to 48 buffers, a branch and bound
whose search space is that of Moffitt, "MiniMalloc" (ASPLOS 2023): in order of offsets, each buffer directly on top of
those it meets. Deterministic: work is counted, never timed.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

_EXACT_BUFFERS = 48
_EXACT_NODES = 4000
_SEARCH_WORK = 400_000  # pairs of buffers looked at by the local search


@dataclass(frozen=True)
class Buffer:
    """Bytes that are held from step `birth` to step `death`, both included.

    Attributes:
        alignment: The offset is a multiple of it; a power of two.
    """

    name: str
    size_bytes: int
    birth: int
    death: int
    alignment: int = 1

    def meets(self, other: Buffer) -> bool:
        """Whether both are held at some step."""
        return self.birth <= other.death and other.birth <= self.death


@dataclass(frozen=True)
class Placement:
    """Offsets in bytes by buffer name, the arena they need, and a bound that no placement can go below."""

    offsets: Mapping[str, int]
    total_bytes: int
    lower_bytes: int

    @property
    def gap(self) -> float:
        """Relative distance to the lower bound; 0 is proven optimal."""
        return self.total_bytes / self.lower_bytes - 1 if self.lower_bytes else 0.0


def place(buffers: Sequence[Buffer]) -> Placement:
    """The smallest arena found for these buffers.

    Args:
        buffers: With different names. Empty ones lie at 0.
    """
    real = [buffer for buffer in buffers if buffer.size_bytes > 0]
    offsets = {buffer.name: 0 for buffer in buffers}
    total = lower = 0
    for part in _components(real):
        found, proven = _placed(part)
        offsets |= {buffer.name: offset for buffer, offset in zip(part, found, strict=True)}
        total, lower = max(total, _top(part, found)), max(lower, proven)
    return Placement(offsets, total, lower)


def live_bytes(buffers: Sequence[Buffer]) -> int:
    """The most bytes that are held at one step, alignment counted: no arena can be smaller."""
    return max((_stacked(held) for held in _sections(buffers)), default=0)


def _stacked(held: Sequence[Buffer]) -> int:
    """A bound for buffers of which any two meet: all but the topmost are padded to the smallest alignment."""
    step = min(buffer.alignment for buffer in held)
    padding = [-buffer.size_bytes % step for buffer in held]
    return sum(buffer.size_bytes for buffer in held) + sum(padding) - max(padding)


def _sections(buffers: Sequence[Buffer]) -> list[list[Buffer]]:
    """What is held at every step at which something ends: no other step holds more."""
    return [[b for b in buffers if b.birth <= step <= b.death] for step in sorted({b.death for b in buffers})]


def _components(buffers: Sequence[Buffer]) -> list[list[Buffer]]:
    """Parts of the program that share no buffer."""
    parts: list[list[Buffer]] = []
    end = -1
    for buffer in sorted(buffers, key=lambda b: (b.birth, b.death)):
        if not parts or buffer.birth > end:
            parts.append([])
        parts[-1].append(buffer)
        end = max(end, buffer.death)
    return parts


def _placed(part: Sequence[Buffer]) -> tuple[list[int], int]:
    """Offsets of one part, and the proven lower bound."""
    lower = live_bytes(part)
    meets = [[j for j, b in enumerate(part) if j != i and a.meets(b)] for i, a in enumerate(part)]
    best: list[int] = []
    order: list[int] = []
    for key in _orders(part):
        tried = sorted(range(len(part)), key=key)
        offsets = _stack(part, meets, tried)
        if not best or _top(part, offsets) < _top(part, best):
            best, order = offsets, tried
        if _top(part, best) == lower:
            return best, lower
    best = _searched(part, meets, order, best, lower)
    if _top(part, best) > lower and len(part) <= _EXACT_BUFFERS:
        best, proven = _Branching(part, meets, best, lower).solved()
        lower = _top(part, best) if proven else lower
    return best, lower


def _orders(part: Sequence[Buffer]) -> list[Callable[[int], tuple[int, ...]]]:
    """Orders worth trying, the best one for most networks first."""
    peak = max(_sections(part), key=_stacked)
    held = {buffer.name for buffer in peak}

    def span(i: int) -> int:
        return part[i].death - part[i].birth + 1

    return [
        lambda i: (-part[i].size_bytes, -span(i), i),
        lambda i: (-part[i].size_bytes * span(i), i),
        lambda i: (part[i].name not in held, -span(i), -part[i].size_bytes, i),
        lambda i: (-span(i), -part[i].size_bytes, i),
        lambda i: (part[i].birth, -part[i].size_bytes, i),
    ]


def _stack(part: Sequence[Buffer], meets: Sequence[Sequence[int]], order: Sequence[int]) -> list[int]:
    """Each buffer in turn into the lowest gap that takes it."""
    offsets = [-1] * len(part)
    for i in order:
        taken = sorted((offsets[j], offsets[j] + part[j].size_bytes) for j in meets[i] if offsets[j] >= 0)
        at = 0
        for start, end in taken:
            if at + part[i].size_bytes <= start:
                break
            at = max(at, _aligned(end, part[i].alignment))
        offsets[i] = at
    return offsets


def _aligned(offset: int, alignment: int) -> int:
    return -(-offset // alignment) * alignment


def _top(part: Sequence[Buffer], offsets: Sequence[int]) -> int:
    return max(offset + buffer.size_bytes for buffer, offset in zip(part, offsets, strict=True))


def _searched(
    part: Sequence[Buffer], meets: Sequence[Sequence[int]], order: Sequence[int], offsets: list[int], lower: int
) -> list[int]:
    """Place what sticks out earlier, again and again; keep what is no worse."""
    chance = random.Random(0)
    now, best = list(order), offsets
    for _ in range(_SEARCH_WORK // max(1, sum(map(len, meets)))):
        top = _top(part, best)
        if top == lower:
            break
        high = chance.choice([i for i in range(len(part)) if best[i] + part[i].size_bytes == top])
        tried = [i for i in now if i != high]
        tried.insert(chance.randrange(max(1, now.index(high))), high)
        found = _stack(part, meets, tried)
        if _top(part, found) <= top:
            now, best = tried, found
    return best


class _Branching:
    """Depth-first search over placements in order of offsets, each buffer on top of those below that it meets."""

    def __init__(self, part: Sequence[Buffer], meets: Sequence[Sequence[int]], best: list[int], lower: int) -> None:
        self.part, self.meets, self.lower = part, meets, lower
        self.best, self.top = best, _top(part, best)
        index = {buffer.name: i for i, buffer in enumerate(part)}
        self.sections = [[index[buffer.name] for buffer in held] for held in _sections(part)]
        self.nodes = 0

    def solved(self) -> tuple[list[int], bool]:
        """The best offsets, and whether nothing better exists."""
        self._visit([0] * len(self.part), [-1] * len(self.part), 0, len(self.part))
        return self.best, self.nodes < _EXACT_NODES or self.top == self.lower

    def _visit(self, least: list[int], offsets: list[int], floor: int, left: int) -> None:
        """`least` is the lowest offset that is free above what is placed, per buffer that is not placed."""
        if self.nodes >= _EXACT_NODES or self.top == self.lower:
            return
        self.nodes += 1
        if not left:
            if (top := _top(self.part, offsets)) < self.top:
                self.best, self.top = list(offsets), top
            return
        waiting = [i for i in range(len(self.part)) if offsets[i] < 0]
        if self._hopeless(least, offsets, waiting):
            return
        # what fits below an offset entirely goes there first
        ceiling = min(least[i] + self.part[i].size_bytes for i in waiting)
        ready = [i for i in waiting if floor <= least[i] < ceiling]
        for i in sorted(ready, key=lambda i: (least[i], -self.part[i].size_bytes)):
            offsets[i] = least[i]
            top = least[i] + self.part[i].size_bytes
            if top >= self.top:
                offsets[i] = -1
                continue
            raised = list(least)
            for j in self.meets[i]:
                if offsets[j] < 0:
                    raised[j] = max(raised[j], _aligned(top, self.part[j].alignment))
            self._visit(raised, offsets, least[i], left - 1)
            offsets[i] = -1

    def _hopeless(self, least: Sequence[int], offsets: Sequence[int], waiting: Sequence[int]) -> bool:
        if any(least[i] + self.part[i].size_bytes >= self.top for i in waiting):
            return True
        for held in self.sections:
            open_ = [i for i in held if offsets[i] < 0]
            if open_ and min(least[i] for i in open_) + _stacked([self.part[i] for i in open_]) >= self.top:
                return True
        return False
