"""How good device models are on networks, families and devices they have not seen, beside MACs and affine in MACs.

    make bench-device-models [MEASUREMENTS=DIR]

First by cross-validation: models are fitted anew on the folder's rows without what is judged, at last without a third
of all pairs of device and network. Then as shipped: the files in `profiles/published` on the same rows, networks that a
model was fitted on apart from those it was not. The tables go to stdout, those of the default folder into the page too.
Any folder of the same form will do; nothing is fitted on it for the second part.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import sys
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from bench.cells import RESULTS, ROOT, Result, Sheet, read_document
from bench.command import parser, run
from bench.tables_device_models import device_model_tables
from edgeprune.errors import UsageError
from edgeprune.progress import Progress
from tools import crossval, mcu_published
from tools.crossval import LeftOut, Residuals
from tools.engines import ENGINES
from tools.fitting import predict
from tools.groups import Group, Key, read_groups
from tools.published import Published, fitted, read_published, rounded, summary

FEWEST_ROWS = 8  # of a group that enters the means; smaller ones are too coarse for shares
MANY_ROWS = 30  # of a group that is judged by itself
FEWEST_FAMILIES = 3
GOALS = {"model": (0.05, 0.80), "family": (0.08, 0.65)}  # median at most, share within 10 % at least
PROFILES = ROOT / "profiles"


def main(arguments: Sequence[str]) -> int:
    options = parser("device_models", str(__doc__).splitlines()[0])
    shared = Path(os.environ.get("EDGEPRUNE_SHARED", ROOT.parent / "shared"))
    tables = Path(os.environ.get("EDGEPRUNE_MEASUREMENTS", shared / "measurements"))
    options.add_argument("--measurements", type=Path, default=tables, help="folder of tables")
    options.add_argument("--profiles", type=Path, default=PROFILES, help="folder of the shipped models")
    parsed = options.parse_args(arguments)
    parsed.rows = digest(parsed.measurements)
    parsed.shipped = digest(parsed.profiles)
    if parsed.results is None and not parsed.smoke:
        parsed.results, stale = results_of(parsed.rows, parsed.shipped)
        parsed.fresh = parsed.fresh or stale
    status = run("device-models", parsed, arguments, body)
    if status == 0 and parsed.results is not None:
        print("\n\n".join(device_model_tables(read_document(parsed.results))))
    return status


def results_of(rows: str, shipped: str, folder: Path = RESULTS) -> tuple[Path, bool]:
    """Where figures of these rows go, and whether what is there is of older profiles.

    The first folder of measurements gets the plain name; figures of another stand beside it.
    """
    path = folder / "device-models.json"
    if path.is_file() and read_document(path)["settings"]["rows"] != rows:
        path = folder / f"device-models-{rows}.json"
    return path, path.is_file() and read_document(path)["settings"]["shipped"] != shipped


def digest(folder: Path) -> str:
    """What a folder holds, in twelve characters; results of other contents are not mixed."""
    found = hashlib.sha256()
    for path in sorted(path for path in folder.rglob("*") if path.suffix in (".csv", ".json")):
        found.update(path.name.encode() + b"\0" + path.read_bytes())
    return found.hexdigest()[:12]


def body(sheet: Sheet, options: argparse.Namespace, folder: Path, progress: Progress) -> None:
    del folder
    if not options.measurements.is_dir():
        raise UsageError(
            "no such folder of measurements", where=str(options.measurements), hint="give --measurements DIR"
        )
    groups, unknown = read_groups(options.measurements, fewest_rows=1)
    progress.note(f"{len(groups)} groups, {sum(len(group.rows) for group in groups)} networks timed in all")
    sheet.cell("rows", lambda: counted(groups, unknown))
    for engine in ENGINES:
        own = [group for group in groups if group.key.engine == engine]
        if own:
            progress.note(engine)
            sheet.cell(f"unseen/{engine}", lambda own=own: unseen(own))
    progress.note("microcontrollers")
    sheet.cell("microcontrollers", lambda: mcu_published.unseen(options.measurements))
    progress.note("a third of the rows apart")
    sheet.cell("third", lambda: a_third_apart(groups))
    shipped = read_published(options.profiles / "published")
    sheet.cell("shipped", lambda: judged(groups, shipped))
    sheet.cell("shipped/microcontrollers", lambda: mcu_published.judged(options.measurements, options.profiles))


def counted(groups: Sequence[Group], unknown: Mapping[str, int]) -> Result:
    """How much there is, and what no operator table is there for."""
    return {
        "groups": dict(Counter(f"{group.key.engine} {group.key.precision}" for group in groups)),
        "networks_timed": sum(len(group.rows) for group in groups),
        "rows_without_a_table": dict(sorted(unknown.items())),
    }


def unseen(groups: Sequence[Group]) -> Result:
    """Cross-validation of one engine, by precision."""
    enough = [group for group in groups if len(group.rows) >= 3 and len({row.family for row in group.rows}) > 1]
    if not enough:
        return {}
    macs = crossval.counting_macs(enough)
    found: dict[str, dict[Key, list[LeftOut]]] = {}
    for split, column in (("model", "model_id"), ("family", "family")):
        found[split] = crossval.left_out(enough, column)
        found[f"{split}, MACs only"] = crossval.left_out(macs, column, crossval.macs_only)
        found[f"{split}, affine in MACs"] = crossval.left_out(macs, column, crossval.affine)
    inside = crossval.covered(found["family"])
    devices = crossval.unseen_device(enough)
    result: Result = {}
    for precision in sorted({group.key.precision for group in enough}):
        keys = [group.key for group in enough if group.key.precision == precision]
        many = [group.key for group in enough if group.key in keys and len(group.rows) >= MANY_ROWS]
        result[precision] = {
            **{split: means(entries, keys) for split, entries in found.items()},
            "many_rows": {split: means(found[split], many) for split in GOALS},
            "coverage": coverage(inside, found["family"], keys),
            "device": unseen_devices(devices, keys),
            "widths": widths(found["family"], keys),
            "groups": [_listed(key, found, inside) for key in many],
        }
    return result


def means(residuals: Residuals, keys: Iterable[Key]) -> Result:
    """Means over groups with enough rows, and medians over them; `groups` is how many."""
    own = [summary(residuals[key]) for key in keys if len(residuals.get(key, ())) >= FEWEST_ROWS]
    if not own:
        return {"groups": 0}
    mean = {name: rounded(float(np.mean([entry[name] for entry in own]))) for name in own[0]}
    middle = rounded(float(np.median([entry["median"] for entry in own])))
    return {"groups": len(own), **mean, "median_of_medians": middle}


def coverage(inside: Mapping[Key, Mapping[str, float]], residuals: Residuals, keys: Iterable[Key]) -> Result:
    """Share of left-out families inside their 80 % bands, families counting alike, and rows counting alike."""
    families, rows, hits = [], 0, 0.0
    for key in keys:
        shares = inside.get(key, {})
        if len(shares) < FEWEST_FAMILIES:
            continue
        families += list(shares.values())
        sizes = Counter(entry.row.family for entry in residuals[key])
        rows += sum(sizes[name] for name in shares)
        hits += sum(sizes[name] * share for name, share in shares.items())
    if not families:
        return {}
    return {"families": len(families), "by_family": rounded(float(np.mean(families))), "by_row": rounded(hits / rows)}


def unseen_devices(found: Mapping[Key, Mapping[int, list[LeftOut]]], keys: Iterable[Key]) -> Result:
    """Mean over groups of the median error, by how many of the device's own networks were measured."""
    own = [found[key] for key in keys if key in found]
    if not own:
        return {}
    by_count = {f"measured_{n}": [summary(entry[n])["median"] for entry in own] for n in own[0]}
    return {"groups": len(own), **{name: rounded(float(np.mean(values))) for name, values in by_count.items()}}


