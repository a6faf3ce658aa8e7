"""The user's own criterion: taken from a file, checked, and held to leave the model alone."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from edgeprune.errors import QualityError, UsageError
from edgeprune.pruning.criteria.evidence import Evidence, Sampled
from edgeprune.pruning.groups import channel_groups
from edgeprune.pruning.importance import importance
from edgeprune.pruning.trace import trace
from edgeprune.workload.criteria import load_criterion, own_criterion
from tests.pruning.nets import NETS, randomised

MINE = '''
import torch

def score(evidence):
    """As the weights say."""
    weights = dict(evidence.captured.module.named_parameters())
    return {g.name: weights[g.members[0][0]].flatten(1).abs().sum(1) for g in evidence.groups.groups}

answer = 42

class Scorer:
    pass
'''


@pytest.fixture
def evidence() -> Evidence:
    captured = trace(randomised(NETS["plain"]), torch.zeros(1, 3, 16, 16))
    return Evidence(captured, channel_groups(captured.graph), (Sampled((torch.randn(2, 3, 16, 16),)),))


@pytest.fixture
def mine(tmp_path: Path) -> str:
    (tmp_path / "mine.py").write_text(MINE)
    return str(tmp_path / "mine.py")


def test_a_function_in_a_file_scores_channels(mine: str, evidence: Evidence) -> None:
    chosen = load_criterion(f"{mine}:score")
    ranking = importance(chosen, evidence)
    assert chosen.own and ranking.criterion == f"{mine}:score" and chosen.about == "As the weights say."
    assert ranking.stability is None and ranking.notes == ()
    weight = evidence.captured.module.get_parameter("0.0.weight").detach()
    assert np.allclose(ranking.scores["0.0"], weight.abs().sum((1, 2, 3)).numpy())


def test_built_in_names_are_found_and_others_refused(mine: str) -> None:
    assert load_criterion("l1").name == "l1"
    with pytest.raises(UsageError, match="unknown criterion 'l3'"):
        load_criterion("l3")
    with pytest.raises(UsageError, match="answer is int, not a function"):
        load_criterion(f"{mine}:answer")
    with pytest.raises(UsageError, match="Scorer is a class, not a function"):
        load_criterion(f"{mine}:Scorer")
    with pytest.raises(UsageError, match="has no 'scores'"):
        load_criterion(f"{mine}:scores")


def test_one_of_edgeprunes_own_kind_can_be_named(tmp_path: Path, evidence: Evidence) -> None:
    text = "from edgeprune.pruning.criteria.evidence import Found, criterion\nimport numpy as np\n\n"
    text += "@criterion(needs='inputs')\ndef nan(evidence):\n"
    text += "    return Found({g.name: np.full(g.width, np.nan) for g in evidence.groups.groups})\n"
    (tmp_path / "kind.py").write_text(text)
    chosen = load_criterion(f"{tmp_path / 'kind.py'}:nan")
    assert chosen.own and chosen.needs == "inputs"
    with pytest.raises(QualityError, match="non-finite") as caught:
        importance(chosen, evidence)
    assert "check the function" in caught.value.hint


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ([1.0], "gave list, not a dictionary"),
        ({}, "gave no scores for group '0.0'"),
        ({"0.0": np.ones(16)}, "gave no scores for group '1.0'"),
        ({"0.0": np.ones(15), "1.0": np.ones(24)}, r"gave \(15,\) for group '0.0', which has 16 channels"),
        ({"0.0": np.ones((16, 1)), "1.0": np.ones(24)}, r"gave \(16, 1\) for group '0.0'"),
        ({"0.0": ["a"] * 16, "1.0": np.ones(24)}, "gave <U1 for group '0.0', not numbers"),
        ({"0.0": [float("inf")] * 16, "1.0": np.ones(24)}, "gave 16 of 16 scores of group '0.0' that are not finite"),
        ({"0.0": torch.arange(16) - 1, "1.0": np.ones(24)}, "gave -1 for a channel of group '0.0'"),
    ],
)
def test_scores_of_another_form_are_refused(given: object, message: str, evidence: Evidence) -> None:
    with pytest.raises(UsageError, match=message):
        importance(own_criterion(lambda _: given, "mine"), evidence)  # type: ignore[arg-type, return-value]


def test_a_failing_function_is_the_users(evidence: Evidence) -> None:
    def broken(evidence: Evidence) -> dict[str, torch.Tensor]:
        raise KeyError("nothing")

    with pytest.raises(UsageError, match="mine failed: KeyError: 'nothing'"):
        importance(own_criterion(broken, "mine"), evidence)

    def refusing(evidence: Evidence) -> dict[str, torch.Tensor]:
        raise QualityError("not with me")

    with pytest.raises(QualityError, match="not with me"):
        importance(own_criterion(refusing, "mine"), evidence)


def test_a_function_that_changes_the_model_is_refused_and_the_model_is_put_back(evidence: Evidence) -> None:
    module = evidence.captured.module
    before = {path: value.clone() for path, value in module.state_dict().items()}

    def rough(evidence: Evidence) -> dict[str, torch.Tensor]:
        weight = evidence.captured.module.get_parameter("0.0.weight")
        weight.data.abs_()
        evidence.captured.module(evidence.batches[0].inputs[0]).sum().backward()
        return {group.name: torch.ones(group.width) for group in evidence.groups.groups}

    with pytest.raises(UsageError, match=r"mine changed 0\.0\.weight"):
        importance(own_criterion(rough, "mine"), evidence)
    assert all(torch.equal(before[path], value) for path, value in module.state_dict().items())
    assert all(parameter.grad is None for parameter in module.parameters())
