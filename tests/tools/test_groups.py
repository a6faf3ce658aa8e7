from pathlib import Path

import pytest

from tests.tools.published_rows import inference_row, write_boards, write_table
from tools import rows as tables
from tools.groups import Key, read_groups

NAMES = ("mobilenet_v1_1.0_224", "mobilenet_v2_1.0_224", "efficientnet_lite0")


def test_a_group_is_one_device_engine_version_precision_and_thread_count(tmp_path: Path) -> None:
    rows = [
        inference_row(name, 0.01, **more)
        for name in NAMES
        for more in ({}, {"runtime_version": "2.5"}, {"precision": "fp32"}, {"cores_used": "1"}, {"backend": "neon"})
    ]
    write_table(tmp_path, tables.INFERENCE, rows)
    groups, unknown = read_groups(tmp_path)
    assert len(groups) == 5 and not unknown
    assert {group.key.engine for group in groups} == {"ruy", "armnn"}
    assert all(group.rows[0].measured_s == pytest.approx(0.01) for group in groups)  # the median, not the mean


def test_rows_that_say_nothing_are_left_out_and_undefined_networks_counted(tmp_path: Path) -> None:
    kept = [inference_row(name, 0.01) for name in NAMES]
    others = [
        inference_row(NAMES[0], 9.0, quality="suspect"),
        inference_row(NAMES[0], 9.0, backend="opencl"),
        inference_row(NAMES[0], 9.0, precision="not stated"),
        inference_row("perceptron_of_nobody", 9.0),
    ]
    write_table(tmp_path, tables.INFERENCE, [*kept, *others])
    (group,), unknown = read_groups(tmp_path)
    assert [row.measured_s for row in group.rows] == pytest.approx([0.01] * 3)
    assert unknown == {"perceptron_of_nobody": 1}


def test_repeats_join_by_geometric_mean_and_ncnns_by_the_least(tmp_path: Path) -> None:
    write_table(tmp_path, tables.INFERENCE, [inference_row(name, t) for name in NAMES for t in (0.01, 0.04)])
    loops = [
        inference_row(name, t, runtime="ncnn", backend="cpu", latency_min_ms=1e3 * t, precision="fp32")
        for name in ("vgg16_224", "resnet18_224", "googlenet_224")
        for t in (0.01, 0.04)
    ]
    write_table(tmp_path, tables.NCNN, loops)
    by_engine = {group.key.engine: group for group in read_groups(tmp_path)[0]}
    assert [row.measured_s for row in by_engine["ruy"].rows] == pytest.approx([0.02] * 3)
    assert [row.measured_s for row in by_engine["ncnn"].rows] == pytest.approx([0.01] * 3)


def test_int8_files_slower_than_fp16_do_not_run_in_int8(tmp_path: Path) -> None:
    rows = [
        inference_row(name, t, precision=precision, backend="cpu", latency_ms=1e3 * t)
        for name, half, int8 in zip(NAMES, (0.1, 0.1, 0.1), (0.05, 0.2, 0.05), strict=True)
        for precision, t in (("fp16", half), ("int8", int8))
    ]
    write_table(tmp_path, tables.NETSPRESSO, rows)
    groups = {group.key.precision: group for group in read_groups(tmp_path, fewest_rows=1)[0]}
    assert [row.model_id for row in groups["int8"].rows] == [NAMES[2], NAMES[0]]
    assert len(groups["fp32"].rows) == 3  # fp16 weights compute in fp32


def test_few_rows_make_no_group(tmp_path: Path) -> None:
    write_table(tmp_path, tables.INFERENCE, [inference_row(name, 0.01) for name in NAMES[:2]])
    assert read_groups(tmp_path)[0] == []
    assert len(read_groups(tmp_path, fewest_rows=2)[0]) == 1


def test_the_big_core_comes_first(tmp_path: Path) -> None:
    key = Key("ruy", "b", "4xCortex-A73+2xCortex-A53", "", "6", "TFLite", "2", "int8")
    assert key.big_core == "Cortex-A73"
    write_boards(tmp_path)
    assert {group.key.big_core for group in read_groups(tmp_path)[0]} == {"Cortex-A72", "Cortex-A53"}
