"""From measured networks to a latency model: non-negative least squares on relative errors, tiles found by trying them.

Each file's time is the call plus the sum of its operators, and linear in all prices once tiles are known. Tiles are
chosen law by law on the chains that hold nothing else; then all prices are found together, chains and whole networks
at once. How well that composes is judged on families of whole networks that were left out of the fit.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import product

import numpy as np
from scipy.optimize import nnls
from scipy.stats import rankdata
from scipy.stats import t as student

from edgeprune.backends import Array, Precision
from edgeprune.device.calibrated import ELEMENT_BYTES, PRODUCTS, CalibratedModel, Law, Tiles, amounts, law_name
from edgeprune.device.latency import Band
from edgeprune.device.ops import Op
from edgeprune.values import Value

_POSITIONS = (1, 2, 3, 4, 5, 6, 7, 8, 12, 14, 16)
_OUTPUTS = (1, 4, 8, 16, 32, 64)
_INPUTS = (1, 2, 4, 8, 16)
_CACHES = (None, *(2**exponent for exponent in range(17, 24)))
_SIMPLER = 1.03  # how much worse a smaller tile may fit and still be preferred
_WEIGHED_DOWN = 3.0  # times the usual error: from here on a row counts less
_CLIP = 0.15  # relative errors beyond this count alike when tiles are compared
_COVERAGE = 0.8
_LEAST_SPREAD = 0.02  # standard deviation (log) of what a later day on the same machine adds


@dataclass(frozen=True)
class Timed:
    """One measured network: its fused operators and its time. `family` is empty for chains."""

    name: str
    family: str
    ops: tuple[Op, ...]
    latency_s: float


class Judged(Value):
    """Errors |estimate / measured - 1| of whole networks whose family was left out of the fit.

    Attributes:
        rank_correlation: Spearman's, over all of them.
    """

    networks: int
    median: float
    p90: float
    rank_correlation: float


@dataclass(frozen=True)
class Fitted:
    """A latency model and how well it does."""

    model: CalibratedModel
    judged: Judged


@dataclass(frozen=True)
class _Shape:
    """What is decided before prices are: tiles of each law, and the cache."""

    tiles: Mapping[str, Tiles]
    cache_bytes: int | None


def fit(timed: Sequence[Timed], runtime: str, precision: Precision, threads: int, source: str) -> Fitted:
    """The model that the rows give. The order of rows does not matter.

    Args:
        source: What the model says about itself; the band is added.

    Raises:
        ValueError: No chains, or whole networks of fewer than two families.
    """
    timed = sorted(timed, key=lambda row: row.name)
    families = sorted({row.family for row in timed if row.family})
    if len(families) < 2 or all(row.family for row in timed):
        raise ValueError("a fit needs chains and whole networks of at least two families")
    shape = _shape(timed, ELEMENT_BYTES[precision])
    logs, estimated, measured = [], [], []
    for family in families:
        prices = _prices([row for row in timed if row.family != family], shape, precision)
        for row in timed:
            if row.family == family:
                estimated.append(_estimate(row, shape, prices, precision))
                measured.append(row.latency_s)
                logs.append(float(np.log(row.latency_s / estimated[-1])))
    errors = np.abs(np.array(estimated) / measured - 1)
    judged = Judged(
        networks=len(logs),
        median=float(np.median(errors)),
        p90=float(np.quantile(errors, 0.9)),
        rank_correlation=float(np.corrcoef(rankdata(estimated), rankdata(measured))[0, 1]),
    )
    band = _band(logs)
    prices = _prices(timed, shape, precision)
    laws = {
        name: _law(name, timed, shape, prices, precision)
        for name in sorted(shape.tiles)
    }  # fmt: skip
    model = CalibratedModel(
        runtime=runtime,
        precision=precision,
        threads=threads,
        laws=laws,
        cache_bytes=shape.cache_bytes,
        call_s=_rounded(prices[""][0]),
        band=band,
        source=f"{source}; 80 % band {band.low:.2f}-{band.high:.2f} from left-out families of networks",
    )
    return Fitted(model, judged)


def _band(logs: Sequence[float]) -> Band:
    """80 % interval of measured over estimated: Student's t about zero on what was left out, a later day added."""
    deviation = float(np.hypot(np.sqrt(np.mean(np.square(logs))), _LEAST_SPREAD))
    half = float(student.ppf(0.5 + _COVERAGE / 2, df=len(logs))) * deviation
    return Band(low=_rounded(np.exp(-half)), high=_rounded(np.exp(half)))


def _rounded(value: float) -> float:
    return float(f"{value:.6g}")


def _law(name: str, timed: Sequence[Timed], shape: _Shape, prices: Mapping[str, Array], precision: Precision) -> Law:
    own = [row for row in timed if any(law_name(op) == name for op in row.ops) and not row.family]
    own = own or [row for row in timed if any(law_name(op) == name for op in row.ops)]
    errors = [abs(_estimate(row, shape, prices, precision) / row.latency_s - 1) for row in own]
    return Law(
        tiles=shape.tiles[name],
        prices_s=tuple(_rounded(price) for price in prices[name]),
        rows=len(own),
        error=_rounded(float(np.median(errors))),
    )


