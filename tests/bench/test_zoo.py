"""What a model's figures amount to, one model from end to end, and what the command refuses."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from bench import zoo, zoo_model
from bench.cells import read_document
from bench.children import Ended
from bench.public_models import Listed, PublicModel
from tests.pruning.nets import NETS

ENTRY = Listed("timm", "tiny", peer_exact=True)
OURS: dict[str, Any] = {
    "parameters": 1000,
    "trace_s": 1.5,
    "prune_s": 0.25,
    "removed": 0.6,
    "frozen": [{"reason": "reaches the output", "channels": 10}],
    "error": 1e-12,
    "exact": True,
}
PEER = {"removed": 0.7, "prune_s": 0.5, "error": 1e-9, "exact": True}


def status(ours: dict[str, Any], peer: dict[str, Any] | None = None, entry: Listed = ENTRY) -> tuple[str, str]:
    said = zoo.verdict(entry, ours, peer)
    return said["status"], said["reason"]


def test_exact_needs_as_much_removed_as_the_peer_removes_where_it_is_exact() -> None:
    assert status(OURS) == ("exact", "")
    refused, reason = status(OURS, PEER)
    assert refused == "refused" and "60.0% of the parameters removed, 63.0% needed: reaches the output (10" in reason
    assert status(OURS, {**PEER, "removed": 0.66}) == ("exact", "")
    assert status(OURS, {**PEER, "exact": False}) == ("exact", "")
    assert status({**OURS, "removed": 0.39}, {**PEER, "exact": False})[0] == "refused"
    assert status({**OURS, "removed": 0.2}, {**PEER, "removed": 0.22}) == ("exact", "")
    unjudged = {"removed": 0.7, "prune_s": 0.5, "unjudged": "no rule for x"}
    assert status(OURS, unjudged)[0] == "refused"  # the list says that the peer is exact
    assert status(OURS, unjudged, Listed("timm", "tiny", peer_exact=False))[0] == "exact"
    assert status(OURS, {"failed": "pruned", "reason": "IndexError: x", "late": False})[0] == "exact"


@pytest.mark.parametrize(
    ("ours", "want"),
    [
        ({**OURS, "exact": False, "error": 0.25}, ("wrong", "differs by 2.5e-01 of the largest output")),
        ({**OURS, "exact": False, "reason": "other shapes"}, ("wrong", "other shapes")),
        ({**OURS, "unjudged": "no rule for aten.sort"}, ("unjudged", "no rule for aten.sort")),
        ({**OURS, "failed": "judged", "reason": "no result", "late": True}, ("unjudged", "no result")),
        ({"failed": "pruned", "reason": "no result", "late": True}, ("timeout", "no result")),
        ({"failed": "pruned", "reason": "UnsupportedError: x", "late": False}, ("refused", "UnsupportedError: x")),
        ({"failed": "built", "reason": "x", "late": False}, ("refused", "not built: x")),
    ],
)
def test_what_is_not_exact_says_why(ours: dict[str, Any], want: tuple[str, str]) -> None:
    assert status(ours) == want


def test_the_summary_counts_and_orders() -> None:
    late = {"failed": "pruned", "reason": "no result", "late": True}
    models = [zoo.verdict(ENTRY, {**OURS, "trace_s": float(n)}, {**PEER, "removed": 0.6}) for n in range(10)]
    found = zoo.summary([*models, zoo.verdict(ENTRY, late, None)])
    assert (found["models"], found["exact"], found["timeout"], found["wrong"]) == (11, 10, 1, 0)
    assert found["seconds"] == {"p50": 4.75, "p90": 8.35, "max": 9.25} and found["peer_exact"] == 10
    assert zoo.summary([zoo.verdict(ENTRY, late, None)])["seconds"] is None


def test_a_model_from_end_to_end_is_exact_and_a_wrong_index_is_not() -> None:
    torch.manual_seed(0)
    public = PublicModel(NETS["dense_block"]().eval(), (torch.randn(1, 3, 16, 16),))
    made, figures = zoo_model.halved(public)
    assert 0.5 < figures["removed"] < 0.9 and figures["groups"] == 4 and figures["frozen"]
    found = zoo_model.judged(public, made)
    assert found["exact"] and found["full"] and found["error"] < 1e-9
    weight = made.model.get_parameter("mix.0.weight")
    weight.data = weight.data.flip(1)
    assert not zoo_model.judged(public, made)["exact"]
    weight.data = weight.data[:, :-1]
    assert zoo_model.judged(public, made)["reason"].startswith("the pruned model does not run: ")


def test_a_model_that_decides_on_its_data_is_observed_and_judged_by_its_heads() -> None:
    class Deciding(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.body, self.head = nn.Conv2d(3, 8, 3), nn.Conv2d(8, 2, 1)

        def forward(self, images: list[torch.Tensor]) -> torch.Tensor:
            y = self.head(self.body(torch.stack(images)))
            return y if float(y.detach().max()) > 0 else -y

    torch.manual_seed(0)
    public = PublicModel(Deciding().eval(), ([torch.randn(3, 8, 8)],), ("head",))
    made, figures = zoo_model.halved(public)
    assert figures["observed"] and figures["removed"] > 0.4
    assert zoo_model.judged(public, made)["exact"]
    weight = made.model.get_parameter("head.weight")
    weight.data = weight.data.flip(1)
    assert not zoo_model.judged(public, made)["exact"]


def test_what_the_oracle_cannot_judge_is_said() -> None:
    model = nn.Sequential(nn.Conv2d(3, 8, 1), nn.Conv2d(8, 2, 1)).eval()
    public = PublicModel(model, (torch.randn(1, 3, 4, 4),))
    made, _ = zoo_model.halved(public)
    model[0].register_forward_hook(lambda _module, _inputs, result: result.sort(1).values)
    assert "no rule for aten.sort" in zoo_model.judged(public, made)["unjudged"]


def test_outputs_that_would_hide_a_wrong_channel_are_not_judged() -> None:
    model = nn.Sequential(nn.Conv2d(3, 8, 1), nn.Conv2d(8, 2, 1)).eval()
    public = PublicModel(model, (torch.randn(1, 3, 4, 4),))
    assert zoo_model.judged(public, zoo_model.halved(public)[0])["effect"] > 0.01
    model.get_parameter("1.bias").data.fill_(1e6)
    said = zoo_model.judged(public, zoo_model.halved(public)[0])["unjudged"]
    assert said.startswith("removing the channels changes the outputs by no more than")


def test_parameters_that_no_capture_saw_count_as_kept() -> None:
    dense = nn.Sequential(nn.Linear(4, 4, bias=False), nn.Linear(4, 4, bias=False))
    smaller = nn.Sequential(nn.Linear(4, 2, bias=False))
    assert zoo_model.removed(dense, smaller) == 0.25


LIST = "library,model,family,input,peer_exact\ntimm,a,,,1\ntorchvision,a,,,0\ntimm,b,,,\n"


@pytest.fixture
def listed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    def staged(line: list[str], limits: dict[str, float], *_: Any) -> Ended:
        entry = json.loads(line[-1])
        runs.append((line[2], entry["library"], entry["name"], limits["pruned"]))
        if line[2] == "bench.peer":
            return Ended({"built": {}, "pruned": {"removed": 0.5, "prune_s": 1.0}}, "judged", "IndexError: x")
        return Ended({"built": {}, "pruned": OURS})

    runs.clear()
    monkeypatch.setattr(zoo, "staged", staged)
    file = tmp_path / "few.csv"
    file.write_text(LIST)
    return file


runs: list[tuple[str, str, str, float]] = []


def test_the_command_goes_on_where_it_was(listed: Path, tmp_path: Path) -> None:
    results = tmp_path / "zoo.json"
    words = ["--list", str(listed), "--results", str(results), "--peer", "0", "--limit", "7", "--quiet"]
    assert zoo.main([*words, "--models", "b"]) == 0
    assert [model["model"] for model in read_document(results)["models"]] == ["b"]
    assert zoo.main(words) == 0
    assert [run[1:] for run in runs] == [("timm", "b", 7.0), ("timm", "a", 7.0), ("torchvision", "a", 7.0)]
    document = read_document(results)
    assert [(m["library"], m["model"], m["status"]) for m in document["models"]] == [
        ("timm", "a", "exact"),
        ("torchvision", "a", "exact"),
        ("timm", "b", "exact"),
    ]
    assert document["summary"]["exact"] == 3 and "peer" not in document["models"][0]


def test_the_peer_stands_beside(listed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(zoo, "PEER", Path(sys.executable))
    results = tmp_path / "zoo.json"
    assert zoo.main(["--list", str(listed), "--results", str(results), "--quiet", "--models", "a"]) == 0
    first, second = read_document(results)["models"]
    assert first["peer"] == {"exact": None, "removed": 0.5, "seconds": 1.0, "reason": "IndexError: x"}
    assert first["needed"] == 0.45 and second["needed"] == 0.4


def test_what_cannot_be_run_is_refused(
    listed: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    words = ["--list", str(listed), "--results", str(tmp_path / "zoo.json"), "--quiet"]
    assert zoo.main([*words, "--peer", "0", "--models", "resnet51"]) == 2
    assert "no model 'resnet51' on the list" in capsys.readouterr().err
    monkeypatch.setattr(zoo, "PEER", tmp_path / "none")
    assert zoo.main(words) == 2
    assert "the peer has no environment" in capsys.readouterr().err


def test_results_are_named_after_the_list(listed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(zoo, "RESULTS", tmp_path)
    monkeypatch.setattr("bench.command.ROOT", tmp_path)
    assert zoo.main(["--list", str(listed), "--peer", "0", "--quiet"]) == 0
    assert len(read_document(tmp_path / "zoo-few.json")["models"]) == 3
    assert zoo.main(["--list", str(listed), "--peer", "0", "--quiet", "--smoke"]) == 0
    assert len(read_document(tmp_path / "runs/bench/zoo-smoke/results.json")["models"]) == 1
