"""Operators that only move values: shapes, masks, signs and formats, against the reference."""

from __future__ import annotations

import shutil
import subprocess
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from edgeprune.backends.c.copies import copy, place
from edgeprune.backends.c.model import DataType, Model, Option, Tensor
from edgeprune.errors import UnsupportedError
from tests.backends.c.harness import CSRC
from tests.backends.c.steps import assert_exact, check, computed, constant, filled, one_step


def _exact(model: Model, tmp_path: Path, seed: int = 0) -> None:
    assert_exact(model, filled(model, np.random.default_rng(seed)), tmp_path)


def _transpose(shape: tuple[int, ...], order: tuple[int, ...], dtype: DataType = "int8") -> Model:
    result = [shape[axis] for axis in order]
    return one_step("TRANSPOSE", [computed(shape, dtype=dtype), constant(order)], [computed(result, dtype=dtype)])


@pytest.mark.parametrize(
    ("shape", "order"),
    [
        ((2, 5, 3), (1, 0, 2)),
        ((2, 5, 3), (1, 2, 0)),
        ((1, 4, 5, 3), (0, 3, 1, 2)),
        ((2, 3, 4, 5), (3, 2, 1, 0)),
        ((2, 3, 4, 5), (0, 2, 3, 1)),
        ((2, 3, 2, 3, 4), (4, 1, 3, 0, 2)),
        ((2, 1, 3, 2, 3, 2), (5, 4, 3, 2, 1, 0)),
        ((2, 3, 2, 2, 3, 17), (2, 0, 4, 1, 3, 5)),
    ],
)
def test_transpose(shape: tuple[int, ...], order: tuple[int, ...], tmp_path: Path) -> None:
    _exact(_transpose(shape, order), tmp_path)


@pytest.mark.parametrize("dtype", ["uint8", "int16", "int32", "int64"])
def test_every_format_is_moved(dtype: DataType, tmp_path: Path) -> None:
    _exact(_transpose((3, 4, 5, 2), (2, 1, 0, 3), dtype), tmp_path)


@pytest.mark.parametrize(
    ("kind", "shape", "result"),
    [("RESHAPE", (2, 3, 5), (6, 5)), ("SQUEEZE", (1, 7, 1), (7,)), ("EXPAND_DIMS", (7,), (1, 7))],
)
def test_shapes_change_without_moving_anything(
    kind: str, shape: tuple[int, ...], result: tuple[int, ...], tmp_path: Path
) -> None:
    extra = {"RESHAPE": [constant(result)], "EXPAND_DIMS": [constant(0)]}.get(kind, [])
    _exact(one_step(kind, [computed(shape), *extra], [computed(result)]), tmp_path)


@pytest.mark.parametrize(("begin", "size"), [((0, 1, 2), (2, 3, 1)), ((1, 0, 0), (1, 5, 4)), ((0, 2, 0), (2, 2, -1))])
def test_slice(begin: tuple[int, ...], size: tuple[int, ...], tmp_path: Path) -> None:
    result = [whole - at if n < 0 else n for whole, at, n in zip((2, 5, 4), begin, size)]
    _exact(one_step("SLICE", [computed((2, 5, 4)), constant(begin), constant(size)], [computed(result)]), tmp_path)


STRIDED: list[tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...], tuple[int, ...], dict[str, Option]]] = [
    ((0, 1), (6, 7), (2, 3), (3, 2), {}),
    ((-1, 0), (-7, 7), (-1, 1), (6, 7), {}),
    ((4, -1), (1, -6), (-2, -2), (2, 3), {}),
    ((3, 2), (4, 5), (1, 1), (3,), {"shrink_axis_mask": 1}),
    ((3, 2), (4, 5), (1, 1), (1,), {"shrink_axis_mask": 2}),
    ((-2, 2), (0, 3), (1, 1), (), {"shrink_axis_mask": 3}),
    ((2, 2), (3, 3), (1, 1), (4, 5), {"end_mask": 3}),
    ((2, 2), (5, 6), (1, 2), (5, 3), {"begin_mask": 3}),
    ((2, 5), (5, 1), (-1, -1), (6, 4), {"begin_mask": 1, "end_mask": 1}),
    ((0, 1), (0, 3), (1, 1), (6, 2), {"ellipsis_mask": 1}),
    ((0, 1, 2), (1, 4, 6), (1, 1, 1), (1, 3, 4), {"new_axis_mask": 1}),
    ((-100, 1), (100, 50), (1, 1), (6, 6), {}),
    ((1, 2), (2, 3), (1, 1), (2, 3), {"offset": True}),
    ((2,), (4,), (1,), (2, 7), {}),
]


