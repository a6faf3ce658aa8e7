"""Every criterion, by being registered: what it gives, that it moves with the channels, and that it changes nothing."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from itertools import combinations

import numpy as np
import pytest
import torch
from torch import nn

from edgeprune.pruning.criteria.evidence import Evidence, Sampled, registered
from edgeprune.pruning.groups import channel_groups
from edgeprune.pruning.importance import CRITERIA, DEFAULT, Ranking, importance, without_data
from edgeprune.pruning.trace import copy_module, trace
from tests.pruning.criteria.scored import error_of, on_images, on_operators
from tests.pruning.nets import NETS
from tests.pruning.operator_nets import CASES

NAMES = sorted(CRITERIA)
CHANCE = {"hessian", "obd"}  # draw a sign per channel, so that permuted channels meet other signs
IMAGES = ("plain", "residual", "inverted_residual", "squeeze_excite")
OPERATORS = ("lstm", "transformer_encoder", "small_gpt", "parametrised_weights")
MORE = sorted({*NETS, *CASES} - {*IMAGES, *OPERATORS})


@cache
def opened(name: str) -> Evidence:
    """Evidence of a network by its name, captured once; nobody may change it."""
    return on_images(name) if name in NETS else on_operators(name)


@cache
def ranked(name: str, net: str) -> Ranking:
    """What a criterion says of a network."""
    return importance(name, opened(net))


def copied(net: str) -> Evidence:
    """Evidence with a model of its own."""
    evidence = opened(net)
    return replace(evidence, captured=replace(evidence.captured, module=copy_module(evidence.captured.module)))


@pytest.mark.parametrize("net", [*IMAGES[1:], *OPERATORS, *(pytest.param(net, marks=pytest.mark.slow) for net in MORE)])
@pytest.mark.parametrize("name", NAMES)
def test_one_finite_number_per_channel(name: str, net: str) -> None:
    scores = ranked(name, net).scores
    assert set(scores) == set(opened(net).groups.by_name)
    for group in opened(net).groups.groups:
        assert scores[group.name].shape == (group.width,) and scores[group.name].dtype == np.float64
        assert np.isfinite(scores[group.name]).all() and (scores[group.name] >= 0).all()


@pytest.mark.parametrize("name", NAMES)
def test_the_same_scores_each_time_whatever_the_callers_random_state(name: str) -> None:
    torch.manual_seed(99)
    with torch.no_grad():
        again = importance(name, opened("residual")).scores
    assert all(np.array_equal(again[group], score) for group, score in ranked(name, "residual").scores.items())


@pytest.mark.parametrize("name", NAMES)
def test_nothing_of_the_model_changes(name: str) -> None:
    evidence = copied("plain")
    module = evidence.captured.module
    module.train()
    for parameter in module.parameters():
        parameter.grad = torch.ones_like(parameter)
    next(module.parameters()).requires_grad_(False)
    before = {key: value.clone() for key, value in module.state_dict().items()}
    wanted = [p.requires_grad for p in module.parameters()]
    code, random = module.code, torch.get_rng_state()
    kept = np.random.get_state()[1].copy()
    importance(name, evidence)
    assert all(torch.equal(before[key], value) for key, value in module.state_dict().items())
    assert all(p.grad is not None and bool((p.grad == 1).all()) for p in module.parameters())
    assert [p.requires_grad for p in module.parameters()] == wanted
    assert module.training and module.code == code and module.state_dict().keys() == before.keys()
    assert torch.equal(torch.get_rng_state(), random) and np.array_equal(np.random.get_state()[1], kept)
    assert torch.is_grad_enabled()


def permuted(order: torch.Tensor) -> tuple[nn.Module, nn.Module]:
    """A network, and the same with the first layer's channels in another order."""
    generator = torch.Generator().manual_seed(1)

    def made() -> nn.Sequential:
        first = [nn.Conv2d(3, 10, 3), nn.BatchNorm2d(10), nn.ELU()]
        return nn.Sequential(*first, nn.Conv2d(10, 6, 3), nn.ELU(), nn.Flatten(), nn.Linear(6 * 16, 3)).eval()

    model, other = made(), made()
    with torch.no_grad():
        for key, value in model.state_dict().items():
            if value.is_floating_point():
                value.copy_(torch.rand(value.shape, generator=generator) + (0.2 if key.startswith("1.") else -0.5))
        other.load_state_dict(model.state_dict())
        for key, value in other.state_dict().items():
            if key.startswith(("0.", "1.")) and value.ndim:
                value.copy_(value[order].clone())
        other[3].weight.copy_(model[3].weight[:, order])
    return model, other


