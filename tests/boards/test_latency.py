"""Prices of counts: what they give, and the files that hold them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from edgeprune.boards.latency import (
    GROUPS,
    TERMS,
    CountedModel,
    amounts,
    load_counted_model,
    read_counted_profile,
)
from edgeprune.boards.plugin import CLASSES, Tally
from edgeprune.data_files import data_folder
from edgeprune.device.latency import Band
from edgeprune.errors import UsageError
from edgeprune.target import load_target, target_names

TALLY = Tally({name: 2**at for at, name in enumerate(CLASSES)}, 5, 3, 0, 0)


def test_every_class_is_priced_once() -> None:
    assert sorted(name for names in GROUPS.values() for name in names) == sorted(CLASSES)
    assert tuple(amounts(TALLY)) == TERMS
    assert sum(amounts(TALLY)[group] for group in GROUPS) == TALLY.instructions == 2 ** len(CLASSES) - 1


def test_cycles_are_the_sum_of_what_was_counted() -> None:
    cycles = {term: float(10**at) for at, term in enumerate(TERMS)}
    model = CountedModel(
        runtime="tflite", precision="int8", threads=1, cycles=cycles, band=Band(low=1, high=1), source=""
    )
    counted = amounts(TALLY)
    assert model.cycles_of(TALLY) == sum(counted[term] * 10**at for at, term in enumerate(TERMS))


@pytest.mark.parametrize("name", [name for name in target_names() if (e := load_target(name).emulation) and e.profile])
def test_shipped_prices_are_of_their_target_and_say_how_wrong_they_are(name: str) -> None:
    target = load_target(name)
    assert target.emulation is not None
    profile = read_counted_profile(data_folder("profiles") / f"{target.emulation.profile}.json")
    assert profile.target == name and profile.provenance["errors"]
    for model in profile.models:
        assert tuple(model.cycles) == TERMS and min(model.cycles.values()) >= 0 < max(model.cycles.values())
        assert 0.4 < model.band.low <= 1 <= model.band.high < 2.5
        assert load_counted_model(target, model.runtime, model.precision, model.threads) == model


def test_there_is_no_model_for_what_was_not_fitted() -> None:
    assert load_counted_model(load_target("rpi4"), "tflite", "int8", 1) is None
    assert load_counted_model(load_target("rpi4"), "onnxruntime", "int8", 4) is None
    assert load_counted_model(load_target("rpi5"), "tflite", "int8", 4) is None
    assert load_counted_model(load_target("pixel4"), "tflite", "int8", 4) is None


def test_a_file_that_is_no_such_profile_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no such profile"):
        read_counted_profile(tmp_path / "none.json")
    for text in ("{", json.dumps({"schema": "edgeprune.device-profile/1", "target": "rpi4", "models": []})):
        (tmp_path / "p.json").write_text(text)
        with pytest.raises(UsageError, match="not a profile of an emulated board") as caught:
            read_counted_profile(tmp_path / "p.json")
        assert "make bench-emulator" in caught.value.hint
