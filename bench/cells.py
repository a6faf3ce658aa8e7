"""Cells: the finished parts of a benchmark, kept in one JSON file, so that a killed benchmark goes on where it was.

Cells of one file belong together: same machine, versions and settings. Anything else is refused, not mixed.
"""

from __future__ import annotations

import json
import os
import platform
import subprocess
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any

import edgeprune
from edgeprune.errors import UsageError
from edgeprune.record import write_text
from edgeprune.runner.bench import cpu_name

SCHEMA = "edgeprune.bench/1"
ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "bench" / "results"

Result = dict[str, Any]
_PACKAGES = (
    "torch",
    "numpy",
    "scipy",
    "onnxruntime",
    "openvino",
    "ai-edge-litert",
    "litert-torch",
    "ai-edge-quantizer",
)


@dataclass(frozen=True)
class Sheet:
    """An open file of cells.

    Attributes:
        head: What all cells share: schema, benchmark, machine, versions, settings.
        command: The command line that computes what is missing.
    """

    path: Path
    head: Mapping[str, Any]
    command: str

    def cell(self, key: str, compute: Callable[[], Result]) -> Result:
        """The stored result of a finished cell, else the computed one, stored with date, load and duration."""
        stored = self._cells()
        if key in stored:
            return self.result(key)
        load_before, started = os.getloadavg()[0], time.perf_counter()
        result: Result = json.loads(json.dumps(compute()))
        cell = {
            "result": result,
            "date": datetime.now(UTC).isoformat(timespec="seconds"),
            "command": self.command,
            "commit": _commit(),
            "seconds": round(time.perf_counter() - started, 1),
            "load_1m": [round(load_before, 2), round(os.getloadavg()[0], 2)],
        }
        write_document(self.path, {**self.head, "cells": {**self._cells(), key: cell}})
        return result

    def result(self, key: str) -> Result:
        """The result of a cell that is finished.

        Raises:
            UsageError: It is not.
        """
        cells = self._cells()
        if key not in cells:
            raise UsageError(
                f"cell {key} is not there yet", where=str(self.path), hint="it comes from the same command"
            )
        result: Result = cells[key]["result"]
        return result

    def _cells(self) -> dict[str, Any]:
        cells: dict[str, Any] = read_document(self.path)["cells"] if self.path.is_file() else {}
        return cells


def open_sheet(name: str, settings: Result, command: str, path: Path, *, fresh: bool = False) -> Sheet:
    """The sheet of benchmark `name` at `path`; with `fresh` what it held is dropped.

    Raises:
        UsageError: The file holds cells of another machine, other versions or other settings.
    """
    head = {
        "schema": SCHEMA,
        "benchmark": name,
        "machine": machine(),
        "versions": versions(),
        "settings": json.loads(json.dumps(settings)),
    }
    if fresh:
        path.unlink(missing_ok=True)
    if path.is_file():
        stored = read_document(path)
        for part, own in head.items():
            if stored.get(part) != own:
                raise UsageError(
                    f"other {part} than those of the cells there: {_difference(stored.get(part), own)}",
                    where=str(path),
                    hint="--fresh starts over, --results FILE keeps both",
                )
    return Sheet(path, head, command)


def read_document(path: Path) -> dict[str, Any]:
    """A result file.

    Raises:
        UsageError: It is not one.
    """
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as err:
        raise UsageError(f"not JSON: {err}", where=str(path), hint="restore it, or start over with --fresh") from None
    if not isinstance(document, dict) or document.get("schema") != SCHEMA:
        raise UsageError(f"not a file of {SCHEMA}", where=str(path), hint="restore it, or start over with --fresh")
    return document


def write_document(path: Path, document: Mapping[str, Any]) -> None:
    """Write a result file whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    write_text(path, json.dumps(document, indent=1, ensure_ascii=False) + "\n")


def machine() -> dict[str, Any]:
    """What the figures were taken on."""
    memory_bytes = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    cores = len(os.sched_getaffinity(0))
    return {"cpu": cpu_name(), "cores": cores, "memory_gib": round(memory_bytes / 2**30), "system": platform.system()}


def versions() -> dict[str, str | None]:
    """Of everything whose speed or answers the figures depend on; None is not installed."""
    found: dict[str, str | None] = {"edgeprune": edgeprune.__version__, "python": platform.python_version()}
    for package in _PACKAGES:
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            found[package] = None
    return found


def _commit() -> str | None:
    """The checkout's commit, with `-dirty` when files differ from it; None outside a checkout."""
    line = ["git", "-C", str(ROOT), "describe", "--always", "--dirty", "--exclude=*"]
    try:
        done = subprocess.run(line, capture_output=True, text=True, check=False)
    except FileNotFoundError:
        return None
    return done.stdout.strip() or None


def _difference(stored: Any, own: Any) -> str:
    if not isinstance(stored, dict) or not isinstance(own, dict):
        return f"{stored!r}, now {own!r}"
    changed = [key for key in {**stored, **own} if stored.get(key) != own.get(key)]
    return ", ".join(f"{key} {stored.get(key)!r}, now {own.get(key)!r}" for key in changed)
