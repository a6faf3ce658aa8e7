"""Rank correlation against SciPy, and how it is weighted."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import rankdata, spearmanr

from edgeprune.pruning.stability import ranks, spearman, stability


@pytest.mark.parametrize("seed", range(5))
def test_ranks_and_their_correlation_are_scipys(seed: int) -> None:
    generator = np.random.default_rng(seed)
    first, second = generator.integers(0, 6, 20).astype(float), generator.random(20)
    assert np.array_equal(ranks(first), rankdata(first) - 1)
    assert spearman(first, second) == pytest.approx(spearmanr(first, second).statistic)


def test_the_ends_of_the_scale() -> None:
    row = np.array([3.0, 1.0, 2.0])
    assert spearman(row, np.exp(row)) == pytest.approx(1) and spearman(row, -row) == pytest.approx(-1)
    assert spearman(row, np.ones(3)) == 0 and spearman(np.ones(3), np.zeros(3)) == 1


def test_groups_count_by_their_channels_and_narrow_ones_not_at_all() -> None:
    wide, narrow, pair = np.arange(9.0), np.arange(3.0), np.arange(2.0)
    found = stability({"wide": wide, "narrow": narrow, "pair": pair}, {"wide": wide, "narrow": -narrow, "pair": -pair})
    assert found is not None
    assert found.groups == {"wide": pytest.approx(1), "narrow": pytest.approx(-1)}
    assert found.mean == pytest.approx((9 - 3) / 12)
    assert stability({"pair": pair}, {"pair": pair}) is None
