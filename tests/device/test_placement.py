"""Placements against brute force and their own promises."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgeprune.device.placement import Buffer, live_bytes, place


@st.composite
def demands(draw: st.DrawFn, most: int) -> tuple[Buffer, ...]:
    """Random buffers over a few steps."""
    found = []
    for i in range(draw(st.integers(1, most))):
        birth = draw(st.integers(0, 7))
        death = draw(st.integers(birth, 8))
        size = draw(st.integers(0, 40))
        found.append(Buffer(f"b{i}", size, birth, death, draw(st.sampled_from([1, 1, 4, 16]))))
    return tuple(found)


def brute_force(buffers: tuple[Buffer, ...]) -> int:
    """Some order of placing each buffer above those before it that it meets is optimal: that of its offsets."""
    best = None
    for order in itertools.permutations(buffers):
        offsets: dict[str, int] = {}
        for buffer in order:
            below = [offsets[b.name] + b.size_bytes for b in order if b.name in offsets and b.meets(buffer)]
            offsets[buffer.name] = -(-max(below, default=0) // buffer.alignment) * buffer.alignment
        total = max(offsets[b.name] + b.size_bytes for b in order)
        best = total if best is None else min(best, total)
    assert best is not None
    return best


def holds(buffers: tuple[Buffer, ...]) -> None:
    """No two live buffers overlap, and the total is not below what is proven to be needed."""
    found = place(buffers)
    for a, b in itertools.combinations(buffers, 2):
        if a.meets(b) and a.size_bytes and b.size_bytes:
            start, other = found.offsets[a.name], found.offsets[b.name]
            assert start + a.size_bytes <= other or other + b.size_bytes <= start
    assert all(found.offsets[b.name] % b.alignment == 0 for b in buffers)
    tops = [found.offsets[b.name] + b.size_bytes for b in buffers if b.size_bytes]
    assert found.total_bytes == max(tops, default=0)
    held = max(sum(b.size_bytes for b in buffers if b.birth <= t <= b.death) for t in range(9))
    assert held <= found.lower_bytes <= found.total_bytes
    assert found.gap >= 0
    assert place(buffers) == found


def is_optimal(buffers: tuple[Buffer, ...]) -> None:
    real = tuple(b for b in buffers if b.size_bytes)
    found = place(buffers)
    assert found.gap == 0
    assert found.total_bytes == (brute_force(real) if real else 0)


@settings(max_examples=40, deadline=None)
@given(demands(most=30))
def test_no_two_live_buffers_overlap_and_the_total_is_bounded(buffers: tuple[Buffer, ...]) -> None:
    holds(buffers)


@settings(max_examples=40, deadline=None)
@given(demands(most=6))
def test_small_placements_are_optimal_and_proven(buffers: tuple[Buffer, ...]) -> None:
    is_optimal(buffers)


@pytest.mark.slow
@settings(max_examples=200, deadline=None)
@given(demands(most=30), demands(most=6))
def test_many_placements_hold_and_small_ones_are_optimal(buffers: tuple[Buffer, ...], few: tuple[Buffer, ...]) -> None:
    holds(buffers)
    is_optimal(few)


def test_a_total_above_the_live_bytes_can_be_proven_optimal() -> None:
    buffers = (Buffer("a", 17, 0, 0, 16), Buffer("b", 17, 0, 0, 16), Buffer("c", 1, 0, 0))
    found = place(buffers)
    assert live_bytes(buffers) == 35
    assert found.total_bytes == found.lower_bytes == brute_force(buffers) == 49


def test_nothing_needs_nothing() -> None:
    found = place(())
    assert (found.total_bytes, found.lower_bytes, found.gap) == (0, 0, 0.0)
