"""Operator tables of published networks, built from their published definitions.

Each function returns the fused operators that a runtime executes at batch one, under TensorFlow's SAME padding where
that is how the measured file was made. `build(model_id)` knows them by the names the measurement tables use.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from math import ceil

from edgeprune.device.ops import Kind, Op

Ops = tuple[Op, ...]
Tensor = tuple[str, int, int, int]  # name, height, width, channels


def divisible(width: float, divisor: int = 8) -> int:
    """The nearest multiple, at least the divisor, never more than 10 % below the width (the MobileNet rule)."""
    near = max(divisor, int(width + divisor / 2) // divisor * divisor)
    return near + divisor if near < 0.9 * width else near


@dataclass
class Net:
    """Operators being strung together; `at` is the running tensor's (name, height, width, channels)."""

    height: int
    width: int
    channels: int
    ops: list[Op] = field(default_factory=list)
    name: str = "input"

    @property
    def positions(self) -> int:
        return self.height * self.width

    def _push(self, kind: Kind, out_channels: int, positions: int, **more: object) -> None:
        name = f"op{len(self.ops)}"
        inputs = more.pop("inputs", (self.name,))
        op = Op(name, kind, inputs, name, self.channels, out_channels, self.positions, positions, **more)  # type: ignore[arg-type]
        self.ops.append(op)
        self.name, self.channels = name, out_channels

    def conv(
        self,
        out: int,
        kernel: int | tuple[int, int] = 1,
        stride: int | tuple[int, int] = 1,
        activation: str = "relu",
        padded: bool = True,
        groups: int = 1,
    ) -> Net:
        kh, kw = (kernel, kernel) if isinstance(kernel, int) else kernel
        sh, sw = (stride, stride) if isinstance(stride, int) else stride
        height, width = (
            (ceil(self.height / sh), ceil(self.width / sw))
            if padded
            else ((self.height - kh) // sh + 1, (self.width - kw) // sw + 1)
        )
        more = {"kernel": kh * kw, "stride": sh * sw, "activation": activation, "groups": groups}
        self._push("conv", out, height * width, **more)
        self.height, self.width = height, width
        return self

    def depthwise(self, kernel: int = 3, stride: int = 1, activation: str = "relu") -> Net:
        height, width = ceil(self.height / stride), ceil(self.width / stride)
        self._push(
            "depthwise",
            self.channels,
            height * width,
            kernel=kernel * kernel,
            groups=self.channels,
            stride=stride * stride,
            activation=activation,
        )
        self.height, self.width = height, width
        return self

    def dense(self, out: int) -> Net:
        self.channels *= self.positions
        self.height = self.width = 1
        self._push("dense", out, 1)
        return self

    def here(self) -> Tensor:
        """The running tensor, to come back to."""
        return self.name, self.height, self.width, self.channels

    def back(self, tensor: Tensor) -> Net:
        """Goes on from an earlier tensor."""
        self.name, self.height, self.width, self.channels = tensor
        return self

    def add(self, other: str) -> Net:
        self._push("add", self.channels, self.positions, inputs=(self.name, other))
        return self

    def elementwise(self, kind: Kind) -> Net:
        self._push(kind, self.channels, self.positions)
        return self

    def concat(self, *others: tuple[str, int]) -> Net:
        names = (self.name, *(name for name, _ in others))
        self._push("concat", self.channels + sum(c for _, c in others), self.positions, inputs=names)
        return self

    def pool(self, kernel: int, stride: int, padded: bool = True) -> Net:
        """Window pooling; without padding the last window may reach over the edge (Caffe's rule)."""
        height, width = (
            ceil((side if padded else side - kernel + stride) / stride) for side in (self.height, self.width)
        )
        self._push("pool", self.channels, height * width, kernel=kernel * kernel, stride=stride * stride)
        self.height, self.width = height, width
        return self

    def mean(self) -> Net:
        self._push("mean", self.channels, 1)
        self.height = self.width = 1
        return self

    def resize(self, factor: int) -> Net:
        self._push("resize", self.channels, self.positions * factor * factor)
        self.height, self.width = self.height * factor, self.width * factor
        return self

    def squeeze_excite(self, reduced: int) -> Net:
        """Pool, two 1x1 layers, hard sigmoid, product with the tensor pooled."""
        name, height, width, channels = self.name, self.height, self.width, self.channels
        self.mean().conv(reduced).conv(channels, activation="").elementwise("activation")
        gate = self.name
        self.name, self.height, self.width = name, height, width
        self._push("mul", channels, height * width, inputs=(name, gate))
        return self

    def activation(self, name: str) -> Net:
        """A smooth activation is an operator of its own; a clipped one was fused already."""
        return self if name == "relu" else self.elementwise("activation")


def mobilenet_v1(alpha: float, size: int, classes: int = 1001) -> Ops:
    def width(channels: int) -> int:
        return max(int(channels * alpha), 8)

    net = Net(size, size, 3).conv(width(32), 3, 2)
    blocks = [(64, 1), (128, 2), (128, 1), (256, 2), (256, 1), (512, 2), *[(512, 1)] * 5, (1024, 2), (1024, 1)]
    for channels, stride in blocks:
        net.depthwise(3, stride).conv(width(channels))
    net.mean().conv(classes, activation="").elementwise("softmax")
    return tuple(net.ops)


def mobilenet_v2(alpha: float, size: int, classes: int = 1001) -> Ops:
    net = Net(size, size, 3).conv(divisible(32 * alpha), 3, 2)
    stages = [(1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1), (6, 160, 3, 2), (6, 320, 1, 1)]
    for expand, channels, repeats, first in stages:
        for repeat in range(repeats):
            inverted(net, 3, net.channels * expand, divisible(channels * alpha), first if repeat == 0 else 1)
    net.conv(divisible(1280 * alpha) if alpha > 1 else 1280).mean()
    net.conv(classes, activation="").elementwise("softmax")
    return tuple(net.ops)


def inverted(
    net: Net, kernel: int, expanded: int, out: int, stride: int, *, squeeze: int = 0, activation: str = "relu"
) -> None:
    """An inverted residual block; `squeeze` is the width of its squeeze-excite layers, 0 for none."""
    source, before = net.name, net.channels
    fused = "relu" if activation == "relu" else ""
    if expanded != before:
        net.conv(expanded, activation=fused).activation(activation)
    net.depthwise(kernel, stride, fused).activation(activation)
    if squeeze:
        net.squeeze_excite(squeeze)
    net.conv(out, activation="")
    if stride == 1 and before == out:
        net.add(source)


# kernel, expansion, output, squeeze-excite, hard-swish, stride
_V3_LARGE: list[tuple[int, float, int, int, int, int]] = [
    (3, 1, 16, 0, 0, 1), (3, 4, 24, 0, 0, 2), (3, 3, 24, 0, 0, 1), (5, 3, 40, 1, 0, 2), (5, 3, 40, 1, 0, 1),
    (5, 3, 40, 1, 0, 1), (3, 6, 80, 0, 1, 2), (3, 2.5, 80, 0, 1, 1), (3, 184 / 80, 80, 0, 1, 1),
    (3, 184 / 80, 80, 0, 1, 1), (3, 6, 112, 1, 1, 1), (3, 6, 112, 1, 1, 1), (5, 6, 160, 1, 1, 2),
    (5, 6, 160, 1, 1, 1), (5, 6, 160, 1, 1, 1),
]  # fmt: skip
_V3_SMALL: list[tuple[int, float, int, int, int, int]] = [
    (3, 1, 16, 1, 0, 2), (3, 72 / 16, 24, 0, 0, 2), (3, 88 / 24, 24, 0, 0, 1), (5, 4, 40, 1, 1, 2),
    (5, 6, 40, 1, 1, 1), (5, 6, 40, 1, 1, 1), (5, 3, 48, 1, 1, 1), (5, 3, 48, 1, 1, 1), (5, 6, 96, 1, 1, 2),
    (5, 6, 96, 1, 1, 1), (5, 6, 96, 1, 1, 1),
]  # fmt: skip


def mobilenet_v3(large: bool, alpha: float, size: int, minimalistic: bool = False, classes: int = 1001) -> Ops:
    smooth = "relu" if minimalistic else "hard_swish"
    fused = "relu" if minimalistic else ""
    net = Net(size, size, 3).conv(divisible(16 * alpha), 3, 2, fused).activation(smooth)
    blocks = _V3_LARGE if large else _V3_SMALL
    for kernel, expand, channels, squeeze, hard, stride in blocks:
        expanded = divisible(net.channels * expand)
        inverted(
            net,
            3 if minimalistic else kernel,
            expanded,
            divisible(channels * alpha),
            stride,
            squeeze=divisible(expanded / 4) if squeeze and not minimalistic else 0,
            activation=smooth if hard else "relu",
        )
    net.conv(divisible(net.channels * 6), activation=fused).activation(smooth).mean()
    last = 1280 if large else 1024
    net.conv(divisible(last * max(alpha, 1.0)), activation=fused).activation(smooth)
    net.conv(classes, activation="").elementwise("softmax")
    return tuple(net.ops)


def efficientnet_lite(variant: int, classes: int = 1000) -> Ops:
    width, depth, size = [(1.0, 1.0, 224), (1.0, 1.1, 240), (1.1, 1.2, 260), (1.2, 1.4, 280), (1.4, 1.8, 300)][variant]
    stages = [(1, 3, 1, 1, 16), (2, 3, 2, 6, 24), (2, 5, 2, 6, 40), (3, 3, 2, 6, 80), (3, 5, 1, 6, 112),
              (4, 5, 2, 6, 192), (1, 3, 1, 6, 320)]  # fmt: skip
    net = Net(size, size, 3).conv(32, 3, 2)
    for index, (repeats, kernel, first, expand, channels) in enumerate(stages):
        # the first and last stage are not deepened in the lite variants
        count = repeats if index in (0, len(stages) - 1) else ceil(depth * repeats)
        for repeat in range(count):
            stride = first if repeat == 0 else 1
            inverted(net, kernel, net.channels * expand, divisible(channels * width), stride)
    net.conv(1280).mean().dense(classes).elementwise("softmax")
    return tuple(net.ops)


def resnet(repeats: tuple[int, ...], bottleneck: bool, size: int = 224, classes: int = 1000) -> Ops:
    """ResNet with the stride in the 3x3 convolution (v1.5)."""
    net = Net(size, size, 3).conv(64, 7, 2).pool(3, 2)
    for stage, count in enumerate(repeats):
        width = 64 << stage
        for repeat in range(count):
            stride = 2 if repeat == 0 and stage > 0 else 1
            source = (net.name, net.height, net.width, net.channels)
            out = width * 4 if bottleneck else width
            if bottleneck:
                net.conv(width).conv(width, 3, stride).conv(out, activation="")
            else:
                net.conv(width, 3, stride).conv(out, 3, activation="")
            main = (net.name, net.height, net.width, net.channels)
            shortcut = source[0]
            if stride != 1 or source[3] != out:
                net.name, net.height, net.width, net.channels = source
                net.conv(out, 1, stride, activation="")
                shortcut = net.name
            net.name, net.height, net.width, net.channels = main
            net.add(shortcut)
    net.mean().dense(classes).elementwise("softmax")
    return tuple(net.ops)


def tiny_autoencoder() -> Ops:
    net = Net(1, 1, 640)
    for width in (128, 128, 128, 128, 8, 128, 128, 128, 128, 640):
        net.dense(width)
    return tuple(net.ops)


def tiny_resnet8() -> Ops:
    net = Net(32, 32, 3).conv(16, 3)
    for stage in range(3):
        width, stride = 16 << stage, 1 if stage == 0 else 2
        source = (net.name, net.height, net.width, net.channels)
        net.conv(width, 3, stride).conv(width, 3, activation="")
        main = (net.name, net.height, net.width, net.channels)
        shortcut = source[0]
        if stage:
            net.name, net.height, net.width, net.channels = source
            net.conv(width, 1, stride, activation="")
            shortcut = net.name
        net.name, net.height, net.width, net.channels = main
        net.add(shortcut)
    net.mean().dense(10).elementwise("softmax")
    return tuple(net.ops)


def tiny_dscnn() -> Ops:
    net = Net(49, 10, 1).conv(64, (10, 4), 2)
    for _ in range(4):
        net.depthwise().conv(64)
    net.mean().dense(12).elementwise("softmax")
    return tuple(net.ops)


def _resnet_id(model_id: str) -> Ops | None:
    plans = {"resnet18_224": ((2, 2, 2, 2), False), "resnet34_224": ((3, 4, 6, 3), False)}
    plan = plans.get(model_id.removeprefix("netspresso_"))
    if model_id in ("resnet50_224", "resnet50_v1.5_224"):
        plan = ((3, 4, 6, 3), True)
    return resnet(*plan) if plan else None


def build(model_id: str) -> Ops | None:
    """The operators of a network by its name in the measurement tables; None for one that is not defined here."""
    parts = model_id.split("_")
    tiny: dict[str, Callable[[], Ops]] = {
        "tiny_ad_autoencoder": tiny_autoencoder,
        "tiny_ic_resnet8": tiny_resnet8,
        "tiny_kws_dscnn": tiny_dscnn,
        "tiny_vww_mobilenet_0.25": lambda: mobilenet_v1(0.25, 96, classes=2),
    }
    if model_id in tiny:
        return tiny[model_id]()
    if model_id.startswith("efficientnet_lite") and model_id[-1] in "01234":
        return efficientnet_lite(int(model_id[-1]))
    if model_id.startswith(("mobilenet_v1_", "mobilenet_v2_")) and len(parts) == 4:
        make = mobilenet_v1 if parts[1] == "v1" else mobilenet_v2
        return make(float(parts[2]), int(parts[3]))
    if model_id.startswith("mobilenet_v3_"):
        return mobilenet_v3(parts[2] == "large", float(parts[-2]), int(parts[-1]), "minimalistic" in parts)
    return _resnet_id(model_id)


# the first name that occurs in an id decides; networks of one family share their building block
_FAMILIES = {
    "mobilenetv2_yolov3": "mobilenet_v2",
    "mobilenet_ssd": "mobilenet_v1",
    "mobilenet_yolo": "mobilenet_v1",
    "mobilenet_v1": "mobilenet_v1",
    "mobilenet_v2": "mobilenet_v2",
    "mobilenet_v3": "mobilenet_v3",
    "mnasnet": "mobilenet_v2",
    "proxyless": "mobilenet_v2",
    "efficientnet_lite": "efficientnet_lite",
    "efficientnet": "efficientnet",
    "resnet": "resnet",
    "squeezenet": "squeezenet",
    "shufflenet": "shufflenet",
    "nanodet": "shufflenet",
    "yolo_fastestv2": "shufflenet",
    "FastestDet": "shufflenet",
    "yolox": "yolox",
}


def family(model_id: str) -> str:
    """Networks of one family share their building block; cross-validation leaves out whole families."""
    return next((name for part, name in _FAMILIES.items() if part in model_id), model_id)
