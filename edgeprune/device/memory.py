"""Activation memory of fused operators: what is held when, what may share bytes, and where it lies in the arena.

An element-wise operator may write over an input that nothing reads afterwards, so a residual sum lies in the output of
the convolution that feeds it. `memory_plan` places the rest (`edgeprune.device.placement`); `live_sets` is its lower
bound step by step, linear in the sizes, which is what a solver can use.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence

from edgeprune.device.ops import Op
from edgeprune.device.placement import Buffer, Placement, place

# Weights that a process holds on top of its activations: the file's pages and the copy that the runtime packs for its
# kernels. The dense and the smallest file of a fit on this machine (its stages `dense` and `floor`) show it.
WEIGHT_COPIES = 2
ALIGNMENT = 16  # bytes; of TFLM's arena, and no less than vector loads want

# Read and written element by element, so that the result may replace an input of the same size.
ELEMENTWISE = frozenset(["add", "mul", "activation", "norm", "quantize"])
# Runtimes whose planner gives every tensor bytes of its own.
_KEEPS_APART = frozenset(["tflm"])


def overwrites(runtime: str) -> bool:
    """Whether a runtime's element-wise operators write over inputs that are not read again."""
    return runtime not in _KEEPS_APART


def lifetimes(ops: Sequence[Op], outputs: Collection[str] = ()) -> dict[str, tuple[int, int]]:
    """First and last step at which each tensor is held, in order of first appearance.

    A graph input is held from the start until its last reader; a tensor that nobody reads is an output, and outputs
    are held to the end.

    Args:
        outputs: Tensors that are outputs although an operator reads them.
    """
    end = len(ops) - 1
    made = {op.output: step for step, op in enumerate(ops)}
    read = {name: step for step, op in enumerate(ops) for name in op.inputs}
    held = {name: end for name in outputs}
    return {
        name: (made.get(name, 0), held.get(name, read.get(name, end)))
        for name in (*made, *(name for name in read if name not in made))
    }


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
    elements, spans = tensor_elements(ops), lifetimes(ops, outputs)
    over = {}
    for step, op in enumerate(ops):
        if op.kind in ELEMENTWISE:
            dying = [name for name in op.inputs if spans[name][1] == step and name not in outputs]
            fits = [name for name in dying if elements[name] == elements[op.output]]
            if fits:
                over[op.output] = max(fits, key=lambda name: spans[name])
    return over


def live_sets(ops: Iterable[Op], in_place: bool = False) -> tuple[tuple[str, ...], ...]:
    """The tensors that must be held while each op runs, in execution order.

    That is what the op reads and writes plus everything made before that a later op reads. With `in_place`, what is
    written over an input is not counted beside it.
    """
    sequence = tuple(ops)
    spans = lifetimes(sequence)
    over = shared(sequence) if in_place else {}
    return tuple(
        tuple(n for n, (birth, death) in spans.items() if birth <= step <= death and not (n in over and step == birth))
        for step in range(len(sequence))
    )


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
    elements, spans = tensor_elements(ops), lifetimes(ops, outputs)
    over = shared(ops, outputs) if in_place else {}
    held: dict[str, Buffer] = {}
    first: dict[str, str] = {}
    for name in sorted(spans, key=lambda name: (spans[name][0], name in over)):
        birth, death = spans[name]
        first[name] = first[over[name]] if name in over else name
        birth = held[first[name]].birth if name in over else birth
        held[first[name]] = Buffer(first[name], elements[name] * bytes_per_element, birth, death, alignment)
    scratch = tuple(
        Buffer(f"scratch:{op.name}", scratch_bytes[op.name], step, step, alignment)
        for step, op in enumerate(ops)
        if scratch_bytes and scratch_bytes.get(op.name)
    )
    return (*held.values(), *scratch)


def memory_plan(
    ops: Iterable[Op], bytes_per_element: int = 1, in_place: bool = True, alignment: int = ALIGNMENT
) -> Placement:
    """The arena of these operators run in this order, with what it could need at least."""
    return place(buffers(tuple(ops), bytes_per_element, in_place, alignment))


def live_totals(ops: Iterable[Op], elements: Mapping[str, int], in_place: bool = False) -> tuple[int, ...]:
    """Elements held at each step."""
    return tuple(sum(elements[name] for name in names) for names in live_sets(ops, in_place))
