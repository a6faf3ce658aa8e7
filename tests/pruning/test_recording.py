"""A recorded run can be run again, and follows the model's tensors through whatever Python does with them."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from torch import nn

from edgeprune.errors import UnsupportedError
from edgeprune.pruning.groups import channel_groups
from edgeprune.pruning.masked import masked_outputs
from edgeprune.pruning.observe import observe
from edgeprune.pruning.recording import record, sums, tensors_in
from edgeprune.pruning.surgery import prune
from tests.pruning.nets import Lambda
from tests.pruning.test_surgery import random_plan

X = torch.randn(1, 3, 9, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
ROWS, COLUMNS = torch.tensor([0, 4, 2, 2, 1]), torch.tensor([1, 1, 3, 0, 5])


def indexed(pick: Callable[[torch.Tensor, torch.Tensor], torch.Tensor], channels: int) -> nn.Module:
    """A layer whose output (1, 6, 9, 8) is indexed and then read by a linear layer over its channels."""

    def forward(m: Any, x: torch.Tensor) -> torch.Tensor:
        y = m.stem(x)
        return m.head(pick(y, torch.arange(y.shape[1])).movedim(channels, -1))

    torch.manual_seed(1)
    return Lambda(forward, stem=nn.Conv2d(3, 6, 3, padding=1), head=nn.Linear(6, 2)).double().eval()


@pytest.mark.parametrize(
    ("pick", "channels"),
    [
        (lambda y, c: y[:, c[:, None], ROWS, COLUMNS], 1),
        (lambda y, c: y[:, c, ROWS[:, None], COLUMNS[:, None]], 2),
        (lambda y, c: y[torch.zeros(5, dtype=torch.long)[:, None], c, ROWS[:, None]], 1),
        (lambda y, c: y[ROWS[:, None] * 0, c[None], :, COLUMNS[:, None]], 1),
        (lambda y, c: y[ROWS[:, None, None] * 0, c[None, :, None], ROWS[:, None, None], COLUMNS[None, None, :]], 1),
        (lambda y, c: y.permute(0, 2, 3, 1)[:, ROWS[:, None], COLUMNS[:, None], c], 2),
    ],
)
def test_a_whole_axis_passes_an_index_over_several_axes(pick: Any, channels: int) -> None:
    model = indexed(pick, channels)
    seen = observe(model, X)
    assert torch.equal(seen.module(X)[0], model(X))
    groups = channel_groups(seen.graph)
    assert [group.name for group in groups.groups] == ["stem"]
    plan = random_plan(groups, 3)
    want, got = masked_outputs(seen, groups, plan, X)[0], prune(seen, groups, plan).module(X)[0]
    assert torch.allclose(want, got, rtol=0, atol=1e-9)


@pytest.mark.parametrize(
    "pick",
    [
        lambda y, c: y[:, c.flip(0), ROWS[:, None], COLUMNS[:, None]],  # another order
        lambda y, c: y[:, c[:5], ROWS, COLUMNS],  # one point of each channel
        lambda y, c: y[:, c.argsort(descending=True)[:, None], ROWS, COLUMNS],
    ],
)
def test_channels_that_an_index_picks_in_another_way_stay(pick: Any) -> None:
    def forward(m: Any, x: torch.Tensor) -> torch.Tensor:
        y = m.stem(x)
        return pick(y, torch.arange(y.shape[1]))

    found = channel_groups(observe(Lambda(forward, stem=nn.Conv2d(3, 6, 3, padding=1)).double(), X).graph)
    assert [entry.name for entry in found.frozen] == ["stem"]


def test_the_run_tells_which_module_ran_what() -> None:
    model = indexed(lambda y, c: y[:, :, 0], 1)
    run = record(model, (X,))
    owners = {run.owners[node.name] for node in run.program.nodes if node.op == "call_function"}
    assert owners == {"", "stem", "head"}
    assert [(call.path, call.caller) for call in run.calls] == [("", ""), ("stem", ""), ("head", "")]
    (stem,) = (call for call in run.calls if call.path == "stem")
    assert stem.inputs == ("x0",) and len(stem.outputs) == 1


def test_a_constant_that_data_was_written_into_is_none() -> None:
    def forward(m: Any, x: torch.Tensor) -> torch.Tensor:
        table = torch.zeros(4)
        table[1] = x.mean()
        return m.head(x.mean((2, 3))) if table.sum() > -100 else x

    assert record(Lambda(forward, head=nn.Linear(3, 2)).double().eval(), (X,)).decisions

    def untouched(m: Any, x: torch.Tensor) -> torch.Tensor:
        table = torch.zeros(4)
        return m.head(x.mean((2, 3))) if table.sum() > -100 else x

    assert not record(Lambda(untouched, head=nn.Linear(3, 2)).double().eval(), (X,)).decisions


def test_tensors_are_found_in_any_container_and_cycles_end() -> None:
    class Holder:
        def __init__(self) -> None:
            self.tensor = torch.ones(2)
            self.me = self

    @dataclass(slots=True)
    class Slotted:
        tensor: torch.Tensor

    a, b = torch.zeros(1), torch.zeros(3)
    nested = {"x": [a, (b, None)], "y": Holder(), "z": "text", "s": Slotted(torch.zeros(4))}
    assert [len(t) for t in tensors_in(nested)] == [1, 3, 2, 4]


def test_a_scripted_part_is_seen_step_by_step() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # some versions of torch speak against it
        inner = torch.jit.script(nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU()))
    model = nn.Sequential(inner, nn.Conv2d(8, 4, 3)).double().eval()
    assert [group.name for group in channel_groups(observe(model, X).graph).groups] == ["0.0"]


def test_a_model_that_returns_no_tensor_is_refused() -> None:
    model = Lambda(lambda m, x: (m.head(x) for _ in range(2)), head=nn.Linear(8, 2)).double()
    with pytest.raises(UnsupportedError, match="returns no tensor but a generator"):
        record(model, (X,))


def test_sums_are_taken_in_double_precision() -> None:
    assert sums(torch.tensor([1.5, -0.5])) == (1.0, 2.0)
