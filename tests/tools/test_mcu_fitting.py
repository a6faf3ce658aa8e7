import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from tools.esp_kernels import operator
from tools.mcu_fitting import (
    KERNELS,
    Group,
    Result,
    by_macs,
    correct,
    drops_dead_channels,
    kernels_of,
    other_groups,
    summary,
    tiny_groups,
    unseen_everywhere,
    work_of,
)
from tools.mcu_networks import (
    VISUAL_WAKE_WORDS,
    fd_mobilenet,
    grey_mobilenet_v1,
    mcu_family,
    mcu_network,
    narrow_mobilenet_v2,
    without_dead_channels,
)
from tools.networks import build

MEASUREMENTS = Path(os.environ.get("EDGEPRUNE_SHARED", Path(__file__).parents[3] / "shared")) / "measurements"
needs_measurements = pytest.mark.skipif(
    not MEASUREMENTS.is_dir(), reason="needs the published measurements (EDGEPRUNE_SHARED)"
)
NETWORKS = (
    VISUAL_WAKE_WORDS, "tiny_ad_autoencoder", "tiny_ic_resnet8", "tiny_kws_dscnn", "mobilenet_v2_0.35_128_5cls",
    "mobilenet_v1_0.5_224_5cls",
)  # fmt: skip


def planted(shared: tuple[float, ...], scales_s: tuple[float, ...], noise: float = 0.0) -> list[Group]:
    """Groups whose times follow the model exactly, with these corrections and scales."""
    random = np.random.default_rng(0)
    counts = np.asarray(KERNELS["blocked"]) * np.exp(shared)
    groups = []
    for index, scale_s in enumerate(scales_s):
        results = []
        for name in NETWORKS:
            work = work_of(name)
            assert work is not None
            time_s = scale_s * float(np.dot(work, counts)) * float(np.exp(noise * random.standard_normal()))
            results.append(Result(name, mcu_family(name), time_s, work))
        groups.append(Group(f"board{index}", "Cortex-M4", 1e8, "engine", "1", "engine", "blocked", tuple(results)))
    return groups


def test_times_that_follow_the_model_are_reproduced() -> None:
    groups = planted((0.1, 0.2, -0.2, 0.1, -0.1, 0.0), (1e-8, 3e-9, 2e-8))
    corrections = correct(groups)
    for group in groups:
        prices = corrections.prices_s(group)
        assert all(price > 0 for price in prices)
        for result in group.results:
            assert np.dot(result.work, prices) == pytest.approx(result.measured_s, rel=0.03)
    assert summary(unseen_everywhere(groups))["median"] < 0.05


def test_without_results_the_counts_are_the_answer() -> None:
    corrections = correct([])
    assert corrections.counts("cmsis", "any") == pytest.approx(KERNELS["cmsis"])


def _slowed(result: Result) -> Result:
    return replace(result, measured_s=7 * result.measured_s)


def test_a_left_out_family_is_seen_nowhere() -> None:
    groups = planted((0.0,) * 6, (1e-8, 3e-9), noise=0.1)
    family = mcu_family("tiny_kws_dscnn")
    slower = [tuple(_slowed(r) if r.family == family else r for r in group.results) for group in groups]
    changed = [replace(group, results=results) for group, results in zip(groups, slower, strict=True)]
    before = [e.estimated_s for e in unseen_everywhere(groups) if e.result.family == family]
    after = [e.estimated_s for e in unseen_everywhere(changed) if e.result.family == family]
    assert before == pytest.approx(after) and len(before) == 2
    others = [e.estimated_s for e in unseen_everywhere(changed) if e.result.family != family]
    assert others != pytest.approx([e.estimated_s for e in unseen_everywhere(groups) if e.result.family != family])


