from hypothesis import given
from hypothesis import strategies as st

from edgeprune.device.memory import live_sets, live_totals, peak_activation_bytes, tensor_elements
from edgeprune.device.ops import Op


@st.composite
def programs(draw: st.DrawFn) -> tuple[Op, ...]:
    """Random straight-line programs: every op reads some earlier tensors and writes one."""
    sizes = {"x": draw(st.integers(1, 50))}
    ops: list[Op] = []
    for step in range(draw(st.integers(1, 9))):
        reads = tuple(draw(st.lists(st.sampled_from(sorted(sizes)), min_size=1, max_size=3, unique=True)))
        if step == 0:
            reads = ("x",)
        size = draw(st.integers(1, 50))
        ops.append(Op(f"t{step}", "other", reads, f"t{step}", sizes[reads[0]], size, in_positions=1, out_positions=1))
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


@given(programs(), st.sampled_from([1, 4]))
def test_peak_is_the_largest_step_and_scales_with_the_element(ops: tuple[Op, ...], width: int) -> None:
    elements = tensor_elements(ops)
    totals = [sum(elements[name] for name in held(ops, step)) for step in range(len(ops))]
    assert list(live_totals(ops, elements)) == totals
    assert peak_activation_bytes(ops, width) == width * max(totals)


def test_a_residual_holds_its_shortcut() -> None:
    def op(name: str, *reads: str) -> Op:
        return Op(name, "conv", reads, name, 4, 4, in_positions=100, out_positions=100)

    chain = (op("a", "x"), op("b", "a"), op("c", "b"))
    shortcut = (op("a", "x"), op("b", "a"), op("c", "b"), op("sum", "c", "a"))
    assert peak_activation_bytes(chain) == 800
    assert peak_activation_bytes(shortcut) == 1200
    assert peak_activation_bytes(()) == 0


def test_a_second_operand_from_outside_counts_as_large_as_the_output() -> None:
    op = Op("y", "add", ("a", "b"), "y", 3, 3, in_positions=5, out_positions=5)
    assert tensor_elements([op]) == {"y": 15, "a": 15, "b": 15}
