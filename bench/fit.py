"""Trained ResNet-20 on CIFAR-10 at half its latency on this machine, beside uniform widths and random channels.

All arms get the same training, and are compared at equal measured latency: medians of the int8 TFLite files, timed in
turns in one process.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from bench import cifar, command, runs
from bench.cells import ROOT, Result, Sheet
from bench.matching import match_uniform
from edgeprune import backends, stages
from edgeprune.backends import Array
from edgeprune.cost import Measurement
from edgeprune.device.fusion import fuse
from edgeprune.documents import FitRecord
from edgeprune.errors import QualityError, UsageError, did_you_mean
from edgeprune.job import Job, open_job
from edgeprune.profiling import compare_p50
from edgeprune.progress import Progress
from edgeprune.pruning.criteria.evidence import Evidence
from edgeprune.pruning.importance import importance
from edgeprune.pruning.plan import Plan, apply, best_channels
from edgeprune.pruning.surgery import prune
from edgeprune.quantization.ranges import RangePolicy
from edgeprune.spec import Spec
from edgeprune.stages import Importance, Tuned
from edgeprune.summary import parameter_count
from edgeprune.values import Value
from edgeprune.workload import Workload
from edgeprune.workload.samples import batch_of

ARMS = ("ours", "uniform", "random", "random-uniform")
TOLERANCE = 0.02  # relative latency within which arms are compared
_PROBE_SAMPLES = 32
_FORMATS = {"onnxruntime": "onnx"}


def main(arguments: Sequence[str]) -> int:
    """The command; returns the exit status."""
    parser = command.parser("fit", (__doc__ or "").splitlines()[0])
    parser.add_argument("--seeds", type=int, default=1, help="seeds 0 to N - 1 of the pruned arms")
    parser.add_argument("--epochs", type=int, default=6, help="of fine-tuning, for every arm")
    parser.add_argument("--share", type=float, default=0.5, help="of the dense int8 latency")
    parser.add_argument("--train-images", type=int, default=20_000, help="validation images included")
    parser.add_argument("--test-images", type=int, default=10_000)
    parser.add_argument("--arms", default="ours,uniform,random", help=f"of {', '.join(ARMS)}; ours always")
    options = parser.parse_args(arguments)
    if options.smoke:
        options.epochs, options.train_images, options.test_images = 1, 2000, 500
    return command.run("fit", options, arguments, _benchmark)


@dataclass(frozen=True)
class _Bench:
    """What every cell needs."""

    sheet: Sheet
    options: argparse.Namespace
    folder: Path
    progress: Progress
    workload: Workload

    @cached_property
    def inputs(self) -> Array:
        """Real samples to time on."""
        return batch_of(self.workload.data.calibration, range(8))[0].numpy()


class Chosen(Value):
    """The plan of an arm and how it was found."""

    plan: Plan
    how: str
    ratio_untrained: float | None = None  # measured latency over ours, before training
    timed: int = 0  # plans that were timed for it


Choice = Callable[[Job], Chosen]


def _benchmark(sheet: Sheet, options: argparse.Namespace, folder: Path, progress: Progress) -> None:
    arms = chosen_arms(options.arms)
    workload = cifar.workload(options.train_images, options.test_images)
    bench = _Bench(sheet, options, folder, progress, workload)
    dense = sheet.cell("dense", lambda: _arm(bench, "dense", 0, None, _everything))
    budget_ns = round(dense["p50_ns"] * options.share)
    for seed in range(options.seeds):
        _seed(bench, arms, seed, budget_ns)


def _seed(bench: _Bench, arms: Sequence[str], seed: int, budget_ns: int) -> None:
    ours = bench.sheet.cell(f"ours/seed{seed}", lambda: _ours(bench, seed, budget_ns))
    for arm in arms[1:]:
        choice = _CHOICES[arm](bench, ours, seed)
        bench.sheet.cell(f"{arm}/seed{seed}", partial(_arm, bench, arm, seed, budget_ns, choice))
    cells = ["dense", *(f"{arm}/seed{seed}" for arm in arms)]
    bench.sheet.cell(f"latency/seed{seed}", lambda: _compared(bench, cells))


def chosen_arms(text: str) -> tuple[str, ...]:
    """The arms in the order in which they run, `ours` first.

    Raises:
        UsageError: One is not known.
    """
    asked = {arm.strip() for arm in text.split(",")}
    if unknown := sorted(asked - set(ARMS)):
        raise UsageError(f"unknown arm {unknown[0]!r}", where="--arms", hint=did_you_mean(unknown[0], ARMS))
    return tuple(arm for arm in ARMS if arm in asked or arm == "ours")


def _spec(bench: _Bench, arm: str, seed: int, latency_ns: int | None) -> Spec:
    fit: dict[str, Any] = {"seed": seed, "epochs": bench.options.epochs, "schedule": "one-shot"}
    if bench.options.smoke:
        fit |= {"race_steps": 4, "curves_limit_s": 5.0}
    return Spec.model_validate(
        {
            "model": {"entry": "bench/cifar.py:resnet20"},
            "data": {"source": "bench/cifar.py:workload", "flip": True, "crop": 4},
            "target": {"name": "host", "runtime": "tflite", "threads": 1},
            "budget": {"at": "p50"} | ({} if latency_ns is None else {"latency": f"{latency_ns}ns"}),
            "fit": fit,
            "out": bench.folder / f"{arm}-seed{seed}",
        }
    )


def _ours(bench: _Bench, seed: int, budget_ns: int) -> Result:
    spec = _spec(bench, "ours", seed, budget_ns)
    record = runs.fit(spec, bench.workload, bench.progress, anew=bench.options.fresh)
    if record.verdict == "infeasible":
        raise QualityError("the budget is infeasible: nothing to compare with", where=str(record.run))
    plan = Plan.model_validate_json((record.run / "plan.json").read_text(encoding="utf-8"))
    return {**_of_record(record), "keep": plan.keep}


def _of_record(record: FitRecord) -> Result:
    row = next(row for row in record.costs if row.role == "pruned")
    chosen = next(row for row in record.rounds if row.decision == "accept")
    return {
        "verdict": record.verdict,
        "violations": [violation.text for violation in record.violations],
        "rounds": len(record.rounds),
        "plan": chosen.plan,
        "race": {entry.plan: entry.metric for entry in record.race},
        "budget_ns": record.budget.latency_ns,
        "latency_ns": record.latency_ns,
        "parameters": row.parameters,
        "macs": row.macs,
        "fp32": record.metric.pruned,
        "int8": record.metric.artifacts,
        "validation": {"fp32": record.metric.validation_pruned, **record.metric.validation_artifacts},
        "timings_s": {row.stage: row.seconds for row in record.timings},
        "file": _relative(record.artifacts["tflite"]),
        "run": _relative(record.run),
    }


def _arm(bench: _Bench, arm: str, seed: int, latency_ns: int | None, choice: Choice) -> Result:
    """One plan through the same training, export and evaluation as ours."""
    spec = _spec(bench, arm, seed, latency_ns)
    with runs.open_run(spec, arm, anew=bench.options.fresh) as run:
        torch.manual_seed(seed)
        job = open_job(run, bench.workload, bench.progress)
        chosen = run.stage("chosen", Chosen, lambda: choice(job))
        plan = chosen.plan
        if plan.keep:
            run.stage("rehearsal", Measurement, lambda: stages.rehearse(job, "rehearsal", plan))  # checks the surgery
        tuned = run.stage("tuned", Tuned, lambda: stages.finish(job, 1, plan))
        return {**_of_arm(job, plan, tuned), **chosen.model_dump(exclude={"plan"})}


def _of_arm(job: Job, plan: Plan, tuned: Tuned) -> Result:
    graph, primary = apply(plan, job.groups), job.workload.task.primary
    deployed = tuned.exported[job.deployed]
    assert deployed.measurement is not None and deployed.measurement.p50_s is not None
    validation = {
        _FORMATS.get(name, name): one.validation[primary] for name, one in tuned.exported.items() if one.validation
    }
    return {
        "p50_ns": round(deployed.measurement.p50_s * 1e9),
        "parameters": parameter_count(graph),
        "macs": sum(op.macs for op in fuse(graph)),
        "fp32": tuned.test[primary],
        "int8": {_FORMATS.get(name, name): one.test[primary] for name, one in tuned.exported.items()},
        "validation": {"fp32": tuned.validation[primary], **validation},
        "keep": plan.keep,
        "file": _relative(deployed.artifact.path),
        "run": _relative(job.run.path),
    }


def _everything(job: Job) -> Chosen:
    return Chosen(plan=Plan(keep={}), how="nothing is removed")


def _uniform(bench: _Bench, ours: Result, seed: int) -> Choice:
    """Uniform widths at our latency; inside a group our own score decides."""

    def choose(job: Job) -> Chosen:
        stored = _file(ours["run"]) / "stages" / "importance.json"
        scores = Importance.model_validate_json(stored.read_text(encoding="utf-8")).scores
        reference = _file(ours["file"])
        by_group = {name: np.array(score) for name, score in scores.items()}
        match = match_uniform(job.groups, by_group, lambda plan: _ratio(bench, job, plan, reference), TOLERANCE)
        return Chosen(plan=match.plan, how=match.how, ratio_untrained=round(match.ratio, 4), timed=match.timed)

    return choose


def _random(bench: _Bench, ours: Result, seed: int) -> Choice:
    """Random channels at our widths, so at our latency."""
    return lambda job: Chosen(plan=_drawn(job, ours["keep"], seed), how="our widths")


def _random_uniform(bench: _Bench, ours: Result, seed: int) -> Choice:
    """Random channels at the uniform arm's widths."""

    def choose(job: Job) -> Chosen:
        keep = bench.sheet.result(f"uniform/seed{seed}")["keep"]
        return Chosen(plan=_drawn(job, keep, seed), how="widths of the arm uniform")

    return choose


