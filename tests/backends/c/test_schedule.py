"""Steps, their order and their arena, on lowerings whose answers depend on every byte."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from edgeprune.backends import Array
from edgeprune.backends.c.model import Model, Operator, Tensor
from edgeprune.backends.c.schedule import Program, bytes_of, schedule
from edgeprune.errors import UnsupportedError
from tests.backends.c import toys
from tests.backends.c.toys import add, conv, model

pytestmark = pytest.mark.usefixtures("toy_lowerings")


def steps(program: Program) -> list[tuple[int, ...]]:
    return [call.positions for call in program.calls]


def simulated(program: Program, inputs: Sequence[Array]) -> list[Array]:
    """The program's answers, computed on its arena as the C library does."""
    net = program.model
    memory = np.full(program.arena_bytes, 85, np.int8)

    def view(tensor: int) -> Array:
        start = program.offset(tensor)
        assert start % 16 == 0 and start + bytes_of(net, tensor) <= program.arena_bytes
        return memory[start : start + bytes_of(net, tensor)]

    for index, values in zip(net.inputs, inputs, strict=True):
        view(index)[:] = values.ravel()
    for call in program.calls:
        read = [view(index) for index in call.reads]
        operator = call.step.operator
        if operator.kind == "CONV_2D":
            scratch = memory[call.scratch : call.scratch + call.lowered.scratch_bytes]
            scratch[:] = read[0]
            made = toys.mixed(operator, scratch, net.tensor(call.writes[0]).size)
            scratch[:] = 77
            written = [made if call.step.added is None else (made + read[1]).astype(np.int8)]
        else:
            written = toys.apply(operator, read)
        for index, values in zip(call.writes, written, strict=True):
            view(index)[:] = values
    return [view(index).reshape(net.tensor(index).shape).copy() for index in net.outputs]


