"""Stages of pruning: their limits, nested plans or regrowth, and the same result after any interruption."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from edgeprune import pipeline, schedule, stages
from edgeprune.device.fusion import fuse
from edgeprune.errors import QualityError
from edgeprune.pruning.groups import channel_groups
from edgeprune.pruning.plan import Plan, intersection
from edgeprune.pruning.surgery import prune, written_back
from edgeprune.pruning.trace import trace
from edgeprune.record import Run, read_record
from edgeprune.schedule import Staged, capped, merged, regrown, stage_limit
from tests.digits import workload
from tests.pruning.nets import NETS, random_plan, randomised
from tests.test_pipeline import Killed, same_result, spec


@pytest.fixture(autouse=True)
def _live(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pipeline, "load_workload", lambda spec: workload())


@given(
    dense=st.floats(1e-6, 1e6),
    share=st.floats(0.01, 2.0),
    name=st.sampled_from(["geometric", "agp"]),
    stages=st.integers(1, 10),
)
def test_limits_fall_stage_by_stage_to_the_budget(dense: float, share: float, name: str, stages: int) -> None:
    final = dense * share
    limits = [stage_limit(dense, final, name, k, stages) for k in range(1, stages + 1)]
    assert limits[-1] == pytest.approx(final)
    assert all(a >= b * (1 - 1e-9) for a, b in pairwise(limits))
    assert all(limit <= max(dense, final) * (1 + 1e-9) for limit in limits)


def test_geometric_stages_leave_equal_shares_and_agp_is_the_cubic_of_its_paper() -> None:
    geometric = [stage_limit(16.0, 2.0, "geometric", k, 3) for k in (1, 2, 3)]
    assert geometric == pytest.approx([8.0, 4.0, 2.0])
    # Sparsity s_t = s_f + (s_i - s_f) (1 - t/n)^3 with s_i = 0, and cost 1 - s.
    final_sparsity = 1 - 2.0 / 16.0
    expected = [16.0 * (1 - (final_sparsity - final_sparsity * (1 - k / 4) ** 3)) for k in (1, 2, 3, 4)]
    assert [stage_limit(16.0, 2.0, "agp", k, 4) for k in (1, 2, 3, 4)] == pytest.approx(expected)


def test_nested_plans_take_nothing_back_and_regrowth_is_counted() -> None:
    before, after = Plan(keep={"a": (0, 1, 4), "b": (2,)}), Plan(keep={"a": (0, 2, 4), "b": (1, 2), "c": (0,)})
    assert intersection(after, before).keep == {"a": (0, 4), "b": (2,), "c": (0,)}
    assert regrown(before, after) == 2
    assert regrown(before, intersection(after, before)) == 0
    assert capped(((2, 4, 8), (1, 3)), (4, 3)) == ((2, 4), (1, 3))


def test_fresh_scores_replace_those_of_kept_channels_at_the_same_sum() -> None:
    old = {"a": np.array([1.0, 2.0, 3.0]), "b": np.array([4.0, 4.0]), "gone": np.array([5.0])}
    fresh = {"a": np.array([30.0, 10.0]), "b": np.array([20.0])}
    kept = {"a": np.array([0, 2]), "b": np.array([1]), "gone": np.array([], int)}
    found = merged(old, fresh, kept)
    assert found["a"] == pytest.approx((4.0, 2.0, 4.0 / 3)) and found["b"] == pytest.approx((4.0, 8.0 / 3))
    assert found["gone"] == (5.0,)
    assert merged(old, {}, kept) == {name: tuple(score) for name, score in old.items()}


@pytest.mark.parametrize("name", ["residual", "dense_block", "inverted_residual", "squeeze_excite", "shuffled"])
def test_written_back_weights_are_found_again_by_the_same_cut(name: str) -> None:
    x = torch.zeros(1, 3, 32, 32)
    captured = trace(randomised(NETS[name]), x)
    groups = channel_groups(captured.graph)
    plan = random_plan(groups, 3)
    small = prune(captured, groups, plan)
    untouched = {key: value.clone() for key, value in captured.module.state_dict().items()}
    with torch.no_grad():
        for value in (*small.module.parameters(), *small.module.buffers()):
            if value.is_floating_point():
                value.add_(1.0)
    whole = written_back(captured, groups, plan, small)
    again = prune(whole, groups, plan)
    for key, value in small.module.state_dict().items():
        assert torch.equal(value, again.module.state_dict()[key]), key
    changed = {key: value != untouched[key] for key, value in whole.module.state_dict().items()}
    trained = {key: value.numel() for key, value in small.module.state_dict().items() if value.is_floating_point()}
    assert {key: int(changed[key].sum()) for key in trained} == trained
    assert all(torch.equal(value, untouched[key]) for key, value in captured.module.state_dict().items())


def stages_of(folder: Path) -> list[Staged]:
    return [Staged.model_validate_json(file.read_text()) for file in sorted(folder.rglob("stages/stage-[12].json"))]


@pytest.fixture(scope="module", params=["geometric", pytest.param("agp", marks=pytest.mark.slow)])
def finished(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pipeline, "load_workload", lambda spec: workload())
        out = tmp_path_factory.mktemp(str(request.param))
        pipeline.fit(spec(out, fit__schedule=request.param))
        yield next(out.iterdir())


def test_every_stage_costs_less_and_the_last_one_holds_the_budget(finished: Path) -> None:
    record = read_record(finished)
    assert record.verdict == "met"
    found = stages_of(finished)
    costs = [stage.planned.predicted.cost.latency_s or 0.0 for stage in found]
    assert len(found) == 2
    last_s = (record.rounds[-1].predicted_ns or 0) * 1e-9
    assert costs[0] >= costs[1] >= last_s and costs[0] > last_s
    assert found[0].regrown == 0
    assert found[0].scores != found[1].scores
    assert [row.regrown for row in record.stages] == [stage.regrown for stage in found]
    assert record.stages[0].dense >= record.stages[0].kept >= record.stages[1].kept > 0


@pytest.mark.slow
def test_stages_close_in_on_every_limit(tmp_path: Path) -> None:
    digits = workload()
    whole = sum(op.macs for op in fuse(trace(digits.model.eval(), digits.example).graph))
    limit = whole // 2000 * 1000
    budget = {"budget__latency": None, "budget__macs": f"{limit // 1000}k"}
    record = pipeline.fit(spec(tmp_path, fit__schedule="geometric", **budget))
    costs = [stage.planned.predicted.cost.macs or 0 for stage in stages_of(tmp_path)]
    assert record.verdict == "met"
    assert whole > costs[0] > costs[1] > limit >= costs[1] * 0.5


@pytest.mark.slow
def test_without_regrowth_plans_are_nested(tmp_path: Path) -> None:
    record = pipeline.fit(spec(tmp_path, fit__schedule="geometric", fit__regrowth=False))
    assert record.verdict == "met"
    plans = [stage.planned.plan for stage in stages_of(tmp_path)]
    plans.append(Plan.model_validate_json((record.run / "plan.json").read_text()))
    for before, after in pairwise(plans):
        assert all({*after.keep[name]} <= {*before.keep[name]} for name in after.keep)


def test_a_stage_without_a_plan_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stages, "solved", lambda *_: None)
    with pytest.raises(QualityError, match="stage 1 has no plan within its limits") as caught:
        pipeline.fit(spec(tmp_path, fit__schedule="agp"))
    assert caught.value.exit_code == 4 and "fewer stages" in caught.value.hint


def test_a_budget_that_the_whole_model_holds_has_no_stages(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(schedule, "_stage", lambda *_: pytest.fail("nothing is to be removed"))
    record = pipeline.fit(spec(tmp_path, fit__schedule="geometric", budget__latency="100ms"))
    assert record.verdict == "met"
    assert all(row.kept == row.dense for row in record.layers)


@pytest.mark.slow
def test_a_staged_fit_killed_after_any_stage_resumes_to_the_same_result(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole, torn = tmp_path / "whole", tmp_path / "torn"
    uninterrupted = pipeline.fit(spec(whole, fit__schedule="geometric"))
    save = Run.save

    def save_and_die(self: Run, key: str, value: object) -> None:
        save(self, key, value)  # type: ignore[arg-type]
        if key.startswith(("stage-", "race", "round-1-rehearsal")):
            raise Killed

    monkeypatch.setattr(Run, "save", save_and_die)
    deaths = 0
    run = pipeline.fit
    while True:
        try:
            record = (
                run(spec(torn, fit__schedule="geometric")) if deaths == 0 else pipeline.resume(next(torn.iterdir()))
            )
            break
        except Killed:
            deaths += 1
    assert deaths >= 5
    assert same_result(record, uninterrupted)
