"""`edgeprune prune`: a model, a limit and a criterion in, the pruned model out."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

import edgeprune
from edgeprune import prune_only
from edgeprune.errors import QualityError
from edgeprune.plan_document import PrunedDocument
from edgeprune.pruning.check import Checked
from edgeprune.pruning.importance import CRITERIA
from edgeprune.pruning.plan import Plan
from edgeprune.spec import ModelSpec
from edgeprune.workload.entries import load_entry
from edgeprune.workload.models import load_model
from tests.cli.conftest import Command

NET = """
import torch
from torch import nn


def make():
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 16, 3, padding=1, bias=False), nn.BatchNorm2d(16), nn.ReLU(),
        nn.Conv2d(16, 24, 3, padding=1), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(24, 5),
    ).eval()


def last(evidence):
    return {group.name: range(group.width) for group in evidence.groups.groups}
"""
SHAPE = "--input 1x3x16x16"


@pytest.fixture
def model(tmp_path: Path) -> str:
    (tmp_path / "nets.py").write_text(NET)
    rng = np.random.default_rng(0)
    arrays = {}
    for end, count in (("", 96), ("_val", 16), ("_test", 16)):
        arrays[f"x{end}"] = rng.normal(size=(count, 3, 16, 16)).astype(np.float32)
        arrays[f"y{end}"] = rng.integers(0, 5, count)
    np.savez(tmp_path / "data.npz", **arrays)
    return "prune --model nets.py:make --target rpi4 --quiet --step 2"


def test_half_of_the_macs_by_weights_alone(command: Command, model: str) -> None:
    done = command(*f"{model} {SHAPE} --macs 50% --criterion synflow --json".split())
    assert done.code == 0, done.err
    document = PrunedDocument.model_validate_json(done.out)
    solved, dense = document.budget, document.budget.dense.macs or 0
    assert solved.criterion == document.ranking.criterion == "synflow" and document.ranking.samples == 0
    assert 0.35 * dense < (solved.planned.macs or 0) <= dense // 2 == solved.budget.macs
    assert document.error is not None and document.error <= 1e-5 and document.parameters is not None
    assert json.loads(Path("pruned/pruned.json").read_text()) == json.loads(done.out)
    assert not any("no data" in note for note in solved.notes)


@pytest.mark.filterwarnings("ignore")  # torch's exporters warn about themselves
def test_what_is_written_is_the_pruned_model_three_times(command: Command, model: str) -> None:
    done = command(*f"{model} {SHAPE} --macs 300k --out small".split())
    assert done.code == 0 and "exact: pruned equals masked" in done.out and "model: small/model.pt2" in done.out
    assert "channels ranked by l1 without data" in done.out and "no data: channels are scored" in done.out
    plan = Plan.model_validate_json(Path("small/plan.json").read_text())
    dense, x = load_entry("nets.py:make", "test")(), torch.randn(4, 3, 16, 16)
    again = edgeprune.prune(dense, x, plan=plan)
    want, state = again.model(x), load_file("small/model.safetensors")
    assert all(torch.equal(value, state[key]) for key, value in again.model.state_dict().items())
    archived = load_model(ModelSpec(entry="small/model.pt2", trust=True))
    torch.testing.assert_close(archived(x), want)


def test_with_data_gradients_of_the_loss_can_be_asked_for(command: Command, model: str) -> None:
    data = "--data npz:data.npz --set fit.importance_samples=64"
    done = command(*f"{model} {data} --macs 60% --criterion fisher".split())
    assert done.code == 0, done.err
    assert "ranked by fisher on 64 samples; two halves of them agree to " in done.out and "patent" in done.out
    assert "masked to" in done.out and "on 8 samples" in done.out


def test_a_criterion_of_the_users_own(command: Command, model: str) -> None:
    done = command(*f"{model} {SHAPE} --macs 60% --criterion nets.py:last".split())
    assert done.code == 0, done.err
    plan = Plan.model_validate_json(Path("pruned/plan.json").read_text())
    widths = {"0": 16, "3": 24}
    assert plan.keep and all(kept == tuple(range(widths[g] - len(kept), widths[g])) for g, kept in plan.keep.items())


def test_a_limit_out_of_reach_writes_nothing_and_ends_with_3(command: Command, model: str) -> None:
    done = command(*f"{model} {SHAPE} --macs 1k".split())
    assert done.code == 3 and done.out.startswith("infeasible") and not Path("pruned").exists()


def test_all_criteria_are_listed(command: Command) -> None:
    done = command("prune", "--list-criteria")
    assert done.code == 0
    assert [line.split()[0] for line in done.out.splitlines()[1:]] == list(CRITERIA)
    assert all(one.about in done.out for one in CRITERIA.values())


@pytest.mark.parametrize(
    ("rest", "message", "hint"),
    [
        (f"{SHAPE} --macs 150%", "150% is not above 0 % and at most 100 %", "50%"),
        (f"{SHAPE} --macs 0%", "0% is not above 0 %", "50%"),
        (SHAPE, "no limit", "--macs 50%"),
        ("--macs 50%", "neither data nor an input shape", "--input 1x3x224x224"),
        (f"{SHAPE} --macs 50% --criterion taylor", "'taylor' needs data", "synflow"),
        (f"{SHAPE} --macs 50% --criterion teylor", "unknown criterion 'teylor'", "taylor"),
        (f"{SHAPE} --macs 50% --criterion nets.py:first", "has no 'first'", "last"),
        (f"{SHAPE} --size 1kB --flash 1kB", "--size and --flash are one limit", "one of them"),
    ],
)
def test_what_cannot_be_pruned_is_refused(command: Command, model: str, rest: str, message: str, hint: str) -> None:
    done = command(*f"{model} {rest}".split())
    assert done.code == 2 and message in done.err and hint in done.err and done.out == ""


def test_a_cut_that_is_not_exact_is_refused(command: Command, model: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def failing(*_: object) -> Checked:
        return Checked(None, Plan(keep={}), 0.0, {"3": 0.25})  # type: ignore[arg-type]

    monkeypatch.setattr(prune_only, "checked_prune", failing)
    done = command(*f"{model} {SHAPE} --macs 50%".split())
    assert done.code == QualityError.exit_code and "pruned differs from masked by 2.5e-01" in done.err
    assert "--freeze 3" in done.err and not Path("pruned").exists()


def test_without_an_archive_the_rest_is_written(command: Command, model: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def failing(*_: object) -> Path:
        raise RuntimeError("not this one\nat all")

    monkeypatch.setattr(prune_only, "_archive", failing)
    done = command(*f"{model} {SHAPE} --macs 50%".split())
    assert done.code == 0 and "no model.pt2: torch cannot write one: not this one\n" in done.out
    assert {file.name for file in Path("pruned").iterdir()} == {"model.safetensors", "plan.json", "pruned.json"}
