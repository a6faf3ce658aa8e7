"""The Python face: its examples run, and its mistakes are named."""

from __future__ import annotations

import doctest

import pytest
import torch

import edgeprune
from edgeprune import api
from edgeprune.errors import UsageError
from edgeprune.pruning.plan import Plan
from edgeprune.pruning.trace import trace
from tests.pruning.detector import Detector, images
from tests.pruning.nets import NETS, randomised

X = torch.zeros(1, 3, 16, 16)


def test_the_examples_in_the_docstrings_run() -> None:
    found = doctest.testmod(api)
    assert found.attempted >= 6
    assert found.failed == 0


def test_half_of_every_group_goes_and_the_original_stays() -> None:
    model = randomised(NETS["residual"])
    before = sum(p.numel() for p in model.parameters())
    small = edgeprune.prune(model, X, keep=0.5)
    assert sum(p.numel() for p in small.parameters()) < 0.4 * before
    assert sum(p.numel() for p in model.parameters()) == before
    assert small(torch.randn(3, 3, 16, 16)).shape == (3, 5)


def test_the_same_plan_gives_the_same_tensors() -> None:
    model = randomised(NETS["plain"])
    plan = Plan(keep={"0.0": (0, 3, 5, 8)})
    first, second = edgeprune.prune(model, X, plan=plan), edgeprune.prune(model, X, plan=plan)
    assert first.state_dict().keys() == second.state_dict().keys()
    assert all(torch.equal(value, second.state_dict()[key]) for key, value in first.state_dict().items())


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
    assert isinstance(small, Detector)
    assert sum(p.numel() for p in small.parameters()) < 0.4 * sum(p.numel() for p in model.parameters())
    assert len(small(images(2))) == 2
    notes = edgeprune.channel_groups(model, images()).notes
    assert notes == small.pruning_notes
    assert "observed instead of captured" in notes[0]
    assert "the path that the example took" in notes[1]
