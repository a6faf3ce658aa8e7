"""Whether a release answers on the device as it did here: what is run there, and how its answer is judged.

Where the device has Python, the release's own `check.py` compares; without it, TFLite's `benchmark_model` writes the
outputs down, which are compared here. Either way the verdict is taken here, by one function.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, Literal

from edgeprune.children import Ended
from edgeprune.deploy.manifest import BENCH, CHECK, GOLDEN, Manifest
from edgeprune.errors import BudgetError, DeviceError, MissingExtraError, QualityError
from edgeprune.percentiles import QUANTILES, percentile
from edgeprune.runner import bench, check
from edgeprune.units import format_time
from edgeprune.values import Value

TEST_S = 300.0
RUNS, MIN_TIME_S, MAX_TIME_S = 50, 0.3, 20.0


class TestRow(Value):
    """How a release answered its golden vectors.

    Attributes:
        exact: Whether every output was the same to the last bit.
        largest_error: Over the tolerance, the largest of all outputs; at most 1.
        runtime_version: The device's.
    """

    __test__ = False

    vectors: int
    exact: bool
    largest_error: float
    runtime_version: str
    machine: str


class LatencyRow(Value):
    """The short check of a release's speed."""

    latency_ns: int
    statistic: Literal["median", "mean"]
    runs: int
    budget_ns: int | None


def check_words(python: str, manifest: Manifest) -> tuple[str, ...]:
    """The command that tests a release, in its folder."""
    options = {"runtime": manifest.backend, "model": manifest.model, "golden": GOLDEN, "threads": manifest.threads}
    return (python, "-B", CHECK, *(f"--{key}={value}" for key, value in options.items()))


def latency_words(python: str, manifest: Manifest) -> tuple[str, ...]:
    """The command that times a release for a moment, in its folder."""
    options = {"runtime": manifest.backend, "model": manifest.model, "threads": manifest.threads}
    options |= {"min-runs": RUNS, "min-time": MIN_TIME_S, "max-time": MAX_TIME_S}
    return (python, "-B", BENCH, *(f"--{key}={value}" for key, value in options.items()))


def judged(ended: Ended, manifest: Manifest, where: str) -> TestRow:
    """The verdict on what `check.py` printed on the device.

    Raises:
        DeviceError: Its Python cannot be started, or what came back is no document of the check's.
        MissingExtraError: The runtime cannot be loaded there.
        QualityError: The release cannot be run there, or an answer is too far from the kept one.
    """
    if ended.status == check.EXIT_NO_RUNTIME:
        raise MissingExtraError(f"the runtime cannot be loaded: {ended.last_line}", where=where)
    if ended.status in (126, 127):
        raise DeviceError(f"Python cannot be started: {ended.last_line}", where=where)
    if ended.status != 0:
        raise QualityError(f"the self-test ended with status {ended.status}: {ended.last_line}", where=where)
    found = _document(ended.stdout, check.SCHEMA, where)
    loaded = {name: row.sha256 for name, row in manifest.files.items() if name in found.get("sha256", {})}
    if manifest.model not in loaded or found["sha256"] != loaded:
        raise QualityError("another model file was loaded than that of the release", where=where)
    try:
        return verdict(found, manifest, where)
    except (KeyError, TypeError, ValueError, IndexError):
        raise DeviceError("the answer is no document of the self-test's", where=where) from None


def verdict(found: Mapping[str, Any], manifest: Manifest, where: str) -> TestRow:
    """Judge the distances of all answers from the kept ones.

    Args:
        found: `errors`, `same` and `margins` per vector and output, as `check.compare` gives them.

    Raises:
        QualityError: Vectors are missing, an answer is too far off, or a real input's largest output is another one
            though the kept two largest are further apart than the tolerance.
    """
    golden = manifest.golden
    errors, same, margins = found["errors"], found["same"], found["margins"]
    if not len(errors) == len(same) == len(margins) == found["vectors"] == golden.vectors:
        raise QualityError(f"{len(errors)} of {golden.vectors} test vectors were answered", where=where)
    version = str(found["runtime_version"])
    exact = golden.exact and version == golden.runtime_version
    worst = 0.0
    for number in range(golden.vectors):
        for output, tolerance in enumerate(golden.tolerances):
            error = float(errors[number][output])
            if not error <= (0.0 if exact else tolerance):
                kind = f"real input {number}" if number < golden.real else check.MADE[number - golden.real]
                allowed = f"0 is allowed: both run {version}" if exact else f"{tolerance:g} is allowed"
                raise QualityError(f"the answer to {kind} is off by {error:g}, {allowed}", where=where)
            tie = float(margins[number][output]) <= tolerance
            if number < golden.real and not same[number][output] and not tie:
                raise QualityError(f"real input {number} gets another largest output", where=where)
            worst = max(worst, error / tolerance)
    return TestRow(
        vectors=golden.vectors,
        exact=worst == 0.0,
        largest_error=worst,
        runtime_version=version,
        machine=str(found.get("machine", "")),
    )


def judged_latency(ended: Ended, manifest: Manifest, budget_ns: int | None, where: str) -> LatencyRow:
    """The verdict on a short timing: a median over the budget refutes it. One within proves no higher percentile.

    Raises:
        BudgetError: The median is over the budget.
        DeviceError: What came back is no document of the runner's.
        QualityError: The release cannot be run.
    """
    if ended.status != 0:
        raise QualityError(f"the timing ended with status {ended.status}: {ended.last_line}", where=where)
    found = _document(ended.stdout, bench.SCHEMA, where)
    try:
        samples_ns = [float(sample) for sample in found["samples_ns"][0]]
        median_ns = round(percentile(samples_ns, QUANTILES["p50"]))
    except (KeyError, TypeError, ValueError, IndexError):
        raise DeviceError("the answer is no document of the runner's", where=where) from None
    return within(
        LatencyRow(latency_ns=median_ns, statistic="median", runs=len(samples_ns), budget_ns=budget_ns), where
    )


def within(row: LatencyRow, where: str) -> LatencyRow:
    """The row itself, where it does not refute the budget.

    Raises:
        BudgetError: It does.
    """
    if row.budget_ns is not None and row.latency_ns > row.budget_ns:
        needs, limit = format_time(row.latency_ns * 1e-9), format_time(row.budget_ns * 1e-9)
        raise BudgetError(
            f"latency: the {row.statistic} of {row.runs} runs on the device is {needs}, budget {limit}",
            where=where,
            hint="fit to this device with --device, or deploy with --no-latency-check",
        )
    return row


def _document(text: bytes, schema: str, where: str) -> Mapping[str, Any]:
    try:
        found = json.loads(text)
        genuine = isinstance(found, dict) and found["schema"] == schema
    except (ValueError, KeyError):
        genuine = False
    if not genuine:
        raise DeviceError("the answer is no document of the runner's", where=where)
    return dict(found)
