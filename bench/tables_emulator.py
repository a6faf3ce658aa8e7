"""The tables of the benchmark of emulated Linux boards."""

from __future__ import annotations

from collections.abc import Mapping
from statistics import median
from typing import Any

from bench.emulator import NETS
from bench.markdown import Document, cells_of, item, scaled, table


def counts(document: Document) -> list[str]:
    """What was executed, and how the published latencies follow from it."""
    results = cells_of(document)
    judged = results.pop("fit", None)
    counted = {key.removeprefix("count/"): found for key, found in results.items()}
    header = [
        "kernels",
        "precision",
        "network",
        "M instructions",
        "per MAC",
        "M misses L1",
        "M misses L2",
        "memory MiB",
    ]
    parts = [table(header, [_row(key, counted[key]) for key in NETS if key in counted])]
    if judged is not None:
        header = ["kernels", "precision", "rows", "", "median error %", "largest %"]
        parts += [table(header, _errors(judged)), "\n".join(item(f"- {line}") for line in _lines(judged))]
    made = sorted({found[part] for found in counted.values() for part in ("runtime", "emulator")})
    most = max(abs(found["repeated"] - found["instructions"]) for found in counted.values())
    repeats = f"second and third inference of a process differ by at most {most:,} instructions, its Python's"
    return [*parts, item(f"- run by {', '.join(made)}; {repeats}")]


def _row(key: str, found: Mapping[str, Any]) -> list[str]:
    row = [*key.split("/"), scaled(found["instructions"], 1e6, 1), scaled(found["instructions"], found["macs"], 2)]
    row += [scaled(found[level], 1e6, 2) for level in ("l1_misses", "l2_misses")]
    return [*row, scaled(found["anonymous_bytes"], 2**20, 1)]


def _errors(judged: Mapping[str, Any]) -> list[list[str]]:
    rows = []
    for name, called in (
        ("fitted", "fitted"),
        ("left_out_network", "network left out"),
        ("left_out_family", "family left out"),
        ("device_model", "the target's device model, which has seen them"),
    ):
        groups: dict[str, list[float]] = {}
        for key, ratio in judged[name].items():
            groups.setdefault(key.rpartition("/")[0], []).append(abs(ratio - 1))
        for group, errors in groups.items():
            kernels, precision = group.split("/")
            shares = (f"{100 * value:.1f}" for value in (median(errors), max(errors)))
            rows.append([kernels, precision, str(len(errors)), called, *shares])
    return sorted(rows, key=lambda row: (row[0] != "xnnpack", row[1]))


def _lines(judged: Mapping[str, Any]) -> list[str]:
    prices = ", ".join(f"{name.replace('_', ' ')} {value:.3g}" for name, value in judged["prices_ns"].items())
    return [
        f"prices in ns on four threads: {prices}",
        "estimated over published time with the family left out: "
        + ", ".join(f"{key} {ratio:.2f}" for key, ratio in judged["left_out_family"].items() if key.startswith("xnn")),
    ]
