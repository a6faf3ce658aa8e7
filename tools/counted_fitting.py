"""Prices of what an emulated board executes, fitted on published latencies, and how well they foretell others.

    python -m tools.counted_fitting [--measurements DIR] [--counts bench/results/emulator.json]

writes `profiles/rpi4.emulated.json`. Rows are by TFLite's own kernels with ruy, of which a lot is published, and by
XNNPACK's, which deploy: instructions and misses cost the same in both. A factor between the two was tried and came out
as one. Squared relative errors are least; no price is negative.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from scipy.optimize import nnls

from edgeprune.boards.latency import SCHEMA, TERMS, CountedModel, CountedProfile, amounts
from edgeprune.boards.plugin import CLASSES, Tally
from edgeprune.device.estimate import estimate
from edgeprune.device.latency import Band
from edgeprune.record import write_text
from edgeprune.target import Target, load_target
from tools import rows as tables
from tools.engines import tflite_network
from tools.networks import family

ROOT = Path(__file__).parents[1]
KERNELS = ("xnnpack", "ruy")
DEPLOYED = "xnnpack"  # what LiteRT uses unless told otherwise
BOARD, VERSION, THREADS = "Raspberry Pi 4B", "2.7.1", 4
ABOUT = {
    "xnnpack": "XNNPACK 2022 on arm64 and NetsPresso's LiteRT",
    "ruy": "TFLite 2.7.1 with ruy, p50",
}


@dataclass(frozen=True)
class Row:
    """A network that was counted, and what is published of it.

    Attributes:
        amounts: In the order of `TERMS`.
    """

    kernels: str
    precision: str
    model_id: str
    published_s: float
    amounts: tuple[float, ...]

    @property
    def key(self) -> str:
        """As the counts name it."""
        return f"{self.kernels}/{self.precision}/{self.model_id}"


Prices = tuple[float, ...]  # seconds per unit, in the order of `TERMS`


def priced(prices: Prices, row: Row) -> float:
    """The latency of a row, in seconds."""
    return sum(price * amount for price, amount in zip(prices, row.amounts, strict=True))


def published(measurements: Path) -> dict[str, float]:
    """Latencies in seconds by kernels, precision and network."""
    found = {}
    for precision in ("int8", "fp32"):
        ruy = tables.inference_rows(measurements, BOARD, VERSION, "ruy", precision, 0)
        vendor = tables.vendor_rows(measurements, tables.VendorRows(BOARD, "arm64"), precision, 0)
        others = tables.netspresso_rows(measurements, BOARD, precision, 0)
        both: dict[str, list[float]] = {}
        for row in (*vendor, *others):
            both.setdefault(row.model_id, []).append(row.measured_s)
        found |= {f"ruy/{precision}/{row.model_id}": row.measured_s for row in ruy}
        means = {name: float(np.exp(np.mean(np.log(values)))) for name, values in both.items()}
        found |= {f"xnnpack/{precision}/{name}": seconds for name, seconds in means.items()}
    return found


def read_rows(measurements: Path, counts: Mapping[str, Mapping[str, Any]]) -> list[Row]:
    """The counted networks of which something is published."""
    known = published(measurements)
    return [_row(key, count, known[key]) for key, count in counts.items() if key in known]


def _row(key: str, count: Mapping[str, Any], published_s: float) -> Row:
    kernels, precision, model_id = key.split("/")
    others = (count[name] for name in ("l1_misses", "l2_misses", "read_bytes", "written_bytes"))
    tally = Tally({name: count["classes"][name] for name in CLASSES}, *others)
    found = amounts(tally)
    return Row(kernels, precision, model_id, published_s, tuple(float(found[term]) for term in TERMS))


def fit(rows: Sequence[Row]) -> Prices:
    """The prices of least squared relative error."""
    matrix = np.array([row.amounts for row in rows]) / np.array([row.published_s for row in rows])[:, None]
    units = matrix.max(axis=0)  # so that the solver sees numbers of one size
    units[units == 0] = 1.0
    solution, _ = nnls(matrix / units, np.ones(len(rows)))
    return tuple(float(price) for price in solution / units)


def left_out(rows: Sequence[Row], *, families: bool) -> dict[str, float]:
    """Estimated over published time of each row, fitted without it: without its network, or without its family.

    A network is left out with all its rows, whatever ran it and in whatever precision.
    """
    found = {}
    for row in rows:
        own = family(row.model_id) if families else row.model_id
        others = [one for one in rows if (family(one.model_id) if families else one.model_id) != own]
        found[row.key] = priced(fit(others), row) / row.published_s
    return found


def by_device_model(rows: Sequence[Row], target: Target) -> dict[str, float]:
    """Estimated over published time of each XNNPACK row by the target's own device model, which has seen it."""
    found = {}
    for row in rows:
        ops = tflite_network(row.model_id)
        if row.kernels == DEPLOYED and ops is not None:
            cost = estimate(ops, target, "tflite", row.precision, THREADS).cost
            if cost.latency_s is not None:
                found[row.key] = cost.latency_s / row.published_s
    return found


