"""The models of the C library come out of the stored counts, byte for byte, and say how they were judged."""

from __future__ import annotations

from pathlib import Path

import pytest

from edgeprune.device.counted import CoreModel
from edgeprune.device.profiles import read_profile
from edgeprune.device.standing import standings
from edgeprune.target import load_target
from tools import kernel_laws
from tools.kernel_counts import CORES, FILE

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    return kernel_laws.write_all(FILE, tmp_path_factory.mktemp("profiles"))


def test_profiles_come_out_again_byte_for_byte(written: list[Path]) -> None:
    assert len(written) == len(CORES)
    for path in written:
        assert path.read_bytes() == (ROOT / "profiles" / path.name).read_bytes(), path.name


def test_profiles_state_what_they_rest_on_and_how_they_were_judged(written: list[Path]) -> None:
    for path in written:
        profile = read_profile(path)
        (model,) = profile.models
        facts = profile.provenance["int8"]
        assert isinstance(model, CoreModel) and isinstance(facts, dict)
        assert "emulated" in model.source and model.core in model.source
        assert facts["shapes_left_out"]["rows"] >= 0.9 * facts["base"]["rows"] > 1000
        assert facts["shapes_left_out"]["median"] < 0.03 and facts["whole_networks"]["p90"] < 0.05
        assert facts["whole_networks"]["rank_correlation"] > 0.98
        assert 0.9 < model.spread.low < 1 < model.spread.high < 1.1


def test_a_target_shows_the_standing_of_its_core() -> None:
    (found,) = standings(load_target("nucleo-l4r5zi"), "edgeprune-c")
    assert found.results > 1000 and found.error is not None and found.error < 0.05
    assert "took no part" in found.judged
