"""A model is opened only when its capture computes what it computes; what else it does is named."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import edgeprune
from edgeprune.errors import QualityError, UnsupportedError, UsageError
from edgeprune.pruning.check import TOLERANCE, checked_prune
from edgeprune.pruning.groups import channel_groups
from edgeprune.pruning.opening import open_model, varied
from edgeprune.pruning.plan import uniform
from edgeprune.pruning.trace import trace
from tests.pruning.nets import NETS, Lambda, conv, randomised

T = torch.Tensor
X = torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(0))


def small(forward: Callable[[Any, T], Any], **layers: nn.Module) -> nn.Module:
    """A stem, whatever `forward` does with its 8 channels, a head."""
    return randomised(lambda: Lambda(forward, stem=conv(3, 8), out=conv(8, 6), head=nn.Linear(6, 4), **layers))


# What changes from call to call ------------------------------------------------------------------------------------


def test_a_forward_that_counts_its_calls_is_refused_with_the_difference() -> None:
    def forward(m: Any, x: T) -> T:
        m.calls = getattr(m, "calls", 0) + 1
        return m.head(m.out(m.stem(x)).mean((2, 3))) * (m.calls % 3)

    with pytest.raises(UnsupportedError, match="the forward pass changes between calls: output 0 by") as caught:
        edgeprune.prune(small(forward), X, keep=0.5)
    assert "counters" in caught.value.hint


def test_a_forward_that_was_another_at_its_first_call_is_captured_as_it_stays() -> None:
    def forward(m: Any, x: T) -> T:
        first, m.called = not hasattr(m, "called"), True
        return m.head(m.out(m.stem(x)).mean((2, 3))) * (1.0 if first else 2.0)

    model = small(forward)
    program = open_model(model, X).captured.module
    torch.testing.assert_close(program(X), model(X))


def test_other_shapes_and_numbers_of_outputs_are_named() -> None:
    def more(m: Any, x: T) -> Any:
        m.calls = getattr(m, "calls", 0) + 1
        return (x,) * m.calls

    def wider(m: Any, x: T) -> Any:
        m.calls = getattr(m, "calls", 0) + 1
        return torch.cat([x] * m.calls, 1)

    def holes(m: Any, x: T) -> Any:
        m.calls = getattr(m, "calls", 0) + 1
        return x / (m.calls % 2)

    for forward, message in ((more, r"\d output tensors, then \d"), (wider, "has shape"), (holes, "finite in other")):
        with pytest.raises(UnsupportedError, match=message):
            open_model(Lambda(forward), X)


def test_a_forward_that_draws_random_numbers_is_no_failure() -> None:
    def forward(m: Any, x: T) -> T:
        return m.head(m.out(m.stem(x)).mean((2, 3))) + torch.randn(x.shape[0], 4)

    assert open_model(small(forward), X).captured.graph.nodes


def test_a_hook_that_edits_outputs_is_part_of_the_program() -> None:
    model = randomised(NETS["plain"])
    model[0].register_forward_hook(lambda module, args, output: output * 2.0 + 1.0)
    done = edgeprune.prune(model, X, keep=1.0)
    assert torch.equal(done.model(X), model.eval()(X))
    assert edgeprune.prune(model, X, keep=0.5).error is not None


def test_a_hook_that_edits_by_count_is_refused() -> None:
    model = randomised(NETS["plain"])
    seen: list[int] = []

    def hook(module: nn.Module, args: Any, output: T) -> T:
        seen.append(1)
        return output * len(seen)

    model[1].register_forward_hook(hook)
    with pytest.raises(UnsupportedError, match="changes between calls"):
        edgeprune.prune(model, X, keep=0.5)


# Weights and shapes --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_that_are_not_finite_are_named(value: float) -> None:
    model = randomised(NETS["plain"])
    with torch.no_grad():
        model[1][0].weight[0, 1] = value
    with pytest.raises(QualityError, match=r"1\.0\.weight: 9 of 3456 values are not finite") as caught:
        edgeprune.prune(model, X, keep=0.5)
    assert caught.value.exit_code == 4


def test_a_mask_of_minus_infinity_is_no_broken_weight() -> None:
    def forward(m: Any, x: T) -> T:
        y = m.embed(x)
        scores = y @ y.transpose(1, 2) + m.mask
        return m.head(scores.softmax(-1) @ y)

    model = Lambda(forward, embed=nn.Linear(5, 8), head=nn.Linear(8, 2))
    model.register_buffer("mask", torch.full((4, 4), -float("inf")).triu(1))
    done = edgeprune.prune(model, torch.randn(2, 4, 5), keep=0.5)
    assert done.error is not None and done.error <= TOLERANCE


@pytest.mark.filterwarnings("ignore:Initializing zero-element tensors")
def test_a_layer_without_channels_stays_as_it_is() -> None:
    def forward(m: Any, x: T) -> T:
        x = m.out(m.stem(x)).mean((2, 3))
        return m.head(torch.cat([x, m.empty(x)], 1))

    done = edgeprune.prune(small(forward, empty=nn.Linear(6, 0)), X, keep=0.5)
    assert done.error is not None and done.error <= TOLERANCE and not done.excluded
    assert done.model.get_parameter("out.0.weight").shape[0] == 3
    assert done.model.get_parameter("empty.weight").shape == (0, 3)


@pytest.mark.filterwarnings("ignore:Initializing zero-element tensors")
def test_a_model_that_does_not_run_says_so_in_its_own_words() -> None:
    model = nn.Sequential(nn.Conv2d(3, 0, 3), nn.Flatten())  # torch runs no convolution without channels
    with pytest.raises(UsageError, match="the model does not run on the example: Given groups=1, expected weight"):
        edgeprune.prune(model, X, keep=0.5)


# Writing in place ----------------------------------------------------------------------------------------------------


def in_place_on_the_input(m: Any, x: T) -> T:
    x.mul_(2.0).add_(1.0)
    return m.head(m.out(m.stem(x)).mean((2, 3)))


def in_place_on_a_view(m: Any, x: T) -> T:
    y = m.stem(x)
    y[:, 2:6].mul_(3.0).add_(1.0)
    y.view(x.shape[0], -1).add_(0.5)
    return m.head(m.out(y).mean((2, 3)))


def assigned_slices(m: Any, x: T) -> T:
    y = m.stem(x)
    y[:, :, 0] = 0.0
    y[:, 1] = 2.0
    y[:, 4:] = y[:, :4]
    return m.head(m.out(y).mean((2, 3)))


def in_place_after_a_branch(m: Any, x: T) -> T:
    y = m.stem(x)
    z = y
    y += 1.0
    return m.head(m.out(F.relu_(y) * z).mean((2, 3)))


@pytest.mark.parametrize(
    "forward", [in_place_on_the_input, in_place_on_a_view, assigned_slices, in_place_after_a_branch]
)
def test_writing_in_place_gives_the_right_result_or_leaves_the_group_whole(forward: Callable[[Any, T], T]) -> None:
    model, before = small(forward), X.clone()
    done = edgeprune.prune(model, X, keep=0.5)
    assert done.error is not None and done.error <= TOLERANCE and torch.equal(X, before)
    whole = edgeprune.prune(model, X, keep=1.0)
    assert torch.equal(whole.model(X.clone()), model.eval()(X.clone()))
    assert done.model.get_parameter("out.0.weight").shape[0] == 3


def test_inputs_of_one_number_are_replaced_by_noise_and_others_are_copied() -> None:
    zeros, real, words, rate = varied((torch.zeros(2, 3), X, torch.zeros(4, dtype=torch.int64), 0.5))
    assert zeros.std() > 0.1 and torch.equal(real, X) and real is not X and not words.any() and rate == 0.5


# Training mode -------------------------------------------------------------------------------------------------------


class Auxiliary(nn.Module):
    """A second head in training mode, and a branch that is dropped by chance."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.branch, self.aux, self.head = conv(3, 8), conv(8, 8), nn.Linear(8, 4), nn.Linear(8, 4)

    def forward(self, x: T) -> Any:
        x = self.stem(x)
        y = self.branch(x)
        if self.training:
            y = y * torch.bernoulli(torch.full((y.shape[0], 1, 1, 1), 0.8))
        x = (x + y).mean((2, 3))
        return (self.head(x), self.aux(x)) if self.training else self.head(x)