_CHOICES = {"uniform": _uniform, "random": _random, "random-uniform": _random_uniform}


def _drawn(job: Job, keep: dict[str, list[int]], seed: int) -> Plan:
    scores = importance("random", Evidence(job.captured, job.groups, seed=seed)).scores
    return Plan(keep={name: best_channels(len(kept), len(scores[name]), scores[name]) for name, kept in keep.items()})


def _ratio(bench: _Bench, job: Job, plan: Plan, reference: Path) -> float:
    """Median latency of the untrained plan's int8 file over that of the reference, timed in turns."""
    pruned = prune(job.captured, job.groups, plan).module.cpu().eval()
    samples = batch_of(bench.workload.data.calibration, range(_PROBE_SAMPLES))[0].numpy()
    with tempfile.TemporaryDirectory() as work:
        artifact = backends.get(job.deployed).export(
            pruned, bench.workload.example.numpy(), Path(work), "int8", samples, RangePolicy()
        )
        compared = compare_p50([reference, artifact.path], threads=job.threads, inputs=bench.inputs)
    ratio = compared.p50_s[1] / compared.p50_s[0]
    bench.progress.note(f"{ratio:.3f} of our latency, noise {compared.noise:.3f}")
    return ratio


def _compared(bench: _Bench, cells: Sequence[str]) -> Result:
    """The trained files of all arms, timed in turns in one process."""
    files = [_file(bench.sheet.result(key)["file"]) for key in cells]
    compared = compare_p50(files, inputs=bench.inputs, min_time_s=1.0)
    p50_ns = {key.split("/")[0]: round(seconds * 1e9) for key, seconds in zip(cells, compared.p50_s, strict=True)}
    return {
        "p50_ns": p50_ns,
        "to_ours": {arm: round(ns / p50_ns["ours"], 4) for arm, ns in p50_ns.items()},
        "to_dense": {arm: round(ns / p50_ns["dense"], 4) for arm, ns in p50_ns.items()},
        "noise": round(compared.noise, 4),
        "runs": compared.runs,
    }


def _relative(path: Path) -> str:
    return path.resolve().relative_to(ROOT).as_posix()


def _file(relative: str) -> Path:
    """A file or folder that an earlier cell left.

    Raises:
        UsageError: It is gone.
    """
    path = ROOT / relative
    if not path.exists():
        raise UsageError("what an earlier cell left is gone", where=relative, hint="start over with --fresh")
    return path


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
