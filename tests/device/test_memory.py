from hypothesis import given
from hypothesis import strategies as st

from edgeprune.device.memory import (
    buffers,
    fused_sums,
    lifetimes,
    live_sets,
    live_totals,
    memory_plan,
    shared,
    tensor_elements,
)
from edgeprune.device.ops import Kind, Op


@st.composite
def programs(draw: st.DrawFn, most: int = 9) -> tuple[Op, ...]:
    """Random straight-line programs: every op reads some earlier tensors and writes one."""
    sizes = {"x": draw(st.integers(1, 50))}
    ops: list[Op] = []
    for step in range(draw(st.integers(1, most))):
        reads = tuple(draw(st.lists(st.sampled_from(sorted(sizes)), min_size=1, max_size=3, unique=True)))
        if step == 0:
            reads = ("x",)
        elementwise = draw(st.booleans())
        size = sizes[reads[0]] if elementwise else draw(st.integers(1, 50))
        kind: Kind = "add" if elementwise else "other"
        ops.append(Op(f"t{step}", kind, reads, f"t{step}", sizes[reads[0]], size, in_positions=1, out_positions=1))
        sizes[f"t{step}"] = size
    return tuple(ops)


def held(ops: tuple[Op, ...], step: int) -> set[str]:
    """Brute force: which tensors would break a later reader, or the caller, if they were overwritten at `step`."""
    names = {"x"} | {op.output for op in ops}
    made = {op.output: at for at, op in enumerate(ops)} | {"x": 0}
    keep = set()
    for name in names:
        readers = [at for at, op in enumerate(ops) if name in op.inputs]
        exists = made[name] <= step
        output = not readers and name != "x"
        needed = output or any(at >= step for at in readers) or (made[name] == step and name != "x")
        if exists and needed:
            keep.add(name)
    return keep


@given(programs())
def test_live_sets_hold_exactly_what_is_still_needed(ops: tuple[Op, ...]) -> None:
    assert [set(names) for names in live_sets(ops)] == [held(ops, step) for step in range(len(ops))]


@given(programs())
def test_totals_are_the_sums_of_what_is_held(ops: tuple[Op, ...]) -> None:
    elements = tensor_elements(ops)
    totals = [sum(elements[name] for name in held(ops, step)) for step in range(len(ops))]
    assert list(live_totals(ops, elements)) == totals


@given(programs(), st.sampled_from([1, 4]), st.booleans())
def test_an_arena_holds_every_tensor_until_it_was_read(ops: tuple[Op, ...], width: int, in_place: bool) -> None:
    """Run the program on an arena: whoever reads a tensor finds what was written, and outputs are there at the end."""
    plan, over = memory_plan(ops, width, in_place), shared(ops) if in_place else {}
    elements = tensor_elements(ops)

    def where(name: str) -> range:
        first = name
        while first in over:
            first = over[first]
        return range(plan.offsets[first], plan.offsets[first] + elements[name] * width)

    owner: dict[int, str] = dict.fromkeys(where("x"), "x")
    for op in ops:
        for name in op.inputs:
            assert {owner[byte] for byte in where(name)} == {name}
        owner |= dict.fromkeys(where(op.output), op.output)
    for name in {op.output for op in ops} - {name for op in ops for name in op.inputs}:
        assert {owner[byte] for byte in where(name)} == {name}
    assert plan.total_bytes >= width * max(live_totals(ops, elements, in_place))
    assert all(offset % 16 == 0 for offset in plan.offsets.values())


@given(programs())
def test_writing_over_inputs_never_needs_more(ops: tuple[Op, ...]) -> None:
    elements = tensor_elements(ops)
    assert max(live_totals(ops, elements, in_place=True)) <= max(live_totals(ops, elements))


def conv(name: str, *reads: str) -> Op:
    return Op(name, "conv", reads, name, 4, 4, in_positions=100, out_positions=100)


