"""Timing a design: every network several times, in random order and fresh processes, between copies of a reference.

A round times everything once, in batches that are a process each. The reference's copies say how fast the machine was
during a batch: times are divided by it, a batch in which the machine became slower is repeated once, and what is
disturbed again is an error. After each batch all results so far are written, so that a killed calibration goes on.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from edgeprune.errors import MeasurementError, UsageError
from edgeprune.percentiles import percentile
from edgeprune.progress import Progress
from edgeprune.record import write_text
from edgeprune.timing import Bench, Turns
from edgeprune.values import Value

REFERENCE = "reference"
_BATCH = 96  # networks in one process
_COPIES = 4  # of the reference among them
_FEWEST_RUNS = 15
_TURNS_S = 0.07  # of each network in each batch
_SLOWER = 0.06  # from the first third of a batch to the last
_APART = 0.25  # of the reference's time from one batch to the others
_COOL_DOWN_S = 5.0


class Batch(Value):
    """One process's medians, in seconds.

    Attributes:
        round: Which round it belongs to.
        reference_s: Median over all copies of the reference.
        slower: How much slower the reference became from the first to the last third.
        clock_mhz: As the system tells, before and after; empty when it does not.
        repeated: Whether a first try was disturbed.
    """

    round: int
    p50_s: dict[str, float]
    reference_s: float
    slower: float
    clock_mhz: tuple[str, str]
    repeated: bool = False


class Batches(Value):
    """What was timed so far, with what must agree for it to be continued."""

    head: dict[str, str]
    done: tuple[Batch, ...] = ()


class Row(Value):
    """One network's time: the median over the rounds, each divided by the speed of the machine at that time.

    Attributes:
        spread: Largest relative distance of a round from the median.
    """

    name: str
    latency_s: float
    spread: float


def time_all(
    files: Mapping[str, Path],
    reference: Path,
    bench: Bench,
    runtime: str,
    threads: int,
    rounds: int,
    head: Mapping[str, str],
    kept: Path,
    progress: Progress,
) -> tuple[Batch, ...]:
    """All batches of all rounds; those that `kept` holds under the same head are not timed again.

    Args:
        files: By name of the network.
        head: Machine, versions and settings: what results must share to belong together.
        kept: Where results are written after each batch.

    Raises:
        MeasurementError: The machine changed its speed during a batch and its repetition.
        MissingExtraError, UsageError: The runtime is not installed, or cannot run a file.
    """
    found = _continued(kept, head)
    plan = _plan(sorted(files), rounds)
    if found.done:
        progress.note(f"continuing after {len(found.done)} of {len(plan)} batches")
    for number, names in progress.track(plan[len(found.done) :], "timing"):
        batch = _steady(number, names, files, reference, bench, runtime, threads, found.done, progress)
        found = found.model_copy(update={"done": (*found.done, batch)})
        write_text(kept, found.model_dump_json() + "\n")
    return found.done


def rows(batches: Sequence[Batch]) -> tuple[Row, ...]:
    """One row per network, in order of names."""
    usual_s = float(np.median([batch.reference_s for batch in batches]))
    times: dict[str, list[float]] = {}
    for batch in batches:
        for name, seconds in batch.p50_s.items():
            times.setdefault(name, []).append(seconds * usual_s / batch.reference_s)
    found = []
    for name in sorted(times):
        middle = float(np.median(times[name]))
        spread = float(np.max(np.abs(np.array(times[name]) / middle - 1)))
        found.append(Row(name=name, latency_s=middle, spread=spread))
    return tuple(found)


def _continued(kept: Path, head: Mapping[str, str]) -> Batches:
    """What was measured before, if it belongs to the same machine, versions and settings."""
    try:
        stored = Batches.model_validate_json(kept.read_bytes())
    except FileNotFoundError:
        return Batches(head=dict(head))
    except ValueError:
        raise UsageError(
            "not the results of an interrupted calibration", where=str(kept), hint="delete it, then start again"
        ) from None
    return stored if stored.head == dict(head) else Batches(head=dict(head))


def _plan(names: Sequence[str], rounds: int) -> list[tuple[int, list[str]]]:
    """(round, names) of every batch, in the same random order every time."""
    random, plan = np.random.default_rng(0), []
    for number in range(rounds):
        order = [names[index] for index in random.permutation(len(names))]
        pieces = np.array_split(np.arange(len(order)), -(-len(order) // _BATCH))
        plan += [(number, [order[index] for index in piece]) for piece in pieces]
    return plan


def _steady(
    number: int,
    names: list[str],
    files: Mapping[str, Path],
    reference: Path,
    bench: Bench,
    runtime: str,
    threads: int,
    before: Sequence[Batch],
    progress: Progress,
) -> Batch:
    faults = []
    for attempt in (1, 2):
        places = np.linspace(0, len(names), _COPIES + 1).astype(int)[:-1]
        order = list(names)
        for place in reversed(places):
            order.insert(int(place), REFERENCE)
        paths = tuple(reference if name == REFERENCE else files[name] for name in order)
        document = bench(Turns(paths, runtime, threads, _FEWEST_RUNS, min_time_s=_TURNS_S))
        batch = _batch(number, order, document, repeated=attempt > 1)
        fault = _fault(batch, before, document)
        if not fault:
            return batch
        faults.append(fault)
        if attempt == 1:
            progress.note(f"{fault}: timing the batch again")
            time.sleep(_COOL_DOWN_S)
    raise MeasurementError(
        f"a batch and its repetition were disturbed: {faults[0]}; {faults[1]}",
        where=f"round {number + 1}",
        hint="let the machine cool down and end other jobs; the same command continues",
    )


def _batch(number: int, order: Sequence[str], document: Mapping[str, Any], *, repeated: bool) -> Batch:
    samples = [np.asarray(own, np.float64) * 1e-9 for own in document["samples_ns"]]
    copies = [own for name, own in zip(order, samples, strict=True) if name == REFERENCE]
    early = np.concatenate([own[: max(1, len(own) // 3)] for own in copies])
    late = np.concatenate([own[-max(1, len(own) // 3) :] for own in copies])
    clocks = [str(document.get(moment, {}).get("clock_mhz", "")) for moment in ("before", "after")]
    return Batch(
        round=number,
        p50_s={name: percentile(own, 0.5) for name, own in zip(order, samples) if name != REFERENCE},
        reference_s=percentile(np.concatenate(copies), 0.5),
        slower=percentile(late, 0.25) / percentile(early, 0.25) - 1,
        clock_mhz=(clocks[0], clocks[1]),
        repeated=repeated,
    )


def _fault(batch: Batch, before: Sequence[Batch], document: Mapping[str, Any]) -> str:
    """What speaks against a batch; empty when nothing does."""
    states = [document.get(moment, {}).get("throttled") for moment in ("before", "after")]
    if states[0] != states[1]:
        return f"the machine's throttling flags went from {states[0]} to {states[1]}"
    if batch.slower > _SLOWER:
        return f"the reference became {batch.slower * 100:.0f} % slower"
    if before:
        change = batch.reference_s / float(np.median([other.reference_s for other in before])) - 1
        if abs(change) > _APART:
            return f"the reference's time is {change * 100:+.0f} % from its usual one"
    return ""
