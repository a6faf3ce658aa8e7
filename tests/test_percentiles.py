import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgeprune.percentiles import (
    QUANTILES,
    Slice,
    Stretch,
    bounds,
    disturbed,
    lower_rank,
    needed_runs,
    paired,
    percentile,
    slowdown,
    upper_rank,
)

QUIET, BUSY = 0.0, 1.5


def test_fewest_runs_agree_with_the_published_early_stopping_table() -> None:
    assert [needed_runs(quantile) for quantile in (0.5, 0.9, 0.95, 0.99)] == [7, 44, 90, 459]
    assert upper_rank(43, 0.9) is None and upper_rank(44, 0.9) == 44
    assert upper_rank(63, 0.9) == 63 and upper_rank(64, 0.9) == 63, "one overlatency run is allowed from 64 on"


@given(count=st.integers(44, 3000), quantile=st.sampled_from([0.5, 0.9]))
def test_ranks_enclose_the_percentile_of_the_sample(count: int, quantile: float) -> None:
    upper, lower = upper_rank(count, quantile), lower_rank(count, quantile)
    assert upper is not None and lower is not None
    assert 1 <= lower <= quantile * count + 1 and quantile * count <= upper <= count


@settings(max_examples=12, deadline=None)
@given(
    seed=st.integers(0, 2**31),
    quantile=st.sampled_from(sorted(QUANTILES.values())),
    shape=st.sampled_from(["lognormal", "bimodal", "uniform"]),
    extra=st.integers(0, 400),
)
def test_bounds_hold_for_99_of_100_simulated_runs(seed: int, quantile: float, shape: str, extra: int) -> None:
    """Coverage over 2000 simulated experiments, whatever the distribution of the latencies."""
    generator = np.random.default_rng(seed)
    count = needed_runs(quantile) + extra
    draws = generator.random((2000, count))
    inverse = {
        "lognormal": lambda u: np.exp(np.sqrt(2) * _erfinv(2 * u - 1)),
        "bimodal": lambda u: np.where(u < 0.85, 1 + 0.1 * u, 3 + u),
        "uniform": lambda u: u,
    }[shape]
    samples, truth = inverse(draws), float(inverse(np.array([quantile]))[0])
    ordered = np.sort(samples, axis=1)
    upper, lower = upper_rank(count, quantile), lower_rank(count, quantile)
    assert upper is not None
    # Four standard errors of a share of 0.99 over 2000 experiments are 0.009.
    assert np.mean(ordered[:, upper - 1] >= truth) >= 0.981
    if lower is not None:
        assert np.mean(ordered[:, lower - 1] <= truth) >= 0.981


def _erfinv(values: np.ndarray) -> np.ndarray:
    from scipy.special import erfinv

    return erfinv(values)


def test_bounds_are_samples_around_the_percentile() -> None:
    latencies = np.arange(1, 1001) * 1e-3
    lower, upper = bounds(latencies, 0.9)
    assert lower < percentile(latencies, 0.9) < upper
    assert percentile(latencies, 0.9) == pytest.approx(0.9)


def test_too_few_runs_are_refused() -> None:
    with pytest.raises(ValueError, match=r"43 runs cannot bound p90: 44 are needed"):
        bounds(np.ones(43), 0.9)


