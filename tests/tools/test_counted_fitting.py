"""Prices of counts: found again where they are known, never negative, judged on what was left out."""

from __future__ import annotations

import numpy as np
import pytest

from edgeprune.boards.latency import TERMS
from edgeprune.target import load_target
from tools.counted_fitting import Row, band, fit, judged, left_out, priced, profile

NETS = [
    f"mobilenet_v{version}_{alpha}_{size}" for version in (1, 2) for alpha in (0.5, 1.0) for size in (128, 192, 224)
]
NETS += ["mobilenet_v3_large_1.0_224", "mobilenet_v3_small_1.0_224"]
TRUE = np.array([1.1, 0.4, 0.6, 0.5, 8.0, 90.0]) / 1.8e9 / 4


def rows(noise: float = 0.0) -> list[Row]:
    """Networks whose latencies follow from prices that are known."""
    random, made = np.random.default_rng(3), []
    for kernels in ("ruy", "xnnpack"):
        for precision in ("int8", "fp32"):
            for name in NETS if kernels == "ruy" else NETS[3:]:
                amounts = random.uniform(0.2, 1, len(TERMS)) * (3e7, 4e7, 5e7, 3e7, 1e6, 2e5)
                amounts[2 if precision == "int8" else 3] = 0
                seconds = float(TRUE @ amounts)
                made.append(
                    Row(kernels, precision, name, seconds * float(np.exp(random.normal(0, noise))), tuple(amounts))
                )
    return made


def test_known_prices_are_found_again() -> None:
    found = fit(rows())
    assert found == pytest.approx(TRUE, rel=1e-6)
    assert all(priced(found, row) == pytest.approx(row.published_s) for row in rows())


def test_no_price_is_negative_whatever_is_published() -> None:
    random = np.random.default_rng(0)
    made = [
        Row("ruy", "int8", name, float(random.uniform(0.01, 1)), tuple(random.uniform(1, 2, len(TERMS))))
        for name in NETS
    ]
    assert min(fit(made)) >= 0


def test_a_network_is_left_out_with_all_that_ran_it() -> None:
    noisy = rows(0.1)
    broken = [
        row
        if row.model_id != NETS[5]
        else Row(row.kernels, row.precision, row.model_id, row.published_s * 9, row.amounts)
        for row in noisy
    ]
    plain, told = left_out(noisy, families=False), left_out(broken, families=False)
    keys = [row.key for row in noisy if row.model_id == NETS[5]]
    assert len(keys) == 4
    assert all(told[key] == pytest.approx(plain[key] / 9) for key in keys)


def test_the_band_holds_every_deployed_row_with_its_family_left_out() -> None:
    noisy = rows(0.15)
    for precision in ("int8", "fp32"):
        found, ratios = band(noisy, precision), left_out(noisy, families=True)
        deployed = [1 / ratio for key, ratio in ratios.items() if key.startswith(f"xnnpack/{precision}/")]
        every = [1 / ratio for key, ratio in ratios.items() if f"/{precision}/" in key]
        assert found.low <= min(deployed) and max(deployed) <= found.high
        assert np.mean([found.low <= ratio <= found.high for ratio in every]) >= 0.8


def test_what_ships_is_in_cycles_with_its_errors() -> None:
    target, noisy = load_target("rpi4"), rows(0.05)
    made = profile(noisy, target)
    prices = fit(noisy)
    assert made.target == "rpi4" and {model.precision for model in made.models} == {"int8", "fp32"}
    for model in made.models:
        cycles = [price * 1.8e9 for price in prices]
        assert list(model.cycles.values()) == pytest.approx(cycles, rel=1e-3)
        assert "of them by XNNPACK" in model.source
    found = judged(noisy, target)
    assert found["rows"] == len(noisy) and set(found["device_model"]) <= {
        row.key for row in noisy if row.kernels == "xnnpack"
    }
    assert set(found["left_out_family"]) == set(found["fitted"]) == {row.key for row in noisy}