def test_branches_of_training_mode_are_named() -> None:
    done = edgeprune.prune(Auxiliary(), X, keep=0.5)
    (note,) = done.notes
    assert "in training mode only: layers aux, operators bernoulli" in note and "1 more output" in note
    assert torch.is_tensor(done.model.train()(X))


def test_a_branch_through_a_function_and_one_of_eval_mode_are_named() -> None:
    class Scaled(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.body = conv(3, 8)

        def forward(self, x: T) -> T:
            return _unless(self, self.body(x))

    (note,) = open_model(Scaled(), X).notes
    assert note == "in eval mode only: operators tanh; the pruned model does it in training mode too"


def _unless(module: nn.Module, x: T) -> T:
    return x if module.training else torch.tanh(x)


def test_dropout_and_batchnorm_are_no_branches() -> None:
    class Plain(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.body, self.head = conv(3, 8), nn.Linear(8, 2)

        def forward(self, x: T) -> T:
            return self.head(F.dropout(self.body(x).mean((2, 3)), 0.5, self.training))  # type: ignore[no-any-return]

    model = Plain()
    model.body[1].eval()
    assert open_model(model, X).notes == ()
    assert model.training and not model.body[1].training, "every module keeps its own mode"


def test_a_training_mode_that_cannot_be_captured_is_named() -> None:
    class Odd(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.body = conv(3, 8)

        def forward(self, x: T) -> T:
            if self.training and x.sum() > 0:
                return self.body(-x)  # type: ignore[no-any-return]
            return self.body(x)  # type: ignore[no-any-return]

    (note,) = open_model(Odd(), X).notes
    assert "branches on self.training could not be looked at" in note


# Size ----------------------------------------------------------------------------------------------------------------


def seconds(layers: int) -> tuple[int, float]:
    """Nodes of a chain, and the best of three times to group, prune and check it."""
    body = [module for _ in range(layers) for module in (nn.Linear(4, 4), nn.ReLU())]
    model, x = nn.Sequential(*body, nn.Linear(4, 2)).eval(), torch.randn(2, 4)
    captured = trace(model, x)
    times = []
    for _ in range(3):
        started = time.perf_counter()
        groups = channel_groups(captured.graph)
        done = checked_prune(captured, groups, uniform(groups, 0.5, 1), (x,))
        times.append(time.perf_counter() - started)
        assert len(groups.groups) == layers and done.error <= TOLERANCE
    return len(captured.graph.nodes), min(times)


@pytest.mark.slow
def test_time_is_linear_in_the_nodes() -> None:
    (few, first), (many, last) = seconds(250), seconds(2500)
    assert many > 10_000 and last / first < 2 * many / few
