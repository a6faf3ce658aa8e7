"""The C text of a program: its header, its steps, its weights, and the vectors that it is tested with."""

from __future__ import annotations

import string
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from edgeprune import __version__
from edgeprune.backends import Array
from edgeprune.backends.c.lowering import Constant
from edgeprune.backends.c.model import Tensor
from edgeprune.backends.c.names import C_TYPES, array, real, remark
from edgeprune.backends.c.schedule import Call, Program, bytes_of
from edgeprune.device.memory import ALIGNMENT


@dataclass(frozen=True)
class Port:
    """A tensor at an end of the model.

    Attributes:
        label: `input` or `output`; numbered where there are several.
    """

    label: str
    index: int
    tensor: Tensor
    offset: int
    size_bytes: int

    @property
    def type(self) -> str:
        """Its elements' type in C."""
        return C_TYPES[self.tensor.dtype]


def inputs(program: Program) -> tuple[Port, ...]:
    """What a run reads."""
    return _ports(program, "input", program.model.inputs)


def outputs(program: Program) -> tuple[Port, ...]:
    """What a run gives."""
    return _ports(program, "output", program.model.outputs)


def _ports(program: Program, label: str, indices: Sequence[int]) -> tuple[Port, ...]:
    model = program.model
    labels = [label] if len(indices) == 1 else [f"{label}{at}" for at in range(len(indices))]
    return tuple(
        Port(name, index, model.tensor(index), program.offset(index), bytes_of(model, index))
        for name, index in zip(labels, indices, strict=True)
    )


@dataclass(frozen=True)
class Weights:
    """The constants of a program, equal ones once.

    Attributes:
        arrays: By their names in the library.
        names: Per call, the library's name of each of its constants.
    """

    arrays: Mapping[str, Constant] = field(default_factory=dict)
    names: tuple[Mapping[str, str], ...] = ()

    @property
    def size_bytes(self) -> int:
        """Bytes in flash, padding not counted."""
        return sum(constant.values.nbytes for constant in self.arrays.values())


def weights(program: Program, name: str) -> Weights:
    """The constants that the library called `name` holds."""
    arrays: dict[str, Constant] = {}
    known: dict[tuple[str, int, bytes], str] = {}
    names = []
    for at, call in enumerate(program.calls):
        own = {}
        for constant in call.lowered.constants:
            key = (str(constant.values.dtype), constant.alignment, constant.values.tobytes())
            own[constant.name] = known.setdefault(key, f"{name}_{at}_{constant.name}")
            arrays.setdefault(own[constant.name], constant)
        names.append(own)
    return Weights(arrays, tuple(names))


def header(program: Program, name: str) -> str:
    """The public header."""
    upper, ends = name.upper(), (inputs(program), outputs(program))
    described = "\n".join(_described(port, upper) for ports in ends for port in ports)
    accessors = "\n".join(_accessor(port, name, upper, at == 1) for at, ports in enumerate(ends) for port in ports)
    return f"""/* {name}: a neural network as a C99 library, written by edgeprune {__version__}.
 *
 * There is nothing to set up: all state lies in the arena that each run is given, so runs on different arenas may
 * overlap in time. No heap, no globals that change, no library function is called. Quantised tensors stand for
 * scale * (value - zero point); images are in rows, channels innermost.
 */
#ifndef {upper}_H
#define {upper}_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {{
#endif

#define {upper}_TOOL_VERSION "{__version__}"
#define {upper}_MODEL_SHA256 "{remark(program.model.sha256)}"

/* What a run needs besides its stack. */
#define {upper}_ARENA_BYTES {max(program.arena_bytes, 1)}
#define {upper}_ARENA_ALIGNMENT {ALIGNMENT}
/* Defines an arena of one's own: {upper}_STATIC_ARENA(memory); */
#define {upper}_STATIC_ARENA(variable) \\
    static uint8_t variable[{upper}_ARENA_BYTES] __attribute__((aligned({upper}_ARENA_ALIGNMENT)))

{described}
/* Where inputs and outputs lie in an arena: who writes and reads them there saves the copies. A run uses the bytes of
 * its inputs for other things once it has read them, so they must be written before every run.
 */
{accessors}
/* Runs the network once. An input that is NULL lies in the arena already; an output that is NULL stays there.
 * Returns 0; 1 where the arena is NULL or not aligned.
 */
{_prototype(program, name)};

#ifdef __cplusplus
}}
#endif

#endif
"""


