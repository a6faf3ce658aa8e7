"""How far the latency models of a target can be trusted, read from the provenance that their profile carries."""

from __future__ import annotations

from typing import Any

from edgeprune.data_files import profile_path
from edgeprune.device.latency import Band
from edgeprune.device.profiles import models_of, read_profile
from edgeprune.target import Target, load_target, target_names
from edgeprune.values import Value

_EXECUTED = "whole_networks"
# Where a cross-validated error stands in the provenance, the one that says most about a new network first.
_JUDGED = (
    ("deployed_left_out_family", "results of the deployed runtime, network families left out"),
    ("step_left_out_board", "results of the deployed runtime on other boards, the board left out"),
    ("base_left_out_family", "network families left out"),
    ("base_left_out_model", "networks left out"),
    (_EXECUTED, "executions of whole networks that took no part"),
)


class Standing(Value):
    """One latency model and how it was judged.

    Attributes:
        results: Published measurements, or counted steps, that it rests on.
        error: Median of |estimate / measured - 1| over results that took no part; None where that was not judged.
        judged: Which results those are.
        executed: Whether those are executions on an emulated core, so that the error is not one of a device.
        band: 80 % interval of measured over estimated time.
        source: Where its numbers come from, in a sentence.
    """

    runtime: str
    precision: str
    threads: int
    results: int
    error: float | None
    judged: str
    executed: bool = False
    band: Band
    source: str


def standings(target: Target, runtime: str) -> tuple[Standing, ...]:
    """The latency models that a target ships for a runtime; none where it has no results.

    Raises:
        UsageError: The target does not run that runtime, or its profile cannot be read.
    """
    stem = target.runtime(runtime).profile
    if not stem:
        return ()
    profile = read_profile(profile_path(stem, beside=target.path))
    found = []
    for model, here in zip(profile.models, models_of(profile, target), strict=True):
        facts = profile.provenance.get(model.precision)
        facts = facts if isinstance(facts, dict) else {}
        key, judged = next(((key, text) for key, text in _JUDGED if key in facts), ("", ""))
        found.append(
            Standing(
                runtime=model.runtime,
                precision=model.precision,
                threads=model.threads,
                results=_rows(facts, "base") + _rows(facts, "deployed"),
                error=float(facts[key]["median"]) if key else None,
                judged=judged,
                executed=key == _EXECUTED,
                band=here.band,
                source=model.source,
            )
        )
    return tuple(found)


def _rows(facts: dict[str, Any], name: str) -> int:
    return int(facts.get(name, {}).get("rows", 0))


def without_model_hint(target: Target, precision: str) -> str:
    """What works instead of a latency limit where there is no latency model: the next step of an error."""
    here = [
        f"--runtime {name} --threads {found.threads}"
        for name in target.runtimes
        for found in standings(target, name)
        if found.precision == precision
    ]
    steps = ["--ram, --size and --macs need no latency model"]
    if here:
        steps.append(f"this target has one with {' or '.join(here)}")
    elif near := _near(target, precision):
        steps.append(f"{', '.join(near)} have one")
    if target.class_ == "board":
        steps.append("on the board itself, edgeprune calibrate --target host measures one")
    return "; ".join(steps)


def _near(target: Target, precision: str) -> list[str]:
    """Targets of the same class that have a latency model of a precision, those with the same core first."""
    others = [other for name in target_names() if (other := load_target(name)).name != target.name]
    alike = [other for other in others if other.class_ == target.class_]
    fitting = [o for o in alike if any(found.precision == precision for found in standings(o, o.default_runtime))]
    fitting.sort(key=lambda other: (other.cpu.core != target.cpu.core, other.name))
    return [other.name for other in fitting[:4]]
