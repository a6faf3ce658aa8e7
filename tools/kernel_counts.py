"""Counts every network of the design on every core, step by step: `tools/counts/edgeprune-c.csv`.

    python -m tools.kernel_counts

Counted are core cycles (`edgeprune.emulate.cycles`): instruction timings at zero wait states, or instructions where
a core has no published ones. They are exact for the compiler and the kernels that the file's head names.
"""

from __future__ import annotations

import argparse
import csv
import hashlib
import io
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from math import prod
from pathlib import Path
from typing import Any

import numpy as np

from edgeprune import backends
from edgeprune.backends.c.board import variant
from edgeprune.backends.c.library import read_report
from edgeprune.backends.tflite.writer import write
from edgeprune.device.networks import Network
from edgeprune.device.ops import Op
from edgeprune.emulate.cores import core_of
from edgeprune.emulate.profile import EmulatedProfile, TargetFacts, profile_library
from edgeprune.emulate.toolchain import MemoryMap, find_toolchain
from edgeprune.target import Target
from tools.kernel_design import chains, wholes

ROOT = Path(__file__).resolve().parent.parent
FILE = ROOT / "tools" / "counts" / "edgeprune-c.csv"
CORES = ("Cortex-M0+", "Cortex-M4", "Cortex-M7", "Cortex-M33")
_ROOM = MemoryMap(0x0800_0000, 1 << 26, 0x2000_0000, 1 << 26)
_OP = ("kind", "function", "in_channels", "out_channels", "in_positions", "out_positions", "kernel", "groups", "stride")
_REST, _CODE, _STACK = "call", "code", "stack"  # rows of what a network costs besides its steps, and of its bytes
_COLUMNS = ("network", "family", *_OP, "activation", "summing", *CORES)


@dataclass(frozen=True)
class Step:
    """One step of a network with its core cycles by core."""

    op: Op
    cycles: Mapping[str, int]


@dataclass(frozen=True)
class Counted:
    """One network: its steps, and by core what the call costs around them and its bytes of code and stack.

    Attributes:
        family: Empty for chains.
    """

    name: str
    family: str
    steps: tuple[Step, ...]
    rest: Mapping[str, int]
    code: Mapping[str, int]
    stack: Mapping[str, int]

    def cycles(self, core: str) -> int:
        """Of one inference."""
        return self.rest[core] + sum(step.cycles[core] for step in self.steps)


def count(network: Network, family: str = "", cores: Sequence[str] = CORES) -> Counted:
    """A network as C on every core, executed once."""
    found: dict[str, EmulatedProfile] = {}
    ops: dict[str, tuple[Op, ...]] = {}
    with tempfile.TemporaryDirectory() as scratch:
        file = Path(scratch) / "model.tflite"
        write(network, file, "int8")
        for core in cores:
            report = Path(scratch) / variant(bare_target(core)) / "model.c.json"
            if not report.is_file():
                _backend().convert(file, report.parent, "model", bare_target(core), 1)
            found[core], ops[core] = _profiled(report, core), _backend().read_ops(report)
    assert len({frozenset(own) for own in ops.values()}) == 1, f"{network.name} has other steps on another core"
    cycles = {core: _by_step(found[core], ops[core]) for core in cores}
    steps = tuple(Step(_plain(op), {core: cycles[core][op.output] for core in cores}) for op in ops[cores[0]])
    rest = {core: cycles[core][_REST] for core in cores}
    code, stack = ({core: getattr(p, name) for core, p in found.items()} for name in ("code_bytes", "stack_bytes"))
    return Counted(network.name, family, steps, rest, code, stack)


def _by_step(profile: EmulatedProfile, ops: Sequence[Op]) -> dict[str, int]:
    """Core cycles by the output of a step, and of the rest.

    The compiler makes one function of steps that are alike to the byte; they share what it was counted at.
    """
    layers = {layer.index: layer.core_cycles or 0.0 for layer in profile.layers}
    found = {_REST: round(layers[None])}
    for at, op in enumerate(ops):
        alike = [other for other, same in enumerate(ops) if _plain(same) == _plain(op)]
        whole = all(other in layers for other in alike)
        shared = sum(layers.get(other, 0.0) for other in alike) / len(alike)
        found[op.output] = round(layers[at] if whole else shared)
    return found


def _backend() -> Any:
    return backends.get("c")


