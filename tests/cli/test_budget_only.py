"""`edgeprune fit --budget-only`: a plan and its predicted cost, from a model with or without data."""

from __future__ import annotations

from pathlib import Path

import pytest

from edgeprune.plan_document import BudgetPlan
from edgeprune.pruning.plan import Plan
from tests.cli.conftest import Command

NET = """
from torch import nn


def make():
    return nn.Sequential(
        nn.Conv2d(3, 16, 3, padding=1, bias=False), nn.BatchNorm2d(16), nn.ReLU(),
        nn.Conv2d(16, 24, 3, padding=1), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(24, 5),
    )
"""


@pytest.fixture
def model() -> str:
    Path("nets.py").write_text(NET)
    return "fit --model nets.py:make --input 1x3x16x16 --target rpi4 --budget-only --quiet"


def test_a_model_without_data_is_planned_by_its_weights(command: Command, model: str) -> None:
    done = command(*f"{model} --macs 500k --json --plan plan.json".split())
    assert done.code == 0
    document = BudgetPlan.model_validate_json(done.out)
    assert document.verdict == "feasible" and document.criterion == "l1"
    assert document.planned.macs is not None and document.planned.macs <= 500_000 < (document.dense.macs or 0)
    assert any("no data" in note for note in document.notes)
    assert document.planned.source == "estimated" and document.gap is not None and document.gap <= 1e-3
    written = Plan.model_validate_json(Path("plan.json").read_text())
    assert {row.group: row.kept for row in document.groups} == {g: len(kept) for g, kept in written.keep.items()}
    (row,) = document.limits
    assert row.what == "macs" and row.planned == document.planned.macs


def test_energy_is_a_limit_where_power_is_known(command: Command, model: str) -> None:
    line = f"{model.replace('rpi4', 'nucleo-l4r5zi')} --energy 1mJ --json"
    document = BudgetPlan.model_validate_json(command(*line.split()).out)
    assert document.verdict == "feasible" and document.budget.energy_nj == 1_000_000
    assert document.planned.latency_interval_ns is not None and document.dense.latency_interval_ns is not None
    assert (
        document.planned.latency_interval_ns[1] * 0.0698 <= 1_000_000 < document.dense.latency_interval_ns[1] * 0.0698
    )
    assert any("energy: 1 mJ at up to 69.8 mW" in note for note in document.notes)
    assert any("per inference, estimated" in note for note in document.notes)
    refused = command(*f"{model} --energy 5mJ".split())
    assert refused.code == 2 and "nothing is known of the power of rpi4" in refused.err
    assert "energy 1 mJ" in command(*line.removesuffix(" --json").split()).out


def test_a_microcontrollers_memories_are_limits_too(command: Command, model: str) -> None:
    line = f"{model.replace('rpi4', 'nucleo-l4r5zi')} --macs 500k --ram 64KiB --json"
    document = BudgetPlan.model_validate_json(command(*line.split()).out)
    assert (document.budget.ram_bytes, document.budget.size_bytes) == (64 * 1024, 2 * 2**20)
    assert any("a fit executes its files on an emulated core" in note for note in document.notes)


def test_all_limits_hold_at_once_and_frozen_layers_stay(command: Command, model: str) -> None:
    line = f"{model} --macs 800k --ram 8KiB --size 30kB --latency 1s --freeze 3 --json"
    document = BudgetPlan.model_validate_json(command(*line.split()).out)
    assert document.verdict == "feasible"
    planned = document.planned
    assert (planned.macs or 0) <= 800_000 and (planned.ram_bytes or 0) <= 8192 and (planned.size_bytes or 0) <= 30_000
    assert {row.group: row.kept for row in document.groups}["3"] == 24


def test_the_text_says_what_stays_and_what_it_costs(command: Command, model: str) -> None:
    done = command(*f"{model} --macs 500k --out here".split())
    assert done.code == 0 and done.out.startswith("feasible on rpi4 (estimated; tflite, ")
    assert "budget: MACs 500.0 k" in done.out and "gap " in done.out and "16" in done.out
    assert Plan.model_validate_json(Path("here/plan.json").read_text()).keep


def test_a_budget_out_of_reach_ends_with_3_and_the_layers(command: Command, model: str) -> None:
    done = command(*f"{model} --ram 1KiB --macs 1k --plan plan.json".split())
    assert done.code == 3 and done.out.startswith("infeasible")
    assert "held up by RAM: 3" in done.out and "held up by MACs: 3" in done.out
    assert not Path("plan.json").exists()


@pytest.mark.parametrize(
    ("line", "message", "hint"),
    [
        ("fit --model nets.py:make --budget-only --macs 1M", "neither data nor an input shape", "--input 1x3x224x224"),
        ("fit --model nets.py:make --input 1x3x16x16 --macs 1M", "only a job without training", "--budget-only"),
        ("fit --model nets.py:make --input 16 --budget-only --macs 1M --freeze 9", "'9' matches no layer", ""),
        ("fit --model nets.py:make --input ax3 --budget-only --macs 1M", "cannot read the shape", "1x3x32x32"),
        ("fit --model nets.py:make --input 1x3x16x16 --budget-only", "no budget", "--macs 40M"),
        ("fit --resume runs/x --budget-only", "a resumed run keeps its own job", "--resume RUN"),
    ],
)
def test_what_cannot_be_planned_is_refused(command: Command, model: str, line: str, message: str, hint: str) -> None:
    done = command(*line.replace("--input 16 ", "--input 1x3x16x16 ").split())
    assert done.code == 2 and message in done.err and hint in done.err and done.out == "" and model


@pytest.mark.slow
def test_the_demo_is_planned_with_its_own_data(command: Command) -> None:
    line = "fit --budget-only --target rpi4 --size 60kB --json --quiet --set fit.importance_samples=32"
    document = BudgetPlan.model_validate_json(command(*line.split()).out)
    assert document.model == "demo" and document.criterion == "logit_taylor"
    assert not any("no data" in note for note in document.notes)
