"""Budgets met by measurement on this machine: half the dense int8 latency with several seeds, and a RAM limit.

The RAM limit lies halfway between what the dense and the pruned file took, so it binds: the dense model breaks it.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from bench import command, runs
from bench.cells import ROOT, Result, Sheet
from edgeprune import stages
from edgeprune.documents import FitRecord
from edgeprune.errors import UsageError
from edgeprune.job import open_job
from edgeprune.progress import Progress
from edgeprune.spec import DEMO_FIT, Spec
from edgeprune.stages import Dense
from edgeprune.workload import Workload


@dataclass(frozen=True)
class _Bench:
    """What every cell needs."""

    options: argparse.Namespace
    folder: Path
    progress: Progress


def main(arguments: Sequence[str]) -> int:
    """The command; returns the exit status."""
    parser = command.parser("host", (__doc__ or "").splitlines()[0])
    parser.add_argument("--net", choices=("demo", "small"), default="demo", help="the built-in demo, or a tiny CNN")
    parser.add_argument("--seeds", type=int, default=5, help="seeds 0 to N - 1")
    parser.add_argument("--epochs", type=int, help="of fine-tuning, instead of the net's own schedule")
    parser.add_argument("--share", type=float, default=0.5, help="of the dense int8 latency")
    options = parser.parse_args(arguments)
    if options.smoke:
        options.net, options.seeds, options.epochs = "small", 1, 1
    return command.run("host", options, arguments, _benchmark)


def _benchmark(sheet: Sheet, options: argparse.Namespace, folder: Path, progress: Progress) -> None:
    bench = _Bench(options, folder, progress)
    dense = sheet.cell("dense", lambda: _dense(bench))
    latency = f"{round(dense['latency_ns'] * options.share)}ns"
    for seed in range(options.seeds):
        sheet.cell(f"latency/seed{seed}", partial(_fitted, bench, "latency", seed, {"latency": latency}))
    limit_bytes = halfway(dense["ram_bytes"], sheet.result("latency/seed0")["ram_bytes"])
    ram = {"ram": f"{limit_bytes}B", "latency": f"{dense['latency_ns']}ns"}
    sheet.cell("ram/seed0", lambda: _fitted(bench, "ram", 0, ram))


def halfway(dense_bytes: int | None, pruned_bytes: int | None) -> int:
    """A RAM limit that the dense model breaks and the pruned one holds.

    Raises:
        UsageError: The pruned model did not take less.
    """
    if dense_bytes is None or pruned_bytes is None or pruned_bytes >= dense_bytes:
        raise UsageError(
            f"the pruned model took {pruned_bytes} B of RAM, the dense one {dense_bytes} B: no limit would bind",
            where="bench.host",
            hint="use a larger network: --net demo",
        )
    return (dense_bytes + pruned_bytes) // 2


def _workload(bench: _Bench, spec: Spec) -> Workload:
    if bench.options.net == "small":
        from tests.digits import workload

        return workload()
    from edgeprune.workload.load import load_workload

    return load_workload(spec)


def _spec(bench: _Bench, name: str, seed: int, budget: dict[str, str]) -> Spec:
    fit: dict[str, Any] = {**(DEMO_FIT if bench.options.net == "demo" else {}), "seed": seed, "schedule": "one-shot"}
    if bench.options.epochs:
        fit["epochs"] = bench.options.epochs
    if bench.options.smoke:
        fit |= {"race_steps": 4, "curves_limit_s": 5.0, "formats": ("tflite",)}
    tree = {"target": {"name": "host"}, "budget": budget, "fit": fit, "out": bench.folder / f"{name}-seed{seed}"}
    return Spec.model_validate(tree)


def _dense(bench: _Bench) -> Result:
    """By the verdict's own statistic: the upper bound of the 90th percentile in a fresh process."""
    spec = _spec(bench, "dense", 0, {})
    with runs.open_run(spec, "dense", anew=bench.options.fresh) as run:
        job = open_job(run, _workload(bench, spec), bench.progress)
        found = run.stage("dense", Dense, lambda: stages.dense(job, stages.evaluated(job)))
    cost = found.measurement.cost
    assert cost.latency_s is not None and found.measurement.p50_s is not None
    return {
        "latency_ns": round(cost.latency_s * 1e9),
        "p50_ns": round(found.measurement.p50_s * 1e9),
        "ram_bytes": cost.ram_bytes,
        "size_bytes": cost.size_bytes,
        "fp32": found.test[job.workload.task.primary],
    }


def _fitted(bench: _Bench, name: str, seed: int, budget: dict[str, str]) -> Result:
    spec = _spec(bench, name, seed, budget)
    return row_of(runs.fit(spec, _workload(bench, spec), bench.progress, anew=bench.options.fresh))


def row_of(record: FitRecord) -> Result:
    """What the table shows of one fit. `undershoot` is the unused share of each limit, below zero when broken."""
    limits = {
        "latency": (record.latency_ns, record.budget.latency_ns),
        "ram": (record.ram_bytes, record.budget.ram_bytes),
    }
    chosen = next((row for row in record.rounds if row.decision == "accept"), None)
    return {
        "verdict": record.verdict,
        "violations": [violation.text for violation in record.violations],
        "source": record.source.value,
        "latency_ns": record.latency_ns,
        "budget_ns": record.budget.latency_ns,
        "ram_bytes": record.ram_bytes,
        "ram_limit_bytes": record.budget.ram_bytes,
        "undershoot": {name: round(1 - needs / limit, 4) for name, (needs, limit) in limits.items() if needs and limit},
        "rounds": len(record.rounds),
        "predicted_ns": [row.predicted_ns for row in record.rounds],
        "profiled_ns": [row.profiled_ns for row in record.rounds],
        "plan": None if chosen is None else chosen.plan,
        "drop": record.metric.drop,
        "dense": record.metric.dense,
        "fp32": record.metric.pruned,
        "int8": record.metric.artifacts,
        "timings_s": {row.stage: row.seconds for row in record.timings},
        "run": record.run.resolve().relative_to(ROOT).as_posix(),
    }


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
