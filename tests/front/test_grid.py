"""The points of a sweep: what ranges mean, and which combinations are refused before anything runs."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeprune.errors import UsageError
from edgeprune.front.grid import grid, limits, slug
from edgeprune.spec import BudgetSpec, Spec, TargetSpec
from edgeprune.units import parse_time
from tests.front.conftest import BOARD


def test_a_range_is_a_geometric_series_with_the_ends_as_written() -> None:
    assert limits("5ms:40ms:4", "latency") == ("5ms", "10ms", "20ms", "40ms")
    assert limits("64KiB : 1MiB : 5", "ram") == ("64KiB", "128KiB", "256KiB", "512KiB", "1MiB")
    assert limits("5ms:40ms:6", "latency") == ("5ms", "7.58ms", "11.5ms", "17.4ms", "26.4ms", "40ms")
    assert limits("40ms:5ms:2", "latency") == ("40ms", "5ms")


@given(
    first=st.floats(1.0, 900.0),
    factor=st.floats(1.5, 1000.0),
    count=st.integers(2, 12),
    units=st.tuples(st.sampled_from(["us", "ms"]), st.sampled_from(["us", "ms", "s"])),
)
def test_neighbours_of_a_range_are_one_factor_apart(
    first: float, factor: float, count: int, units: tuple[str, str]
) -> None:
    scales = {"us": 1e-6, "ms": 1e-3, "s": 1.0}
    last = first * factor * scales[units[0]] / scales[units[1]]
    found = limits(f"{first:.6g}{units[0]}:{last:.6f}{units[1]}:{count}", "latency") if last > 1e-3 else ()
    seconds = [parse_time(text) for text in found]
    ratios = [b / a for a, b in pairwise(seconds)]
    assert len(seconds) in (0, count)
    assert all(ratio == pytest.approx(factor ** (1 / (count - 1)), rel=0.012) for ratio in ratios)


def test_a_list_is_taken_as_it_is_and_equal_limits_once() -> None:
    assert limits("5ms, 10ms,0.005s", "latency") == ("5ms", "10ms")
    assert limits("64KiB", "size") == ("64KiB",)
    assert limits("5ms:5ms:3", "latency") == ("5ms",)


@pytest.mark.parametrize(
    ("text", "what", "message"),
    [
        ("5ms:40ms", "latency", "cannot read '5ms:40ms'"),
        ("5ms:40ms:1", "latency", "cannot read"),
        ("5ms:40ms:six", "latency", "cannot read"),
        ("5ms:40ms:3:1", "latency", "cannot read"),
        ("5:40ms:3", "latency", "'5' has no unit"),
        ("5ms:40:3", "latency", "'40' has no unit"),
        ("5ms,,6ms", "latency", "cannot read ''"),
        ("64K,1MiB", "ram", "'64K' has no clear unit"),
    ],
)
def test_each_mistake_in_a_range_is_named(text: str, what: str, message: str) -> None:
    with pytest.raises(UsageError, match=message) as caught:
        limits(text, what)
    assert caught.value.hint


def test_every_target_meets_every_combination_of_limits_once() -> None:
    swept = {"latency": ("20ms", "40ms"), "ram": ("256KiB", "1MiB"), "size": ()}
    spec = Spec(budget=BudgetSpec(size="2MB", max_drop="1pp", at="p50"))
    points = grid(spec, ("rpi4", "rpi5"), swept)
    assert [point.name for point in points[:4]] == [
        "rpi4-20ms-256KiB-2MB",
        "rpi4-20ms-1MiB-2MB",
        "rpi4-40ms-256KiB-2MB",
        "rpi4-40ms-1MiB-2MB",
    ]
    assert len(points) == 8 and {point.target for point in points[4:]} == {"rpi5"}
    assert all(point.spec.budget.at == "p50" and point.spec.budget.max_drop == "1pp" for point in points)
    assert not any(point.measured for point in points)
    assert grid(Spec(), (), {"ram": ("1MiB",)})[0].measured  # this machine


def test_names_of_files_are_absolute_so_that_any_process_can_open_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(BOARD.parent)
    tree: dict[str, Any] = {"model": {"entry": "nets.py:make"}, "data": {"source": "npz:d.npz"}, "task": "own.py:task"}
    (point,) = grid(Spec.model_validate(tree), ("test-board.toml",), {"latency": ("1ms",)})
    spec, here = point.spec, Path.cwd()
    assert spec.model.entry == f"{here}/nets.py:make" and spec.data.source == f"npz:{here}/d.npz"
    assert spec.task == f"{here}/own.py:task" and spec.target.name == str(BOARD) and spec.out == here / "runs"
    assert point.target == "test-board" and point.name == "test-board-1ms"


@pytest.mark.parametrize(
    ("spec", "targets", "latencies", "message"),
    [
        (Spec(), ("rpi4",), (), "no budget"),
        (Spec(), ("rpi4", "pi"), ("5ms",), "unknown target 'pi'"),
        (Spec(), ("rpi4", "rpi4"), ("5ms",), "two targets are called rpi4"),
        (Spec(target=TargetSpec(runtime="tflm")), ("rpi4",), ("5ms",), "does not run 'tflm'"),
        (Spec(target=TargetSpec(threads=37)), ("rpi4",), ("5ms",), "no latency model for rpi4, tflite, int8, 37"),
    ],
)
def test_what_cannot_run_is_refused(
    spec: Spec, targets: tuple[str, ...], latencies: tuple[str, ...], message: str
) -> None:
    with pytest.raises(UsageError, match=message):
        grid(spec, targets, {"latency": latencies})


@given(text=st.text())
def test_a_name_stays_one_folder(text: str) -> None:
    found = slug(text)
    assert found and "/" not in found and not found.startswith(".")
