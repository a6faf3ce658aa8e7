"""Activation memory of fused operators: what is held when, what may share bytes, and where it lies in the arena.

An element-wise operator may write over an input that nothing reads afterwards, so a residual sum lies in the output of
the convolution that feeds it. `memory_plan` places the rest (`edgeprune.device.placement`); `live_sets` is its lower
bound step by step, linear in the sizes, which is what a solver can use.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import replace

from edgeprune.device import arena
from edgeprune.device.arena import Task
from edgeprune.device.ops import Op
from edgeprune.device.placement import Buffer, Placement, place

# Weights that a process holds on top of its activations: the file's pages and the copy that the runtime packs for its
# kernels. The dense and the smallest file of a fit on this machine (its stages `dense` and `floor`) show it.
WEIGHT_COPIES = 2
ALIGNMENT = 16  # bytes; of TFLM's arena, and no less than vector loads want

# Read and written element by element, so that the result may replace an input of the same size.
ELEMENTWISE = frozenset(["add", "mul", "activation", "norm", "quantize"])
# What takes an addition of its result along, in runtimes that can: its output may lie over the other summand.
SUMMING = frozenset(["conv", "depthwise"])
# Runtimes whose planner gives every tensor bytes of its own.
_KEEPS_APART = frozenset(["tflm"])


def overwrites(runtime: str) -> bool:
    """Whether a runtime's element-wise operators write over inputs that are not read again."""
    return runtime not in _KEEPS_APART


def tasks(ops: Sequence[Op], scratch: Mapping[str, int] | None = None) -> tuple[Task, ...]:
    """The operators as an arena sees them; working memory by operator name."""
    held = scratch or {}
    return tuple(Task(op.name, op.inputs, (op.output,), _replaceable(op), held.get(op.name, 0)) for op in ops)


def _replaceable(op: Op) -> tuple[str, ...]:
    """Inputs that the output may lie over: any of an element-wise operator, the summand of a fused addition."""
    if op.kind in ELEMENTWISE:
        return op.inputs
    added = op.inputs[1:] if op.kind in SUMMING else ()
    return tuple(name for name in added if name != op.inputs[0])


def fused_sums(ops: Sequence[Op]) -> tuple[Op, ...]:
    """The ops of a runtime whose convolutions add a second tensor to their result, where an addition would follow.

    Of a residual sum of two convolutions the later one takes the addition. What is fused runs where the addition did.
    """
    fused: dict[int, Op] = {}
    gone: set[int] = set()
    for at, op in enumerate(ops):
        found = _summing(ops, op, gone | set(fused)) if _is_addition(op) else None
        if found is not None:
            conv = ops[found]
            (other,) = (name for name in op.inputs if name != conv.output)
            nodes = (*conv.nodes, *op.nodes)
            inputs = (*conv.inputs, other)
            fused[at] = replace(conv, inputs=inputs, output=op.output, activation=op.activation, nodes=nodes)
            gone.add(found)
    return tuple(fused.get(at, op) for at, op in enumerate(ops) if at not in gone)


def _is_addition(op: Op) -> bool:
    """Of the element-wise operators of kind `add`, a sum: told by the name of its node, or in a file by its own."""
    names = {name.strip("_0123456789") for name in (*op.nodes[:1], op.name)}
    return op.kind == "add" and "add" in names


def _summing(ops: Sequence[Op], op: Op, taken: Collection[int]) -> int | None:
    """Where the convolution is that an addition is fused into, if there is one that only the addition reads."""
    if len(op.inputs) != 2 or op.inputs[0] == op.inputs[1]:
        return None
    elements = tensor_elements(ops)
    if {elements[name] for name in op.inputs} != {op.out_elements}:
        return None
    for at in range(len(ops) - 1, -1, -1):
        fits = at not in taken and ops[at].kind in SUMMING and ops[at].output in op.inputs and len(ops[at].inputs) == 1
        if fits and [reader.output for reader in ops if ops[at].output in reader.inputs] == [op.output]:
            return at
    return None


def outputs_of(ops: Sequence[Op], outputs: Collection[str] = ()) -> frozenset[str]:
    """Those named, and what nobody reads."""
    read = {name for op in ops for name in op.inputs}
    return frozenset(outputs) | {op.output for op in ops if op.output not in read}


def lifetimes(ops: Sequence[Op], outputs: Collection[str] = ()) -> dict[str, tuple[int, int]]:
    """First and last step at which each tensor is held, in order of first appearance.

    A graph input is held from the start until its last reader; a tensor that nobody reads is an output, and outputs
    are held to the end.

    Args:
        outputs: Tensors that are outputs although an operator reads them.
    """
    return arena.spans(tasks(ops), outputs_of(ops, outputs))


def tensor_elements(ops: Iterable[Op]) -> dict[str, int]:
    """Elements of every tensor the ops name.

    A graph input's size is read off its first reader whose first input it is, which is the only place an op states
    it; an input that is never anyone's first input counts as large as that reader's output.
    """
    sequence = tuple(ops)
    elements = {op.output: op.out_elements for op in sequence}
    for op in sequence:
        for place_, name in enumerate(op.inputs):
            elements.setdefault(name, op.in_elements if place_ == 0 else op.out_elements)
    return elements


def shared(ops: Sequence[Op], outputs: Collection[str] = ()) -> dict[str, str]:
    """For each tensor that is written over an input, that input: the one that was made last."""
    return arena.shared(tasks(ops), tensor_elements(ops), outputs_of(ops, outputs))


def live_sets(ops: Iterable[Op], in_place: bool = False) -> tuple[tuple[str, ...], ...]:
    """The tensors that must be held while each op runs, in execution order.

    That is what the op reads and writes plus everything made before that a later op reads. With `in_place`, what is
    written over an input is not counted beside it.
    """
    sequence = tuple(ops)
    return arena.held_at_steps(tasks(sequence), shared(sequence) if in_place else {}, outputs_of(sequence))


def buffers(
    ops: Sequence[Op],
    bytes_per_element: int = 1,
    in_place: bool = True,
    alignment: int = ALIGNMENT,
    outputs: Collection[str] = (),
    scratch_bytes: Mapping[str, int] | None = None,
) -> tuple[Buffer, ...]:
    """What an arena must hold: one buffer per tensor, or per chain of tensors that are written over one another.

    Args:
        alignment: Bytes; a power of two.
        outputs: As in `lifetimes`.
        scratch_bytes: Working memory per operator, held while it runs; its buffer is named `scratch:OP`.

    Returns:
        Buffers named by the first tensor that lies in them.
    """
    run, written = tasks(ops, scratch_bytes), outputs_of(ops, outputs)
    sizes = {name: elements * bytes_per_element for name, elements in tensor_elements(ops).items()}
    over = arena.shared(run, sizes, written) if in_place else {}
    return arena.buffers(run, sizes, over, written, alignment)


def memory_plan(
    ops: Iterable[Op],
    bytes_per_element: int = 1,
    in_place: bool = True,
    alignment: int = ALIGNMENT,
    scratch_bytes: Mapping[str, int] | None = None,
) -> Placement:
    """The arena of these operators run in this order, with what it could need at least; arguments as in `buffers`."""
    return place(buffers(tuple(ops), bytes_per_element, in_place, alignment, scratch_bytes=scratch_bytes))


def live_totals(ops: Iterable[Op], elements: Mapping[str, int], in_place: bool = False) -> tuple[int, ...]:
    """Elements held at each step."""
    return tuple(sum(elements[name] for name in names) for names in live_sets(ops, in_place))
