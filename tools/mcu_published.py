"""Latency models of every microcontroller with published results: `profiles/microcontrollers/models.json`.

A model is keyed by device, core, runtime and version as the tables name them. For a board that is not there, `cores`
holds the cycles per unit of work of an engine on a core, the mean over the boards that have it.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from edgeprune.device.latency import Work
from edgeprune.errors import UsageError
from tools.mcu_fitting import Group, LeftOut, Result, by_macs, other_groups, summary, tiny_groups, unseen_everywhere
from tools.mcu_recipes import BOARD_SPREAD, Fit, fit_all

SCHEMA = "edgeprune.microcontroller-models/1"
FILE = Path("microcontrollers") / "models.json"
_DIGITS = 4  # significant; the solver's last bits differ between machines


@dataclass(frozen=True)
class Estimator:
    """The shipped models: seconds per unit of work by device, core, runtime and version; cycles by core and engine."""

    boards: dict[tuple[str, ...], dict[str, Any]]
    cores: dict[tuple[str, str], dict[str, Any]]

    def model(self, group: Group) -> dict[str, Any] | None:
        """The model of a group's own board, else of its core; None when neither is there."""
        own = self.boards.get((group.device, group.core, group.runtime, group.version))
        return own or (self.cores.get((group.core, group.engine)) if group.clock_hz else None)

    def estimate_s(self, group: Group, result: Result) -> float | None:
        model = self.model(group)
        if model is None:
            return None
        prices = np.asarray(model["prices_s"] if "prices_s" in model else model["cycles"])
        return float(np.dot(result.work, prices)) / (1.0 if "prices_s" in model else group.clock_hz)


def write_microcontrollers(measurements: Path, profiles: Path) -> Path:
    """Fits all boards and writes the file; the same measurements give the same bytes."""
    path = profiles / FILE
    path.parent.mkdir(parents=True, exist_ok=True)
    fit = fit_all(measurements)
    everything = tiny_groups(measurements, everything=True)
    head = {
        "schema": SCHEMA,
        "terms": Work._fields,
        "written_by": "python -m tools.fit_profiles",
        "method": "counted instructions, corrected by the results of all boards; a scale per board and version",
        "left_out_family": _rounded(summary(fit.left_out)),
        "left_out_family_by_macs": _rounded(summary(by_macs(fit.groups))),
        "left_out_family_with_accelerators": _rounded(summary(unseen_everywhere(everything))),
    }
    lines = [f" {json.dumps(name)}: {json.dumps(value)}," for name, value in head.items()]
    boards = ",\n".join("  " + json.dumps(_board(fit, group), ensure_ascii=False) for group in fit.groups)
    cores = ",\n".join("  " + json.dumps(entry, ensure_ascii=False) for entry in _cores(fit))
    text = "\n".join(["{", *lines, ' "boards": [', boards, " ],", ' "cores": [', cores, " ]", "}"]) + "\n"
    path.write_text(text, encoding="utf-8")
    return path


def _board(fit: Fit, group: Group) -> dict[str, Any]:
    low, high = fit.band(group.kernels, 0.0)
    return {
        "device": group.device,
        "core": group.core,
        "clock_hz": group.clock_hz,
        "runtime": group.runtime,
        "version": group.version,
        "kernels": group.kernels,
        "networks": [result.model_id for result in group.results],
        "prices_s": _digits(fit.corrections.prices_s(group)),
        "band": _digits((low, high)),
    }


def _cores(fit: Fit) -> list[dict[str, Any]]:
    together: dict[tuple[str, str], list[Group]] = defaultdict(list)
    for group in fit.groups:
        if group.clock_hz:
            together[group.core, group.engine].append(group)
    entries = []
    for (core, engine), groups in sorted(together.items()):
        logs = [np.log(fit.corrections.prices_s(group)) + np.log(group.clock_hz) for group in groups]
        spread = float(np.hypot(BOARD_SPREAD, np.std([row.mean() for row in logs])))
        entries.append(
            {
                "core": core,
                "engine": engine,
                "boards": sorted({group.device for group in groups}),
                "cycles": _digits(np.exp(np.mean(logs, axis=0))),
                "band": _digits(fit.band(groups[0].kernels, spread)),
            }
        )
    return entries


def _digits(values: Sequence[float] | np.ndarray[Any, Any]) -> list[float]:
    return [float(f"{value:.{_DIGITS}g}") for value in values]


def _rounded(tree: dict[str, Any]) -> dict[str, Any]:
    return {name: float(f"{value:.{_DIGITS}g}") for name, value in tree.items()}


def read_microcontrollers(profiles: Path) -> Estimator:
    """The shipped models.

    Raises:
        UsageError: A file of another version.
    """
    tree = json.loads((profiles / FILE).read_text(encoding="utf-8"))
    if tree.get("schema") != SCHEMA:
        raise UsageError("not a file of microcontroller models", where=str(profiles / FILE), hint="make profiles")
    names = ("device", "core", "runtime", "version")
    boards = {tuple(entry[name] for name in names): entry for entry in tree["boards"]}
    return Estimator(boards, {(entry["core"], entry["engine"]): entry for entry in tree["cores"]})


def unseen(measurements: Path) -> dict[str, Any]:
    """Cross-validation on a folder's own results: each network's family left out on every board."""
    plain, everything = tiny_groups(measurements), tiny_groups(measurements, everything=True)
    groups = (*plain, *other_groups(measurements))
    return {
        "MLPerf Tiny": _rounded(summary(unseen_everywhere(plain))),
        "MLPerf Tiny, MACs only": _rounded(summary(by_macs(plain))),
        "MLPerf Tiny, accelerators too": _rounded(summary(unseen_everywhere(everything))),
        "MLPerf Tiny, accelerators too, MACs only": _rounded(summary(by_macs(everything))),
        "all tables": _rounded(summary(unseen_everywhere(groups))),
    }


def judged(measurements: Path, profiles: Path) -> dict[str, Any]:
    """The shipped models on a folder's results: networks a board's model was fitted on apart from those it was not."""
    estimator = read_microcontrollers(profiles)
    kinds: dict[str, list[tuple[LeftOut, bool]]] = defaultdict(list)
    uncovered = 0
    for group in (*tiny_groups(measurements), *other_groups(measurements)):
        model = estimator.model(group)
        for result in group.results:
            estimated_s = estimator.estimate_s(group, result)
            if model is None or estimated_s is None:
                uncovered += 1
                continue
            kind = "seen" if result.model_id in model.get("networks", ()) else "unseen"
            kind = kind if "networks" in model else "board not seen"
            inside = model["band"][0] <= result.measured_s / estimated_s <= model["band"][1]
            kinds[kind].append((LeftOut(group, result, estimated_s), inside))
    found: dict[str, Any] = {"without_a_model": uncovered}
    for kind, entries in sorted(kinds.items()):
        share = float(np.mean([inside for _, inside in entries]))
        found[kind] = _rounded({**summary([entry for entry, _ in entries]), "inside_band": share})
    return found
