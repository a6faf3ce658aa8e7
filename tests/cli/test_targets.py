"""`edgeprune targets`: what is listed can be shown, how well it is known is said, and a near name is offered."""

from __future__ import annotations

import json

import pytest

from edgeprune.cli.targets import NO_MODEL
from edgeprune.target import load_target, target_names
from tests.cli.conftest import Command


def test_every_target_is_listed_with_how_well_it_is_known(command: Command) -> None:
    listed = command("targets")
    assert listed.code == 0 and len(listed.out.splitlines()) == len(target_names()) + 1
    lines = {line.split()[0]: line for line in listed.out.splitlines()[1:]}
    assert set(lines) == set(target_names())
    for name in target_names():
        target = load_target(name)
        assert target.class_ in lines[name] and target.cpu.core in lines[name]
        if target.latency == "measured":
            assert "measured on this machine" in lines[name]
        elif target.runtime().profile:
            assert " off " in lines[name] or "off by" in lines[name]
            assert "band" in lines[name] and ("results" in lines[name] or "counted steps" in lines[name])
        else:
            assert lines[name].endswith(NO_MODEL)


@pytest.mark.parametrize("name", target_names())
def test_every_target_can_be_shown_with_its_facts_and_their_sources(command: Command, name: str) -> None:
    target, shown = load_target(name), command("targets", "show", name)
    assert shown.code == 0 and target.description in shown.out
    for citation in target.source:
        assert citation.document in shown.out and citation.note in shown.out
    for runtime, offered in target.runtimes.items():
        assert (f"{runtime}: {NO_MODEL}" in shown.out) == (not offered.profile)


def test_json_holds_the_same(command: Command) -> None:
    document = json.loads(command("targets", "--json").out)
    assert [target["name"] for target in document["targets"]] == list(target_names())
    one = json.loads(command("targets", "show", "rpi4", "--json").out)["target"]
    assert one["name"] == "rpi4" and one["schema"] == "edgeprune.target/1"
    models = {(model["runtime"], model["precision"]): model for model in one["latency_models"]}
    assert models["tflite", "int8"]["threads"] == 4 and models["tflite", "int8"]["band"]["low"] < 1
    assert all(model["results"] > 0 and 0 < model["error"] < 1 for model in models.values())


def test_an_alias_is_shown_and_an_unknown_name_gets_near_ones(command: Command) -> None:
    assert "disco-f746ng" in command("targets", "show", "stm32f746").out
    done = command("targets", "show", "rpi")
    assert done.code == 2 and "unknown target 'rpi'" in done.err and "rpi4" in done.err


def test_the_power_behind_a_limit_on_energy_is_shown(command: Command) -> None:
    shown = command("targets", "show", "nucleo-l4r5zi").out
    assert "power    46 mW while computing (39.2 to 69.8 mW in 24 results)" in shown
    assert "power    not published: no limit on energy" in command("targets", "show", "rpi4").out