def _described(port: Port, upper: str) -> str:
    """Constants that tell a tensor at an end."""
    at, tensor = f"{upper}_{port.label.upper()}", port.tensor
    shape = ", ".join(map(str, tensor.shape)) or "1"
    lines = [
        f"/* {port.label}: {remark(tensor.name)}, {_shape(tensor)} */",
        f"#define {at}_SIZE {tensor.size}",
        f"#define {at}_RANK {max(len(tensor.shape), 1)}",
        f"#define {at}_SHAPE {{{shape}}}",
    ]
    if tensor.quantization is not None and len(tensor.quantization.scales) == 1:
        lines += [f"#define {at}_SCALE {real(tensor.scale)}", f"#define {at}_ZERO_POINT ({tensor.zero_point})"]
    return "\n".join([*lines, ""])


def _accessor(port: Port, name: str, upper: str, constant: bool) -> str:
    const = "const " if constant else ""
    return f"""static inline {const}{port.type} *{name}_{port.label}({const}void *arena)
{{
    return ({const}{port.type} *)({const}void *)(({const}uint8_t *)arena + {port.offset});
}}
"""


def _prototype(program: Program, name: str) -> str:
    given = [f"const {port.type} *{port.label}" for port in inputs(program)]
    given += [f"{port.type} *{port.label}" for port in outputs(program)]
    return f"int {name}_run({', '.join([*given, 'void *arena'])})"


def weights_header(found: Weights, name: str) -> str:
    """The declarations of the constants."""
    guard = f"{name.upper()}_WEIGHTS_H"
    lines = [
        f"extern const {C_TYPES[str(constant.values.dtype)]} {at}[{constant.values.size}];"
        for at, constant in found.arrays.items()
    ]
    body = "\n".join(lines)
    return f"#ifndef {guard}\n#define {guard}\n\n#include <stdint.h>\n\n{body}\n\n#endif\n"


def weights_source(found: Weights, name: str) -> str:
    """The definitions of the constants."""
    head = f"""/* The constants of {name}. Define EP_WEIGHTS as a section attribute to place them, such as
 * -DEP_WEIGHTS='__attribute__((section(".qspi")))'
 */
#include "{name}_weights.h"

#ifndef EP_WEIGHTS
#define EP_WEIGHTS
#endif
"""
    parts = [
        array(at, constant.values, "EP_WEIGHTS", f"__attribute__((aligned({constant.alignment})))")
        for at, constant in found.arrays.items()
    ]
    return "\n".join([head, *parts])


def source(program: Program, found: Weights, name: str) -> str:
    """The steps, one function each, and the run that calls them in order."""
    layers = "\n".join(layer(program, at, found.names[at], name) for at in range(len(program.calls)))
    calls = [f"    {name}_layer_{at}(memory);" for at in range(len(program.calls))]
    given = [f"    {name}_copy(memory + {p.offset}, {p.label}, {p.size_bytes});" for p in inputs(program)]
    taken = [f"    {name}_copy({p.label}, memory + {p.offset}, {p.size_bytes});" for p in outputs(program)]
    body = "\n".join([*given, *calls, *taken])
    return f"""/* The steps of {name} in order, each with its place in the arena. */
#include "{name}.h"

#include "ep_kernels.h"
#include "{name}_weights.h"

/* A function of its own in the symbol table, so that profilers and debuggers see each step. */
#define EP_LAYER static __attribute__((noinline))

{layers}
/* Bytes from one place to another; none where a place is NULL or both are one. */
static void {name}_copy(void *to, const void *from, size_t count)
{{
    uint8_t *const written = (uint8_t *)to;
    const uint8_t *const read = (const uint8_t *)from;
    if (written == NULL || read == NULL || written == read) {{
        return;
    }}
    for (size_t i = 0; i < count; i++) {{
        written[i] = read[i];
    }}
}}

{_prototype(program, name)}
{{
    uint8_t *const memory = (uint8_t *)arena;
    if (memory == NULL || (uintptr_t)memory % {name.upper()}_ARENA_ALIGNMENT != 0) {{
        return 1;
    }}
{body}
    return 0;
}}
"""


