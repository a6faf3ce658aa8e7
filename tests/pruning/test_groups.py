"""Which channels go together, and what is frozen and why."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from edgeprune.errors import UnsupportedError
from edgeprune.pruning.groups import ChannelGroups, channel_groups
from edgeprune.pruning.rules.shapes import matching_axes
from edgeprune.pruning.trace import trace
from tests.pruning.nets import NETS, Lambda, randomised


def groups_of(model: nn.Module) -> ChannelGroups:
    return channel_groups(trace(model, torch.zeros(1, 3, 16, 16)).graph)


def widths(name: str) -> dict[str, int]:
    return {group.name: group.width for group in groups_of(randomised(NETS[name])).groups}


def test_a_chain_has_a_group_per_layer() -> None:
    assert widths("plain") == {"0.0": 16, "1.0": 24}


def test_a_residual_sum_couples_its_producers() -> None:
    found = groups_of(randomised(NETS["residual"])).by_name["stem.0"]
    assert ("a2.weight", 0) in found.members
    assert ("head.weight", 1) in found.members


def test_padded_channels_are_a_group_of_their_own() -> None:
    """Eight channels live in both stages, eight only after the padding."""
    assert widths("padded_shortcut") == {"stem.0": 8, "a.0": 16, "a2": 8}


def test_concatenated_parts_stay_separate() -> None:
    assert widths("dense_block") == {"stem.0": 8, "a.0": 8, "b.0": 8, "mix.0": 16}


def test_a_depthwise_layer_joins_the_group_of_its_input() -> None:
    assert widths("inverted_residual") == {"stem.0": 8, "expand.0": 32}
    assert widths("multiplier")["0.0"] == 8


def test_grouped_convolutions_keep_their_groups_equal() -> None:
    found = widths("grouped")
    assert found["0.0"] == 4  # of 16 channels, four in each of four groups
    assert found["1.0"] == 8


@pytest.mark.parametrize(
    ("forward", "reason"),
    [
        (lambda m, x: m.head(torch.logcumsumexp(m.stem(x), 1).mean((2, 3))), "positions along it are used"),
        (lambda m, x: m.head(torch.special.bessel_j0(m.stem(x)).mean((2, 3))), "no rule for aten.special_bessel_j0"),
        (lambda m, x: m.head((m.stem(x) + x.repeat(1, 3, 1, 1)[:, :8]).mean((2, 3))), "cannot shrink"),
        (lambda m, x: m.head(m.stem(x)[:, 1:7:2].repeat(1, 3, 1, 1)[:, :8].mean((2, 3))), "with a stride"),
        (lambda m, x: m.head(F.pad(m.stem(x), (0, 0, 0, 0, -1, 1)).mean((2, 3))), "cropped or mirrored"),
        (
            lambda m, x: m.head(m.stem(x).view(x.shape[0], 4, 2, -1).view(x.shape[0], 2, 4, -1).flatten(1, 2).mean(-1)),
            "",
        ),
    ],
)
def test_what_cannot_shrink_is_named(forward: object, reason: str) -> None:
    model = Lambda(forward, stem=nn.Conv2d(3, 8, 3, padding=1), head=nn.Linear(8, 4))  # type: ignore[arg-type]
    found = groups_of(model)
    assert any(reason in why for entry in found.frozen if entry.name == "stem" for why in entry.reasons) or not reason
    assert {entry.name for entry in found.frozen} >= {"head"}


def test_the_output_layer_is_frozen_as_the_models_output() -> None:
    (entry,) = groups_of(randomised(NETS["plain"])).frozen
    assert entry.name == "4"
    assert entry.reasons == ("model output",)


def test_a_width_is_a_sum_over_groups() -> None:
    found = groups_of(randomised(NETS["dense_block"]))
    mix = next(node for node in found.graph.nodes if node.name == "cat_1")
    width = found.width_at(mix.name, 1, 24)
    assert width.constant == 0
    assert width.at([4, 2, 8, 16]) == 4 + 2 + 8


def test_a_model_that_branches_on_its_data_is_refused() -> None:
    def forward(m: nn.Module, x: torch.Tensor) -> torch.Tensor:
        return m.head(x.mean((2, 3)) if x.sum() > 0 else x.amax((2, 3)))

    with pytest.raises(UnsupportedError, match="cannot be captured"):
        trace(Lambda(forward, head=nn.Linear(3, 2)), torch.zeros(1, 3, 16, 16))


@pytest.mark.parametrize(
    ("old", "new", "blocks"),
    [
        ((1, 8, 4, 4), (1, 128), [([1, 2, 3], [1])]),
        ((1, 8, 4, 4), (1, 8, 16), [([1], [1]), ([2, 3], [2])]),
        ((1, 16, 5), (1, 2, 8, 5), [([1], [1, 2]), ([2], [3])]),
        ((1, 6, 4), (1, 4, 6), [([1, 2], [1, 2])]),
        ((1, 7, 1, 1), (1, 7), [([1], [1])]),
    ],
)
def test_reshape_axes_are_matched_by_product(old: tuple[int, ...], new: tuple[int, ...], blocks: object) -> None:
    assert matching_axes(old, new) == blocks
