"""A device model bent towards profiles: whole networks by a line, single operators by factors of their own.

Profiles of exported files say how long each operator took; `op_factors` compares that with the estimates. The factors
hold what an operator takes relative to its network; the line on top holds the network.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from difflib import SequenceMatcher

from edgeprune.cost import Correction, OpCost
from edgeprune.device.latency import Band, DeviceModel, besides_s
from edgeprune.device.ops import Op

# How many profiles' worth the prior weighs: that of a kind of operators towards 1, of an operator towards its kind.
_KIND_PRIOR, _OP_PRIOR = 0.5, 0.25
_MOST = 4.0  # one wild row must not decide alone
# First words of profiler rows that name no operator of the file.
_ROW_KINDS = {
    "average pooling": "pool",
    "constant pad": "pad",
    "copy": "move",
    "global average pooling": "mean",
    "max pooling": "pool",
    "multiply": "mul",
    "sigmoid": "activation",
    "transpose": "move",
}

Rows = Sequence[OpCost]


@dataclass(frozen=True)
class Corrected:
    """Any device model with a correction; a device model itself."""

    model: DeviceModel
    correction: Correction

    @property
    def band(self) -> Band:
        """The model's own: profiles of a few networks do not make it surer of others."""
        return self.model.band

    @property
    def source(self) -> str:
        """The model's own."""
        return self.model.source

    def op_s(self, op: Op) -> float:
        """Seconds of one op."""
        return self.correction.latency * self.correction.ops.get(op.name, 1.0) * self.model.op_s(op)

    def total_s(self, ops: Iterable[Op]) -> float:
        """Seconds of one inference, the correction's offset included."""
        sequence = tuple(ops)
        return self.correction.latency_of(besides_s(self.model, sequence)) + sum(self.op_s(op) for op in sequence)

    def interval_s(self, ops: Iterable[Op]) -> tuple[float, float]:
        """The model's own interval, scaled to the corrected total."""
        sequence = tuple(ops)
        plain_s, (low, high) = self.model.total_s(sequence), self.model.interval_s(sequence)
        scale = self.total_s(sequence) / plain_s if plain_s else 1.0
        return low * scale, high * scale


def op_factors(profiles: Sequence[tuple[Rows, Rows]]) -> dict[str, float]:
    """Measured over estimated time of every operator by name, each relative to its network.

    In logarithms, the mean over profiles, shrunk towards that of the operator's kind, which is shrunk towards none.
    Operators without a row of their own share what the rest of the network took.

    Args:
        profiles: (estimated, measured) rows of networks of one family.
    """
    own: dict[str, list[float]] = defaultdict(list)
    of_kind: dict[str, list[float]] = defaultdict(list)
    kinds: dict[str, str] = {}
    for estimated, measured in profiles:
        for name, kind, ratio in _ratios(estimated, measured):
            own[name].append(ratio)
            of_kind[kind].append(ratio)
            kinds[name] = kind
    prior = {kind: sum(ratios) / (len(ratios) + _KIND_PRIOR) for kind, ratios in of_kind.items()}
    return {
        name: math.exp((sum(ratios) + _OP_PRIOR * prior[kinds[name]]) / (len(ratios) + _OP_PRIOR))
        for name, ratios in own.items()
    }


def _ratios(estimated: Rows, measured: Rows) -> list[tuple[str, str, float]]:
    """(name, kind, logarithm of measured share over estimated share of the network's time)."""
    whole_s = sum(row.latency_s or 0.0 for row in measured)
    expected_s = sum(row.latency_s or 0.0 for row in estimated)
    if whole_s <= 0 or expected_s <= 0:
        return []
    pairs = matched(estimated, measured)
    found = []
    for i, j in pairs.items():
        share, taken = (estimated[i].latency_s or 0.0) / expected_s, (measured[j].latency_s or 0.0) / whole_s
        if share > 0 and taken > 0:
            found.append((estimated[i].name, estimated[i].kind, _bounded(taken / share)))
    rest = [row for i, row in enumerate(estimated) if i not in pairs and row.latency_s]
    left = sum(row.latency_s or 0.0 for j, row in enumerate(measured) if j not in set(pairs.values())) / whole_s
    share = sum(row.latency_s or 0.0 for row in rest) / expected_s
    if rest and left > 0:
        found += [(row.name, f"other {row.kind}", _bounded(left / share)) for row in rest]
    return found


def _bounded(ratio: float) -> float:
    return math.log(min(max(ratio, 1 / _MOST), _MOST))


def matched(estimated: Rows, measured: Rows) -> dict[int, int]:
    """For rows of the estimate, their rows in the profile. Names differ, order and amounts of work do not.

    Rows with multiply-accumulates are matched by their number, others by kind, both in order; what the exporter
    added, dropped or fused is left out.
    """
    blocks = SequenceMatcher(None, list(map(_key, estimated)), list(map(_key, measured)), autojunk=False)
    return {
        block.a + offset: block.b + offset for block in blocks.get_matching_blocks() for offset in range(block.size)
    }


def _key(row: OpCost) -> int | str:
    if row.macs:
        return row.macs
    kind = row.kind.lower()
    return next((ours for words, ours in _ROW_KINDS.items() if kind.startswith(words)), kind.split(" ")[0])
