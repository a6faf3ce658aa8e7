import json
import os
import sys
from pathlib import Path

import numpy as np
import pytest

from edgeprune.device.latency import LatencyModel
from edgeprune.device.profiles import read_profile
from tools import fit_profiles
from tools.fitting import BOARD_PRIOR, Row, amounts, fit, left_out, predict
from tools.networks import build, family
from tools.profile_text import BEGIN, END, document
from tools.recipes import band_of, holds

ROOT = Path(__file__).parents[2]
MEASUREMENTS = Path(os.environ.get("EDGEPRUNE_SHARED", ROOT.parent / "shared")) / "measurements"
PRICES = (2e-11, 7e-11, 1.5e-10, 5e-10, 3e-10, 1.5e-5)
NETWORKS = [f"mobilenet_v{v}_{w}_{s}" for v in (1, 2) for w in (0.5, 0.75, 1.0) for s in (96, 160, 224)]


def synthetic(noise: float = 0.0) -> list[Row]:
    random = np.random.default_rng(0)
    rows = []
    for name in NETWORKS:
        ops = build(name)
        assert ops is not None
        work = amounts(ops, 0, False)
        time_s = float(np.dot(work, PRICES)) * float(np.exp(noise * random.standard_normal()))
        rows.append(Row(name, family(name), time_s, work))
    return rows


def test_the_fit_reproduces_times_that_follow_the_model() -> None:
    rows = synthetic()
    prices = fit(rows, BOARD_PRIOR)
    assert all(price > 0 for price in prices)
    assert max(abs(predict(row, prices) / row.measured_s - 1) for row in rows) < 0.02
    assert np.max(np.abs(left_out(rows, BOARD_PRIOR, "model_id"))) < 0.03


def test_one_disturbed_row_bends_nothing() -> None:
    rows = synthetic(0.02)
    disturbed = [*rows[1:], Row(rows[0].model_id, rows[0].family, 5 * rows[0].measured_s, rows[0].work)]
    prices = fit(disturbed, BOARD_PRIOR)
    assert max(abs(predict(row, prices) / row.measured_s - 1) for row in rows[1:]) < 0.12


def test_without_rows_the_prior_is_the_answer() -> None:
    assert fit([], BOARD_PRIOR) == BOARD_PRIOR.prices_s


def test_a_band_covers_its_share_of_what_it_was_made_from() -> None:
    random = np.random.default_rng(1)
    covered = [
        holds(band_of(list(0.2 * random.standard_normal(8))), list(0.2 * random.standard_normal(50)))
        for _ in range(200)
    ]
    assert 0.77 < float(np.mean(covered)) < 0.83
    assert band_of([0.1, -0.1], spread=0.2)[1] > band_of([0.1, -0.1])[1] > 1
    assert band_of([0.1] * 6, count=3)[1] > band_of([0.1] * 6)[1]


def test_the_page_keeps_what_stands_around_the_table() -> None:
    page = document([], "")
    assert document([], page) == page
    assert document([], f"before\n{BEGIN}\nstale row\n{END}\nafter").startswith("before\n")
    assert "stale" not in document([], f"before\n{BEGIN}\nstale row\n{END}\nafter")


def test_missing_measurements_are_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["fit_profiles", "--measurements", str(tmp_path / "none")])
    with pytest.raises(SystemExit):
        fit_profiles.main()
    assert "no measurements at" in capsys.readouterr().err


def test_every_shipped_profile_has_a_recipe_and_states_its_rows() -> None:
    others = (".edgeprune-c", ".emulated")  # fitted on counts, by other tools
    shipped = {path.stem for path in (ROOT / "profiles").glob("*.json") if not path.stem.endswith(others)}
    assert shipped == {f"{target}.{runtime}" for target, runtime in fit_profiles.ALL_RECIPES}
    for stem in shipped:
        profile = read_profile(ROOT / "profiles" / f"{stem}.json")
        for model in profile.models:
            facts = profile.provenance[model.precision]
            assert isinstance(model, LatencyModel)
            assert isinstance(facts, dict) and facts["base"]["rows"] > 0 and facts["band"]
            assert model.band.low < 1 < model.band.high and model.source


@pytest.mark.slow
@pytest.mark.skipif(not MEASUREMENTS.is_dir(), reason="needs the published measurements (EDGEPRUNE_SHARED)")
def test_profiles_come_out_again_byte_for_byte(tmp_path: Path) -> None:
    page = tmp_path / "device-models.md"
    page.write_text((ROOT / "docs" / "device-models.md").read_text(encoding="utf-8"), encoding="utf-8")
    for path in fit_profiles.write_all(MEASUREMENTS, tmp_path, page):
        shipped = ROOT / "docs" / path.name if path == page else ROOT / "profiles" / path.relative_to(tmp_path)
        assert path.read_bytes() == shipped.read_bytes(), path.name
        if path.suffix == ".json":
            json.loads(path.read_text(encoding="utf-8"))