def judged(rows: Sequence[Row], target: Target) -> dict[str, Any]:
    """Residuals of all rows, no published figure itself: fitted, left out by network and by family, device model's."""
    prices = fit(rows)
    return {
        "rows": len(rows),
        "prices_ns": dict(zip(TERMS, (price * 1e9 for price in prices), strict=True)),
        "fitted": {row.key: priced(prices, row) / row.published_s for row in rows},
        "left_out_network": left_out(rows, families=False),
        "left_out_family": left_out(rows, families=True),
        "device_model": by_device_model(rows, target),
    }


def band(rows: Sequence[Row], precision: str) -> Band:
    """Published over estimated time: every deployed row left out with its family, and 80 % of all of the precision."""
    ratios = {key: 1 / ratio for key, ratio in left_out(rows, families=True).items() if f"/{precision}/" in key}
    deployed = [ratio for key, ratio in ratios.items() if key.startswith(DEPLOYED)]
    low, high = np.quantile(list(ratios.values()), [0.1, 0.9])
    return Band(low=min([float(low), *deployed]), high=max([float(high), *deployed]))


def profile(rows: Sequence[Row], target: Target) -> CountedProfile:
    """What ships: prices in cycles of the target's clock, for XNNPACK's kernels."""
    prices, clock_hz = fit(rows), target.cpu.clock_hz
    assert clock_hz is not None
    cycles = {term: float(f"{price * clock_hz:.4g}") for term, price in zip(TERMS, prices, strict=True)}
    models = tuple(_model(rows, precision, cycles) for precision in ("int8", "fp32"))
    summary = judged(rows, target)
    errors = {name: _errors(summary[name]) for name in ("left_out_network", "left_out_family", "device_model")}
    provenance = {
        "written_by": "python -m tools.counted_fitting",
        "method": "prices of instruction classes and simulated misses of one thread, least squares of relative error, "
        "none negative; the same for all kernels and precisions",
        "published": {kernels: ABOUT[kernels] for kernels in KERNELS},
        "rows": {kernels: sum(row.kernels == kernels for row in rows) for kernels in KERNELS},
        "errors": errors,
    }
    return CountedProfile(schema=SCHEMA, target=target.name, models=models, provenance=provenance)


def _model(rows: Sequence[Row], precision: str, cycles: dict[str, float]) -> CountedModel:
    found = band(rows, precision)
    own = [row for row in rows if row.precision == precision]
    few = sum(row.kernels == DEPLOYED for row in own)
    rounded = Band(low=float(f"{found.low:.4g}"), high=float(f"{found.high:.4g}"))
    return CountedModel(
        runtime="tflite",
        precision=precision,
        threads=THREADS,
        cycles=cycles,
        band=rounded,
        source=f"latency is estimated from one thread's counts by prices fitted on {len(own)} published results "
        f"({BOARD.removesuffix('B')}, {THREADS} threads; {few} of them by XNNPACK, {ABOUT[DEPLOYED]}); "
        f"interval {rounded.low:.2f}-{rounded.high:.2f}: 80 % of all and all of XNNPACK's, their family left out",
    )


def _errors(ratios: Mapping[str, float]) -> dict[str, dict[str, float]]:
    """Median and largest relative error by kernels and precision."""
    groups: dict[str, list[float]] = {}
    for key, ratio in ratios.items():
        groups.setdefault(key.rpartition("/")[0], []).append(abs(ratio - 1))
    return {
        name: {"median": float(f"{np.median(values):.3g}"), "most": float(f"{max(values):.3g}"), "rows": len(values)}
        for name, values in groups.items()
    }


def main(arguments: Sequence[str]) -> int:
    """The command; returns the exit status."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    shared = Path(os.environ.get("EDGEPRUNE_SHARED", ROOT.parent / "shared"))
    tables_folder = Path(os.environ.get("EDGEPRUNE_MEASUREMENTS", shared / "measurements"))
    parser.add_argument("--measurements", type=Path, default=tables_folder)
    parser.add_argument("--counts", type=Path, default=ROOT / "bench" / "results" / "emulator.json")
    parser.add_argument("--out", type=Path, default=ROOT / "profiles" / "rpi4.emulated.json")
    options = parser.parse_args(arguments)
    cells = json.loads(options.counts.read_text(encoding="utf-8"))["cells"]
    counts = {key.removeprefix("count/"): cell["result"] for key, cell in cells.items() if key.startswith("count/")}
    made = profile(read_rows(options.measurements, counts), load_target("rpi4"))
    write_text(options.out, made.model_dump_json(by_alias=True, indent=2) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