def _estimate(row: Timed, shape: _Shape, prices: Mapping[str, Array], precision: Precision) -> float:
    total = float(prices[""][0])
    for op in row.ops:
        name = law_name(op)
        if name in prices:
            terms = amounts(op, shape.tiles[name], shape.cache_bytes, ELEMENT_BYTES[precision])
            total += float(np.dot(terms, prices[name]))
    return total


def _prices(timed: Sequence[Timed], shape: _Shape, precision: Precision) -> dict[str, Array]:
    """Prices of every law; that of the call has the empty name."""
    names = sorted({law_name(op) for row in timed for op in row.ops})
    parts = {"": np.ones((len(timed), 1))}
    for name in names:
        parts[name] = _summed(timed, name, shape.tiles[name], shape.cache_bytes, ELEMENT_BYTES[precision])
    found, _ = _least_squares(np.hstack(list(parts.values())), np.array([row.latency_s for row in timed]))
    ends = np.cumsum([part.shape[1] for part in parts.values()])
    return dict(zip(parts, np.split(found, ends[:-1])))


def _summed(
    timed: Sequence[Timed], name: str, tiles: Tiles, cache_bytes: int | None, element_bytes: int
) -> Array:  # (rows, amounts of the law)
    """What each row has of one law."""
    own = [[amounts(op, tiles, cache_bytes, element_bytes) for op in row.ops if law_name(op) == name] for row in timed]
    width = max(len(terms) for listed in own for terms in listed)
    return np.array([np.sum(listed, 0) if listed else np.zeros(width) for listed in own], np.float64)


def _least_squares(table: Array, latencies_s: Array, call_s: float = 0.0, rounds: int = 4) -> tuple[Array, Array]:
    """Non-negative prices of least squared relative error, outliers weighed down; prices and relative errors."""
    relative = table / latencies_s[:, None]
    scales = np.maximum(relative.max(axis=0), np.finfo(float).tiny)
    wanted, weights = 1 - call_s / latencies_s, np.ones(len(latencies_s))
    prices, errors = np.zeros(table.shape[1]), wanted
    for _ in range(rounds):
        prices = nnls(relative / scales * weights[:, None], wanted * weights)[0] / scales
        errors = relative @ prices - wanted
        usual = max(float(np.median(np.abs(errors))), 1e-3) * _WEIGHED_DOWN
        weights = np.sqrt(usual / np.maximum(np.abs(errors), usual))
    return prices, errors


def _shape(timed: Sequence[Timed], element_bytes: int) -> _Shape:
    """Tiles of every law from the chains that hold nothing else, then the cache from everything."""
    names = sorted({law_name(op) for row in timed for op in row.ops})
    pure = {name: [row for row in timed if {law_name(op) for op in row.ops} == {name}] for name in names}
    call_s = _call_s(pure, element_bytes)
    tiles = {name: _tiles(name, pure[name], call_s, element_bytes) for name in names}
    scores = {}
    for cache_bytes in _CACHES:
        parts = [_summed(timed, name, tiles[name], cache_bytes, element_bytes) for name in names]
        table = np.hstack([np.ones((len(timed), 1)), *parts])
        scores[cache_bytes] = _score(_least_squares(table, np.array([row.latency_s for row in timed]), rounds=2)[1])
    best = min(scores, key=lambda cache_bytes: scores[cache_bytes])
    return _Shape(tiles, best if scores[best] * _SIMPLER < scores[None] else None)


def _call_s(pure: Mapping[str, Sequence[Timed]], element_bytes: int) -> float:
    """The share of the call, from the kind whose chains have different lengths and no weights."""
    rows = pure.get("add", ())
    if len(rows) < 3:
        return 0.0
    table = np.hstack([np.ones((len(rows), 1)), _summed(rows, "add", (1, 1, 1), None, element_bytes)])
    return float(_least_squares(table, np.array([row.latency_s for row in rows]))[0][0])


def _tiles(name: str, rows: Sequence[Timed], call_s: float, element_bytes: int) -> Tiles:
    """The smallest tiles that fit the rows nearly as well as the best ones."""
    choices: list[Tiles] = [(1, 1, 1)]
    if name in PRODUCTS:
        choices = list(product(_POSITIONS if name != "dense" else (1,), _OUTPUTS, _INPUTS))
    elif name == "depthwise":
        choices = [(1, outputs, 1) for outputs in _OUTPUTS]
    if len(choices) == 1 or len(rows) < 2:
        return 1, 1, 1
    latencies_s = np.array([row.latency_s for row in rows])
    scores = {}
    for tiles in choices:
        table = _summed(rows, name, tiles, None, element_bytes)
        scores[tiles] = _score(_least_squares(table, latencies_s, min(call_s, latencies_s.min() / 2), rounds=3)[1])
    good = [tiles for tiles in choices if scores[tiles] <= _SIMPLER * min(scores.values())]
    return min(good, key=lambda tiles: (np.prod(tiles), tiles))


def _score(errors: Array) -> float:
    return float(np.mean(np.minimum(np.abs(errors), _CLIP)))