def test_a_residual_sum_lies_in_the_output_of_the_convolution_that_feeds_it() -> None:
    sum_ = Op("sum", "add", ("c", "a"), "sum", 4, 4, in_positions=100, out_positions=100)
    ops = (conv("a", "x"), conv("b", "a"), conv("c", "b"), sum_)
    assert shared(ops) == {"sum": "c"}
    assert live_totals(ops, tensor_elements(ops)) == (800, 800, 1200, 1200)
    assert live_totals(ops, tensor_elements(ops), in_place=True) == (800, 800, 1200, 800)
    assert {buffer.name for buffer in buffers(ops)} == {"x", "a", "b", "c"}


def test_what_is_read_later_or_is_an_output_is_not_written_over() -> None:
    relu = Op("relu", "activation", ("a",), "relu", 4, 4, in_positions=100, out_positions=100)
    assert shared((conv("a", "x"), relu)) == {"relu": "a"}
    assert shared((conv("a", "x"), relu), outputs=["a"]) == {}
    assert shared((conv("a", "x"), relu, conv("b", "a"))) == {}
    assert lifetimes((conv("a", "x"), relu, conv("b", "relu")), outputs=["a"])["a"] == (0, 2)


def test_a_smaller_input_is_not_written_over() -> None:
    gate = Op("y", "mul", ("gate", "a"), "y", 4, 4, in_positions=1, out_positions=100)
    ops = (conv("a", "x"), Op("gate", "dense", ("x",), "gate", 4, 4), gate)
    assert shared(ops) == {"y": "a"}


def test_a_residual_holds_its_shortcut() -> None:
    chain = (conv("a", "x"), conv("b", "a"), conv("c", "b"))
    shortcut = (*chain, conv("sum", "c", "a"))
    assert memory_plan(chain).total_bytes == 800
    assert memory_plan(shortcut).total_bytes == 1200
    assert memory_plan(()).total_bytes == 0


def test_scratch_is_held_while_its_operator_runs() -> None:
    found = buffers((conv("a", "x"), conv("b", "a")), scratch_bytes={"b": 64})
    assert (found[-1].name, found[-1].size_bytes, found[-1].birth, found[-1].death) == ("scratch:b", 64, 1, 1)


def test_a_second_operand_from_outside_counts_as_large_as_the_output() -> None:
    op = Op("y", "add", ("a", "b"), "y", 3, 3, in_positions=5, out_positions=5)
    assert tensor_elements([op]) == {"y": 15, "a": 15, "b": 15}


def test_a_sum_fused_into_the_later_convolution_lies_over_the_other_summand() -> None:
    sum_ = Op("relu", "add", ("c", "a"), "relu", 4, 4, in_positions=100, out_positions=100, nodes=("add_1", "relu"))
    ops = (conv("a", "x"), conv("b", "a"), conv("c", "b"), sum_)
    fused = fused_sums(ops)
    assert [(op.name, op.inputs, op.output) for op in fused[2:]] == [("c", ("b", "a"), "relu")]
    assert fused[2].nodes == ("add_1", "relu") and fused_sums(fused) == fused
    assert shared(fused) == {"relu": "a"}
    assert live_totals(fused, tensor_elements(fused), in_place=True) == (800, 800, 800)
    both = (conv("a", "x"), conv("b", "x"), Op("add", "add", ("a", "b"), "y", 4, 4, 100, 100))
    assert [op.inputs for op in fused_sums(both)] == [("x",), ("x", "a")]


def test_sums_that_a_convolution_cannot_take_stay() -> None:
    def after(*ops: Op) -> tuple[Op, ...]:
        return fused_sums((conv("a", "x"), conv("b", "a"), *ops))

    def pair(name: str, *reads: str, channels: int = 4) -> Op:
        return Op(name, "add", reads, name, channels, channels, in_positions=100, out_positions=100)

    for kept in (
        (pair("sub", "b", "a"),),
        (pair("add", "b", "b"),),
        (pair("add", "b", "a", channels=8),),
        (pair("add", "b", "a"), conv("d", "b")),
        (pair("add", "x", "a"), conv("d", "a")),
    ):
        assert len(after(*kept)) == 2 + len(kept)


def test_a_convolution_that_reads_its_own_summand_does_not_lie_over_it() -> None:
    ops = (conv("a", "x"), Op("b", "conv", ("a", "a"), "b", 4, 4, in_positions=100, out_positions=100))
    assert shared(ops) == {}