def widths(residuals: Residuals, keys: Iterable[Key]) -> Result:
    """Error of the speed-up between two widths of a network at one resolution, its family left out."""
    logs = [log for key in keys for log in crossval.speed_ups(residuals.get(key, []))]
    if not logs:
        return {}
    relative = np.abs(np.expm1(logs))
    shares = {"median": np.median(relative), "p90": np.quantile(relative, 0.9), "within_10_percent": relative <= 0.1}
    return {"pairs": len(logs), **{name: rounded(float(np.mean(value))) for name, value in shares.items()}}


def _listed(key: Key, found: Mapping[str, Residuals], inside: Mapping[Key, Mapping[str, float]]) -> Result:
    """A group with many rows, whether it meets each goal."""
    entry: Result = {
        "device": key.device,
        "version": f"{key.runtime} {key.runtime_version}".strip(),
        "threads": key.threads,
    }
    for split, (median, share) in GOALS.items():
        figures = summary(found[split][key])
        met = figures["median"] <= median and figures["within_10_percent"] >= share
        entry[split] = {**figures, "goal_met": met}
    logs = np.abs(np.expm1(crossval.speed_ups(found["family"][key])))
    entry["width_median"] = rounded(float(np.median(logs))) if len(logs) else None
    entry["covered"] = inside.get(key, {})
    return entry


