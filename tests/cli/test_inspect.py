"""`edgeprune inspect`: the groups, what is frozen and why, and what the dense model costs."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

import edgeprune
from edgeprune.pruning.plan import Plan
from examples.quickstart.nets import make
from tests.cli.conftest import Command

ATTENTION = """
from torch import nn
class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.embed, self.q, self.k, self.v = (nn.Linear(12, 12) for _ in range(4))
        self.out, self.head = nn.Linear(12, 12), nn.Linear(12, 3)
    def forward(self, x):
        x = self.embed(x)
        q, k, v = (m(x).view(x.shape[0], 6, 2, 6).transpose(1, 2) for m in (self.q, self.k, self.v))
        y = nn.functional.scaled_dot_product_attention(q, k, v)
        return self.head(x + self.out(y.transpose(1, 2).reshape(x.shape[0], 6, 12)))
"""
BRANCH = """
from torch import nn
class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.a, self.b = nn.Conv2d(3, 8, 3), nn.Conv2d(8, 4, 3)
    def forward(self, x):
        x = self.a(x)
        return self.b(x * 0.5 if self.training else x)
"""
MODEL = str(Path(__file__).parents[2] / "examples" / "quickstart" / "nets.py") + ":make"


def test_groups_frozen_layers_and_cost_are_shown(command: Command) -> None:
    done = command("inspect", "--model", MODEL, "--model-arg", "width=16", "--input", "1x1x16x16", "--target", "rpi4")
    assert done.code == 0, done.err
    assert "input 1x1x16x16, 33,434 parameters, 3.9 M multiply-accumulates" in done.out
    assert "on rpi4 (tflite, int8, 4 threads, estimated)" in done.out and "3.conv1" in done.out
    document = json.loads(command("inspect", "--model", MODEL, "--input", "1x1x16x16", "--json").out)
    groups = {group["name"]: group for group in document["groups"]}
    assert document["schema"] == "edgeprune.inspect/1" and groups["3.conv1"]["width"] == 32
    assert {"0", "3.conv2", "4.conv2"} <= set(groups["0"]["layers"]), "the shortcut couples these layers"
    assert all(frozen["reasons"] for frozen in document["frozen"])
    assert groups["3.conv1"]["removable"] and not groups["0"]["removable"] and "removable" in done.out
    assert all(group["dead"] == 0 for group in document["groups"])
    assert document["macs"] == 15_409_792 and document["input"] == [1, 1, 16, 16]
    layers = {layer["name"]: layer for layer in document["layers"]}
    assert layers["3.conv2"]["computes"] == [{"group": "0", "width": 32}] == layers["0"]["computes"]
    assert layers["11"]["reasons"] == ["model output"] and layers["11"]["computes"] == [{"group": None, "width": 10}]
    assert sum(layer["macs"] for layer in document["layers"]) == document["macs"]
    assert 0 < groups["0"]["latency_share"] < 1 and groups["0"]["unit"] == 1


def test_what_goes_with_a_group_is_what_pruning_it_removes(command: Command) -> None:
    document = json.loads(command("inspect", "--model", MODEL, "--input", "1x1x16x16", "--json").out)
    model = make()
    for group in document["groups"]:
        plan = Plan(keep={group["name"]: (0,)})
        small = edgeprune.prune(model, torch.zeros(1, 1, 16, 16), plan=plan, check=False).model
        buffers = [value for name, value in small.named_buffers() if value.is_floating_point()]
        left = sum(value.numel() for value in (*small.parameters(), *buffers))
        assert document["parameters"] - left == group["parameters"], group["name"]


def test_the_picture_is_one_page_and_heads_can_go_whole(command: Command, tmp_path: Path) -> None:
    (tmp_path / "net.py").write_text(ATTENTION)
    line = ("inspect", "--model", "net.py:Net", "--input", "1x6x12", "--html", "groups.html", "--json")
    thin, whole = (json.loads(command(*line, *more).out) for more in ((), ("--by-head",)))
    page = (tmp_path / "groups.html").read_text()
    assert "<svg" in page and "<script" not in page and "http" not in page
    heads = [{g["name"]: (g["width"], g["unit"]) for g in document["groups"]} for document in (thin, whole)]
    assert (thin["by_head"], whole["by_head"]) == (False, True)
    assert heads[1] == {"embed": (12, 1), "q": (2, 6)}, "of two heads of six positions, whole heads"
    assert {(6, 2)} == {heads[0][name] for name in set(heads[0]) - {"embed"}}, "six positions in each of two heads"


def test_branches_of_training_mode_are_named(command: Command, tmp_path: Path) -> None:
    (tmp_path / "net.py").write_text(BRANCH)
    done = command("inspect", "--model", "net.py:Net", "--input", "1x3x8x8")
    assert "in training mode only: operators mul" in done.out


@pytest.mark.parametrize("shape", ["16", "1x0x3", "1,1,16,16", "1x1x16xa"])
def test_a_shape_that_cannot_be_read_is_refused(command: Command, shape: str) -> None:
    done = command("inspect", "--model", MODEL, "--input", shape)
    assert done.code == 2 and f"cannot read the shape '{shape}'" in done.err and "1x3x32x32" in done.err


def test_without_shape_and_data_the_next_step_is_named(command: Command) -> None:
    done = command("inspect", "--model", MODEL)
    assert done.code == 2 and "a model without data" in done.err