@st.composite
def networks(draw: st.DrawFn) -> Model:
    """Random networks of toys: convolutions, sums, halves, views, several inputs and outputs, unused results."""
    inputs = draw(st.integers(1, 2))
    sizes = [draw(st.sampled_from([16, 32, 64])) for _ in range(inputs)]
    operators: list[Operator] = []
    for _ in range(draw(st.integers(1, 9))):
        source, size = draw(st.integers(0, len(sizes) - 1)), draw(st.sampled_from([16, 16, 32, 64]))
        kind = draw(st.sampled_from(["CONV_2D", "CONV_2D", "ADD", "ADD", "RESHAPE", "SPLIT"]))
        same = [at for at, other in enumerate(sizes) if other == sizes[source]]
        made = len(sizes)
        if kind == "ADD":
            operators.append(add(source, draw(st.sampled_from(same)), made))
            sizes.append(sizes[source])
        elif kind == "RESHAPE":
            operators.append(Operator("RESHAPE", (source,), (made,)))
            sizes.append(sizes[source])
        elif kind == "SPLIT":
            operators.append(Operator("SPLIT", (source,), (made, made + 1)))
            sizes += [sizes[source] // 2] * 2
        else:
            operators.append(conv((source, made), draw(st.integers(0, 9))))
            sizes.append(size)
    outputs = draw(st.lists(st.integers(0, len(sizes) - 1), min_size=1, max_size=3, unique=True))
    return model(sizes, operators, outputs, inputs)


@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(networks(), st.integers(0, 9))
def test_any_network_answers_the_same_on_its_arena(net: Model, seed: int) -> None:
    inputs, program = toys.noise(net, seed), schedule(net)
    for found, expected in zip(simulated(program, inputs), toys.answers(net, inputs), strict=True):
        assert np.array_equal(found, expected)
    assert program.bound_bytes <= program.arena_bytes
    assert program.scratch_bytes == max((c.lowered.scratch_bytes for c in program.calls), default=0)


def test_a_residual_network_never_holds_three_tensors() -> None:
    net = toys.residual(channels=64, stages=3)
    program = schedule(net)
    assert [len(positions) for positions in steps(program)] == [1, 1, 2, 1, 2, 1, 2, 1]
    # two tensors of 1,024 bytes and the scratch memory of a convolution, which is a copy of its input
    assert program.arena_bytes == program.bound_bytes == 3 * 1024
    inputs = toys.noise(net)
    assert np.array_equal(simulated(program, inputs)[0], toys.answers(net, inputs)[0])


def test_views_are_the_tensor_they_read_and_dead_operators_are_left_out() -> None:
    view = Operator("RESHAPE", (1,), (2,))
    program = schedule(model([16, 16, 16, 16, 16], [conv((0, 1)), view, conv((2, 3)), conv((1, 4))], [3]))
    assert steps(program) == [(0,), (2,)]
    assert program.offset(2) == program.offset(1)


def test_a_model_of_views_alone_has_no_steps() -> None:
    program = schedule(model([16, 16], [Operator("RESHAPE", (0,), (1,))], [1]))
    assert steps(program) == [] and program.arena_bytes == 16
    assert program.offset(1) == program.offset(0) and program.scratch_bytes == 0


@pytest.mark.parametrize(
    ("sizes", "operators", "outputs"),
    [
        ([16, 16, 16], [conv((0, 1)), add(1, 1, 2)], [2]),  # both summands are the convolution's
        ([16, 16, 16], [conv((0, 1)), add(1, 0, 2)], [2, 1]),  # its result is an output of the model
        ([16, 16, 16, 16], [conv((0, 1)), add(1, 0, 2), conv((1, 3))], [2, 3]),  # another step reads it
        ([16, 16, 16], [conv((0, 1), alone=True), add(1, 0, 2)], [2]),  # its lowering does not
    ],
)
def test_sums_that_stay_steps(sizes: list[int], operators: list[Operator], outputs: list[int]) -> None:
    assert all(len(positions) == 1 for positions in steps(schedule(model(sizes, operators, outputs))))


def test_a_sum_over_the_convolutions_own_input_lies_apart_from_it() -> None:
    net = model([64, 64, 64], [conv((0, 1)), add(1, 0, 2)], [2])
    program = schedule(net)
    assert steps(program) == [(0, 1)]
    assert program.offset(2) != program.offset(0)
    inputs = toys.noise(net)
    assert np.array_equal(simulated(program, inputs)[0], toys.answers(net, inputs)[0])


def test_of_two_convolutions_the_one_takes_the_sum_that_lowers_the_peak() -> None:
    # The branch 1-2-3 is small, the shortcut 4 is made from the input: made first it frees the input, so that only
    # the end of the branch can take the sum along.
    sizes = [4096, 64, 64, 256, 256, 256]
    branch = [conv((0, 1)), conv((1, 2)), conv((2, 3))]
    first = schedule(model(sizes, [*branch, conv((0, 4)), add(3, 4, 5)], [5]))
    second = schedule(model(sizes, [conv((0, 4)), *branch, add(3, 4, 5)], [5]))
    assert first.arena_bytes == second.arena_bytes


def test_branches_run_one_after_the_other() -> None:
    operators = [conv((0, 1)), conv((0, 2)), conv((1, 3)), conv((2, 4)), add(3, 4, 5)]
    program = schedule(model([16, 2048, 2048, 16, 16, 16], operators, [5]))
    assert program.arena_bytes < 2 * 2048 + 2048  # the scratch memory of a convolution is a copy of its input


def test_a_view_of_a_constant_is_refused() -> None:
    net = model([16, 16], [Operator("RESHAPE", (2,), (1,))], [1])
    constant = Tensor("weights", (16,), "int8", toys.SCALE, np.zeros(16, np.int8))
    with pytest.raises(UnsupportedError, match="a RESHAPE of a constant"):
        schedule(Model((*net.tensors, constant), net.operators, net.inputs, net.outputs))


def test_a_constant_output_is_refused() -> None:
    net = model([16, 16], [conv((0, 1))], [2])
    constant = Tensor("weights", (16,), "int8", toys.SCALE, np.zeros(16, np.int8))
    with pytest.raises(UnsupportedError, match="an output of the model is a constant") as caught:
        schedule(Model((*net.tensors, constant), net.operators, net.inputs, net.outputs))
    assert caught.value.where == "weights"


@pytest.mark.parametrize(
    ("operator", "message"),
    [
        (conv((0, 1), refused=True), "CONV_2D: dilation 9"),
        (Operator("ATAN2", (0,), (1,)), "the operator ATAN2 cannot be written as C"),
    ],
)
def test_what_cannot_be_lowered_is_named_with_its_place(operator: Any, message: str) -> None:
    with pytest.raises(UnsupportedError, match=message) as caught:
        schedule(model([16, 16], [operator], [1]))
    assert caught.value.where == "net/t1*/"


def test_an_operator_that_nothing_needs_is_not_checked() -> None:
    program = schedule(model([16, 16, 16], [conv((0, 1)), conv((0, 2), refused=True)], [1]))
    assert steps(program) == [(0,)]
