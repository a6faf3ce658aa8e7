"""Dead channels are found in the weights, proven by a run, and go first."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from edgeprune.pruning.criteria.evidence import Evidence, Sampled
from edgeprune.pruning.dead import dead_channels, dead_last
from edgeprune.pruning.groups import ChannelGroups, channel_groups
from edgeprune.pruning.importance import CRITERIA, importance
from edgeprune.pruning.plan import Plan, uniform
from edgeprune.pruning.surgery import prune
from edgeprune.pruning.trace import Captured, trace
from tests.pruning.nets import NETS, randomised

X = torch.randn(4, 3, 16, 16, generator=torch.Generator().manual_seed(0))


def planted(name: str, plant: dict[str, Any]) -> tuple[nn.Module, Captured, ChannelGroups]:
    """A network with values written into its parameters: path -> function of the tensor."""
    model = randomised(NETS[name])
    with torch.no_grad():
        for path, write in plant.items():
            write(model.get_parameter(path))
    captured = trace(model, X[:1])
    return model, captured, channel_groups(captured.graph)


def zero(*channels: int, axis: int = 0) -> Any:
    return lambda tensor: tensor.index_fill_(axis, torch.tensor(channels), 0.0)


def filled(value: float, *channels: int) -> Any:
    return lambda tensor: tensor.index_fill_(0, torch.tensor(channels), value)


def both(*writes: Any) -> Any:
    return lambda tensor: [write(tensor) for write in writes]


@pytest.mark.parametrize(
    ("name", "plant", "dead"),
    [
        ("plain", {}, {}),
        # A scale of zero, with a shift that the activation swallows, or one that goes on.
        ("plain", {"0.1.weight": zero(2, 5), "0.1.bias": both(filled(-0.5, 2), filled(0.5, 5))}, {"0.0": (2,)}),
        ("plain", {"0.1.weight": zero(2), "0.1.bias": zero(2), "1.1.weight": zero(7), "1.1.bias": zero(7)},
         {"0.0": (2,), "1.0": (7,)}),
        ("biased", {"0.weight": zero(1, 3), "0.bias": zero(1)}, {"0": (1,)}),
        # Nobody reads it.
        ("plain", {"1.0.weight": zero(4, axis=1)}, {"0.0": (4,)}),
        # A residual stream: silent in both of its layers, or in one alone.
        ("residual", {"stem.0.weight": zero(3, 6), "stem.1.bias": zero(3, 6), "b2.weight": zero(3), "b2.bias": zero(3)},
         {"stem.0": (3,)}),
        ("dense_block", {"a.1.weight": zero(0), "a.1.bias": filled(-0.5, 0)}, {"a.0": (0,)}),
        # The depthwise layer's shift goes on behind a silent channel, or does not.
        ("inverted_residual", {"expand.1.weight": zero(9, 4), "depthwise.1.bias": both(filled(5, 9), filled(-5, 4))},
         {"expand.0": (4,)}),
        ("squeeze_excite", {"up.weight": zero(1, axis=1)}, {"down": (1,)}),
        # All of a group: one counts as alive.
        ("residual", {"b2.weight": zero(*range(16)), "a2.weight": zero(*range(16))}, {"a.0": tuple(range(1, 24))}),
    ],
)  # fmt: skip
def test_planted_dead_channels_are_found_and_only_they(
    name: str, plant: dict[str, Any], dead: dict[str, tuple[int, ...]]
) -> None:
    _, captured, groups = planted(name, plant)
    assert dead_channels(captured, groups, (X,)) == dead


@settings(max_examples=10, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), criterion=st.sampled_from(sorted(CRITERIA)))
def test_dead_channels_go_first_and_for_free(seed: int, criterion: str) -> None:
    rng = np.random.default_rng(seed)
    gone = tuple(sorted(rng.choice(16, 4, replace=False).tolist()))
    model, captured, groups = planted("plain", {"0.1.weight": zero(*gone), "0.1.bias": filled(-0.5, *gone)})
    dead = dead_channels(captured, groups, (X,))
    assert dead == {"0.0": gone}
    batch = Sampled((X,), torch.zeros(len(X), dtype=torch.long))
    evidence = Evidence(captured, groups, (batch,), torch.nn.functional.cross_entropy, seed)
    scores = dead_last(importance(criterion, evidence).scores, dead)
    keep = uniform(groups, 0.75, 1, scores).keep["0.0"]
    assert not set(keep) & set(gone)
    small = prune(captured, groups, Plan(keep={"0.0": keep})).module
    torch.testing.assert_close(small(X), model(X))


def test_ranking_keeps_the_order_of_the_living_and_scores_of_zero_above_the_dead() -> None:
    scores = {"a": np.array([0.0, 3.0, 5.0, -1.0]), "b": np.array([1.0, 2.0])}
    ranked = dead_last(scores, {"a": (2,)})
    assert ranked["a"][2] == 0.0 and (np.delete(ranked["a"], 2) > 0).all() and ranked["a"][1] == 3.0
    assert ranked["b"] is scores["b"] and scores["a"][2] == 5.0


def test_many_false_candidates_end(monkeypatch: pytest.MonkeyPatch) -> None:
    """Zero filters whose shift goes on are no dead channels; the search for others among them is bounded."""
    monkeypatch.setattr("edgeprune.pruning.dead._MOST_RUNS", 5)
    _, captured, groups = planted("biased", {"0.weight": lambda t: t.zero_(), "0.bias": lambda t: t.fill_(1.0)})
    assert dead_channels(captured, groups, (X,)) == {}
