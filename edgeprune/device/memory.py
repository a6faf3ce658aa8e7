"""Peak activation memory by liveness, without a memory planner's padding or scratch."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from edgeprune.device.ops import Op

# Weights that a process holds on top of its activations: the file's pages and the copy that the runtime packs for its
# kernels. The dense and the smallest file of a fit on this machine (its stages `dense` and `floor`) show it.
WEIGHT_COPIES = 2


def live_sets(ops: Iterable[Op]) -> tuple[tuple[str, ...], ...]:
    """The tensors that must be held while each op runs, in execution order.

    That is what the op reads and writes plus everything made before that a later op reads. A graph input is held from
    the start until its last reader; a tensor nobody reads is an output and is held to the end.
    """
    sequence = tuple(ops)
    made = {op.output: step for step, op in enumerate(sequence)}
    last = {name: len(sequence) - 1 for name in made}
    read: dict[str, int] = {}
    for step, op in enumerate(sequence):
        for name in op.inputs:
            read[name] = step
    last.update(read)
    births = {name: made.get(name, 0) for name in last}
    return tuple(tuple(name for name in births if births[name] <= step <= last[name]) for step in range(len(sequence)))


def tensor_elements(ops: Iterable[Op]) -> dict[str, int]:
    """Elements of every tensor the ops name.

    A graph input's size is read off its first reader whose first input it is, which is the only place an op states
    it; an input that is never anyone's first input counts as large as that reader's output.
    """
    sequence = tuple(ops)
    elements = {op.output: op.out_elements for op in sequence}
    for op in sequence:
        for place, name in enumerate(op.inputs):
            elements.setdefault(name, op.in_elements if place == 0 else op.out_elements)
    return elements


def peak_activation_bytes(ops: Iterable[Op], bytes_per_element: int = 1) -> int:
    """The largest sum of live tensors over all steps, in bytes; 0 for no ops."""
    sequence = tuple(ops)
    return bytes_per_element * max(live_totals(sequence, tensor_elements(sequence)), default=0)


def live_totals(ops: Iterable[Op], elements: Mapping[str, int]) -> tuple[int, ...]:
    """Elements held at each step."""
    return tuple(sum(elements[name] for name in names) for names in live_sets(ops))
