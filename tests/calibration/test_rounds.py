"""Rounds of timing: random order, a watched reference, repetition, and resuming as if nothing had happened."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgeprune.calibration import rounds
from edgeprune.calibration.rounds import Batch, rows, time_all
from edgeprune.errors import MeasurementError, UsageError
from edgeprune.progress import SILENT
from edgeprune.timing import Turns

TIMES_S = {f"net-{n}": (n + 1) * 1e-6 for n in range(250)}
HEAD = {"cpu": "a"}


class Bench:
    """Answers with the times above, as fast as each call's speed, rising to its second number."""

    def __init__(self, *speeds: tuple[float, float], stop_after: int | None = None, flags: Sequence[str] = ()) -> None:
        self.speeds, self.stop_after, self.flags = speeds, stop_after, flags
        self.asked: list[list[str]] = []

    def __call__(self, turns: Turns) -> Mapping[str, Any]:
        if len(self.asked) == self.stop_after:
            raise KeyboardInterrupt
        self.asked.append([path.stem for path in turns.paths])
        first, last = self.speeds[min(len(self.asked), len(self.speeds)) - 1] if self.speeds else (1.0, 1.0)
        factors = np.linspace(first, last, 30)
        times = [TIMES_S.get(path.stem, 5e-5) for path in turns.paths]
        flag = self.flags[min(len(self.asked), len(self.flags)) - 1] if self.flags else "0"
        return {
            "samples_ns": [(seconds * 1e9 * factors).tolist() for seconds in times],
            "before": {"clock_mhz": "1000", "throttled": "0"},
            "after": {"clock_mhz": "990", "throttled": flag},
        }


@pytest.fixture(autouse=True)
def _hurried(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rounds, "_COOL_DOWN_S", 0.0)


def timed(bench: Bench, folder: Path, head: Mapping[str, str] = HEAD, count: int = 2) -> tuple[Batch, ...]:
    files = {name: folder / f"{name}.tflite" for name in TIMES_S}
    kept = folder / "kept.json"
    return time_all(files, folder / "reference.tflite", bench, "tflite", 1, count, head, kept, SILENT)


def test_every_network_is_timed_once_a_round_in_another_order(tmp_path: Path) -> None:
    bench = Bench()
    batches = timed(bench, tmp_path)
    assert len(batches) == len(bench.asked) == 6
    for number in range(2):
        names = [name for batch in batches if batch.round == number for name in batch.p50_s]
        assert sorted(names) == sorted(TIMES_S)
    assert list(batches[0].p50_s) != list(batches[3].p50_s)
    assert all(asked.count("reference") == 4 and asked[0] == "reference" for asked in bench.asked)
    assert batches[0].clock_mhz == ("1000", "990") and not any(batch.repeated for batch in batches)


def test_times_are_divided_by_the_speed_of_the_machine(tmp_path: Path) -> None:
    batches = timed(Bench((1.0, 1.0), (1.1, 1.1), (0.95, 0.95), (1.05, 1.05), (1.0, 1.0), (0.9, 0.9)), tmp_path)
    found = {row.name: row for row in rows(batches)}
    ratios = np.array([found[name].latency_s / seconds for name, seconds in TIMES_S.items()])
    assert np.allclose(ratios, ratios[0]) and 0.9 < ratios[0] < 1.1
    assert max(row.spread for row in found.values()) < 1e-9


def test_a_resumed_calibration_is_that_of_an_uninterrupted_one(tmp_path: Path) -> None:
    (tmp_path / "whole").mkdir()
    whole = timed(Bench(), tmp_path / "whole")
    for done in range(6):
        with pytest.raises(KeyboardInterrupt):
            timed(Bench(stop_after=done), tmp_path)
        rest = Bench()
        assert timed(rest, tmp_path) == whole
        assert len(rest.asked) == 6 - done
        (tmp_path / "kept.json").unlink()


def test_results_of_another_machine_are_not_continued(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        timed(Bench(stop_after=3), tmp_path)
    bench = Bench()
    timed(bench, tmp_path, {"cpu": "b"})
    assert len(bench.asked) == 6


def test_a_batch_in_which_the_machine_slows_down_is_repeated(tmp_path: Path) -> None:
    bench = Bench((1, 1), (1, 1.5), (1, 1))
    batches = timed(bench, tmp_path)
    assert [batch.repeated for batch in batches] == [False, True, False, False, False, False]
    assert bench.asked[1] == bench.asked[2] and max(row.spread for row in rows(batches)) < 1e-9


def test_a_machine_that_keeps_slowing_down_is_an_error_and_the_rest_is_kept(tmp_path: Path) -> None:
    with pytest.raises(MeasurementError, match="a batch and its repetition .* became 2. % slower; .* 2. % slower"):
        timed(Bench((1, 1), (1, 1), (1, 1.4), (1, 1.4)), tmp_path)
    rest = Bench()
    timed(rest, tmp_path)
    assert len(rest.asked) == 4


def test_a_throttling_flag_and_another_speed_are_faults(tmp_path: Path) -> None:
    with pytest.raises(MeasurementError, match="throttling flags went from 0 to 8"):
        timed(Bench(flags=("8",)), tmp_path)
    with pytest.raises(MeasurementError, match=r"time is \+50 % from its usual one"):
        timed(Bench((1, 1), (1.5, 1.5)), tmp_path)


def test_kept_results_that_are_damaged_are_named(tmp_path: Path) -> None:
    (tmp_path / "kept.json").write_text('{"head": 1')
    with pytest.raises(UsageError, match="not the results of an interrupted calibration"):
        timed(Bench(), tmp_path)
