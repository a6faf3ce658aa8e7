"""Operator tables of the classifiers in ncnn's benchmark, from the definitions of the networks.

Several differ from what their names suggest (Caffe's ResNets, a MobileNetV3 whose stride comes one block later), so
they are functions of their own. `build(model_id)` knows them by the names the measurement tables use.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from tools.networks import Net, Ops, Tensor, inverted, mobilenet_v1

# expanded width, kernel, stride, output width
_Block = tuple[int, int, int, int]
_PROXYLESS: list[_Block] = [
    (48, 5, 2, 32), (96, 3, 1, 32), (96, 7, 2, 40), (120, 3, 1, 40), (120, 5, 1, 40), (120, 5, 1, 40),
    (240, 7, 2, 80), (240, 5, 1, 80), (240, 5, 1, 80), (240, 5, 1, 80), (480, 5, 1, 96), (288, 5, 1, 96),
    (288, 5, 1, 96), (288, 5, 1, 96), (576, 7, 2, 192), (1152, 7, 1, 192), (576, 7, 1, 192), (576, 7, 1, 192),
    (1152, 7, 1, 320),
]  # fmt: skip
# the same, then squeezed width (0: none) and whether hard-swish
_V3_BLOCKS: list[tuple[int, int, int, int, int, bool]] = [
    (16, 3, 1, 16, 0, False), (64, 3, 2, 24, 0, False), (72, 3, 1, 24, 0, False), (72, 5, 2, 40, 18, False),
    (120, 5, 1, 40, 30, False), (120, 5, 1, 40, 30, False), (240, 3, 2, 80, 0, True), (200, 3, 1, 80, 0, True),
    (184, 3, 1, 80, 0, True), (184, 3, 1, 80, 0, True), (480, 3, 1, 112, 120, True), (672, 3, 1, 112, 168, True),
    (672, 5, 1, 160, 168, True), (672, 5, 2, 160, 168, True), (960, 5, 1, 160, 240, True),
]  # fmt: skip
_INCEPTIONS = [  # 1x1, reduced and 3x3, reduced and 5x5, after the pool; 0 is a pool between stages
    (64, 96, 128, 16, 32, 32), (128, 128, 192, 32, 96, 64), (0,), (192, 96, 208, 16, 48, 64),
    (160, 112, 224, 24, 64, 64), (128, 128, 256, 24, 64, 64), (112, 144, 288, 32, 64, 64),
    (256, 160, 320, 32, 128, 128), (0,), (256, 160, 320, 32, 128, 128), (384, 192, 384, 48, 128, 128),
]  # fmt: skip


def fire(net: Net, squeezed: int, expanded: int) -> None:
    """A block of SqueezeNet: a narrow layer, then 1x1 and 3x3 side by side."""
    narrow = net.conv(squeezed).here()
    side = net.conv(expanded).here()
    net.back(narrow).conv(expanded, 3).concat((side[0], side[3]))


def squeezenet_trunk(net: Net) -> Tensor:
    """SqueezeNet 1.1 up to its last block; returns the tensor before the last pool."""
    net.conv(64, 3, 2, padded=False).pool(3, 2, padded=False)
    for _ in range(2):
        fire(net, 16, 64)
    net.pool(3, 2, padded=False)
    for _ in range(2):
        fire(net, 32, 128)
    before = net.here()
    net.pool(3, 2, padded=False)
    for squeezed in (48, 48, 64, 64):
        fire(net, squeezed, 4 * squeezed)
    return before


def squeezenet() -> Ops:
    net = Net(227, 227, 3)
    squeezenet_trunk(net)
    net.height = net.width = 16  # the last 1x1 convolution is padded by one
    net.conv(1000).mean().elementwise("softmax")
    return tuple(net.ops)


def _classified(net: Net, classes: int = 1000) -> Ops:
    net.mean().dense(classes).elementwise("softmax")
    return tuple(net.ops)


def mobilenet_v2() -> Ops:
    net = Net(224, 224, 3).conv(32, 3, 2).conv(32).depthwise().conv(16, activation="")
    stages = [(24, 2, 2), (32, 3, 2), (64, 4, 2), (96, 3, 1), (160, 3, 2), (320, 1, 1)]
    for channels, repeats, first in stages:
        for repeat in range(repeats):
            inverted(net, 3, net.channels * 6, channels, first if repeat == 0 else 1)
    return _classified(net.conv(1280))


def mobilenet_v3() -> Ops:
    net = Net(224, 224, 3).conv(16, 3, 2, "").activation("hard_swish")
    for expanded, kernel, stride, out, squeezed, hard in _V3_BLOCKS:
        inverted(net, kernel, expanded, out, stride, squeeze=squeezed, activation="hard_swish" if hard else "relu")
    net.conv(960, activation="").activation("hard_swish").mean().dense(1280).activation("hard_swish")
    net.dense(1000).elementwise("softmax")
    return tuple(net.ops)


def mnasnet() -> Ops:
    """MnasNet-B1."""
    net = Net(224, 224, 3).conv(32, 3, 2).depthwise().conv(16, activation="")
    stages = [
        (3, 3, 24, 3, 2),
        (5, 3, 40, 3, 2),
        (5, 6, 80, 3, 2),
        (3, 6, 96, 2, 1),
        (5, 6, 192, 4, 2),
        (3, 6, 320, 1, 1),
    ]
    for kernel, expand, channels, repeats, first in stages:
        for repeat in range(repeats):
            inverted(net, kernel, net.channels * expand, channels, first if repeat == 0 else 1)
    return _classified(net.conv(1280))


def proxylessnas() -> Ops:
    """ProxylessNAS for a GPU's latency, as converted for ncnn."""
    net = Net(224, 224, 3).conv(32, 3, 2).depthwise().conv(32, activation="")
    for expanded, kernel, stride, out in _PROXYLESS:
        inverted(net, kernel, expanded, out, stride)
    return _classified(net.conv(1280))


