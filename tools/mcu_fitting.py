"""Device models of microcontrollers: instruction counts of kernels, corrected by results of all boards at once.

    time = scale(board, engine, version) * sum_j count_j(kernels) * exp(u_j + v_j(engine)) * amount_j

Four networks cannot tell six prices apart, so the prior is not a guess but what was counted when kernels ran on an
emulated core: CMSIS-NN's, and register-blocked ones with weights packed in advance, as closed engines use them. What
is fitted are small corrections: u to all, v to an engine. The scale of a board, engine and version follows from its own
results.
"""

from __future__ import annotations

import csv
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from scipy.optimize import least_squares

from edgeprune.device.latency import Work
from tools.fitting import Array, amounts
from tools.mcu_networks import mcu_family, mcu_network

TINY, OTHER, ZOO = "mlperf_tiny.csv", "mcu_other.csv", "stm32_modelzoo.csv"

# Instructions per unit of `Work`, counted with an emulated Cortex-M4 (Helium: M55). CMSIS-NN: 2.09 per MAC of a 1x1
# convolution 64 to 64, 2.14 of a 3x3 one 16 to 32, 8.3 depthwise, 2.19 dense. Blocked kernels: 1.58, 1.20, 7.6, 2.29.
# Split into the inner loop and what an element costs that is gathered (8) or requantised and stored (25).
KERNELS: dict[str, tuple[float, ...]] = {
    "cmsis": (1.7, 1.7, 5.5, 12, 2.1, 2000),
    "blocked": (1.0, 1.0, 4.8, 8, 2.1, 2000),
    "reference": (7, 7, 7, 20, 4, 2000),
    "helium": (0.3, 0.3, 3, 2.5, 0.5, 2000),
}
# Spread of the corrections (log), to all engines and to one; noise of a result. Four settings of the spreads and two
# splits of the counts were compared; results differed by a point.
SHARED_SIGMA, ENGINE_SIGMA, NOISE = 0.3, 0.1, 0.1
# Chips with a matrix unit or vector units of an application processor; their results say nothing of a Cortex-M.
_ACCELERATED = ("NDP9120", "GAP9", "Snapdragon", "Raspberry", "xG24", "K1_BOARD", "Nezha", "ASUS", "VCU118")
_TUNED = ("max_performance", "min_ram")  # variants that trade memory against time


@dataclass(frozen=True)
class Result:
    """One network on one board: its amounts of work and how long it took."""

    model_id: str
    family: str
    measured_s: float
    work: tuple[float, ...]


@dataclass(frozen=True)
class Group:
    """The results of one board with one version of one engine at one clock."""

    device: str
    core: str
    clock_hz: float
    runtime: str
    version: str
    engine: str
    kernels: str
    results: tuple[Result, ...]

    def without(self, family: str) -> Group:
        kept = tuple(r for r in self.results if r.family != family)
        return Group(**{**self.__dict__, "results": kept})


@dataclass(frozen=True)
class Corrections:
    """Logarithms that multiply the counts: `shared` of all engines, `engines` of each."""

    shared: tuple[float, ...]
    engines: dict[str, tuple[float, ...]]

    def counts(self, kernels: str, engine: str) -> Array:
        """Corrected instructions per unit of work."""
        own = self.engines.get(engine, (0.0,) * len(self.shared))
        corrected: Array = np.asarray(KERNELS[kernels]) * np.exp(np.asarray(self.shared) + np.asarray(own))
        return corrected

    def scale_s(self, group: Group) -> float:
        """Seconds per corrected instruction, from the group's own results."""
        counts = self.counts(group.kernels, group.engine)
        logs = [np.log(r.measured_s) - np.log(np.dot(r.work, counts)) for r in group.results]
        return float(np.exp(np.mean(logs)))

    def prices_s(self, group: Group) -> tuple[float, ...]:
        """Seconds per unit of work on the board, engine and version of a group."""
        return tuple(float(p) for p in self.scale_s(group) * self.counts(group.kernels, group.engine))


def correct(groups: Sequence[Group]) -> Corrections:
    """The corrections that fit the results best; groups of one result say nothing and are left out."""
    useful = [group for group in groups if len(group.results) > 1]
    engines = sorted({group.engine for group in useful})
    terms = len(Work())
    rows = [(index, result) for index, group in enumerate(useful) for result in group.results]
    owner = np.array([index for index, _ in rows], dtype=int)
    engine = np.array([engines.index(useful[index].engine) for index in owner], dtype=int)
    work = np.array([result.work for _, result in rows]) * np.array([KERNELS[useful[i].kernels] for i in owner])
    measured = np.log([result.measured_s for _, result in rows])
    sizes = np.bincount(owner, minlength=len(useful))

    def residuals(x: Array) -> Array:
        logs = x[:terms] + x[terms:].reshape(-1, terms)[engine]
        off = np.log((work * np.exp(logs)).sum(axis=1)) - measured
        off -= (np.bincount(owner, off, minlength=len(useful)) / sizes)[owner]  # the scale of the group
        raw = off / NOISE
        robust = np.sign(raw) * np.sqrt(2 * (np.sqrt(1 + raw**2) - 1))
        return np.concatenate([robust, x[:terms] / SHARED_SIGMA, x[terms:] / ENGINE_SIGMA])

    if not useful:
        return Corrections((0.0,) * terms, {})
    found = least_squares(residuals, np.zeros(terms * (1 + len(engines)))).x
    own = found[terms:].reshape(-1, terms)
    return Corrections(_floats(found[:terms]), {name: _floats(own[index]) for index, name in enumerate(engines)})


def _floats(values: Array) -> tuple[float, ...]:
    return tuple(float(value) for value in values)


