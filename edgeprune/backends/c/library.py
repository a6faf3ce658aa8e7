"""Writes a program as a folder that builds anywhere: sources, self-test, build files, and a report that lists them.

    NAME.c.json            what the library is: model, ends, arena, layers, files
    include/NAME.h         the only header that a user includes
    src/                   the steps, the weights, the kernels they need
    test/                  vectors with the reference's answers, and the program that compares
    port/TARGET/           an example project for the board, where the target says where its memories lie
    Makefile CMakeLists.txt LICENSE

The same model gives the same bytes.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from functools import cache
from pathlib import Path
from typing import Any

from edgeprune import __version__
from edgeprune.backends import Array, Inspection
from edgeprune.backends.c import board, sources
from edgeprune.backends.c.names import identifier
from edgeprune.backends.c.schedule import Program
from edgeprune.device.ops import Op
from edgeprune.errors import UsageError
from edgeprune.target import Target

SCHEMA = "edgeprune.c-library/1"
SUFFIX = ".c.json"
Vectors = Sequence[tuple[Sequence[Array], Sequence[Array]]]

_KERNELS = Path(__file__).parents[2] / "csrc"
_TEMPLATES = Path(__file__).parent / "templates"


def write_library(
    program: Program,
    folder: Path,
    name: str,
    vectors: Vectors,
    *,
    target: Target | None = None,
    ops: Sequence[Op] = (),
    inspection: Inspection | None = None,
) -> Path:
    """Write the library into `folder`, which is made; returns the path of its report.

    Args:
        name: What everything in it is called; made an identifier of C.
        vectors: Pairs of inputs and the outputs that the reference gives, stored values in the tensors' shapes.
        target: The board to write an example project for, where it says enough.
        ops, inspection: What the report says of the file that the program was made from.

    Raises:
        UsageError: No vectors: a library that cannot test itself is not written.
    """
    if not vectors:
        raise UsageError("a C library needs at least one vector to test itself with", where=name)
    name = identifier(name)
    files = _texts(program, name, vectors) | _built(program, name) | _ported(name, target)
    report = _report(program, name, sorted(files), ops, inspection)
    files[f"{name}{SUFFIX}"] = json.dumps(report, indent=1) + "\n"
    for place, text in files.items():
        path = folder / place
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    return folder / f"{name}{SUFFIX}"


def _texts(program: Program, name: str, vectors: Vectors) -> dict[str, str]:
    """The files that hold the model."""
    weights = sources.weights(program, name)
    return {
        f"include/{name}.h": sources.header(program, name),
        f"src/{name}.c": sources.source(program, weights, name),
        f"src/{name}_weights.h": sources.weights_header(weights, name),
        f"src/{name}_weights.c": sources.weights_source(weights, name),
        f"test/{name}_golden.h": sources.golden(program, name, vectors),
        **{f"src/{file}": text for file, text in _kernels(program, name).items()},
    }


def _kernels(program: Program, name: str) -> dict[str, str]:
    """The kernels that the program calls, with all headers they include; their names begin with the library's."""
    stems = {stem for call in program.calls for stem in call.lowered.kernels}
    found: dict[str, str] = {}
    waiting = ["ep_kernels.h", *(f"{stem}.c" for stem in sorted(stems))]
    while waiting:
        file = waiting.pop(0)
        if file in found:
            continue
        text = (_KERNELS / file).read_text(encoding="utf-8")
        found[file] = text
        waiting += re.findall(r'^#include "(ep_\w+\.h)"', text, re.MULTILINE)
    prefix = "#define EP_PREFIX ep\n"
    assert prefix in found["ep_base.h"], "where kernels get their names from"
    found["ep_base.h"] = found["ep_base.h"].replace(prefix, f"#define EP_PREFIX {name}_ep\n")
    return found


def _built(program: Program, name: str) -> dict[str, str]:
    """What builds and tests the library."""
    files = sorted([f"{name}.c", f"{name}_weights.c", *(f for f in _kernels(program, name) if f.endswith(".c"))])
    values = {"name": name, "NAME": name.upper(), "sources": "\n".join(f"  src/{file}" for file in files)}
    names = {"test/selftest.c": "selftest.c", **{file: file for file in ("Makefile", "CMakeLists.txt", "LICENSE")}}
    return {place: _filled(template, values) for place, template in names.items()}


def _ported(name: str, target: Target | None) -> dict[str, str]:
    """The example project for a board; nothing where the target does not say enough."""
    known = board.values(target) if target is not None else None
    if target is None or known is None:
        return {}
    values = {"name": name, "NAME": name.upper(), **known}
    files = {file: file for file in ("startup.c", "main.c", "Makefile", "README.md")} | {f"{target.name}.ld": "link.ld"}
    return {f"port/{target.name}/{file}": _filled(f"port/{template}", values) for file, template in files.items()}


@cache
def _template(name: str) -> str:
    return (_TEMPLATES / name).read_text(encoding="utf-8")


def _filled(template: str, values: Mapping[str, str]) -> str:
    """A template with its `@names@` replaced."""
    return re.sub(r"@(\w+)@", lambda match: values[match[1]], _template(template))


def _report(
    program: Program, name: str, files: Sequence[str], ops: Sequence[Op], inspection: Inspection | None
) -> dict[str, Any]:
    """What the library is, for programs. All of it follows from the model; nothing is measured."""
    macs = {op.output: op.macs for op in ops}
    return {
        "schema": SCHEMA,
        "name": name,
        "tool_version": __version__,
        "model_sha256": program.model.sha256,
        "source": "planned",
        "arena_bytes": program.arena_bytes,
        "arena_bound_bytes": program.bound_bytes,
        "arena_gap": round(program.arena_bytes / program.bound_bytes - 1, 6) if program.bound_bytes else 0.0,
        "scratch_bytes": program.scratch_bytes,
        "weights_bytes": sources.weights(program, name).size_bytes,
        "macs": sum(macs.values()),
        "inputs": [_end(port) for port in sources.inputs(program)],
        "outputs": [_end(port) for port in sources.outputs(program)],
        "layers": [
            {
                "symbol": f"{name}_layer_{at}",
                "title": sources.title(program, call),
                "operators": list(call.positions),
                "macs": macs.get(f"t{call.step.output}"),
                "weights_bytes": sum(constant.values.nbytes for constant in call.lowered.constants),
                "scratch_bytes": call.lowered.scratch_bytes,
            }
            for at, call in enumerate(program.calls)
        ],
        "ops": [asdict(op) for op in ops],
        "inspection": inspection.model_dump() if inspection is not None else None,
        "files": list(files),
    }


def _end(port: sources.Port) -> dict[str, Any]:
    tensor = port.tensor
    quantization = tensor.quantization
    one = quantization is not None and len(quantization.scales) == 1
    return {
        "label": port.label,
        "name": tensor.name,
        "type": tensor.dtype,
        "shape": list(tensor.shape),
        "scale": tensor.scale if one else None,
        "zero_point": tensor.zero_point if one else None,
        "offset": port.offset,
    }


def read_report(path: Path) -> dict[str, Any]:
    """The report of a library.

    Raises:
        UsageError: It is missing or not the report of a library.
    """
    if not path.is_file():
        raise UsageError("there is no such model file", where=str(path))
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        schema = found["schema"]
    except (ValueError, TypeError, KeyError):
        raise UsageError("cannot load it: not the report of a C library", where=str(path)) from None
    if schema != SCHEMA:
        raise UsageError(f"cannot load it: {schema} is not {SCHEMA}", where=str(path))
    return dict(found)
