"""Device models of everything that has published rows, targets or not: `profiles/published/<engine>.json`.

A model is keyed by device, core, clock, threads, runtime, version and precision as the tables name them, and holds
prices for the terms of its engine, the networks it was fitted on, its cross-validated errors and its band.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from edgeprune.errors import UsageError
from tools.crossval import LeftOut, clusters, half_widths, left_out, prior_without
from tools.engines import ENGINES
from tools.fitting import fit
from tools.groups import Group, Key, read_groups

SCHEMA = "edgeprune.published-models/1"
METHOD = (
    "prices of the terms, log-space maximum a posteriori with prior ratios (learnt over devices where pooled), soft-L1 "
    "on rows; errors with one network and one family left out; 80 % band from left-out families, shrunk to the engine's"
)
_DIGITS = 4  # significant; the solver's last bits differ between machines


@dataclass(frozen=True)
class Published:
    """One model as its file holds it."""

    key: Key
    networks: tuple[str, ...]
    prices_s: tuple[float, ...]
    band: tuple[float, float]
    left_out_model: dict[str, float]
    left_out_family: dict[str, float]


def rounded(value: float) -> float:
    return float(f"{value:.{_DIGITS}g}")


def summary(entries: Sequence[LeftOut]) -> dict[str, float]:
    """Median and p90 of |estimate / measured - 1|, shares within 10 and 20 %, rank correlation; empty without rows."""
    if not entries:
        return {}
    relative = np.abs(np.expm1([-entry.log for entry in entries]))
    found = {
        "median": float(np.median(relative)),
        "p90": float(np.quantile(relative, 0.9)),
        "within_10_percent": float(np.mean(relative <= 0.1)),
        "within_20_percent": float(np.mean(relative <= 0.2)),
    }
    if len(entries) > 2:
        found["rank_correlation"] = rank_correlation(
            [entry.estimated_s for entry in entries], [entry.row.measured_s for entry in entries]
        )
    return {name: rounded(value) for name, value in found.items()}


def rank_correlation(first: Sequence[float], second: Sequence[float]) -> float:
    """Spearman's; no two values of one side are expected to be equal."""
    ranks = [np.argsort(np.argsort(values)).astype(float) for values in (first, second)]
    return float(np.corrcoef(ranks[0], ranks[1])[0, 1])


def fitted(groups: Sequence[Group]) -> list[Published]:
    """The models of all groups, with their errors and bands."""
    by_model, by_family = left_out(groups, "model_id"), left_out(groups, "family")
    halves = half_widths(by_family)
    models = []
    for together in clusters(groups):
        prior = prior_without(together)
        for group in together:
            half = halves[group.key]
            models.append(
                Published(
                    group.key,
                    tuple(row.model_id for row in group.rows),
                    tuple(rounded(price) for price in fit(group.rows, prior, group.engine.noise)),
                    (rounded(float(np.exp(-half))), rounded(float(np.exp(half)))),
                    summary(by_model[group.key]),
                    summary(by_family[group.key]),
                )
            )
    return sorted(models, key=lambda model: tuple(vars(model.key).values()))


def write_published(measurements: Path, folder: Path) -> list[Path]:
    """Fits every group of the measurements and writes one file per engine."""
    groups, _ = read_groups(measurements)
    models = fitted(groups)
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for engine in ENGINES.values():
        path = folder / f"{engine.name}.json"
        path.write_text(_text(engine.name, [m for m in models if m.key.engine == engine.name]), encoding="utf-8")
        paths.append(path)
    return paths


def _text(engine: str, models: Sequence[Published]) -> str:
    """JSON with a line per model, so that a change shows as the models it touches."""
    head = {
        "schema": SCHEMA,
        "engine": engine,
        "terms": ENGINES[engine].terms,
        "written_by": "python -m tools.fit_profiles",
        "method": METHOD,
    }
    lines = [f" {json.dumps(name)}: {json.dumps(value, ensure_ascii=False)}," for name, value in head.items()]
    entries = ",\n".join("  " + json.dumps(_tree(model), ensure_ascii=False) for model in models)
    return "\n".join(["{", *lines, ' "models": [', entries, " ]", "}"]) + "\n"


def _tree(model: Published) -> dict[str, Any]:
    key = asdict(model.key)
    del key["engine"]
    low, high = model.band
    rest = asdict(model)
    return {
        **key,
        **{name: rest[name] for name in rest if name not in ("key", "band")},
        "band": {"low": low, "high": high},
    }


def read_published(folder: Path) -> dict[Key, Published]:
    """The shipped models by their key.

    Raises:
        UsageError: A file that is not one of this version, or of other terms than this program prices.
    """
    models = {}
    for path in sorted(folder.glob("*.json")):
        tree = json.loads(path.read_text(encoding="utf-8"))
        engine = tree.get("engine", "")
        if tree.get("schema") != SCHEMA or engine not in ENGINES or tuple(tree["terms"]) != ENGINES[engine].terms:
            raise UsageError("not a file of published models of this version", where=str(path), hint="make profiles")
        for entry in tree["models"]:
            key = Key(engine, **{name: entry[name] for name in Key.__dataclass_fields__ if name != "engine"})
            models[key] = Published(
                key,
                tuple(entry["networks"]),
                tuple(entry["prices_s"]),
                (entry["band"]["low"], entry["band"]["high"]),
                entry["left_out_model"],
                entry["left_out_family"],
            )
    return models