def _profiled(report: Path, core: str) -> EmulatedProfile:
    library = read_report(report)
    (source,), (result,) = library["inputs"], library["outputs"]
    values = np.random.default_rng(0).integers(-128, 128, source["shape"]).astype(np.int8)
    return profile_library(
        tuple(report.parent / name for name in library["files"] if name.startswith("src/") and name.endswith(".c")),
        (report.parent / "include", report.parent / "src"),
        "model",
        library["arena_bytes"],
        [values.tobytes()],
        prod(result["shape"]),
        TargetFacts(core_of(core), _ROOM),
        toolchain=find_toolchain("gcc"),
    )


def bare_target(core: str) -> Target:
    """A board with nothing but a core: what decides the kernels."""
    tree = {"name": "any", "class": "mcu", "description": core, "default_runtime": "edgeprune-c"}
    facts = {"cpu": {"core": core, "cores": 1, "isa": ""}, "memory": {}, "runtimes": {"edgeprune-c": {"backend": "c"}}}
    return Target.model_validate({**tree, **facts})


def _plain(op: Op) -> Op:
    """Without names: a stored op knows sizes alone."""
    inputs = ("x", "y")[: max(1, len(op.inputs))]
    return replace(op, name="z", inputs=inputs, output="z", nodes=(), in_axis=None, out_axis=None)


def written(head: Iterable[str], counted: Iterable[Counted]) -> str:
    """The file's text."""
    text = io.StringIO()
    text.writelines(f"# {line}\n" for line in head)
    rows = csv.writer(text, lineterminator="\n")
    rows.writerow(_COLUMNS)
    for one in counted:
        for step in one.steps:
            sizes = [getattr(step.op, name) for name in _OP]
            summing = int(len(step.op.inputs) > 1)
            rows.writerow([one.name, one.family, *sizes, step.op.activation, summing, *step.cycles.values()])
        for kind, values in ((_REST, one.rest), (_CODE, one.code), (_STACK, one.stack)):
            rows.writerow([one.name, one.family, kind, *[""] * (len(_OP) + 1), *values.values()])
    return text.getvalue()


def read(path: Path = FILE) -> tuple[tuple[str, ...], tuple[Counted, ...]]:
    """The head's lines and the networks of a file."""
    lines = path.read_text(encoding="utf-8").splitlines()
    head = tuple(line.removeprefix("# ") for line in lines if line.startswith("# "))
    networks: dict[str, list[dict[str, str]]] = {}
    for row in csv.DictReader(lines[len(head) :]):
        networks.setdefault(row["network"], []).append(row)
    return head, tuple(_counted(name, rows) for name, rows in networks.items())


def _counted(name: str, rows: Sequence[Mapping[str, str]]) -> Counted:
    by_core = [{core: int(row[core]) for core in CORES} for row in rows]
    special = {row["kind"]: cycles for row, cycles in zip(rows, by_core) if row["kind"] in (_REST, _CODE, _STACK)}
    steps = tuple(Step(_op(row), cycles) for row, cycles in zip(rows, by_core) if row["kind"] not in special)
    return Counted(name, rows[0]["family"], steps, special[_REST], special[_CODE], special[_STACK])


def _op(row: Mapping[str, str]) -> Op:
    numbers = {field.name for field in fields(Op) if field.type == "int"}
    given: dict[str, Any] = {name: int(row[name]) if name in numbers else row[name] for name in _OP}
    return Op(name="z", inputs=("x", "y")[: 1 + int(row["summing"])], output="z", activation=row["activation"], **given)


def digest() -> str:
    """What the counts depend on besides the compiler, in twelve characters."""
    found = hashlib.sha256()
    package = ROOT / "edgeprune"
    files = [*package.glob("csrc/*"), *package.glob("backends/c/**/*.py"), package / "emulate" / "cycles.py"]
    files += [Path(__file__).with_name("kernel_design.py")]
    for path in sorted(files):
        found.update(path.name.encode() + b"\0" + path.read_bytes())
    return found.hexdigest()[:12]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, default=FILE)
    options = parser.parse_args()
    todo = [(network, "") for network in chains()] + [(entry.network, entry.family) for entry in wholes()]
    head = (f"core cycles by core, {find_toolchain('gcc').version} -O3", f"kernels and design: {digest()}")
    there = read(options.output) if options.output.is_file() else ((), ())
    known = {one.name: one for one in there[1]} if there[0] == head else {}  # an interrupted count goes on
    options.output.parent.mkdir(parents=True, exist_ok=True)
    for number, (network, family) in enumerate(todo, 1):
        print(f"{number} of {len(todo)}: {network.name}", flush=True)
        if network.name not in known:
            known[network.name] = count(network, family)
            text = written(head, (known[other.name] for other, _ in todo if other.name in known))
            options.output.write_text(text, encoding="utf-8")
    print(options.output)


if __name__ == "__main__":
    main()
