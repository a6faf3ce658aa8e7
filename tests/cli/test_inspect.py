"""`edgeprune inspect`: the groups, what is frozen and why, and what the dense model costs."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.cli.conftest import Command

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


@pytest.mark.parametrize("shape", ["16", "1x0x3", "1,1,16,16", "1x1x16xa"])
def test_a_shape_that_cannot_be_read_is_refused(command: Command, shape: str) -> None:
    done = command("inspect", "--model", MODEL, "--input", shape)
    assert done.code == 2 and f"cannot read the shape '{shape}'" in done.err and "1x3x32x32" in done.err


def test_without_shape_and_data_the_next_step_is_named(command: Command) -> None:
    done = command("inspect", "--model", MODEL)
    assert done.code == 2 and "a model without data" in done.err