def efficientnet_b0() -> Ops:
    net = Net(224, 224, 3).conv(32, 3, 2, "").activation("swish")
    stages = [(3, 1, 16, 1, 1), (3, 6, 24, 2, 2), (5, 6, 40, 2, 2), (3, 6, 80, 3, 2), (5, 6, 112, 3, 1),
              (5, 6, 192, 4, 2), (3, 6, 320, 1, 1)]  # fmt: skip
    for kernel, expand, channels, repeats, first in stages:
        for repeat in range(repeats):
            stride, width = (first if repeat == 0 else 1), net.channels
            inverted(net, kernel, width * expand, channels, stride, squeeze=width // 4, activation="swish")
    return _classified(net.conv(1280, activation="").activation("swish"))


def efficientnet_v2_b0() -> Ops:
    net = Net(224, 224, 3).conv(32, 3, 2, "").activation("swish").conv(16, 3, 1, "").activation("swish")
    for channels in (32, 48):  # spatial and expanding convolution in one
        for stride in (2, 1):
            source, width = net.name, net.channels
            net.conv(4 * width, 3, stride, "").activation("swish").conv(channels, activation="")
            if stride == 1:
                net.add(source)
    for expand, channels, repeats, first in ((4, 96, 3, 2), (6, 112, 5, 1), (6, 192, 8, 2)):
        for repeat in range(repeats):
            stride, width = (first if repeat == 0 else 1), net.channels
            inverted(net, 3, width * expand, channels, stride, squeeze=width // 4, activation="swish")
    return _classified(net.conv(1280, activation="").activation("swish"))


def _residual(net: Net, out: int, stride: int, body: Callable[[Net], object], *, project: bool) -> None:
    source = net.here()
    body(net)
    main = net.here()
    shortcut = source[0]
    if project:
        shortcut = net.back(source).conv(out, 1, stride, activation="").name
    net.back(main).add(shortcut)


def regnety_400m() -> Ops:
    net = Net(224, 224, 3).conv(32, 3, 2)
    for channels, repeats in ((48, 1), (104, 3), (208, 6), (440, 6)):
        for repeat in range(repeats):
            stride = 2 if repeat == 0 else 1

            def body(net: Net, width: int = channels, stride: int = stride, squeezed: int = net.channels // 4) -> None:
                net.conv(width).conv(width, 3, stride, groups=width // 8).squeeze_excite(squeezed)
                net.conv(width, activation="")

            _residual(net, channels, stride, body, project=repeat == 0)
            net.elementwise("activation")
    return _classified(net)


def caffe_resnet(repeats: tuple[int, ...], bottleneck: bool) -> Ops:
    """ResNet as first published in Caffe: stride in the first convolution, a projection in every first block."""
    net = Net(224, 224, 3).conv(64, 7, 2).pool(3, 2)
    for stage, count in enumerate(repeats):
        width = 64 << stage
        for repeat in range(count):
            stride = 2 if repeat == 0 and stage > 0 else 1
            out = width * (4 if bottleneck else 1)

            def body(net: Net, width: int = width, stride: int = stride, out: int = out) -> None:
                if bottleneck:
                    net.conv(width, 1, stride).conv(width, 3).conv(out, activation="")
                else:
                    net.conv(width, 3, stride).conv(out, 3, activation="")

            _residual(net, out, stride, body, project=repeat == 0)
            net.elementwise("activation")
    return _classified(net)


def vgg16() -> Ops:
    net = Net(224, 224, 3)
    for channels, repeats in ((64, 2), (128, 2), (256, 3), (512, 3), (512, 3)):
        for _ in range(repeats):
            net.conv(channels, 3)
        net.pool(2, 2)
    net.dense(4096).dense(4096).dense(1000).elementwise("softmax")
    return tuple(net.ops)


def alexnet() -> Ops:
    net = Net(227, 227, 3).conv(96, 11, 4, padded=False).elementwise("norm").pool(3, 2, padded=False)
    net.conv(256, 5, groups=2).elementwise("norm").pool(3, 2, padded=False)
    net.conv(384, 3).conv(384, 3, groups=2).conv(256, 3, groups=2).pool(3, 2, padded=False)
    net.dense(4096).dense(4096).dense(1000).elementwise("softmax")
    return tuple(net.ops)


def googlenet() -> Ops:
    net = Net(224, 224, 3).conv(64, 7, 2).pool(3, 2).elementwise("norm").conv(64).conv(192, 3)
    net.elementwise("norm").pool(3, 2)
    for widths in _INCEPTIONS:
        if len(widths) == 1:
            net.pool(3, 2)
            continue
        one, reduce_three, three, reduce_five, five, pooled = widths
        source = net.here()
        sides = [net.conv(one).here(), net.back(source).conv(reduce_three).conv(three, 3).here()]
        sides.append(net.back(source).conv(reduce_five).conv(five, 5).here())
        net.back(source).pool(3, 1).conv(pooled).concat(*((side[0], side[3]) for side in sides))
    return _classified(net)


def shufflenet() -> Ops:
    """ShuffleNet v1 with three groups."""
    net = Net(224, 224, 3).conv(24, 3, 2).pool(3, 2)
    for stage, (channels, repeats) in enumerate(((240, 4), (480, 8), (960, 4))):
        for repeat in range(repeats):
            source, stride = net.here(), 2 if repeat == 0 else 1
            out = channels - source[3] if repeat == 0 else channels
            grouped = stage > 0 or repeat > 0
            net.conv(out // 4, groups=3 if grouped else 1)
            if grouped:
                net.elementwise("move")
            net.depthwise(3, stride, "").conv(out, groups=3, activation="")
            main = net.here()
            if repeat == 0:
                side = net.back(source).pool(3, 2).here()
                net.back(main).concat((side[0], side[3]))
            else:
                net.add(source[0])
            net.elementwise("activation")
    return _classified(net)


def shuffle_v2_trunk(net: Net, widths: tuple[int, int, int]) -> list[Tensor]:
    """The three stages of ShuffleNet v2 after its stem; returns the output of each."""
    net.conv(24, 3, 2).pool(3, 2)
    outputs = []
    for width, repeats in zip(widths, (4, 8, 4), strict=True):
        half = width // 2
        for repeat in range(repeats):
            if repeat == 0:
                source = net.here()
                side = net.depthwise(3, 2, "").conv(half).here()
                net.back(source).conv(half).depthwise(3, 2, "").conv(half)
            else:
                net.elementwise("move").elementwise("move")  # shuffle, then split in halves
                net.channels = half
                side = net.here()
                net.conv(half).depthwise(activation="").conv(half)
            net.concat((side[0], half))
        outputs.append(net.here())
    return outputs


def shufflenet_v2() -> Ops:
    net = Net(224, 224, 3)
    shuffle_v2_trunk(net, (116, 232, 464))
    return _classified(net.conv(1024))


def blazeface() -> Ops:
    net = Net(128, 128, 3).conv(24, 5, 2)
    widths = [24, 28, 32, 36, 42, 48, 56, 64, 72, 80, 88, 96, 96, 96, 96, 96]
    for out in widths:
        source = net.here()
        stride = 2 if out in (32, 48) or (out == 96 and source[3] == 88) else 1
        net.depthwise(3, stride, "").conv(out, activation="")
        main, shortcut = net.here(), source
        if stride == 2:
            shortcut = net.back(source).pool(2, 2).here()
        if out != source[3]:
            net.back(shortcut).elementwise("pad")
            shortcut = net.here()
        net.back(main).add(shortcut[0]).elementwise("activation")
    return tuple(net.ops)


BUILDERS: dict[str, Callable[[], Ops]] = {
    "squeezenet_1.1_227": squeezenet,
    "mobilenet_v1_1.0_224": partial(mobilenet_v1, 1.0, 224, 1000),
    "mobilenet_v2_1.0_224": mobilenet_v2,
    "mobilenet_v3_large_1.0_224": mobilenet_v3,
    "mnasnet_1.0_224": mnasnet,
    "ncnn_proxylessnasnet": proxylessnas,
    "efficientnet_b0_224": efficientnet_b0,
    "ncnn_efficientnetv2_b0": efficientnet_v2_b0,
    "ncnn_regnety_400m": regnety_400m,
    "resnet18_224": partial(caffe_resnet, (2, 2, 2, 2), False),
    "resnet50_224": partial(caffe_resnet, (3, 4, 6, 3), True),
    "vgg16_224": vgg16,
    "alexnet_227": alexnet,
    "googlenet_224": googlenet,
    "ncnn_shufflenet": shufflenet,
    "shufflenet_v2_1.0_224": shufflenet_v2,
    "ncnn_blazeface": blazeface,
}


def build(model_id: str) -> Ops | None:
    """The operators of a classifier as ncnn's benchmark runs it; None for one that is not defined here."""
    make = BUILDERS.get(model_id)
    return make() if make else None