@pytest.mark.parametrize("name", sorted(set(NAMES) - {"random"} - CHANCE))
def test_permuting_channels_permutes_the_scores(name: str) -> None:
    order = torch.randperm(10, generator=torch.Generator().manual_seed(3))
    generator = torch.Generator().manual_seed(5)
    batches = tuple(
        Sampled((torch.randn(6, 3, 8, 8, generator=generator),), torch.randint(0, 3, (6,), generator=generator))
        for _ in range(2)
    )
    scores = []
    for net in permuted(order):
        found = trace(net, torch.zeros(1, 3, 8, 8))
        evidence = Evidence(found, channel_groups(found.graph), batches, nn.functional.cross_entropy)
        scores.append(importance(name, evidence).scores)
    tolerance = 1e-4 * scores[0]["0"].max()
    assert np.allclose(scores[0]["0"][order.numpy()], scores[1]["0"], rtol=1e-3, atol=tolerance)
    assert np.allclose(scores[0]["3"], scores[1]["3"], rtol=1e-3, atol=tolerance)
    assert np.ptp(scores[0]["0"]) > 0


def test_no_two_names_give_the_same_scores() -> None:
    rows = {name: np.concatenate(list(ranked(name, "residual").scores.values())) for name in NAMES}
    for one, other in combinations(NAMES, 2):
        assert not np.allclose(rows[one] / rows[one].sum(), rows[other] / rows[other].sum()), (one, other)


def test_names_and_functions_are_one_to_one() -> None:
    functions = [one.score for one in CRITERIA.values()]
    assert len(set(functions)) == len(functions) and DEFAULT in CRITERIA
    family = {"l1": CRITERIA["l1"]}
    with pytest.raises(ValueError, match="'l1' is registered twice"):
        registered(family, family)
    with pytest.raises(ValueError, match="'l1' is registered twice"):
        registered({"size": CRITERIA["l1"]})


@pytest.mark.parametrize("name", NAMES)
def test_a_criterion_says_what_it_is(name: str) -> None:
    one = CRITERIA[name]
    text = one.score.__doc__ or ""
    assert one.about.endswith((".", "default")) and len(one.about) < 120
    assert name == "random" or ("s_c = " in text and "Source: " in text)


@pytest.mark.parametrize("name", NAMES)
def test_what_needs_no_data_is_given_none_and_only_the_rest_has_halves(name: str) -> None:
    evidence, ranking = opened("residual"), ranked(name, "residual")
    if CRITERIA[name].needs == "weights":
        bare = importance(name, replace(evidence, batches=(), loss=None))
        assert all(np.array_equal(bare.scores[g], ranking.scores[g]) for g in bare.scores)
        assert ranking.stability is None and (name in without_data() or name == "random")
    else:
        assert ranking.stability is not None and -1 <= ranking.stability.mean <= 1
        assert set(ranking.stability.groups) == set(evidence.groups.by_name)
        assert importance(name, replace(evidence, batches=evidence.batches[:1])).stability is None


@pytest.mark.parametrize(
    "name", [n for n in NAMES if CRITERIA[n].needs == "targets" and n not in ("grasp", "movement")]
)
def test_a_flat_loss_leaves_no_gradient(name: str) -> None:
    evidence = replace(opened("plain"), loss=lambda outputs, targets: 0.0 * error_of(outputs, targets))
    assert all((score == 0).all() for score in importance(name, evidence).scores.values())


@pytest.mark.parametrize(
    ("name", "power"),
    [
        ("taylor", 1),
        ("taylor_per_sample", 1),
        ("taylor_per_site", 1),
        ("taylor_of_weights", 1),
        ("gradient", 1),
        ("gradient_ratio", 1),
        ("fisher", 2),
        ("hessian", 1),
        ("obd", 1),
        ("snip", 0),
        ("grasp", 2),
    ],
)
def test_scores_grow_with_the_loss_as_their_definition_says(name: str, power: int) -> None:
    scaled = replace(opened("plain"), loss=lambda outputs, targets: 3.0 * error_of(outputs, targets))
    want, got = ranked(name, "plain").scores, importance(name, scaled).scores
    for group, score in want.items():
        assert np.allclose(got[group], 3.0**power * score, rtol=1e-3, atol=1e-6 * 3.0**power * score.max())


@pytest.mark.parametrize("name", ["l1", "l2", "fpgm", "lamp"])
def test_sizes_of_weights_are_relative_to_their_layer(name: str) -> None:
    evidence, want = copied("plain"), ranked(name, "plain").scores
    with torch.no_grad():
        evidence.captured.module.get_parameter("0.0.weight").mul_(7.0)
    got = importance(name, evidence).scores
    assert all(np.allclose(got[group], want[group], rtol=1e-5) for group in want)
