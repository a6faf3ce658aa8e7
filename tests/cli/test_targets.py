"""`edgeprune targets`: what is listed can be shown, and a near name is offered."""

from __future__ import annotations

import json

from edgeprune.target import target_names
from tests.cli.conftest import Command


def test_every_target_is_listed_and_can_be_shown(command: Command) -> None:
    listed = command("targets")
    assert listed.code == 0 and len(listed.out.splitlines()) == len(target_names()) + 1
    for name in target_names():
        assert any(line.startswith(name) for line in listed.out.splitlines())
        shown = command("targets", "show", name)
        assert shown.code == 0 and name in shown.out and "runtime" in shown.out


def test_json_holds_the_same(command: Command) -> None:
    document = json.loads(command("targets", "--json").out)
    assert [target["name"] for target in document["targets"]] == list(target_names())
    one = json.loads(command("targets", "show", "rpi4", "--json").out)["target"]
    assert one["name"] == "rpi4" and one["schema"] == "edgeprune.target/1"


def test_an_alias_is_shown_and_an_unknown_name_gets_near_ones(command: Command) -> None:
    assert "disco-f746ng" in command("targets", "show", "stm32f746").out
    done = command("targets", "show", "rpi")
    assert done.code == 2 and "unknown target 'rpi'" in done.err and "rpi4" in done.err
