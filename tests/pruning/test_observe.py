"""Models that cannot be captured are pruned by what one run shows."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from edgeprune.errors import UnsupportedError
from edgeprune.graph import Node
from edgeprune.pruning.groups import ChannelGroups, channel_groups
from edgeprune.pruning.masked import masked_outputs
from edgeprune.pruning.observe import Observed, capture, observe
from edgeprune.pruning.surgery import prune
from edgeprune.pruning.trace import Captured, trace
from tests.pruning.detector import Detector, images
from tests.pruning.nets import NETS, Lambda, conv, randomised
from tests.pruning.test_surgery import random_plan

X = torch.randn(1, 3, 16, 16, generator=torch.Generator().manual_seed(0))


def groups_of(model: nn.Module, example: Any = X) -> ChannelGroups:
    return channel_groups(observe(model, example).graph)


def members(groups: ChannelGroups) -> set[frozenset[tuple[str, int]]]:
    return {frozenset(group.members) for group in groups.groups}


@pytest.mark.parametrize("name", sorted(NETS))
def test_a_run_shows_the_groups_that_capturing_shows(name: str) -> None:
    model = randomised(NETS[name])
    assert members(groups_of(model)) == members(channel_groups(trace(model, X).graph))


@pytest.mark.parametrize("name", sorted(NETS))
def test_the_recorded_program_computes_what_the_model_computes_and_shrinks_exactly(name: str) -> None:
    model = randomised(NETS[name]).double()
    x = X.double()
    seen = observe(model, x)
    assert torch.equal(seen.module(x)[0], model(x))
    groups = channel_groups(seen.graph)
    plan = random_plan(groups, 1)
    want, got = masked_outputs(seen, groups, plan, x)[0], prune(seen, groups, plan).module(x)[0]
    assert float(((want - got).abs().max() / want.abs().max()).detach()) <= 1e-9


def test_operators_bear_the_names_of_captured_programs() -> None:
    def ops(nodes: tuple[Node, ...]) -> list[str]:
        return [node.base for node in nodes if node.op.startswith("aten.")]

    model = randomised(NETS["plain"])
    assert ops(observe(model, X).graph.nodes) == ops(trace(model, X).graph.nodes)


def test_a_detector_is_pruned_through_its_pyramid_and_its_regions() -> None:
    seen = observe(randomised(Detector).double(), images())
    groups = channel_groups(seen.graph)
    pyramid = groups.by_name["smooth.0"].members
    assert {("smooth.0.weight", 0), ("smooth.1.weight", 0), ("proposer.weight", 1), ("first.weight", 1)} <= set(pyramid)
    found = {path for group in groups.groups for path, axis in group.members if axis == 0}
    wide = {"stem.0.weight", "middle.0.weight", "deep.0.weight", "proposer.weight", "first.weight", "second.weight"}
    assert wide | {"lateral.0.weight", "lateral.1.weight"} <= found
    assert {entry.name for entry in groups.frozen} == {"objectness", "deltas", "classify", "refine"}
    assert any("data-dependent Python" in note for note in seen.notes)


@pytest.mark.slow
def test_an_example_on_which_nothing_is_found_shows_the_same_groups() -> None:
    class Empty(Detector):
        def proposals(self, *args: Any) -> torch.Tensor:
            boxes = super().proposals(*args)
            return boxes[boxes[:, 0] > 1e9]

    found, nothing = (groups_of(randomised(kind).double(), images()) for kind in (Detector, Empty))
    assert members(found) == members(nothing)


def test_what_can_be_captured_is_captured_and_what_cannot_says_why() -> None:
    assert type(capture(randomised(NETS["plain"]), X)) is Captured
    seen = capture(randomised(Branching), X)
    assert isinstance(seen, Observed)
    assert seen.notes[0].startswith("observed instead of captured: the model cannot be captured")
    with pytest.raises(UnsupportedError, match="does not run"):
        capture(Lambda(lambda m, x: m.head(x), head=nn.Linear(5, 4)), X)


def test_a_model_without_decisions_has_no_notes() -> None:
    assert observe(randomised(NETS["residual"]), X).notes == ()


class Branching(nn.Module):
    """One of two branches, chosen by the data."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = conv(3, 8)
        self.inner = nn.Sequential(conv(8, 12), conv(12, 8))
        self.left = nn.Conv2d(8, 6, 1)
        self.right = nn.Conv2d(8, 6, 1)
        self.head = nn.Linear(6, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.inner(self.stem(x))
        y = self.left(y) if y.mean() > -1e6 else self.right(y)
        return self.head(y.mean((2, 3)))


def test_what_a_branch_that_was_not_taken_could_be_given_stays() -> None:
    model = randomised(Branching)
    seen = observe(model, X)
    groups = channel_groups(seen.graph)
    assert seen.untouched == ("right.weight", "right.bias")
    assert any("right.weight, right.bias" in note for note in seen.notes)
    reasons = {entry.name: entry.reasons for entry in groups.frozen}
    assert any("right was not reached" in reason for reason in reasons["inner.1.0"])
    assert any("right was not reached" in reason for reason in reasons["left"])
    assert [group.name for group in groups.groups] == ["inner.0.0"]  # nothing beside it could read these


def test_what_is_computed_and_then_not_used_stays_where_the_data_decides() -> None:
    def forward(m: Any, x: torch.Tensor) -> torch.Tensor:
        y = m.stem(x)
        mask = m.mask(y)
        return mask if y.mean() > 1e6 else m.head(y.mean((2, 3)))

    layers = {"stem": nn.Conv2d(3, 8, 3), "mask": nn.Conv2d(8, 5, 1), "head": nn.Linear(8, 4)}
    groups = groups_of(Lambda(forward, **layers))
    reasons = {entry.name: entry.reasons for entry in groups.frozen}
    assert any("not used on the path of the example" in reason for reason in reasons["mask"])
    assert [group.name for group in groups.groups] == ["stem"]


def test_a_module_that_is_never_called_is_named_and_stops_nothing_where_no_decision_is_made() -> None:
    model = randomised(NETS["plain"])
    model.add_module("spare", nn.Linear(24, 24))
    model.forward = lambda x: model[4](model[3](model[2](model[1](model[0](x)))))  # type: ignore[method-assign]
    seen = observe(model, X)
    assert seen.untouched == ("spare.weight", "spare.bias")
    assert [group.name for group in channel_groups(seen.graph).groups] == ["0.0", "1.0"]


def counted(first: Callable[..., Any], then: Callable[..., Any]) -> nn.Module:
    """A model that does one thing on the first call and another on the second."""

    def forward(m: Any, x: torch.Tensor) -> torch.Tensor:
        m.count = getattr(m, "count", 0) + 1
        y = m.stem(x)
        return m.head((first(y) if m.count % 2 else then(y)).mean((2, 3)))

    return Lambda(forward, stem=nn.Conv2d(3, 8, 3), head=nn.Linear(8, 4))


def test_a_forward_pass_that_changes_between_calls_is_refused_and_the_operator_named() -> None:
    with pytest.raises(
        UnsupportedError, match=r"changes between calls: sigmoid \(aten.sigmoid.default\) one time, relu"
    ):
        observe(counted(F.relu, torch.sigmoid), X)
    with pytest.raises(UnsupportedError, match=r"mul \(aten.mul.Tensor\) one time, other sizes or numbers the next"):
        observe(counted(lambda y: y * 2.0, lambda y: y * 3.0), X)
    with pytest.raises(UnsupportedError, match="changes between calls"):
        observe(counted(lambda y: y, F.relu), X)


def test_what_the_first_call_sets_up_is_no_change() -> None:
    def forward(m: Any, x: torch.Tensor) -> torch.Tensor:
        y = m.stem(x)
        if not hasattr(m, "scale"):
            m.scale = float(torch.tensor(2.0).log2())
        return m.head((y * m.scale).mean((2, 3)))

    model = Lambda(forward, stem=nn.Conv2d(3, 8, 3), head=nn.Linear(8, 4))
    assert not any(node.base == "log2" for node in observe(model, X).graph.nodes)
    assert not hasattr(model, "scale")


def test_a_model_that_fails_is_refused_with_its_own_words() -> None:
    model = Lambda(lambda m, x: m.head(x), head=nn.Linear(5, 4))
    with pytest.raises(UnsupportedError, match="does not run: RuntimeError: mat1 and mat2") as caught:
        observe(model, X)
    assert caught.value.where == "head"


def test_observing_leaves_mode_buffers_and_attributes_as_they_were() -> None:
    def forward(m: Any, x: torch.Tensor) -> torch.Tensor:
        m.seen.add_(1)
        m.last = m.stem(x)
        m.history.append(m.last)
        return m.head(m.last.mean((2, 3)))

    model = Lambda(forward, stem=nn.Conv2d(3, 8, 3), head=nn.Linear(8, 4))
    model.register_buffer("seen", torch.zeros(()))
    model.history = []
    model.train()
    model.stem.eval()
    observe(model, X)
    assert model.training and not model.stem.training
    assert float(model.get_buffer("seen")) == 0
    assert not hasattr(model, "last") and model.history == []
    assert not model.stem._forward_hooks and not model.stem._forward_pre_hooks


def test_a_hook_that_edits_an_output_is_part_of_the_program() -> None:
    model = randomised(NETS["plain"]).double()
    x = X.double()
    model[1].register_forward_hook(lambda module, args, output: output.flip(1) * 2)
    seen = observe(model, x)
    assert torch.equal(seen.module(x)[0], model(x))
    groups = channel_groups(seen.graph)
    plan = random_plan(groups, 4)
    want, got = masked_outputs(seen, groups, plan, x)[0], prune(seen, groups, plan).module(x)[0]
    assert torch.allclose(want, got, rtol=0, atol=1e-9)


def test_values_that_python_reads_are_frozen() -> None:
    def forward(m: Any, x: torch.Tensor) -> torch.Tensor:
        y = m.stem(x)
        weights = torch.from_numpy(y.mean((2, 3)).numpy()).exp()
        return m.head((y * weights[:, :, None, None]).mean((2, 3)))

    model = Lambda(forward, stem=nn.Conv2d(3, 8, 3), head=nn.Linear(8, 4))
    seen = observe(model, X)
    (entry,) = [entry for entry in channel_groups(seen.graph).frozen if entry.name == "stem"]
    assert any("read by Python (numpy)" in reason for reason in entry.reasons)
    assert seen.notes


def test_a_constant_that_python_makes_keeps_its_size() -> None:
    def forward(m: Any, x: torch.Tensor) -> torch.Tensor:
        return m.head((m.stem(x) + torch.tensor([0.1 * i for i in range(8)]).view(8, 1, 1)).mean((2, 3)))

    groups = groups_of(Lambda(forward, stem=nn.Conv2d(3, 8, 3), head=nn.Linear(8, 4)))
    assert not groups.groups


def test_writing_into_a_view_couples_what_is_written_to_what_it_is_written_into() -> None:
    def forward(m: Any, x: torch.Tensor) -> torch.Tensor:
        y = m.stem(x)
        y[:, :4].add_(m.side(x))
        y[:, 4:] = m.side(x)
        return m.head(y.mean((2, 3)))

    layers = {"stem": nn.Conv2d(3, 8, 3), "side": nn.Conv2d(3, 4, 3), "head": nn.Linear(8, 4)}
    found = groups_of(Lambda(forward, **layers))
    assert members(found) == {
        frozenset({("stem.weight", 0), ("stem.bias", 0), ("side.weight", 0), ("side.bias", 0), ("head.weight", 1)})
    }


def test_a_parameter_that_is_used_twice_or_under_another_object_is_one_parameter() -> None:
    def forward(m: Any, x: torch.Tensor) -> torch.Tensor:
        y = m.stem(x)
        y = F.conv2d(y, m.twice.weight.data, m.twice.bias, padding=1) + m.twice(y)
        return m.head(y.mean((2, 3)))

    layers = {"stem": nn.Conv2d(3, 8, 3), "twice": nn.Conv2d(8, 8, 3, padding=1), "head": nn.Linear(8, 4)}
    seen = observe(Lambda(forward, **layers), X)
    assert sorted(seen.graph.parameters) == sorted(f"{layer}.{kind}" for layer in layers for kind in ("weight", "bias"))
    found = channel_groups(seen.graph)
    assert {group.name: group.width for group in found.groups} == {"stem": 8, "twice": 8}


def test_a_layer_without_channels_is_no_group() -> None:
    def forward(m: Any, x: torch.Tensor) -> torch.Tensor:
        return m.head(torch.cat([m.stem(x).mean((2, 3)), m.empty(x.mean((2, 3)))], 1))

    with pytest.warns(UserWarning, match="zero-element"):
        empty = nn.Linear(3, 0)
    model = Lambda(forward, stem=nn.Conv2d(3, 8, 3), empty=empty, head=nn.Linear(8, 4))
    assert [group.name for group in groups_of(model).groups] == ["stem"]


def test_inputs_of_any_nesting_are_inputs() -> None:
    def forward(m: Any, given: dict[str, Any]) -> dict[str, Any]:
        left, (right,) = given["left"], given["rest"]
        return {"y": m.head((m.stem(left) + m.other(right)).mean((2, 3)))}

    layers = {"stem": nn.Conv2d(3, 8, 3), "other": nn.Conv2d(3, 8, 3), "head": nn.Linear(8, 4)}
    seen = observe(Lambda(forward, **layers), ({"left": X, "rest": [X]},))
    assert len(seen.graph.inputs) == 2
    assert [group.width for group in channel_groups(seen.graph).groups] == [8]


def test_plain_tensors_are_cut_to_one_sample() -> None:
    seen = observe(randomised(NETS["plain"]), torch.zeros(5, 3, 16, 16))
    assert seen.graph.inputs[0].shape == (1, 3, 16, 16)
