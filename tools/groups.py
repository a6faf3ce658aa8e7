"""The published rows of a folder as groups: one device, engine, version, precision and number of threads each.

Any folder of the same form can be read. Which statistic: p50 of MLPerf inference logs, the least of ncnn's loops, the
stated figure elsewhere. Rows marked `suspect` are never read; networks that are not defined here are counted, not read.
"""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from tools import rows as tables
from tools.engines import ENGINES, Engine
from tools.fitting import Row
from tools.networks import family

FEWEST_ROWS, FEWEST_FAMILIES = 3, 2
_BACKENDS = {"ruy": "ruy", "cpu": "ruy", "neon": "armnn", "xnnpack": "xnnpack"}
_TIME = {tables.INFERENCE: "latency_p50_ms", tables.NCNN: "latency_min_ms"}


@dataclass(frozen=True)
class Key:
    """What a device model is of; empty strings are not stated at the source."""

    engine: str
    device: str
    core: str
    clock_mhz: str
    threads: str
    runtime: str
    runtime_version: str
    precision: str

    @property
    def big_core(self) -> str:
        """The first named core, which is the faster one of two."""
        found = re.search(r"(Cortex.[A-Z]\d+\w*|Neoverse \w+)", self.core)
        return found.group(1).replace("\u2011", "-") if found else self.core


@dataclass(frozen=True)
class Group:
    key: Key
    rows: tuple[Row, ...]

    @property
    def engine(self) -> Engine:
        return ENGINES[self.key.engine]

    def without(self, column: str, value: str) -> list[Row]:
        """The rows without those of one `model_id` or `family`."""
        return [row for row in self.rows if getattr(row, column) != value]


def read_groups(folder: Path, fewest_rows: int = FEWEST_ROWS) -> tuple[list[Group], Counter[str]]:
    """All groups with enough rows (and families), and how many rows name a network that is not defined here.

    Files that are not there are no error: a folder may hold some of them.
    """
    times: dict[Key, dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    unknown: Counter[str] = Counter()
    for key, model_id, seconds in _measured(folder):
        if ENGINES[key.engine].network(model_id) is None:
            unknown[model_id] += 1
        else:
            times[key][model_id].append(seconds)
    groups = [Group(key, _rows(ENGINES[key.engine], key.precision, own)) for key, own in times.items()]
    families = min(FEWEST_FAMILIES, fewest_rows)
    enough = [g for g in groups if len(g.rows) >= fewest_rows and len({row.family for row in g.rows}) >= families]
    return sorted(enough, key=lambda group: tuple(vars(group.key).values())), unknown


def _rows(engine: Engine, precision: str, times: dict[str, list[float]]) -> tuple[Row, ...]:
    rows = []
    for model_id, seconds in sorted(times.items()):
        ops = engine.network(model_id)
        assert ops is not None
        # ncnn: runs of one section differ by other load only, so the least; elsewhere rounds, so the geometric mean
        joined = min(seconds) if engine.name == "ncnn" else float(np.exp(np.mean(np.log(seconds))))
        rows.append(Row(model_id, family(model_id), joined, engine.amounts(ops, precision)))
    return tuple(rows)


def _measured(folder: Path) -> Iterator[tuple[Key, str, float]]:
    for name in (tables.INFERENCE, tables.NCNN, tables.VENDOR, tables.NETSPRESSO, tables.PHONES):
        if not (folder / name).is_file():
            continue
        rows = tables.read(folder, name)
        slow = _not_int8_throughout(rows) if name == tables.NETSPRESSO else set()
        for row in rows:
            engine = _engine(name, row)
            milliseconds = row[_TIME.get(name, "latency_ms")] or row["latency_ms"]
            wanted = engine and row["quality"] != "suspect" and milliseconds
            if wanted and (row["device"], row["model_id"], row["precision"]) not in slow:
                yield _key(name, engine, row), row["model_id"], float(milliseconds) * 1e-3


def _engine(name: str, row: dict[str, str]) -> str:
    """The engine that made a row; empty when it is none of those modelled here."""
    if row["precision"] not in ("fp32", "fp16", "int8"):
        return "ncnn" if name == tables.NCNN and row["backend"] == "cpu" else ""
    if name == tables.INFERENCE:
        return _BACKENDS.get(row["backend"], "") if "TFLite" in row["runtime"] or row["runtime"] == "ArmNN" else ""
    if row["backend"] != "cpu":
        return ""
    if name == tables.VENDOR:
        return "xnnpack" if row["runtime"].startswith("XNNPACK") else "ruy"
    if name == tables.NETSPRESSO:
        return "xnnpack" if row["runtime"] == "TFLite" else ""
    return "ncnn" if name == tables.NCNN else "phone"


def _key(name: str, engine: str, row: dict[str, str]) -> Key:
    precision = row["precision"]
    if name == tables.NETSPRESSO and precision == "fp16":
        precision = "fp32"  # weights in fp16, arithmetic in fp32
    if name == tables.NCNN and precision not in ("fp32", "int8"):
        precision = "fp16"  # where the source leaves open which of the two, its program asks for fp16
    build = next((word for word in ("arm64", "armv7", "armv8", "armv6") if word in row["note"]), "")
    version = " ".join(part for part in (row["runtime_version"], build if name != tables.INFERENCE else "") if part)
    if name == tables.INFERENCE and row["backend"] == "cpu":
        version = f"{version} without ruy"
    return Key(
        engine, row["device"], row["core"], row["clock_mhz"], row["cores_used"], row["runtime"], version, precision
    )


def _not_int8_throughout(rows: Sequence[dict[str, str]]) -> set[tuple[str, str, str]]:
    """int8 files that ran slower than the fp16 file of the same network on the same device."""
    half = {(r["device"], r["model_id"]): float(r["latency_ms"]) for r in rows if r["precision"] == "fp16"}
    return {
        (r["device"], r["model_id"], "int8")
        for r in rows
        if r["precision"] == "int8" and float(r["latency_ms"]) > half.get((r["device"], r["model_id"]), float("inf"))
    }
