"""What is on the front, and what a sweep's verdict is."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeprune.cost import Source
from edgeprune.documents import BudgetRow
from edgeprune.errors import MeasurementError
from edgeprune.front.documents import (
    Failure,
    PointRow,
    SweepRecord,
    axis,
    dense_row,
    failed_row,
    failure,
    marked,
    point_row,
)
from edgeprune.front.grid import Point
from edgeprune.spec import Spec
from tests.front.made_up import made_up_sweep, row
from tests.report.made_up import infeasible_record, made_up_record, missed_record

POINT = Point(name="rpi4-20ms", target="rpi4", measured=False, spec=Spec())


@st.composite
def rows(draw: st.DrawFn) -> list[PointRow]:
    """Points of two targets with few different numbers, so that many are equal; some without any."""
    found = []
    for number in range(draw(st.integers(1, 9))):
        known = draw(st.integers(0, 4)) > 0
        found.append(
            row(
                f"p{number}",
                draw(st.integers(1, 3)),
                float(draw(st.integers(1, 4))) if known else None,
                draw(st.integers(0, 3)) / 4 if known else None,
                target=draw(st.sampled_from(["rpi4", "rpi5"])),
                size_bytes=draw(st.integers(1, 3)),
                budget=BudgetRow(latency_ns=5, size_bytes=draw(st.sampled_from([None, 9]))),
            )
        )
    return found


@given(points=rows(), higher=st.booleans())
def test_the_front_is_what_nothing_else_is_as_good_as(points: list[PointRow], higher: bool) -> None:
    found = {point.name: point for point in marked(points, higher_is_better=higher)}
    assert [point.model_copy(update={"dominated_by": None}) for point in found.values()] == points
    sized = any(point.budget.size_bytes for point in points)

    def numbers(point: PointRow) -> tuple[float, ...]:
        assert point.validation is not None and point.latency_ns is not None and point.size_bytes is not None
        metric = -point.validation if higher else point.validation
        return (metric, point.latency_ns, point.size_bytes if sized else 0)

    known = [point for point in found.values() if point.latency_ns is not None]
    for point in found.values():
        if point.dominated_by is None:
            continue
        best = found[point.dominated_by]
        assert best.target == point.target and best.dominated_by is None
        assert all(a <= b for a, b in zip(numbers(best), numbers(point), strict=True))
    front = [point for point in known if point.dominated_by is None]
    for a in front:
        for b in front:
            no_worse = all(x <= y for x, y in zip(numbers(a), numbers(b), strict=True))
            assert a is b or a.target != b.target or not no_worse
    assert all(point.dominated_by is None for point in found.values() if point.latency_ns is None)


def test_points_of_different_sources_are_not_compared() -> None:
    worse = row("b", 9, 5.0, 0.5, source=Source.MEASURED)
    assert [point.dominated_by for point in marked([row("a", 9, 4.0, 0.9), worse], higher_is_better=True)] == [None] * 2


def test_estimates_are_compared_by_the_upper_end_of_their_interval() -> None:
    vague = row("a", 9, 4.0, 0.9, latency_interval_ns=(1_000_000, 8_000_000))
    sure = row("b", 9, 5.0, 0.9, latency_interval_ns=(4_900_000, 5_100_000))
    assert [point.dominated_by for point in marked([vague, sure], higher_is_better=True)] == ["b", None]


@pytest.mark.parametrize(
    ("codes", "expected"),
    [
        ([("met", 0), ("met", 0)], 0),
        ([("met", 0), ("infeasible", 3), ("missed", 4)], 3),
        ([("met", 0), ("missed", 4)], 4),
        ([("infeasible", 3), ("failed", 6), ("failed", 1)], 6),
    ],
)
def test_the_exit_code_is_that_of_the_worst_point(codes: list[tuple[str, int]], expected: int) -> None:
    points = tuple(row(str(i), 9, 1.0, 0.5, verdict=v, exit_code=code) for i, (v, code) in enumerate(codes))
    assert made_up_sweep(points=points).exit_code == expected


def test_a_record_comes_back_from_its_text() -> None:
    record = made_up_sweep()
    assert SweepRecord.model_validate_json(record.to_json()) == record


def test_the_axis_is_the_cost_with_most_limits() -> None:
    sizes = [row("a", 9, 1.0, 0.5, budget=BudgetRow(latency_ns=5, size_bytes=size)) for size in (1, 2)]
    assert axis(sizes) == "size_bytes" and axis(made_up_sweep().points) == "latency_ns"


def test_the_row_of_a_fit_holds_its_deployed_file() -> None:
    record = made_up_record()
    found = point_row(POINT, record)
    assert (found.verdict, found.latency_ns, found.size_bytes) == ("met", record.latency_ns, record.size_bytes)
    assert found.test == 0.9701 and found.validation == next(iter(record.metric.validation_artifacts.values()), None)
    assert found.reason == "" and point_row(POINT, missed_record()).reason.startswith("drop: 2.10 pp")
    dense = dense_row("rpi4", record)
    assert dense is not None and dense.latency_ns == record.costs[1].figures[0].latency_ns


def test_the_row_of_an_infeasible_budget_has_a_reason_and_no_costs() -> None:
    found = point_row(POINT, infeasible_record())
    assert found.latency_ns is None and found.size_bytes is None and found.exit_code == 3
    assert "needs 4.1 ms, budget 1 ms" in found.reason and "stem.conv" in found.reason
    assert dense_row("rpi4", infeasible_record()) is None


def test_an_error_becomes_one_line_and_keeps_its_code() -> None:
    why = failure(MeasurementError("slower by 9 %", where="m.tflite", hint="close\nother programs"))
    found = failed_row(POINT, BudgetRow(), Path("x"), why)
    assert (found.exit_code, found.reason) == (6, "slower by 9 %; at m.tflite; close other programs")
    bug = failure(KeyError("stem"))
    assert (bug.exit_code, bug.code) == (1, "EDGEPRUNE") and "a bug in edgeprune: KeyError: 'stem'" in bug.text
    assert Failure(code="USAGE", exit_code=2, message="x").text == "x"
