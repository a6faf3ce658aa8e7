"""Samples from folders of images, one folder per class: `images:DIR`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image, UnidentifiedImageError

from edgeprune.errors import UsageError
from edgeprune.spec import DataSpec
from edgeprune.workload import Array
from edgeprune.workload.arrays import standardised

ENDINGS = (".png", ".jpg", ".jpeg", ".bmp", ".webp", ".ppm", ".pgm", ".tif", ".tiff", ".gif")
PIXEL_LIMIT = 64_000_000  # larger files are refused before they are decoded
_ROLES = {"train": ("train",), "validation": ("val", "validation", "valid"), "test": ("test",)}


@dataclass(frozen=True)
class ImageSet:
    """Image files, decoded and scaled when asked for.

    Attributes:
        files: One image each.
        labels: Class of each, an index into the sorted class names.
        mode: Pillow's name of the pixel format, `L` (grey) or `RGB`.
        spec: Size and standardisation.
    """

    files: tuple[Path, ...]
    labels: tuple[int, ...]
    mode: str
    spec: DataSpec

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, index: int) -> tuple[Array, Any]:
        assert self.spec.size is not None
        pixels = decode(self.files[index], self.spec.size, self.mode)
        values = torch.from_numpy(pixels).float()[None] / 255
        return standardised(values, self.spec, self.files[index].name)[0].numpy(), self.labels[index]


def decode(path: Path, size: tuple[int, int], mode: str) -> Array:
    """Pixels (channels, height, width) uint8, scaled to `size` (height, width).

    Raises:
        UsageError: No image, a broken one, or one of more than 64 million pixels.
    """
    try:
        with Image.open(path) as image:
            if image.width * image.height > PIXEL_LIMIT:
                raise UsageError(
                    f"{image.width}x{image.height} pixels, at most {PIXEL_LIMIT / 1e6:.0f} million are decoded",
                    where=str(path),
                    hint="scale the file down or take it out of the folder",
                )
            scaled = image.convert(mode).resize((size[1], size[0]), Image.Resampling.BILINEAR)
    except (UnidentifiedImageError, OSError, SyntaxError, Image.DecompressionBombError) as err:
        raise UsageError(f"cannot decode the image: {err}", where=str(path), hint="remove or replace it") from None
    pixels = np.array(scaled, dtype=np.uint8)
    return pixels[None] if pixels.ndim == 2 else pixels.transpose(2, 0, 1).copy()


def read_images(folder: Path, spec: DataSpec) -> tuple[dict[str, ImageSet], list[str]]:
    """The parts in a folder: `train/`, `val/`, `test/` with class folders, or class folders alone (all training).

    Returns:
        The parts by role and notes on what was found.

    Raises:
        UsageError: Missing folder, no size given, no class folders or images, a class that training does not know.
    """
    if not folder.is_dir():
        raise UsageError(f"no such folder: {folder}", where="--data")
    if spec.size is None:
        raise UsageError(
            "images need a size to be scaled to",
            where="data.size",
            hint="size = [224, 224] under [data] in edgeprune.toml",
        )
    roots = {role: folder / name for role, names in _ROLES.items() for name in names if (folder / name).is_dir()}
    if roots and "train" not in roots:
        found = ", ".join(sorted(root.name for root in roots.values()))
        raise UsageError(f"{found} but no train folder in {folder}", where="--data")
    roots = roots or {"train": folder}
    classes = _subfolders(roots["train"])
    if len(classes) < 2:
        raise UsageError(
            f"data without labels: {len(classes)} class folders in {roots['train']}",
            where="--data",
            hint="put the images of each class into a folder of their own",
        )
    parts = {role: _image_set(root, classes, spec) for role, root in roots.items()}
    mode = parts["train"].mode
    parts = {role: ImageSet(part.files, part.labels, mode, spec) for role, part in parts.items()}
    return parts, [f"{len(classes)} classes: {', '.join(classes[:10])}{', …' if len(classes) > 10 else ''}"]


def _image_set(root: Path, classes: list[str], spec: DataSpec) -> ImageSet:
    if unknown := sorted(set(_subfolders(root)) - set(classes)):
        raise UsageError(f"class {unknown[0]!r} in {root} is not among the training classes", where="--data")
    files: list[Path] = []
    labels: list[int] = []
    modes: set[str] = set()
    for label, name in enumerate(classes):
        inside = root / name
        found = sorted(f for f in inside.rglob("*") if f.suffix.lower() in ENDINGS and not f.name.startswith("."))
        if not found and root.name == "train":
            raise UsageError(f"no images in {inside}", where="--data", hint=f"known endings: {', '.join(ENDINGS)}")
        if found:
            modes.add(_mode(found[0]))
        files += found
        labels += [label] * len(found)
    if not files:
        raise UsageError(f"no images in {root}", where="--data", hint=f"known endings: {', '.join(ENDINGS)}")
    return ImageSet(tuple(files), tuple(labels), "L" if modes == {"L"} else "RGB", spec)


def _mode(path: Path) -> str:
    try:
        with Image.open(path) as image:
            return "L" if image.mode in ("1", "L", "I;16") else "RGB"
    except (UnidentifiedImageError, OSError, SyntaxError, Image.DecompressionBombError) as err:
        raise UsageError(f"cannot decode the image: {err}", where=str(path), hint="remove or replace it") from None


def _subfolders(root: Path) -> list[str]:
    return sorted(f.name for f in root.iterdir() if f.is_dir() and not f.name.startswith("."))
