"""Writes `profiles/<core>.edgeprune-c.json`: what steps of the C library cost on a core, from `tools/counts`.

    python -m tools.kernel_laws

Laws are fitted on chains by non-negative least squares on relative errors, and judged on whole networks that took no
part. The same counts give the same bytes.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from scipy.optimize import nnls
from scipy.stats import rankdata
from scipy.stats import t as student

from edgeprune.backends import Array
from edgeprune.backends.c.board import variant
from edgeprune.device.counted import CoreModel, CountedLaw, Rates
from edgeprune.device.kernel_work import Variant, amounts, kernels_of, law_name
from edgeprune.device.latency import Band
from edgeprune.device.ops import Op
from edgeprune.device.profiles import PROFILE_SCHEMA
from edgeprune.emulate.cycles import provenance, rates
from tools.kernel_counts import CORES, FILE, ROOT, Counted, Step, bare_target, read

RUNTIME = "edgeprune-c"
_FOLDS = 5
_COVERAGE = 0.8
_LEAST_SPREAD = 0.005  # standard deviation (log) of what data decide: branches that depend on values
_DIGITS = 5  # significant; the solver's last bits differ between machines

Prices = Mapping[str, Array]


def fit(counted: Sequence[Counted], core: str) -> tuple[CoreModel, dict[str, Any]]:
    """A core's model and what the profile says of how it was judged."""
    kernels = variant(bare_target(core))
    assert kernels != "mve", "no amounts are known of Helium kernels"
    chains = [one for one in counted if not one.family]
    wholes = [one for one in counted if one.family]
    prices = _prices([step for one in chains for step in one.steps], core, kernels)
    errors = _left_out(chains, core, kernels)
    call, each = _besides(chains, core)
    estimates = np.array([call + each * _ends(one) + _summed(one, prices, kernels) for one in wholes])
    counts = np.array([one.cycles(core) for one in wholes], np.float64)
    spread, judged = _band(np.log(counts / estimates)), _judged(estimates, counts)
    code, step_bytes = _code_bytes(counted, core)
    found = rates(core)
    assert found is not None
    steps = sum(len(one.steps) for one in chains)
    source = (
        f"fitted on {steps} steps executed on an emulated {core}: {judged['median']:.1%} off in the median of "
        f"{len(wholes)} other networks; cycles are {provenance(core)}"
    )
    model = CoreModel(
        runtime=RUNTIME,
        core=core,
        variant=kernels,
        laws={name: _law(name, prices[name], chains, errors) for name in sorted(prices)},
        call_cycles=_rounded(call),
        end_cycles=_rounded(each),
        rates=Rates(
            scale=(_rounded(found.scale[0]), _rounded(found.scale[1])),
            per_byte=(_rounded(found.per_byte[0]), _rounded(found.per_byte[1])),
            from_flash=found.from_flash,
        ),
        spread=spread,
        code_bytes=code,
        step_bytes=step_bytes,
        stack_bytes=max(one.stack[core] for one in counted),
        source=source,
    )
    everything = np.concatenate([np.array(own) for own in errors.values()])
    facts = {
        "base": {"rows": steps, "networks": len(chains)},
        "shapes_left_out": _summary(np.abs(everything)),
        "whole_networks": judged,
    }
    return model, facts


def _prices(steps: Sequence[Step], core: str, kernels: Variant) -> Prices:
    by_law: dict[str, list[Step]] = {}
    for step in steps:
        by_law.setdefault(law_name(step.op), []).append(step)
    return {name: _least_squares(own, core, kernels) for name, own in by_law.items()}


def _least_squares(steps: Sequence[Step], core: str, kernels: Variant) -> Array:
    """Non-negative prices of least squared relative error."""
    table = np.array([amounts(step.op, kernels) for step in steps], np.float64)
    cycles = np.array([step.cycles[core] for step in steps], np.float64)
    relative = table / cycles[:, None]
    scales = np.maximum(relative.max(axis=0), np.finfo(float).tiny)
    prices: Array = nnls(relative / scales, np.ones(len(steps)))[0] / scales
    return prices


def _estimate(op: Op, prices: Prices, kernels: Variant) -> float:
    return float(np.dot(amounts(op, kernels), prices[law_name(op)]))


def _summed(one: Counted, prices: Prices, kernels: Variant) -> float:
    return sum(_estimate(step.op, prices, kernels) for step in one.steps)