@pytest.mark.parametrize(("begin", "end", "step", "result", "options"), STRIDED)
def test_strided_slice(
    begin: tuple[int, ...],
    end: tuple[int, ...],
    step: tuple[int, ...],
    result: tuple[int, ...],
    options: dict[str, Option],
    tmp_path: Path,
) -> None:
    sources = [computed((6, 7)), constant(begin), constant(end), constant(step)]
    _exact(one_step("STRIDED_SLICE", sources, [computed(result)], **options), tmp_path)


@pytest.mark.parametrize("axis", [0, 1, -1])
def test_split(axis: int, tmp_path: Path) -> None:
    shape = np.array((4, 6, 2))
    shape[axis] //= 2
    results = [computed(shape, name=f"y{i}") for i in range(2)]
    _exact(one_step("SPLIT", [constant(axis), computed((4, 6, 2))], results, num_splits=2), tmp_path)


def test_split_into_sizes(tmp_path: Path) -> None:
    results = [computed((2, size, 3)) for size in (1, 4, 2)]
    _exact(
        one_step("SPLIT_V", [computed((2, 7, 3)), constant((1, 4, 2)), constant(1)], results, num_splits=3), tmp_path
    )


@pytest.mark.parametrize("axis", [0, 1, -1])
def test_pack_and_unpack(axis: int, tmp_path: Path) -> None:
    results = [computed((3, 4), name=f"y{i}") for i in range(2)]
    shape = [3, 4]
    shape.insert(axis % 3, 2)
    _exact(one_step("PACK", results, [computed(shape)], axis=axis, values_count=2), tmp_path)
    _exact(one_step("UNPACK", [computed(shape)], results, axis=axis, num=2), tmp_path)


@pytest.mark.parametrize("axis", [0, 1, -1])
def test_concatenation(axis: int, tmp_path: Path) -> None:
    shapes = np.tile((2, 3, 4), (3, 1))
    shapes[:, axis] = 1, 5, 2
    whole = [2, 3, 4]
    whole[axis] = 8
    _exact(one_step("CONCATENATION", [computed(s) for s in shapes], [computed(whole)], axis=axis), tmp_path)


def test_concatenation_with_a_constant(tmp_path: Path) -> None:
    sources = [constant([[1, 2], [3, 4]], "int8", 0.1), computed((2, 3)), constant([[5], [6]], "int8", 0.1)]
    _exact(one_step("CONCATENATION", sources, [computed((2, 6))], axis=1), tmp_path)