def judged(groups: Sequence[Group], shipped: Mapping[Key, Published]) -> Result:
    """The shipped models on a folder's rows; a group without a model of its own counts as not covered."""
    result: Result = {}
    for engine in ENGINES:
        for precision in sorted({group.key.precision for group in groups if group.key.engine == engine}):
            own = [group for group in groups if (group.key.engine, group.key.precision) == (engine, precision)]
            result[f"{engine} {precision}"] = _judged(own, shipped)
    return result


def a_third_apart(groups: Sequence[Group]) -> Result:
    """Models made like the shipped ones, without a third of all pairs of device and network, and judged on those."""
    kept, apart = [], []
    for group in groups:
        out = {row.model_id for row in group.rows if _in_third(group.key.device, row.model_id)}
        apart.append(replace(group, rows=tuple(row for row in group.rows if row.model_id in out)))
        kept.append(replace(group, rows=tuple(row for row in group.rows if row.model_id not in out)))
    enough = [group for group in kept if len(group.rows) >= 3 and len({row.family for row in group.rows}) > 1]
    return judged([group for group in apart if group.rows], {model.key: model for model in fitted(enough)})


def _in_third(device: str, model_id: str) -> bool:
    """Whether a pair is put apart: by a hash, so that a network is apart on some devices and not on others."""
    return hashlib.sha256(f"{device}/{model_id}".encode()).digest()[0] % 3 == 0


def _judged(groups: Sequence[Group], shipped: Mapping[Key, Published]) -> Result:
    seen: dict[Key, list[LeftOut]] = {}
    unseen_networks: dict[Key, list[LeftOut]] = {}
    inside: list[bool] = []
    rows = covered_rows = 0
    for group in groups:
        rows += len(group.rows)
        model = shipped.get(group.key)
        if model is None:
            continue
        covered_rows += len(group.rows)
        for row in group.rows:
            entry = LeftOut(row, predict(row, model.prices_s))
            known = row.model_id in model.networks
            (seen if known else unseen_networks).setdefault(group.key, []).append(entry)
            if not known:
                inside.append(bool(np.log(model.band[0]) <= entry.log <= np.log(model.band[1])))
    everything = [entry for entries in unseen_networks.values() for entry in entries]
    return {
        "groups": len(groups),
        "groups_with_a_model": sum(group.key in shipped for group in groups),
        "rows": rows,
        "rows_with_a_model": covered_rows,
        "networks_of_the_fit": means(seen, seen),
        "other_networks": means(unseen_networks, unseen_networks),
        "other_networks_all_rows": {"rows": len(everything), **summary(everything)},
        "other_networks_inside_band": rounded(float(np.mean(inside))) if inside else None,
    }


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
