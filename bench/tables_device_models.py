"""The tables of the benchmark of device models."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from bench.markdown import Document, cells_of, scaled, table, wrapped


def device_model_tables(document: Document) -> list[str]:
    """The tables of the benchmark of device models, for the page and for its own output."""
    results = cells_of(document)
    header = ["engine, precision", "split", "groups", "median %", "p90 %", "within 10 %", "rank corr."]
    header += ["MACs only", "affine in MACs"]
    rows, others, lists = [], [], []
    for key, by_precision in results.items():
        if not key.startswith("unseen/"):
            continue
        for precision, found in by_precision.items():
            name = f"{key.removeprefix('unseen/')} {precision}"
            rows += [_split_row(name, split, found) for split in ("model", "family") if found[split]["groups"]]
            rows += [_many_row(name, split, found) for split in ("model", "family") if found["groups"]]
            others.append(_other_row(name, found))
            lists += [_group_row(name, group) for group in found["groups"]]
    more = ["engine, precision", "bands hold, families", "rows", "widths %", "device, 0 measured %", "1", "3", "groups"]
    listed = ["engine, precision", "device, version, threads", "network %", "within 10 %", "family %", "within 10 % "]
    listed += ["widths %"]
    tiny = results.get("microcontrollers", {})
    judged = {kind: found for kind, found in results.get("shipped/microcontrollers", {}).items() if kind[0] != "w"}
    small = ["microcontrollers", "results", "median %", "p90 %", "within 10 %", "within 20 %"]
    shipped = ["engine, precision", "rows", "with a model", "fitted networks %", "other networks %", "within 10 %"]
    shipped += ["inside the band"]
    return [
        wrapped("Medians of groups with at least eight rows, averaged over groups:"),
        table(header, rows),
        wrapped(
            "80 % bands on families that took no part; speed-ups between two widths with the family left out; devices "
            "of a core that others have, from those and 0, 1 or 3 networks of their own (mean over groups of the "
            "median on the rest):"
        ),
        table(more, others),
        wrapped("Microcontrollers, the network left out on every board, scale from the board's other networks:"),
        table(small, [_tiny_row(name, found) for name, found in tiny.items() if found]),
        wrapped("Groups with at least 30 rows; an asterisk marks what misses its goal:"),
        table(listed, lists),
        wrapped("Made like the shipped models without a third of the pairs of device and network, judged on those:"),
        table(shipped, [_shipped_row(name, found) for name, found in results.get("third", {}).items()]),
        wrapped(
            "As shipped, on the rows of the folder. Errors on networks of the fit are of the fit itself; the others "
            "took no part."
        ),
        table(shipped, [_shipped_row(name, found) for name, found in results["shipped"].items()]),
        wrapped("Microcontrollers as shipped, by whether the board's model was fitted on the network:"),
        table([*small, "inside the band"], [_tiny_row(kind, found) for kind, found in judged.items()]),
    ]


def _tiny_row(name: str, found: Mapping[str, Any]) -> list[str]:
    names = (("median", 1), ("p90", 0), ("within_10_percent", 0), ("within_20_percent", 0), ("inside_band", 0))
    return [name, f"{found['results']:.0f}", *(scaled(found[key], 0.01, n) for key, n in names if key in found)]


def _split_row(name: str, split: str, found: Mapping[str, Any]) -> list[str]:
    own, macs, line = found[split], found[f"{split}, MACs only"], found[f"{split}, affine in MACs"]
    shares = [scaled(own[key], 0.01, digits) for key, digits in (("median", 1), ("p90", 0), ("within_10_percent", 0))]
    beside = [scaled(other.get("median"), 0.01, 1) for other in (macs, line)]
    what = {"model": "network", "family": "family"}[split]
    return [name, what, str(own["groups"]), *shares, scaled(own["rank_correlation"], 1, 3), *beside]


def _many_row(name: str, split: str, found: Mapping[str, Any]) -> list[str]:
    """Like a row of all groups, of those with at least 30 rows alone."""
    same = {key: found[key] for key in (f"{split}, MACs only", f"{split}, affine in MACs")}
    row = _split_row(f"{name}, >= 30 rows", split, {**same, split: found["many_rows"][split]})
    return [*row[:-2], "", ""]


def _other_row(name: str, found: Mapping[str, Any]) -> list[str]:
    held, device = found["coverage"], found["device"]
    bands = [scaled(held.get(key), 0.01, 0) for key in ("by_family", "by_row")]
    measured = [scaled(device.get(f"measured_{count}"), 0.01, 1) for count in (0, 1, 3)]
    return [name, *bands, scaled(found["widths"].get("median"), 0.01, 1), *measured, str(device.get("groups", 0))]


def _group_row(name: str, group: Mapping[str, Any]) -> list[str]:
    cells = []
    for split in ("model", "family"):
        own = group[split]
        mark = "" if own["goal_met"] else " *"
        cells += [scaled(own["median"], 0.01, 1) + mark, scaled(own["within_10_percent"], 0.01, 0)]
    where = ", ".join(part for part in (group["device"], group["version"], group["threads"]) if part)
    return [name, where, *cells, scaled(group["width_median"], 0.01, 1)]


def _shipped_row(name: str, found: Mapping[str, Any]) -> list[str]:
    fitted, others = found["networks_of_the_fit"], found["other_networks_all_rows"]
    errors = [scaled(part.get("median"), 0.01, 1) for part in (fitted, others)]
    inside = [scaled(others.get("within_10_percent"), 0.01, 0), scaled(found["other_networks_inside_band"], 0.01, 0)]
    return [name, str(found["rows"]), str(found["rows_with_a_model"]), *errors, *inside]