@pytest.mark.parametrize(("block", "shape"), [(2, (2, 4, 6, 3)), (3, (1, 3, 6, 1))])
def test_space_and_depth(block: int, shape: tuple[int, int, int, int], tmp_path: Path) -> None:
    n, height, width, channels = shape
    deep = (n, height // block, width // block, channels * block**2)
    _exact(one_step("SPACE_TO_DEPTH", [computed(shape)], [computed(deep)], block_size=block), tmp_path)
    _exact(one_step("DEPTH_TO_SPACE", [computed(deep)], [computed(shape)], block_size=block), tmp_path)


@pytest.mark.parametrize(("shape", "axes"), [((3, 4, 5), (1,)), ((3, 4, 5), (2, -2)), ((7,), (0,))])
def test_reverse(shape: tuple[int, ...], axes: tuple[int, ...], tmp_path: Path) -> None:
    _exact(one_step("REVERSE_V2", [computed(shape), constant(axes)], [computed(shape)]), tmp_path)


@pytest.mark.parametrize("times", [(1, 1, 1), (2, 1, 3), (1, 4, 1), (3, 2, 2)])
def test_tile(times: tuple[int, ...], tmp_path: Path) -> None:
    made = [size * many for size, many in zip((2, 3, 4), times)]
    _exact(one_step("TILE", [computed((2, 3, 4)), constant(times)], [computed(made)]), tmp_path)


@pytest.mark.parametrize("shape", [(3, 1, 4), (1, 5, 1), (4,), (1,), (3, 5, 4)])
def test_broadcast(shape: tuple[int, ...], tmp_path: Path) -> None:
    model = one_step("BROADCAST_TO", [computed(shape), constant((3, 5, 4))], [computed((3, 5, 4))])
    newer = tuple(replace(operator, version=2) for operator in model.operators)  # the reference has no first version
    _exact(replace(model, operators=newer), tmp_path)


BLOCKS: list[tuple[tuple[int, ...], tuple[int, ...], list[tuple[int, int]]]] = [
    ((1, 4, 6, 3), (2, 3), [(0, 0), (0, 0)]),
    ((2, 5, 7, 2), (2, 2), [(1, 0), (0, 1)]),
    ((1, 3, 3, 5), (3, 2), [(2, 4), (3, 0)]),
    ((2, 7, 3), (4,), [(0, 1)]),
]


@pytest.mark.parametrize(("shape", "sizes", "margins"), BLOCKS)
def test_space_and_batches(
    shape: tuple[int, ...], sizes: tuple[int, ...], margins: list[tuple[int, int]], tmp_path: Path
) -> None:
    places = [(at + sum(pair)) // size for at, size, pair in zip(shape[1:-1], sizes, margins)]
    image, batches = computed(shape, 0.1, 7), computed((shape[0] * np.prod(sizes), *places, shape[-1]), 0.1, 7)
    asked = [constant(sizes), constant(margins)]
    _exact(one_step("SPACE_TO_BATCH_ND", [image, *asked], [batches]), tmp_path)
    _exact(one_step("BATCH_TO_SPACE_ND", [batches, *asked], [image]), tmp_path)


PADDINGS = [[(0, 0), (1, 2), (3, 1), (0, 0)], [(0, 0), (0, 0), (0, 0), (2, 5)], [(1, 1), (0, 1), (1, 0), (1, 1)]]


def _padded(shape: tuple[int, ...], paddings: list[tuple[int, int]]) -> list[int]:
    return [low + size + high for size, (low, high) in zip(shape, paddings)]


@pytest.mark.parametrize(("paddings", "zero_point"), list(zip(PADDINGS, (-128, -7, 100))))
def test_pad(paddings: list[tuple[int, int]], zero_point: int, tmp_path: Path) -> None:
    ends = [computed(shape, 0.1, zero_point) for shape in ((1, 3, 4, 2), _padded((1, 3, 4, 2), paddings))]
    _exact(
        one_step("PAD", [ends[0], constant(paddings, "int64" if zero_point == 100 else "int32")], [ends[1]]), tmp_path
    )
    value = constant([17], "int8", 0.1, zero_point)
    _exact(one_step("PADV2", [ends[0], constant(paddings), value], [ends[1]]), tmp_path)


def test_pad_of_a_format_without_scale(tmp_path: Path) -> None:
    _exact(
        one_step(
            "PAD",
            [computed((2, 3), None, 0, "int32"), constant([(1, 0), (0, 2)])],
            [computed((3, 5), None, 0, "int32")],
        ),
        tmp_path,
    )


@pytest.mark.parametrize("mode", ["REFLECT", "SYMMETRIC"])
@pytest.mark.parametrize("paddings", [[(0, 0), (1, 2), (2, 0)], [(1, 1), (2, 2), (0, 3)]])
def test_mirror_pad(mode: str, paddings: list[tuple[int, int]], tmp_path: Path) -> None:
    ends = [computed((2, 3, 4)), computed(_padded((2, 3, 4), paddings))]
    _exact(one_step("MIRROR_PAD", [ends[0], constant(paddings)], [ends[1]], mode=mode), tmp_path)


@pytest.mark.parametrize(("axis", "indices"), [(0, [2, 0, 1, 2]), (1, [[3, 3], [0, 1]]), (-1, [1]), (1, 2)])
def test_gather(axis: int, indices: object, tmp_path: Path) -> None:
    shape: list[int] = [3, 4, 5]
    picked = constant(indices)
    result = [*shape[: axis % 3], *picked.shape, *shape[axis % 3 + 1 :]]
    _exact(one_step("GATHER", [computed(shape), picked], [computed(result)], axis=axis), tmp_path)


def test_axes_that_are_one_on_both_sides_are_copied_as_one() -> None:
    ends = [place(computed((2, 3, 4, 5)), pointer) for pointer in ("in0", "out0")]
    whole = copy(ends[0].whole, ends[0], ends[1].whole, ends[1])
    assert whole is not None and (whole.axes, whole.run_bytes) == ((), 120)
    empty = ends[0].whole[:0]
    assert copy(empty, ends[0], empty, ends[1]) is None


REFUSED: list[tuple[str, list[Tensor], list[Tensor], dict[str, Option], str]] = [
    (
        "CONCATENATION",
        [computed((2,)), computed((2,), 0.2)],
        [computed((4,))],
        {"axis": 0},
        "is not that of its output",
    ),
    ("PACK", [computed((2,), 0.1, 1)], [computed((1, 2))], {"axis": 0}, "the scale or zero point of x is not"),
    (
        "CONCATENATION",
        [computed((2,))],
        [computed((2,))],
        {"axis": 0, "fused_activation_function": "RELU"},
        "its activation RELU is fused",
    ),
    ("PAD", [computed((2,)), constant([(1, 1)])], [computed((4,), 0.2)], {}, "its input and its output have different"),
    (
        "PADV2",
        [computed((2,)), constant([(1, 1)]), computed((1,))],
        [computed((4,))],
        {},
        "its padding value is computed",
    ),
    (
        "PADV2",
        [computed((2,)), constant([(1, 1)]), constant([1], "int8", 0.2)],
        [computed((4,))],
        {},
        "its padding value has another scale",
    ),
    (
        "SPACE_TO_BATCH_ND",
        [computed((1, 2, 2, 1)), constant([2, 2]), constant([(0, 0), (0, 0)])],
        [computed((4, 1, 1, 1), 0.2)],
        {},
        "its input and its output have different",
    ),
    (
        "BATCH_TO_SPACE_ND",
        [computed((81, 1, 1, 1)), constant([9, 9]), constant([(0, 0), (0, 0)])],
        [computed((1, 9, 9, 1))],
        {},
        "its blocks have 81 places, 64 at most",
    ),
    ("GATHER", [computed((2,)), computed((1,), None, 0, "int32")], [computed((1,))], {}, "its indices are computed"),
    ("GATHER", [computed((2,)), constant([2])], [computed((1,))], {"axis": 0}, "its indices go up to 2 of 2"),
    (
        "GATHER",
        [computed((2, 2)), constant([[0]])],
        [computed((2, 1))],
        {"axis": 1, "batch_dims": 1},
        "batch_dims is 1",
    ),
]


@pytest.mark.parametrize(("kind", "sources", "results", "options", "message"), REFUSED)
def test_what_cannot_be_moved_is_refused(
    kind: str, sources: list[Tensor], results: list[Tensor], options: dict[str, Option], message: str
) -> None:
    with pytest.raises(UnsupportedError, match=message):
        check(one_step(kind, sources, results, **options))


@pytest.mark.parametrize(
    ("compiler", "core"),
    [("gcc", ""), ("clang", ""), ("arm-none-eabi-gcc", "cortex-m4"), ("arm-none-eabi-gcc", "cortex-m0")],
)
@pytest.mark.parametrize("level", ["-O1", "-O3"])
def test_loops_stay_loops_without_libc(compiler: str, core: str, level: str, tmp_path: Path) -> None:
    if not shutil.which(compiler):
        pytest.skip(f"needs the tool {compiler}")
    cpu = [f"-mcpu={core}", "-mthumb"] if core else []
    compiled = tmp_path / "kernels.o"
    command = [compiler, *cpu, "-std=c99", "-ffreestanding", level, f"-I{CSRC}", "-c", str(CSRC / "ep_layout.c")]
    subprocess.run([*command, "-o", str(compiled)], check=True)
    called = subprocess.run(["nm", "-u", str(compiled)], check=True, capture_output=True, text=True).stdout
    assert called.strip() == ""