def slices(count: int, others: float = QUIET, pieces: int = 24) -> list[Slice]:
    return [Slice(count // pieces, others) for _ in range(pieces)]


def noisy(generator: np.random.Generator, count: int) -> np.ndarray:
    """Latencies with 5 % jitter and one run in twenty interrupted for up to ten times as long."""
    values = generator.normal(1.0, 0.05, count)
    return np.where(generator.random(count) < 0.05, values * generator.uniform(1, 10, count), values)


@given(seed=st.integers(0, 2**31), growth=st.floats(0, 0.02))
def test_interrupts_and_jitter_are_no_disturbance(seed: int, growth: float) -> None:
    values = noisy(np.random.default_rng(seed), 2400) * np.linspace(1, 1 + growth, 2400)
    assert not disturbed(values, slices(2400))


@given(seed=st.integers(0, 2**31), start=st.floats(0.05, 0.6), slower=st.floats(0.15, 2))
def test_a_clock_that_falls_is_a_disturbance(seed: int, start: float, slower: float) -> None:
    values = noisy(np.random.default_rng(seed), 2400)
    values[int(start * 2400) :] *= 1 + slower
    if start > 0.34:  # before that the first third itself is slow
        assert disturbed(values, slices(2400))


@given(seed=st.integers(0, 2**31), slower=st.floats(0.15, 1))
def test_a_clock_that_falls_slowly_is_a_disturbance(seed: int, slower: float) -> None:
    values = noisy(np.random.default_rng(seed), 2400) * np.linspace(1, 1 + slower, 2400)
    assert disturbed(values, slices(2400))


@given(seed=st.integers(0, 2**31), slower=st.floats(0.1, 2))
def test_other_jobs_in_the_second_half_are_no_disturbance(seed: int, slower: float) -> None:
    """They slow the runs down as a falling clock would, but the CPU time they use is seen."""
    values = noisy(np.random.default_rng(seed), 2400)
    values[1200:] *= 1 + slower
    pieces = [*slices(1200, QUIET, 12), *slices(1200, BUSY, 12)]
    assert slowdown(values, pieces) is None
    assert not disturbed(values, pieces)


@given(seed=st.integers(0, 2**31), faster=st.floats(0.1, 0.5))
def test_a_machine_that_becomes_faster_is_no_disturbance(seed: int, faster: float) -> None:
    values = noisy(np.random.default_rng(seed), 2400)
    values[:1200] *= 1 + faster
    assert not disturbed(values, slices(2400))


def test_a_run_of_one_slice_cannot_tell() -> None:
    assert slowdown(np.ones(10), [Slice(10, BUSY)]) is None
    assert slowdown(np.ones(10), [Slice(10, QUIET)]) == 0


def beside(speeds: np.ndarray, ratio: float, seed: int) -> tuple[np.ndarray, list[Stretch]]:
    """Twenty runs in each stretch on a machine of these speeds, with jitter."""
    generator = np.random.default_rng(seed)
    runs = np.repeat(speeds, 20) * ratio * generator.normal(1.0, 0.03, 20 * len(speeds))
    return runs, [Stretch(20, float(speed * generator.normal(1.0, 0.01))) for speed in speeds]


@given(seed=st.integers(0, 2**31), ratio=st.floats(0.05, 2), share=st.floats(0, 1))
def test_the_ratio_to_a_reference_does_not_depend_on_the_state_of_the_machine(
    seed: int, ratio: float, share: float
) -> None:
    """Two speeds that change from stretch to stretch."""
    speeds = np.where(np.random.default_rng(seed).random(100) < share, 1.0, 1.14)
    assert paired(*beside(speeds, ratio, seed)).to_reference == pytest.approx(ratio, rel=0.02)


@given(seed=st.integers(0, 2**31), begin=st.integers(0, 80), burst=st.floats(1.3, 3))
def test_a_burst_that_the_reference_sees_is_left_out(seed: int, begin: int, burst: float) -> None:
    speeds = np.ones(100)
    speeds[begin : begin + 20] = burst
    found = paired(*beside(speeds, 0.5, seed))
    assert found.latencies_s.max() < 0.5 * 1.2 < 0.5 * burst
    assert 0.7 <= found.kept <= 0.8 and not found.disturbed


@given(seed=st.integers(0, 2**31), slow=st.floats(1.3, 3))
def test_what_only_the_model_does_is_its_latency(seed: int, slow: float) -> None:
    runs, stretches = beside(np.ones(100), 0.5, seed)
    runs[1000:] *= slow
    found = paired(runs, stretches)
    assert found.kept == 1 and not found.disturbed
    assert np.array_equal(found.latencies_s, runs)


@given(seed=st.integers(0, 2**31), slower=st.floats(1.13, 1.14))
def test_a_machine_that_slows_down_beside_the_reference_is_disturbed(seed: int, slower: float) -> None:
    assert paired(*beside(np.linspace(1, slower + 0.05, 100), 0.5, seed)).slowdown > 0.05
    assert paired(*beside(np.repeat([1, slower], 50), 0.5, seed)).disturbed


def test_a_run_that_is_mostly_far_slower_than_usual_is_disturbed() -> None:
    speeds = np.tile([1.0, 1.0, 1.0, 2.0, 2.0], 20)
    assert paired(*beside(speeds, 0.5, 0)).disturbed
    alternating = paired(np.ones(4), [Stretch(1, 2.0), Stretch(1, 1.0), Stretch(1, 2.0), Stretch(1, 1.0)])
    assert alternating.kept == 0 and alternating.disturbed
