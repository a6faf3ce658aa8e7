"""The commands on tiny inputs: arms, budgets, exactness, and errors without tracebacks."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest
from torch import nn

from bench import fit, host, loop, mcu_fit, prune, schedule, solver
from bench.cells import open_sheet, read_document
from edgeprune.errors import MeasurementError, UsageError
from tests.pruning.nets import NETS


def test_arms_run_in_order_and_ours_always() -> None:
    assert fit.chosen_arms("random, uniform") == ("ours", "uniform", "random")
    assert fit.chosen_arms("random-uniform,ours") == ("ours", "random-uniform")
    with pytest.raises(UsageError, match="unknown arm 'unifrom'") as caught:
        fit.chosen_arms("unifrom")
    assert "uniform" in caught.value.hint


def test_a_ram_limit_lies_where_only_the_pruned_model_holds_it() -> None:
    assert host.halfway(9_000, 7_000) == 8_000
    for dense, pruned in ((7_000, 7_000), (7_000, 9_000), (None, 1), (1, None)):
        with pytest.raises(UsageError, match="no limit would bind") as caught:
            host.halfway(dense, pruned)
        assert "--net demo" in caught.value.hint


def test_schedules_run_in_order_and_train_equally_many_steps() -> None:
    assert schedule.chosen_arms("geometric, one-shot") == ("one-shot", "geometric")
    with pytest.raises(UsageError, match="unknown schedule 'geometrical'") as caught:
        schedule.chosen_arms("geometrical")
    assert "geometric" in caught.value.hint
    steps_per_epoch = 70
    once, staged = (schedule.fit_of(arm, 0, 4, steps_per_epoch) for arm in ("one-shot", "geometric"))
    between = (staged["stages"] - 1) * staged["race_steps"]
    assert once["epochs"] * steps_per_epoch == staged["epochs"] * steps_per_epoch + between
    assert once["race_steps"] == staged["race_steps"] and once["patience"] >= once["epochs"]


def test_a_fit_for_a_microcontroller_has_the_limits_that_are_asked_for(tmp_path: Path) -> None:
    spec = mcu_fit.spec_of(mcu_fit.options_of(["--ram", "20KiB"]), tmp_path, 1)
    assert spec.budget.latency and spec.budget.ram == "20KiB" and spec.budget.size
    assert spec.fit.formats == ("c",) and spec.fit.seed == 1


def test_an_error_ends_the_command_with_its_own_status(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EDGEPRUNE_SHARED", str(tmp_path))
    assert fit.main(["--results", str(tmp_path / "fit.json"), "--quiet"]) == 2
    shown = capsys.readouterr().err
    assert "error: no CIFAR-10 here" in shown and "hint: set EDGEPRUNE_SHARED" in shown


class Library:
    """Stands in for torchvision.models."""

    @staticmethod
    def tiny() -> nn.Module:
        return NETS["inverted_residual"]()

    @staticmethod
    def residual() -> nn.Module:
        return NETS["residual"]()


@pytest.fixture
def library(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(prune, "torchvision_models", lambda: Library)
    monkeypatch.setitem(sys.modules, "torchvision", type(sys)("torchvision"))
    monkeypatch.setattr(sys.modules["torchvision"], "__version__", "0.0", raising=False)


def test_every_network_and_size_is_a_cell_with_exact_surgery(tmp_path: Path, library: None) -> None:
    file = tmp_path / "prune.json"
    words = ["--results", str(file), "--nets", "tiny,residual", "--sizes", "16", "--repeats", "1", "--quiet"]
    assert prune.main(words) == 0
    cells = read_document(file)["cells"]
    assert list(cells) == ["tiny/16", "residual/16"]
    for cell in cells.values():
        found: dict[str, Any] = cell["result"]
        assert found["error"] < 1e-5 and found["retraced"]
        assert found["parameters"][1] < found["parameters"][0]
        assert [solve["share"] for solve in found["solves"]] == [0.75, 0.5, 0.25]
        for solve in found["solves"]:
            assert solve["feasible"] == (solve["smallest"] <= solve["share"])
            assert not solve["feasible"] or solve["reached"] <= solve["share"]


def test_an_unknown_network_is_refused_with_near_names(tmp_path: Path, library: None, capsys: Any) -> None:
    assert prune.main(["--results", str(tmp_path / "p.json"), "--nets", "resnet51", "--quiet"]) == 2
    assert "did you mean resnet50" in capsys.readouterr().err


def test_what_an_earlier_cell_left_must_still_be_there() -> None:
    with pytest.raises(UsageError, match="what an earlier cell left is gone") as caught:
        fit._file("runs/bench/never-made")
    assert "--fresh" in caught.value.hint


def test_a_smoke_run_never_touches_the_kept_figures(
    library: None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("bench.command.ROOT", tmp_path)
    monkeypatch.setattr(Library, "mobilenet_v3_small", Library.tiny, raising=False)
    assert prune.main(["--smoke", "--quiet"]) == 0
    document = json.loads((tmp_path / "runs" / "bench" / "prune-smoke" / "results.json").read_text())
    assert list(document["cells"]) == ["mobilenet_v3_small/64"]
    assert open_sheet("prune", document["settings"], "", tmp_path / "x.json").head["settings"] == document["settings"]


_ATTEMPTS = 5  # a machine that other work slows down is noticed and refused


@pytest.mark.slow
def test_half_the_latency_of_a_small_net_is_met_by_measurement(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for module in ("bench.command", "bench.host"):
        monkeypatch.setattr(f"{module}.ROOT", tmp_path)
    statuses = (host.main(["--smoke", "--quiet", "--share", "0.7"]) for _ in range(_ATTEMPTS))
    status = next((status for status in statuses if status != MeasurementError.exit_code), None)
    assert status in (0, 2), "disturbed every time" if status is None else "2: too small for a RAM limit to bind"
    cells = read_document(tmp_path / "runs" / "bench" / "host-smoke" / "results.json")["cells"]
    found = cells["latency/seed0"]["result"]
    assert found["source"] == "measured" and found["verdict"] in ("met", "missed")
    assert found["undershoot"]["latency"] == pytest.approx(1 - found["latency_ns"] / found["budget_ns"], abs=1e-4)
    assert (tmp_path / found["run"] / "record.json").is_file()


def test_budgets_are_spread_over_the_nets() -> None:
    assert [len(shares) for shares in loop.spread(20, 3)] == [7, 7, 6]
    assert all(0.15 < share < 0.9 for shares in loop.spread(20, 3) for share in shares)
    assert loop.chosen_nets("demo, mobile") == ("demo", "mobile")
    with pytest.raises(UsageError, match="unknown net 'mobil'") as caught:
        loop.chosen_nets("mobil")
    assert "mobile" in caught.value.hint


@pytest.mark.slow
def test_the_loop_meets_a_budget_of_a_small_net_by_measurement(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for module in ("bench.command", "bench.loop"):
        monkeypatch.setattr(f"{module}.ROOT", tmp_path)
    statuses = (loop.main(["--smoke", "--quiet"]) for _ in range(_ATTEMPTS))
    assert next((status for status in statuses if status != MeasurementError.exit_code), None) == 0
    cells = read_document(tmp_path / "runs" / "bench" / "loop-smoke" / "results.json")["cells"]
    (reach, found) = (cell["result"] for cell in cells.values())
    assert reach["smallest_ns"] < found["budget_ns"] < reach["dense_ns"]
    assert found["source"] == "measured" and found["verdict"] in ("met", "missed")
    assert (found["verdict"] == "met") == (found["undershoot"] >= 0)
    assert 1 <= found["rounds"] <= 3 and found["rounds"] <= found["rehearsals"]


def test_the_benchmark_of_the_solver_holds_its_gap_and_beats_greedy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("bench.command.ROOT", tmp_path)
    assert solver.main(["--smoke", "--quiet"]) == 0
    document = json.loads((tmp_path / "runs" / "bench" / "solver-smoke" / "results.json").read_text())
    solves = document["cells"]["resnet8"]["result"]["solves"]
    assert set(solves) == {f"{share:g} {limits}" for share in solver.SHARES for limits in ("latency", "all")}
    for solve in solves.values():
        assert not solve["feasible"] or (solve["gap"] <= solver.GAP and (solve["greedy"] or 0) <= 1 + 1e-9)
    assert any(solve["feasible"] for solve in solves.values())