@dataclass(frozen=True)
class LeftOut:
    """A result estimated without its network's family on any board; the scale is from the group's other results."""

    group: Group
    result: Result
    estimated_s: float

    @property
    def log(self) -> float:
        """log(measured / estimated)."""
        return float(np.log(self.result.measured_s / self.estimated_s))


def unseen_everywhere(groups: Sequence[Group]) -> list[LeftOut]:
    """Every result whose group has another one, estimated from a fit that never saw its family."""
    found = []
    for family in sorted({result.family for group in groups for result in group.results}):
        rest = [group.without(family) for group in groups]
        corrections = correct(rest)
        for group, others in zip(groups, rest, strict=True):
            for result in group.results if others.results else ():
                if result.family == family:
                    prices = corrections.prices_s(others)
                    found.append(LeftOut(group, result, float(np.dot(result.work, prices))))
    return found


def by_macs(groups: Sequence[Group]) -> list[LeftOut]:
    """The same results estimated from their multiply-accumulates alone: what a model must beat."""
    found = []
    for group in groups:
        for result in group.results:
            others = [r for r in group.results if r.family != result.family]
            if others:
                rate = np.exp(np.mean([np.log(r.measured_s / _macs(r.model_id)) for r in others]))
                found.append(LeftOut(group, result, float(rate) * _macs(result.model_id)))
    return found


@cache
def _macs(model_id: str) -> int:
    return sum(op.macs for op in mcu_network(model_id) or ())


@cache
def work_of(model_id: str, dead_channels_dropped: bool = False) -> tuple[float, ...] | None:
    """The amounts of work of a network, patches gathered; None for one that is not defined."""
    ops = mcu_network(model_id, dead_channels_dropped)
    return amounts(ops, 0, True) if ops is not None else None


def tiny_groups(folder: Path, everything: bool = False) -> tuple[Group, ...]:
    """MLPerf Tiny int8 results by board, engine and version; `everything` adds chips with accelerators."""
    return tuple(
        group
        for group in _groups(folder / TINY)
        if everything or not any(name in group.device for name in _ACCELERATED)
    )


def other_groups(folder: Path) -> tuple[Group, ...]:
    """TinyEngine's comparison and ST's model zoo, networks that are defined here and fit into the chip's own memory."""
    return (*_groups(folder / OTHER), *_groups(folder / ZOO))


def _groups(path: Path) -> list[Group]:
    if not path.is_file():  # a folder may hold some of the tables
        return []
    times: dict[tuple[str, ...], dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    with path.open(encoding="utf-8", newline="") as file:
        for row in csv.DictReader(file):
            if _usable(row):
                key = tuple(row[name] for name in ("device", "core", "clock_mhz", "runtime", "runtime_version"))
                times[key][row["model_id"]].append(float(row["latency_ms"]) * 1e-3)
    return [_group(key, results) for key, results in sorted(times.items())]


def _usable(row: dict[str, str]) -> bool:
    external = float(row["ram_kb"] or 0) > 1024 or float(row["flash_kb"] or 0) > 2048
    tuned = any(word in row["note"] for word in _TUNED)
    plain = row["precision"] == "int8" and row["quality"] == "ok" and row["backend"] != "npu"
    microcontroller = "Cortex-A" not in row["core"] and "Cortex-M55 +" not in row["core"] and "ESP" not in row["soc"]
    known = work_of(row["model_id"]) is not None
    return plain and known and not tuned and not external and (microcontroller or _is_tiny(row))


def _is_tiny(row: dict[str, str]) -> bool:
    return "tiny_results" in row["source_repo_or_page"]


def _group(key: tuple[str, ...], times: dict[str, list[float]]) -> Group:
    device, core, clock_mhz, runtime, version = key
    drops = drops_dead_channels(runtime, version)
    results = []
    for model_id, values in sorted(times.items()):
        work = work_of(model_id, drops)
        assert work is not None
        results.append(Result(model_id, mcu_family(model_id), float(np.exp(np.mean(np.log(values)))), work))
    kernels, engine = kernels_of(core, runtime), engine_of(runtime)
    # The clock is not stated for every board; only ratios within such a group are used.
    clock_hz = float(clock_mhz or 0) * 1e6
    return Group(device, core, clock_hz, runtime, version, engine, kernels, tuple(results))


def engine_of(runtime: str) -> str:
    """Engines that share their kernels."""
    if "CMSIS" in runtime or runtime == "microTVM native":
        return "CMSIS-NN"
    return "X-CUBE-AI" if runtime.startswith("STEDGE") else runtime


def kernels_of(core: str, runtime: str) -> str:
    """Which counts an engine starts from."""
    if "M85" in core:
        return "helium"
    if runtime == "TFLM":
        return "reference"
    return "cmsis" if engine_of(runtime) in ("CMSIS-NN", "TFLM+Andes NN") else "blocked"


def drops_dead_channels(runtime: str, version: str) -> bool:
    """Whether an engine leaves out all-zero channels; inferred from its results stepping down on one network."""
    if runtime == "X-CUBE-AI":
        return tuple(int(part) for part in version.split(".")[:2]) >= (8, 1)
    return (runtime, version) == ("Plumerai", "2023.05") or runtime.startswith("STEDGE")


def summary(found: Sequence[LeftOut]) -> dict[str, Any]:
    """Count, median and p90 of |estimate / measured - 1|, and the shares within 10 and 20 %; empty without results."""
    if not found:
        return {}
    off = np.abs(np.expm1([-entry.log for entry in found]))
    return {
        "results": len(found),
        "median": float(np.median(off)),
        "p90": float(np.quantile(off, 0.9)),
        "within_10_percent": float(np.mean(off <= 0.1)),
        "within_20_percent": float(np.mean(off <= 0.2)),
    }
