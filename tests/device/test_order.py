"""Orders of execution against brute force."""

from __future__ import annotations

from hypothesis import given, settings

from edgeprune.device.memory import live_totals, tensor_elements
from edgeprune.device.ops import Op
from edgeprune.device.order import ordered
from tests.device.test_memory import programs


def peak(ops: tuple[Op, ...]) -> int:
    return max(live_totals(ops, tensor_elements(ops), in_place=True))


def orders(ops: tuple[Op, ...], done: tuple[Op, ...] = ()) -> list[tuple[Op, ...]]:
    """All orders in which everything is computed before it is read."""
    if len(done) == len(ops):
        return [done]
    there = {op.output for op in done} | {"x"}
    ready = [op for op in ops if op not in done and there.issuperset(op.inputs)]
    return [whole for op in ready for whole in orders(ops, (*done, op))]


@settings(max_examples=80, deadline=None)
@given(programs(most=6))
def test_the_order_is_the_best_there_is(ops: tuple[Op, ...]) -> None:
    assert peak(ordered(ops)) == min(peak(order) for order in orders(ops))


@settings(max_examples=80, deadline=None)
@given(programs(most=14))
def test_an_order_computes_before_it_reads_and_is_never_worse(ops: tuple[Op, ...]) -> None:
    found = ordered(ops)
    there = {"x"}
    for op in found:
        assert there.issuperset(op.inputs)
        there.add(op.output)
    assert sorted(op.name for op in found) == sorted(op.name for op in ops)
    assert peak(found) <= peak(ops)


def test_one_branch_is_finished_before_the_next() -> None:
    def op(name: str, source: str, size: int) -> Op:
        return Op(name, "conv", (source,), name, 1, size)

    join = Op("join", "concat", ("a2", "b2"), "join", 1, 2)
    ops = (op("a1", "x", 100), op("b1", "x", 100), op("a2", "a1", 1), op("b2", "b1", 1), join)
    assert peak(ops) == 201 and peak(ordered(ops)) == 102
    straight = (op("a1", "x", 5), op("a2", "a1", 5))
    assert ordered(straight) == straight
