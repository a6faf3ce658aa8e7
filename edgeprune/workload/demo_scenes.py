"""Scenes of the demo: one whole handwritten digit among clutter, composed from scikit-learn's 8x8 digits.

Each scene is a 64x64 grey image: one digit, enlarged, turned and placed at random, over an uneven background with
torn pieces of other digits and sensor noise. The label is the digit. Which handwritten digits may appear, whole or
torn, is fixed per split, so no stroke of the training set returns in the others.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import torch
from torch import nn

from edgeprune.workload import Array

SIZE = 64  # pixels on each side of a scene
CLASSES = 10
SPLITS = {"train": (0, 0.6), "validation": (0.6, 0.75), "test": (0.75, 1.0)}  # shares of the handwritten digits
PIECES = 4  # torn pieces of other digits per scene


@lru_cache(maxsize=1)
def _handwritten() -> tuple[Array, Array]:
    """(1797, 8, 8) float32 in 0..1 and their labels, shuffled once and for all."""
    from sklearn.datasets import load_digits

    bunch = load_digits()
    order = np.random.default_rng(20240229).permutation(len(bunch.target))
    return (bunch.images[order] / 16.0).astype(np.float32), bunch.target[order].astype(np.int64)


def source_digits(split: str) -> tuple[Array, Array]:
    """Indices into the handwritten digits that `split` may use, and their labels; equal shares of every class."""
    labels = _handwritten()[1]
    low, high = SPLITS[split]
    chosen = []
    for label in range(CLASSES):
        of_class = np.flatnonzero(labels == label)
        chosen.append(of_class[int(low * len(of_class)) : int(high * len(of_class))])
    indices = np.sort(np.concatenate(chosen))
    return indices, labels[indices]


def scenes(split: str, count: int, seed: int = 0) -> tuple[Array, Array]:
    """`count` scenes (count, 64, 64) uint8 with balanced labels (count,) int64; the same for the same arguments."""
    rng = np.random.default_rng([seed, list(SPLITS).index(split)])
    images = _handwritten()[0]
    indices, classes = source_digits(split)
    wanted = rng.permutation(np.arange(count) % CLASSES)
    main = np.array([rng.choice(indices[classes == label]) for label in wanted])
    canvas = _background(rng, count)
    for _ in range(PIECES):
        torn = _torn(rng, images[rng.choice(indices, count)])
        canvas = _paste(canvas, torn, _placement(rng, count, (8, 16), 3.1, 0.9), rng.uniform(0.1, 0.45, count))
    canvas = _paste(canvas, images[main], _placement(rng, count, (16, 25), 0.4, 0.35), rng.uniform(0.4, 0.7, count))
    noise = np.asarray(rng.normal(0, 1, canvas.shape), np.float32)
    strength = np.asarray(rng.uniform(0.02, 0.08, (count, 1, 1)), np.float32)
    return np.clip((canvas + noise * strength) * 255, 0, 255).astype(np.uint8), wanted


def _background(rng: np.random.Generator, count: int) -> Array:
    """Uneven light: a coarse random field, smoothly enlarged."""
    coarse = torch.from_numpy(rng.uniform(0.05, 0.3, (count, 1, 4, 4)).astype(np.float32))
    fine = nn.functional.interpolate(coarse, (SIZE, SIZE), mode="bicubic", align_corners=True)
    return fine.numpy()[:, 0]


def _torn(rng: np.random.Generator, digits: Array) -> Array:
    """Each digit with a random half of it missing."""
    torn = digits.copy()
    for image, side in zip(torn, rng.integers(0, 4, len(torn))):
        np.rot90(image, side)[:, :4] = 0
    return torn


def _placement(rng: np.random.Generator, count: int, half: tuple[float, float], turn: float, reach: float) -> Array:
    """Inverse affine maps (count, 2, 3) from scene to digit coordinates, both in -1..1.

    Args:
        half: Smallest and largest half side of a pasted digit in pixels.
        turn: Largest rotation in radians, both ways.
        reach: How far from the middle its centre may lie, as a share of half the scene.
    """
    scale = rng.uniform(*half, count) / (SIZE / 2)
    aspect = rng.uniform(0.8, 1.25, count)
    angle = rng.uniform(-turn, turn, count)
    shear = rng.uniform(-0.15, 0.15, count)
    centre = rng.uniform(-reach, reach, (2, count))
    cos, sin = np.cos(angle), np.sin(angle)
    rows = np.array([[cos + shear * sin, sin - shear * cos], [-sin, cos]]) / np.array([scale * aspect, scale])[:, None]
    shift = -np.einsum("ijn,jn->in", rows, centre)
    return np.concatenate([rows, shift[:, None]], axis=1).transpose(2, 0, 1).astype(np.float32)


def _paste(canvas: Array, digits: Array, placement: Array, ink: Array) -> Array:
    """The canvas with each digit drawn on it in ink of that strength."""
    grid = nn.functional.affine_grid(torch.from_numpy(placement), [len(digits), 1, SIZE, SIZE], align_corners=False)
    drawn = nn.functional.grid_sample(torch.from_numpy(digits)[:, None], grid, align_corners=False).numpy()[:, 0]
    return np.asarray(canvas + drawn * ink[:, None, None].astype(np.float32))