def layer(program: Program, at: int, constants: Mapping[str, str], name: str) -> str:
    """The function of one step, and what it needs at file scope."""
    call = program.calls[at]
    places = _places(program, call)
    values = {**{label: label for label in places}, **constants, "step": str(at)}
    used = {field for _, field, _, _ in string.Formatter().parse(call.lowered.call) if field}
    lines = [places[label] for label in places if label in used]
    unused = [] if lines else ["(void)arena;"]
    definitions = call.lowered.definitions.format(**values).strip()
    body = "\n".join(f"    {line}" for line in (*lines, *unused, *call.lowered.call.format(**values).splitlines()))
    text = f"/* {at}: {title(program, call)} */\nEP_LAYER void {name}_layer_{at}(uint8_t *arena)\n{{\n{body}\n}}\n"
    return f"{definitions}\n\n{text}" if definitions else text


def title(program: Program, call: Call) -> str:
    """What a step does: its operators, the tensor it makes, and the shapes before and after."""
    kinds = " + ".join(operator.kind for operator in (call.step.operator, call.step.added) if operator is not None)
    model = program.model
    before = ", ".join(_shape(model.tensor(index)) for index in call.reads)
    after = ", ".join(_shape(model.tensor(index)) for index in call.writes)
    return f"{kinds} to {remark(model.tensor(call.step.output).name)}: {before} -> {after}"


def _shape(tensor: Tensor) -> str:
    return f"{tensor.dtype} {'x'.join(map(str, tensor.shape)) or 'scalar'}"


def _places(program: Program, call: Call) -> dict[str, str]:
    """Declarations of the pointers that a call may name."""
    model, found = program.model, {}
    for at, index in enumerate(call.reads):
        kind = C_TYPES[model.tensor(index).dtype]
        found[f"in{at}"] = f"const {kind} *const in{at} = (const {kind} *)(void *)(arena + {program.offset(index)});"
    for at, index in enumerate(call.writes):
        kind = C_TYPES[model.tensor(index).dtype]
        found[f"out{at}"] = f"{kind} *const out{at} = ({kind} *)(void *)(arena + {program.offset(index)});"
    found["scratch"] = f"int8_t *const scratch = (int8_t *)(void *)(arena + {call.scratch});"
    return found


def golden(program: Program, name: str, vectors: Sequence[tuple[Sequence[Array], Sequence[Array]]]) -> str:
    """Inputs with the outputs that the reference kernels give, and the comparison with what the library gives."""
    upper = name.upper()
    parts = []
    for at, (taken, given) in enumerate(vectors):
        for port, values in zip((*inputs(program), *outputs(program)), (*taken, *given), strict=True):
            parts.append(array(f"{name}_golden_{port.label}_{at}", values, "static"))
    tables = []
    for port in (*inputs(program), *outputs(program)):
        each = ", ".join(f"{name}_golden_{port.label}_{at}" for at in range(len(vectors)))
        tables.append(
            f"static const {port.type} *const {name}_golden_{port.label}[{upper}_GOLDEN_COUNT] = {{\n    {each}\n}};"
        )
    given_ports = [f"{name}_golden_{port.label}[vector]" for port in inputs(program)]
    arguments = ", ".join([*given_ports, *["NULL"] * len(outputs(program)), "arena"])
    counts = "\n".join(_count(port, name, upper) for port in outputs(program))
    return f"""/* {len(vectors)} inputs of {name} and what TensorFlow Lite's reference kernels answer to them. */
#ifndef {upper}_GOLDEN_H
#define {upper}_GOLDEN_H

#include "{name}.h"

#define {upper}_GOLDEN_COUNT {len(vectors)}

{"".join(parts)}
{chr(10).join(tables)}

/* How many output values of a run on a vector differ; -1 where the run refuses the arena. */
static inline long {name}_golden_wrong(int vector, void *arena)
{{
    long wrong = 0;
    if ({name}_run({arguments}) != 0) {{
        return -1;
    }}
{counts}
    return wrong;
}}

#endif
"""


def _count(port: Port, name: str, upper: str) -> str:
    return f"""    for (size_t i = 0; i < {upper}_{port.label.upper()}_SIZE; i++) {{
        wrong += {name}_{port.label}(arena)[i] != {name}_golden_{port.label}[vector][i];
    }}"""
