"""Resizing, bilinear and to the nearest pixel, larger and smaller."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from edgeprune.backends.c.model import Model, Option, Tensor
from edgeprune.errors import UnsupportedError
from tests.backends.c.steps import assert_exact, check, computed, constant, filled, one_step

FLAGS: list[dict[str, Option]] = [
    {"align_corners": aligned, "half_pixel_centers": centred} for aligned in (False, True) for centred in (False, True)
]
SIZES = [((1, 4, 5, 3), (8, 10)), ((2, 7, 3, 2), (5, 11)), ((1, 9, 8, 1), (3, 1)), ((1, 1, 2, 4), (6, 13))]


def _resize(kind: str, shape: tuple[int, ...], size: tuple[int, int], options: dict[str, Option]) -> Model:
    result = (shape[0], *size, shape[3])
    return one_step(kind, [computed(shape), constant(size)], [computed(result)], **options)


@pytest.mark.parametrize("options", FLAGS, ids=str)
@pytest.mark.parametrize(("shape", "size"), SIZES)
def test_nearest(shape: tuple[int, ...], size: tuple[int, int], options: dict[str, Option], tmp_path: Path) -> None:
    model = _resize("RESIZE_NEAREST_NEIGHBOR", shape, size, options)
    assert_exact(model, filled(model, np.random.default_rng(0)), tmp_path)


@pytest.mark.parametrize("options", FLAGS[:3], ids=str)
@pytest.mark.parametrize(("shape", "size"), SIZES)
def test_bilinear(shape: tuple[int, ...], size: tuple[int, int], options: dict[str, Option], tmp_path: Path) -> None:
    model = _resize("RESIZE_BILINEAR", shape, size, options)
    assert_exact(model, filled(model, np.random.default_rng(0)), tmp_path)


SMALL, LARGE = computed((1, 2, 2, 1)), computed((1, 4, 4, 1))
CHANGED = computed((1, 4, 4, 1), 0.2)
REFUSED = [
    ("RESIZE_BILINEAR", computed((1, 2, 2, 1), 0.1, 0, "int16"), LARGE, {}, "its input is int16, not int8"),
    ("RESIZE_BILINEAR", SMALL, CHANGED, {}, "its input and its output have different scales"),
    ("RESIZE_NEAREST_NEIGHBOR", SMALL, CHANGED, {}, "its input and its output have different scales"),
    ("RESIZE_BILINEAR", SMALL, computed((1, 65, 2, 1)), {}, "from 2 to 65 the reference reads beyond its input"),
    ("RESIZE_BILINEAR", computed((1, 1, 8, 1)), computed((1, 1, 129, 1)), {}, "from 8 to 129 the reference reads"),
    ("RESIZE_BILINEAR", SMALL, LARGE, FLAGS[3], "which contradict each other"),
]


@pytest.mark.parametrize(("kind", "source", "result", "options", "message"), REFUSED)
def test_what_is_not_resized_exactly_is_refused(
    kind: str, source: Tensor, result: Tensor, options: dict[str, Option], message: str
) -> None:
    with pytest.raises(UnsupportedError, match=message):
        check(one_step(kind, [source, constant([4, 4])], [result], **options))
