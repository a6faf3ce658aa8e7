"""From a run's document to a measurement: percentiles with their bounds, the operators' table, what must be said."""

from __future__ import annotations

from pathlib import Path

from edgeprune.cost import Cost, Measurement, OpCost, Percentile, Source
from edgeprune.device.ops import Op
from edgeprune.percentiles import QUANTILES, bounds, percentile
from edgeprune.runner.opener import Times
from edgeprune.target import Target
from edgeprune.timing import Reference, Run

_TOLD = 1.02  # a correction to the machine's usual speed that is worth a note


def measured(
    path: Path,
    run: Run,
    ops: tuple[Op, ...],
    times: Times,
    target: Target,
    runtime: str,
    at: Percentile,
    reference: Reference | None,
) -> Measurement:
    """The measurement of a file from its run.

    Args:
        ops, times: What is in the file, and its operators' times; empty where they were not timed.
        reference: What the run was timed beside.
    """
    document, latencies_s = run.document, run.latencies_s
    slowed = reference.slowed(run.paired.reference_s) if reference and run.paired else 1.0
    lower, upper = (slowed * bound for bound in bounds(latencies_s, QUANTILES[at]))
    cost = Cost(
        source=Source.MEASURED,
        latency_s=upper,
        latency_interval_s=(lower, upper),
        ram_bytes=max(0, document["peak_rss_bytes"] - document["empty_rss_bytes"]),
        ram_kind="process",
        size_bytes=file_bytes(path),
    )
    return Measurement(
        cost=cost,
        target=target.name,
        runtime=runtime,
        runtime_version=document["runtime_version"],
        threads=document["threads"],
        precision=document["precision"][0],
        runs=len(latencies_s),
        **{f"{name}_s": percentile(latencies_s, quantile) for name, quantile in QUANTILES.items()},
        to_reference=run.paired.to_reference if run.paired else None,
        reference_s=run.paired.reference_s if run.paired else None,
        load_s=document["load_ns"] * 1e-9,
        ops=op_table(times, ops),
        environment=_environment(run, at),
        notes=_notes(run, slowed),
    )


def _notes(run: Run, slowed: float) -> tuple[str, ...]:
    notes = []
    warm = run.document["warm_up"]
    if not warm["settled"]:
        notes.append(f"warm-up did not settle within {warm['seconds']:g} s")
    if run.slowdown is None:
        notes.append("other jobs used the CPU throughout: a falling clock would not have been noticed")
    if run.paired is not None and run.paired.kept < 1:
        left_out = f"{(1 - run.paired.kept) * 100:.0f} % of the run"
        notes.append(f"{left_out} left out: the dense file beside it was far slower than usual")
    if slowed > _TOLD:
        notes.append(
            f"the latency is {slowed:.2f} times what was timed: the dense file beside it ran faster than usual"
        )
    return tuple(notes)


def _environment(run: Run, at: Percentile) -> dict[str, str]:
    document = run.document
    facts = {name: str(document[name]) for name in ("cpu", "system", "python", "cpu_share", "preemptions")}
    facts |= {"judged_at": at, "first_run_ns": str(document["first_ns"])}
    if run.paired is not None:
        facts["stretches_kept"] = f"{run.paired.kept:.3f}"
    else:
        facts["others_cpus_max"] = f"{max((others for _, others in document['slices']), default=0.0):.2f}"
    for moment in ("before", "after"):
        facts |= {f"{name}_{moment}": value for name, value in document[moment].items()}
    return facts


def file_bytes(path: Path) -> int:
    """All files of the artifact: an OpenVINO .xml counts with its .bin."""
    files = [path, path.with_suffix(".bin")] if path.suffix == ".xml" else [path]
    return sum(file.stat().st_size for file in files)


def op_table(times: Times, ops: tuple[Op, ...]) -> tuple[OpCost, ...]:
    """Operator times with the file's names, kinds and multiply-accumulates, where the profiler's rows match them.

    Runtimes name their rows by node or output; XNNPACK does not name them at all, so layers with weights are matched
    in order when there are as many of them on both sides. What does not match keeps the profiler's own name and type.
    """
    named = {key: op for op in ops for key in (*op.nodes, op.output, op.name)}
    matched = [named.get(_plain(name)) for name, _, _ in times]
    if not any(matched):
        layers = [op for op in ops if op.weights]
        rows = [index for index, (_, kind, _) in enumerate(times) if kind.startswith(("Convolution", "Fully"))]
        if len(layers) == len(rows):
            for index, op in zip(rows, layers):
                matched[index] = op
    return tuple(
        OpCost(name=op.name, kind=op.kind, latency_s=seconds, macs=op.macs)
        if op
        else OpCost(name=name, kind=kind, latency_s=seconds, macs=0)
        for (name, kind, seconds), op in zip(times, matched)
    )


def _plain(name: str) -> str:
    """A node's name before the runtime rewrote it: `relu_nchwc`, `node_Conv_36_token_1`."""
    return name.removesuffix("_nchwc").split("_token_")[0]
