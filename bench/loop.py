"""Budgets over the whole range of three small nets on this machine: how often met, how close, in how many rounds.

The reachable range lies between what the smallest plan and the dense model take, by the verdict's own statistic. The
training is short: it is the loop that is judged here.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from bench import command, runs
from bench.cells import ROOT, Result, Sheet
from bench.loop_nets import NETS, workload
from edgeprune import pipeline, stages
from edgeprune.documents import FitRecord
from edgeprune.errors import UsageError, did_you_mean
from edgeprune.job import open_job
from edgeprune.progress import Progress
from edgeprune.spec import Spec
from edgeprune.stages import Dense, Evaluated, Floor, Importance

_FIT: dict[str, Any] = {
    "schedule": "one-shot",
    "epochs": 1,
    "batch_size": 32,
    "race_steps": 8,
    "curves_limit_s": 5.0,
    "importance_samples": 64,
    "calibration_samples": 32,
    "formats": ("tflite",),
}
_LOWEST, _HIGHEST = 0.15, 0.9  # of the reachable range
# What does not depend on the budget.
_STAGES, _FOLDERS = ("evaluated", "dense", "importance"), ("dense", "dense-fp32")


@dataclass(frozen=True)
class _Bench:
    """What every cell needs."""

    options: argparse.Namespace
    folder: Path
    progress: Progress


def main(arguments: Sequence[str]) -> int:
    """The command; returns the exit status."""
    parser = command.parser("loop", (__doc__ or "").splitlines()[0])
    parser.add_argument("--nets", default=",".join(NETS), help=f"some of {','.join(NETS)}")
    parser.add_argument("--budgets", type=int, default=20, help="in all, spread over the nets")
    options = parser.parse_args(arguments)
    if options.smoke:
        options.nets, options.budgets = "mobile", 1
    return command.run("loop", options, arguments, _benchmark)


def _benchmark(sheet: Sheet, options: argparse.Namespace, folder: Path, progress: Progress) -> None:
    bench = _Bench(options, folder, progress)
    nets = chosen_nets(options.nets)
    for name, shares in zip(nets, spread(options.budgets, len(nets)), strict=True):
        found = sheet.cell(f"{name}/range", partial(_range, bench, name))
        for share in shares:
            limit_ns = round(found["smallest_ns"] + share * (found["dense_ns"] - found["smallest_ns"]))
            sheet.cell(f"{name}/{share:.3f}", partial(_fitted, bench, name, share, limit_ns, found["run"]))


def chosen_nets(text: str, known: Sequence[str] = NETS) -> tuple[str, ...]:
    """The named nets.

    Raises:
        UsageError: An unknown one.
    """
    names = tuple(word.strip() for word in text.split(","))
    for name in names:
        if name not in known:
            raise UsageError(f"unknown net {name!r}", where="--nets", hint=did_you_mean(name, known))
    return names


def spread(budgets: int, nets: int) -> tuple[tuple[float, ...], ...]:
    """Shares of the reachable range for each net: evenly spread, the first nets take what is left over."""
    counts = [budgets // nets + (i < budgets % nets) for i in range(nets)]
    return tuple(tuple(np.linspace(_LOWEST, _HIGHEST, count + 2)[1:-1].tolist()) for count in counts)


def _spec(bench: _Bench, name: str, part: str, budget: dict[str, str]) -> Spec:
    fit = {**_FIT, **({"race_steps": 2, "curves": False} if bench.options.smoke else {})}
    tree = {"target": {"name": "host"}, "budget": budget, "fit": fit, "out": bench.folder / name / part}
    return Spec.model_validate(tree)


def _range(bench: _Bench, name: str) -> Result:
    """The stages that all budgets of a net share, and the ends of what can be reached."""
    spec = _spec(bench, name, "range", {})
    with runs.open_run(spec, name, anew=bench.options.fresh) as run:
        job = open_job(run, workload(name), bench.progress)
        evaluated = run.stage("evaluated", Evaluated, lambda: stages.evaluated(job))
        dense = run.stage("dense", Dense, lambda: stages.dense(job, evaluated))
        floor = run.stage("floor", Floor, lambda: stages.floor(job, dense))
        run.stage("importance", Importance, lambda: stages.importance_and_curves(job))
        dense_s, smallest_s = dense.measurement.cost.latency_s, floor.measurement.cost.latency_s
    assert dense_s is not None and smallest_s is not None
    return {
        "dense_ns": round(dense_s * 1e9),
        "smallest_ns": round(smallest_s * 1e9),
        "dense": dense.test[job.workload.task.primary],
        "run": run.path.resolve().relative_to(ROOT).as_posix(),
    }


def _fitted(bench: _Bench, name: str, share: float, limit_ns: int, shared: str) -> Result:
    spec = _spec(bench, name, f"{share:.3f}", {"latency": f"{limit_ns}ns"})
    with runs.open_run(spec, name, anew=bench.options.fresh) as run:
        run.adopt(ROOT / shared, ("budget", "out"), _STAGES, _FOLDERS)
        return row_of(pipeline.fit_in(run, bench.progress, workload(name)))


def row_of(record: FitRecord) -> Result:
    """What the table shows of one budget. `undershoot` is its unused share, below zero when it is broken."""
    needs, limit = record.latency_ns, record.budget.latency_ns
    assert limit is not None
    return {
        "verdict": record.verdict,
        "source": record.source.value,
        "latency_ns": needs,
        "budget_ns": limit,
        "undershoot": None if needs is None else round(1 - needs / limit, 4),
        "rounds": len(record.rounds),
        "rehearsals": len(record.rehearsals),
        "predicted_ns": [row.predicted_ns for row in record.rehearsals],
        "rehearsed_ns": [row.profiled_ns for row in record.rehearsals],
        "confirmed_ns": [row.profiled_ns for row in record.rounds],
        "plan": record.rounds[0].plan if record.rounds else None,
        "drop": record.metric.drop,
        "seconds": round(sum(row.seconds for row in record.timings), 1),
        "run": record.run.resolve().relative_to(ROOT).as_posix(),
    }


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
