"""Which steps a model becomes, in which order they run, and where their tensors lie in the arena.

Reshapes vanish: their result is the tensor they read; padding moves into convolutions (`rewrite`). A convolution takes
along the addition that alone reads it, so that the sum lies in the other summand's bytes and the convolution's own
result is never stored. The order is the one that holds least at once. The arena is planned by the rules that the
solver's RAM limit uses (`edgeprune.device.arena`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from edgeprune.backends.c.lowering import Lowered, Step, Variant, lowering
from edgeprune.backends.c.model import Model, Operator
from edgeprune.backends.c.rewrite import absorb_padding
from edgeprune.device import arena
from edgeprune.device.arena import Task
from edgeprune.device.memory import ALIGNMENT
from edgeprune.device.order import arranged
from edgeprune.device.placement import place
from edgeprune.errors import UnsupportedError

_VIEWS = frozenset(["RESHAPE", "SQUEEZE", "EXPAND_DIMS"])
_ADDING = frozenset(["CONV_2D", "DEPTHWISE_CONV_2D"])
_TRIED = 32  # residual sums whose other convolution is tried as well; more are never met

Positions = tuple[int, ...]  # of an operator in the model, or of a convolution and the addition it takes along


@dataclass(frozen=True, eq=False)
class Call:
    """A step with its C.

    Attributes:
        positions: Of its operators in the model.
        reads, writes: The tensors that its activations and outputs lie in, in order.
        scratch: Where its working memory lies in the arena; 0 when it has none.
    """

    positions: Positions
    step: Step
    lowered: Lowered
    reads: tuple[int, ...]
    writes: tuple[int, ...]
    scratch: int = 0


@dataclass(frozen=True, eq=False)
class Program:
    """A model as calls in order, and its arena.

    Attributes:
        model: With padding moved into convolutions, each operator at the position it had.
        roots: The tensor that each activation lies in: another one only where it is a view.
        offsets: Where each root lies in the arena, in bytes.
        arena_bytes: Inputs, outputs and working memory included.
        bound_bytes: What is proven that no arena can go below, in this order of steps.
    """

    model: Model
    calls: tuple[Call, ...]
    roots: Mapping[int, int]
    offsets: Mapping[int, int]
    arena_bytes: int
    bound_bytes: int

    def offset(self, tensor: int) -> int:
        """Where an activation lies in the arena."""
        return self.offsets[self.roots[tensor]]

    @property
    def scratch_bytes(self) -> int:
        """The most working memory of a step."""
        return max((call.lowered.scratch_bytes for call in self.calls), default=0)


def schedule(model: Model, variant: Variant = "plain") -> Program:
    """The program of a model for a kind of core.

    Raises:
        UnsupportedError: An operator cannot be lowered exactly, or an output is a constant.
    """
    model = absorb_padding(model)
    roots = _roots(model)
    draft = _Draft(model, variant, roots, _needed(model, roots))
    for position in draft.needed:
        _check(model, model.operators[position])
    order = draft.best()
    calls = tuple(draft.call(positions) for positions in order)
    return _placed(model, calls, roots)


def _roots(model: Model) -> dict[int, int]:
    """For every activation the tensor that it lies in."""
    roots = {index: index for index in model.inputs}
    for operator in model.operators:
        if operator.kind not in _VIEWS:
            roots |= {index: index for index in operator.outputs}
            continue
        source = operator.inputs[0]
        if source not in roots:
            raise UnsupportedError(f"a {operator.kind} of a constant", where=model.tensor(operator.outputs[0]).name)
        roots[operator.outputs[0]] = roots[source]
    for index in model.outputs:
        if index not in roots:
            raise UnsupportedError("an output of the model is a constant", where=model.tensor(index).name)
    return roots


def _needed(model: Model, roots: Mapping[int, int]) -> tuple[int, ...]:
    """Positions of the operators that the outputs depend on, views left out."""
    wanted, found = {roots[index] for index in model.outputs}, list[int]()
    for position in range(len(model.operators) - 1, -1, -1):
        operator = model.operators[position]
        if operator.kind not in _VIEWS and wanted & set(operator.outputs):
            found.append(position)
            wanted |= {roots[index] for index in model.activations(operator)}
    return tuple(reversed(found))


def _check(model: Model, operator: Operator) -> None:
    """Refuse an operator with its name and where it is."""
    try:
        lowering(operator.kind).check(model, operator)
    except UnsupportedError as error:
        where = model.tensor(operator.outputs[0]).name
        message = error.message if operator.kind in error.message else f"{operator.kind}: {error.message}"
        raise UnsupportedError(message, where=error.where or where, hint=error.hint) from None


@dataclass
class _Draft:
    """A model whose steps are being chosen."""

    model: Model
    variant: Variant
    roots: Mapping[int, int]
    needed: tuple[int, ...]
    _calls: dict[Positions, Call | None] = field(default_factory=dict)

    def best(self) -> list[Positions]:
        """The steps in order: of every sum of two convolutions, the one takes it that lowers the peak.

        The later one does unless the other one is better; a sum that no convolution can take stays a step.
        """
        choices = {at: found for at in self.needed if (found := self._convolutions(at))}
        taken = {at: latest for at, (latest, *_) in choices.items()}
        order, least = self._ordered(taken)
        for at, (_, earlier) in [(at, found) for at, found in choices.items() if len(found) > 1][:_TRIED]:
            tried = {**taken, at: earlier}
            changed, top = self._ordered(tried)
            if top < least:
                taken, order, least = tried, changed, top
        return order

    def call(self, positions: Positions) -> Call:
        """The step of these operators."""
        found = self._lowered(positions)
        assert found is not None, "what cannot be lowered was refused, or not fused"
        return found

    def _convolutions(self, at: int) -> list[int]:
        """Positions of the convolutions that can take the addition at a position along, the latest first."""
        model, operator = self.model, self.model.operators[at]
        summands = model.activations(operator)
        if operator.kind != "ADD" or len(set(summands)) != 2:
            return []
        result = model.tensor(operator.outputs[0])
        if any((model.tensor(i).shape, model.tensor(i).dtype) != (result.shape, "int8") for i in summands):
            return []
        fitting = [
            conv
            for conv in self.needed
            if (source := model.operators[conv]).kind in _ADDING
            and source.outputs[0] in summands
            and model.readers[source.outputs[0]] == (at,)
            and source.outputs[0] not in model.outputs
        ]
        return [conv for conv in reversed(fitting) if self._lowered((conv, at)) is not None]

    def _lowered(self, positions: Positions) -> Call | None:
        """The step of these operators, lowered once; None where a convolution cannot take the addition along."""
        if positions not in self._calls:
            self._calls[positions] = self._lower(positions)
        return self._calls[positions]

    def _lower(self, positions: Positions) -> Call | None:
        model = self.model
        step = Step(*(model.operators[at] for at in positions))
        reads = list(model.activations(step.operator))
        if step.added is not None:
            reads += [index for index in model.activations(step.added) if index != step.operator.outputs[0]]
        writes = step.operator.outputs if step.added is None else step.added.outputs
        try:
            lowered = lowering(step.operator.kind).lower(model, step, self.variant)
        except UnsupportedError:
            if step.added is None:
                raise
            return None
        return Call(positions, step, lowered, tuple(self.roots[index] for index in reads), writes)

    def _ordered(self, taken: Mapping[int, int]) -> tuple[list[Positions], int]:
        """The steps in the order that holds least, and how many bytes that is."""
        steps = [(taken[at], at) if at in taken else (at,) for at in self.needed if at not in taken.values()]
        run, sizes = [_task(self.call(step)) for step in steps], _sizes(self.model)
        outputs = {_name(self.roots[index]) for index in self.model.outputs}
        order = arranged(run, sizes, outputs)
        return [steps[at] for at in order], arena.peak([run[at] for at in order], sizes, outputs)


def _name(tensor: int) -> str:
    return f"t{tensor}"


def _sizes(model: Model) -> dict[str, int]:
    """Bytes of every tensor."""
    return {_name(index): bytes_of(model, index) for index in range(len(model.tensors))}


def bytes_of(model: Model, tensor: int) -> int:
    """Bytes that a tensor takes."""
    found = model.tensor(tensor)
    return found.size * np.dtype(found.dtype).itemsize


def _task(call: Call) -> Task:
    # A tensor that is read twice may only be written over where both readers allow it.
    apart = {name for at, name in enumerate(call.reads) if at not in call.lowered.overwrites}
    over = tuple(_name(call.reads[at]) for at in call.lowered.overwrites if call.reads[at] not in apart)
    reads, writes = tuple(map(_name, call.reads)), tuple(map(_name, call.writes))
    return Task("-".join(map(str, call.positions)), reads, writes, over, call.lowered.scratch_bytes)


def _placed(model: Model, calls: Sequence[Call], roots: Mapping[int, int]) -> Program:
    """The program with its arena. Who writes the inputs and reads the outputs are tasks like any other."""
    run = [_task(call) for call in calls]
    outputs = tuple(dict.fromkeys(_name(roots[index]) for index in model.outputs))
    whole = [Task("inputs", (), tuple(map(_name, model.inputs))), *run, Task("outputs", outputs, ())]
    sizes = _sizes(model)
    over = arena.shared(whole, sizes, ())
    found = place(arena.buffers(whole, sizes, over, (), ALIGNMENT))
    names = {name for task in whole for name in (*task.reads, *task.writes)}
    offsets = {index: _name(index) for index in set(roots.values()) if _name(index) in names}
    return Program(
        model,
        tuple(
            Call(c.positions, c.step, c.lowered, c.reads, c.writes, found.offsets.get(f"scratch:{task.name}", 0))
            for c, task in zip(calls, run, strict=True)
        ),
        roots,
        {index: found.offsets[arena.bottom(name, over)] for index, name in offsets.items()},
        found.total_bytes,
        found.lower_bytes,
    )