def test_one_disturbed_result_bends_little() -> None:
    groups = planted((0.0,) * 6, (1e-8, 3e-9, 2e-8, 5e-9))
    first = groups[0].results[2]
    disturbed = replace(groups[0], results=(*groups[0].results[:2], replace(first, measured_s=4 * first.measured_s)))
    corrections = correct([disturbed, *groups[1:]])
    result = groups[1].results[2]
    assert np.dot(result.work, corrections.prices_s(groups[1])) == pytest.approx(result.measured_s, rel=0.15)


def test_engines_start_from_the_counts_of_their_kernels() -> None:
    assert kernels_of("Cortex-M4", "TFLM+CMSIS-NN") == kernels_of("Cortex-M33", "microTVM native") == "cmsis"
    assert kernels_of("Cortex-M7", "X-CUBE-AI") == kernels_of("Cortex-M7", "TinyEngine") == "blocked"
    assert kernels_of("Cortex-M85", "TFLM+CMSIS-NN") == "helium" and kernels_of("Cortex-M7", "TFLM") == "reference"
    assert drops_dead_channels("X-CUBE-AI", "8.1.0") and drops_dead_channels("X-CUBE-AI", "10.2")
    assert not drops_dead_channels("X-CUBE-AI", "8.0.0") and not drops_dead_channels("Bosch HALE", "1.0")


def test_networks_have_their_published_size() -> None:
    for ops, macs_m in (
        (narrow_mobilenet_v2(0.35, 144), 23.5),  # the same rule, published at this width and resolution
        (fd_mobilenet(1.0, 224, 1000), 144),
        (grey_mobilenet_v1(0.25, 96, 2), 7.16),
    ):
        assert sum(op.macs for op in ops) / 1e6 == pytest.approx(macs_m, rel=0.01)


def test_dead_channels_are_the_published_number_and_half_the_work() -> None:
    whole, alive = build(VISUAL_WAKE_WORDS), without_dead_channels()
    assert whole is not None and [op.kind for op in whole[:27]] == [op.kind for op in alive[:27]]
    pointwise = [(a.out_channels, b.out_channels) for a, b in zip(whole[:27], alive[:27], strict=True) if a.kernel == 1]
    assert sum(a - b for a, b in pointwise) == 971
    assert 0.45 < sum(op.macs for op in alive) / sum(op.macs for op in whole) < 0.6


@pytest.mark.parametrize("model_id", [*NETWORKS, "mobilenet_v1_0.25_96_gray_5cls", "fdmobilenet_0.25_224"])
def test_tables_are_programs(model_id: str) -> None:
    ops = mcu_network(model_id)
    assert ops is not None
    known = {"input"}
    for op in ops:
        assert set(op.inputs) <= known, op
        known.add(op.output)


def test_kernel_rows_become_the_operator_they_timed() -> None:
    conv = operator("convolution", "input(10,10), filter(64x3x3x3), pad(0,0), stride(1,1)")
    assert conv is not None and (conv.macs, conv.weights) == (64 * 27 * 64, 1728)
    deep = operator("depthwise conv", "input(12,12), pad(1,1), stride(1,1), filter: 8x5x5x4")
    assert deep is not None and (deep.macs, deep.out_channels) == (32 * 25 * 100, 32)
    pool = operator("avg pool", "input(16,16), filter(1x3x3x16)")
    assert pool is not None and pool.out_elements == 14 * 14 * 16
    assert operator("softmax", "width: 256") is None


@needs_measurements
def test_networks_that_no_board_has_shown_are_estimated_within_fifteen_percent() -> None:
    groups = tiny_groups(MEASUREMENTS)
    found, plain = summary(unseen_everywhere(groups)), summary(by_macs(groups))
    assert found["results"] == plain["results"] >= 20
    assert found["median"] <= 0.15 and found["median"] < 0.7 * plain["median"]
    assert len(tiny_groups(MEASUREMENTS, everything=True)) > len(groups)


@needs_measurements
def test_networks_of_other_tables_are_read_too() -> None:
    assert any(group.device == "STM32H747I-DISCO" for group in other_groups(MEASUREMENTS))
