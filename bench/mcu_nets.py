"""Int8 networks that the benchmark of microcontrollers writes itself, so that it needs no file of others.

Weights are random: what is counted depends on sizes alone, and outputs are compared with the reference kernels whatever
they mean. An LSTM and transposed convolutions are put together operator by operator (`bench.mcu_written`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path

import torch

import edgeprune
from bench import mcu_written
from bench.public_models import randomised
from bench.solver import ResNet8
from edgeprune import backends
from edgeprune.backends.c.model import Model
from edgeprune.backends.tflite.writer import write
from edgeprune.device.networks import Layer, Network
from edgeprune.errors import UsageError, did_you_mean

KEPT = 0.5  # of the widths of the pruned network
_WIDTHS = (128, 128, 128, 128, 8, 128, 128, 128, 128, 640)
_SIDE = 48
_IMAGES = 16


def autoencoder() -> Network:
    """Ten dense layers around a bottleneck of 8: the sizes of the anomaly detector of MLPerf Tiny."""
    ends = len(_WIDTHS) - 1
    layers = [Layer("dense", (at,), width, activation="relu" * (at < ends)) for at, width in enumerate(_WIDTHS)]
    return Network("autoencoder", (1, 1, 640), tuple(layers))


def unet() -> Network:
    """Three levels of 3 x 3 convolutions with skips: pooled on the way down, resized and concatenated on the way up."""

    def conv(source: int, channels: int) -> Layer:
        return Layer("conv", (source,), channels, 3, activation="relu")

    def pool(source: int) -> Layer:
        return Layer("pool", (source,), kernel=2, stride=2, activation="max")

    def resize(source: int) -> Layer:
        return Layer("resize", (source,), stride=2)

    down = (conv(0, 8), conv(1, 8), pool(2), conv(3, 16), conv(4, 16), pool(5), conv(6, 32), conv(7, 32))
    middle = (resize(8), Layer("concat", (9, 5)), conv(10, 16))
    up = (resize(11), Layer("concat", (12, 2)), conv(13, 8), Layer("conv", (14,), 2), Layer("softmax", (15,)))
    return Network("unet", (_SIDE, _SIDE, 1), (*down, *middle, *up))


def _described(build: Callable[[], Network], folder: Path) -> Path:
    path = folder / "model.tflite"
    write(build(), path, "int8")
    return path


def _put_together(build: Callable[[], Model], folder: Path) -> Path:
    return mcu_written.written(build(), folder)


def _resnet8(keep: float, folder: Path) -> Path:
    """Exported with the ranges of random images; below one, pruned to that share of every width first."""
    model = randomised(ResNet8)
    images = torch.randn(_IMAGES, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    if keep < 1:
        model = edgeprune.prune(model, images, keep=keep).model.eval()
    samples = images.numpy()
    return backends.get("tflite").export(model, samples[:1], folder, "int8", samples).path


NETS: Mapping[str, Callable[[Path], Path]] = {
    "autoencoder": partial(_described, autoencoder),
    "unet": partial(_described, unet),
    "unet-transposed": partial(_put_together, mcu_written.unet_transposed),
    "lstm": partial(_put_together, mcu_written.lstm),
    "resnet8": partial(_resnet8, 1),
    "resnet8-pruned": partial(_resnet8, KEPT),
}


def chosen_nets(names: str) -> tuple[str, ...]:
    """Names separated by commas; none is allowed.

    Raises:
        UsageError: There is no such network.
    """
    chosen = tuple(name.strip() for name in names.split(",") if name.strip())
    if unknown := [name for name in chosen if name not in NETS]:
        raise UsageError(f"unknown net {unknown[0]!r}", where="--nets", hint=did_you_mean(unknown[0], NETS))
    return chosen


def written(name: str, folder: Path) -> Path:
    """The file of a network, which is written where it is not there yet."""
    path = folder / name / "model.tflite"
    if not path.is_file():
        path.parent.mkdir(parents=True, exist_ok=True)
        NETS[name](path.parent)
    return path
