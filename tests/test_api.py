"""The Python face: its examples run, and its mistakes are named."""

from __future__ import annotations

import doctest

import pytest
import torch

import edgeprune
from edgeprune import api
from edgeprune.errors import UsageError
from edgeprune.graph import Node
from edgeprune.pruning.check import TOLERANCE
from edgeprune.pruning.criteria.evidence import Evidence
from edgeprune.pruning.plan import Plan
from edgeprune.pruning.rewrites import REWRITES
from edgeprune.pruning.trace import trace
from tests.pruning.detector import Detector, images
from tests.pruning.nets import NETS, randomised
from tests.pruning.operator_nets import CASES

X = torch.zeros(1, 3, 16, 16)


def test_the_examples_in_the_docstrings_run() -> None:
    found = doctest.testmod(api)
    assert found.attempted >= 6
    assert found.failed == 0


def test_half_of_every_group_goes_and_the_original_stays() -> None:
    model = randomised(NETS["residual"])
    before = sum(p.numel() for p in model.parameters())
    small = edgeprune.prune(model, X, keep=0.5)
    assert sum(p.numel() for p in small.model.parameters()) < 0.4 * before
    assert sum(p.numel() for p in model.parameters()) == before
    assert small.model(torch.randn(3, 3, 16, 16)).shape == (3, 5)
    assert small.error is not None and small.error <= TOLERANCE and not small.excluded and not small.notes


@pytest.mark.parametrize("by_head", [False, True])
def test_a_saved_plan_gives_the_same_tensors(by_head: bool) -> None:
    model, inputs = CASES["multihead_attention"]()
    small = edgeprune.prune(model, inputs, keep=0.5, by_head=by_head)
    assert small.plan.by_head is by_head and len(small.plan.keep["attention"]) == 2, "of four heads or positions"
    again = edgeprune.prune(model, inputs, plan=Plan.model_validate_json(small.plan.model_dump_json()))
    assert again.plan == small.plan
    assert again.model.state_dict().keys() == small.model.state_dict().keys()
    assert all(torch.equal(value, again.model.state_dict()[key]) for key, value in small.model.state_dict().items())


def test_a_group_that_fails_the_check_is_left_whole_and_named(monkeypatch: pytest.MonkeyPatch) -> None:
    def wrong(node: Node, *_: object) -> Node:
        """A rewrite that forgets the sizes of a view."""
        return node

    monkeypatch.setitem(REWRITES, "view", wrong)
    model = randomised(NETS["flattened_map"])
    small = edgeprune.prune(model, X, keep=0.5)
    assert set(small.excluded) == {"body2.0"} and "left whole: body2.0" in small.notes[0]
    assert set(small.plan.keep) == {"stem.0"} and small.error is not None and small.error <= TOLERANCE
    unchecked = edgeprune.prune(model, X, keep=0.5, check=False)
    assert unchecked.error is None and "not checked" in unchecked.notes[0] and set(unchecked.plan.keep) > {"stem.0"}


def test_widths_follow_the_step_and_the_criterion_is_the_named_one() -> None:
    model = randomised(NETS["plain"])
    assert [len(kept) for kept in edgeprune.prune(model, X, keep=0.6, step=8).plan.keep.values()] == [8, 16]
    names = ("l1", "random", "logit_taylor", "synflow")
    plans = {name: edgeprune.prune(model, X, keep=0.5, criterion=name).plan for name in names}
    assert len({plan.model_dump_json() for plan in plans.values()}) == len(names)


def test_a_criterion_that_needs_targets_is_given_batches_and_a_loss() -> None:
    model = randomised(NETS["plain"])
    batches = [(X, torch.zeros(len(X), dtype=torch.long)), ((X,), torch.ones(len(X), dtype=torch.long))]
    loss = torch.nn.functional.cross_entropy
    small = edgeprune.prune(model, X, keep=0.5, criterion="fisher", batches=batches, loss=loss)
    assert any("patent" in note for note in small.notes)
    with pytest.raises(UsageError, match="'fisher' needs a loss and targets"):
        edgeprune.prune(model, X, keep=0.5, criterion="fisher")


def test_a_criterion_may_be_the_users_own_function() -> None:
    def last(evidence: Evidence) -> dict[str, list[int]]:
        return {group.name: list(range(group.width)) for group in evidence.groups.groups}

    small = edgeprune.prune(randomised(NETS["plain"]), X, keep=0.5, criterion=last)
    assert small.plan.keep["0.0"] == tuple(range(8, 16))


def test_several_inputs_are_given_in_order_or_by_name() -> None:
    class Two(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b = torch.nn.Linear(6, 8), torch.nn.Linear(4, 8)
            self.head = torch.nn.Linear(8, 3)

        def forward(self, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
            return self.head(torch.relu(self.a(x) + self.b(y)))  # type: ignore[no-any-return]

    model, x, y = Two(), torch.randn(4, 6), torch.randn(4, 4)
    for example in ((x, y), {"y": y, "x": x}):
        small = edgeprune.prune(model, example, keep=0.5, criterion="logit_taylor")
        assert small.model(x, y).shape == (4, 3) and small.model.get_parameter("head.weight").shape == (3, 4)


def test_groups_of_a_captured_model_need_no_example() -> None:
    captured = trace(randomised(NETS["plain"]), X)
    assert [group.name for group in edgeprune.channel_groups(captured).groups] == ["0.0", "1.0"]


def test_mistakes_are_named() -> None:
    model = randomised(NETS["plain"])
    with pytest.raises(UsageError, match=r"keep=0\.5 or plan"):
        edgeprune.prune(model, X)  # type: ignore[call-overload]
    with pytest.raises(UsageError, match="not above 0 and at most 1"):
        edgeprune.prune(model, X, keep=1.5)
    with pytest.raises(UsageError, match="an example input is needed"):
        edgeprune.channel_groups(model)


def test_a_detector_is_pruned_as_its_own_class_and_says_that_it_was_observed() -> None:
    model = randomised(Detector).double()
    small = edgeprune.prune(model, images(), keep=0.5)
    assert isinstance(small.model, Detector) and set(small.plan.keep) <= {name for name, _ in model.named_modules()}
    assert sum(p.numel() for p in small.model.parameters()) < 0.4 * sum(p.numel() for p in model.parameters())
    assert len(small.model(images(2))) == 2
    notes = edgeprune.channel_groups(model, images()).notes
    assert notes == small.notes
    assert "observed instead of captured" in notes[0]
    assert "the path that the example took" in notes[1]