def _ends(one: Counted) -> int:
    """Elements of a network's input and output."""
    return one.steps[0].op.in_elements + one.steps[-1].op.out_elements


def _besides(counted: Sequence[Counted], core: str) -> tuple[float, float]:
    """Core cycles of a call besides its steps, and for each element of its input and output."""
    rest = np.array([one.rest[core] for one in counted], np.float64)
    table = np.array([[1, _ends(one)] for one in counted]) / rest[:, None]
    call, each = nnls(table, np.ones(len(rest)))[0]
    return float(call), float(each)


def _left_out(chains: Sequence[Counted], core: str, kernels: Variant) -> dict[str, list[float]]:
    """Relative errors by law, each shape estimated from other ones."""
    steps = [step for one in chains for step in one.steps]
    folds = {op: at % _FOLDS for at, op in enumerate(dict.fromkeys(step.op for step in steps))}
    errors: dict[str, list[float]] = {}
    for fold in range(_FOLDS):
        prices = _prices([step for step in steps if folds[step.op] != fold], core, kernels)
        for step in steps:
            if folds[step.op] == fold:
                error = _estimate(step.op, prices, kernels) / step.cycles[core] - 1
                errors.setdefault(law_name(step.op), []).append(error)
    return errors


def _law(name: str, prices: Array, chains: Sequence[Counted], errors: Mapping[str, list[float]]) -> CountedLaw:
    count = sum(law_name(step.op) == name for one in chains for step in one.steps)
    error = float(np.median(np.abs(errors[name])))
    return CountedLaw(prices=tuple(_rounded(price) for price in prices), steps=count, error=_rounded(error))


def _band(logs: Array) -> Band:
    """80 % interval of counted over estimated: Student's t about zero."""
    deviation = float(np.hypot(np.sqrt(np.mean(np.square(logs))), _LEAST_SPREAD))
    half = float(student.ppf(0.5 + _COVERAGE / 2, df=len(logs))) * deviation
    return Band(low=_rounded(np.exp(-half)), high=_rounded(np.exp(half)))


def _judged(estimates: Array, counts: Array) -> dict[str, Any]:
    rank = float(np.corrcoef(rankdata(estimates), rankdata(counts))[0, 1])
    return {**_summary(np.abs(estimates / counts - 1)), "rank_correlation": _rounded(rank)}


def _summary(errors: Array) -> dict[str, Any]:
    quantiles = {"median": np.median(errors), "p90": np.quantile(errors, 0.9), "largest": errors.max()}
    return {"rows": len(errors), **{name: _rounded(float(value)) for name, value in quantiles.items()}}


def _code_bytes(counted: Sequence[Counted], core: str) -> tuple[dict[str, int], int]:
    """Bytes of code by parts of the kernels, what every library has by the empty name; and of a step's own function."""
    used = [{name for step in one.steps for name in kernels_of(step.op)} for one in counted]
    names = sorted(set().union(*used))
    table = np.array([[1, *(name in own for name in names), len(one.steps)] for own, one in zip(used, counted)], float)
    found, _ = nnls(table, np.array([one.code[core] for one in counted], float))
    whole = [round(float(value)) for value in found]
    return dict(zip(["", *names], whole[:-1])), whole[-1]


def _rounded(value: float) -> float:
    return float(f"{value:.{_DIGITS}g}")


def write_all(counts: Path, profiles: Path) -> list[Path]:
    """Fits every core and writes its file; returns the files written."""
    head, counted = read(counts)
    written = []
    for core in CORES:
        model, facts = fit(counted, core)
        tree = {
            "schema": PROFILE_SCHEMA,
            "core": core,
            "runtime": RUNTIME,
            "models": [model.model_dump(mode="json")],
            "provenance": {
                "written_by": "python -m tools.kernel_laws",
                "method": "a law for each kind of step, non-negative least squares on relative errors of chains",
                "counts": list(head),
                model.precision: facts,
            },
        }
        path = profiles / f"{core.lower().replace('+', 'plus')}.{RUNTIME}.json"
        path.write_text(json.dumps(tree, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
        written.append(path)
    return written


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--counts", type=Path, default=FILE)
    parser.add_argument("--profiles", type=Path, default=ROOT / "profiles")
    options = parser.parse_args()
    for path in write_all(options.counts, options.profiles):
        print(path)


if __name__ == "__main__":
    main()
