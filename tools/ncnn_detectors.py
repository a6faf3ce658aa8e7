"""Operator tables of the detectors in ncnn's benchmark, from the definitions of the networks.

Boxes are decoded and sorted by ncnn's own output layer, which no table prices.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from edgeprune.device.ops import Op
from tools.ncnn_networks import fire, shuffle_v2_trunk, squeezenet_trunk
from tools.networks import Net, Ops, Tensor, inverted


def _v1_trunk(net: Net) -> tuple[Tensor, Tensor]:
    """MobileNet v1 without its head; returns the last tensors at strides 16 and 32."""
    net.conv(32, 3, 2)
    blocks = [(64, 1), (128, 2), (128, 1), (256, 2), (256, 1), (512, 2), *[(512, 1)] * 5]
    for channels, stride in blocks:
        net.depthwise(3, stride).conv(channels)
    middle = net.here()
    net.depthwise(3, 2).conv(1024).depthwise().conv(1024)
    return middle, net.here()


def _boxes(net: Net, sources: Sequence[Tensor], kernel: int, few: tuple[int, ...]) -> None:
    """SSD's predictors: four or six boxes a position, 21 classes; `few` are the places of those with `4`."""
    for place, source in enumerate(sources):
        boxes = few[place]
        for channels in (4 * boxes, 21 * boxes):
            net.back(source).conv(channels, kernel, activation="").elementwise("move")
    net.elementwise("softmax")


def mobilenet_ssd() -> Ops:
    net = Net(300, 300, 3)
    sources = list(_v1_trunk(net))
    for narrow, wide in ((256, 512), (128, 256), (128, 256), (64, 128)):
        sources.append(net.conv(narrow).conv(wide, 3, 2).here())
    _boxes(net, sources, 1, (3, 6, 6, 6, 6, 6))
    return tuple(net.ops)


def squeezenet_ssd() -> Ops:
    net = Net(300, 300, 3)
    sources = [squeezenet_trunk(net), net.here()]
    for _ in range(2):
        net.pool(3, 2, padded=False)
        fire(net, 96, 384)
        sources.append(net.here())
    for narrow, wide in ((128, 256), (64, 128)):
        sources.append(net.conv(narrow).conv(wide, 3, 2).here())
    net.back(sources[0]).elementwise("norm")
    sources[0] = net.here()
    _boxes(net, sources, 3, (4, 6, 6, 6, 6, 4))
    return tuple(net.ops)


def mobilenet_yolo() -> Ops:
    net = Net(416, 416, 3)
    middle, _ = _v1_trunk(net)
    deep = net.depthwise().conv(1024).here()
    upsampled = Op(
        "upsample", "conv", (net.name,), "upsample", 1024, 512, 169, 676, kernel=16, groups=512, transposed=True
    )
    net.ops.append(upsampled)
    net.back(("upsample", 26, 26, 512)).add(middle[0]).depthwise().conv(1024).conv(125, activation="")
    net.back(deep).conv(125, activation="")
    return tuple(net.ops)


def mobilenetv2_yolov3() -> Ops:
    net = Net(352, 352, 3).conv(32, 3, 2).depthwise().conv(16, activation="")
    stages = [(24, 2, 2), (32, 3, 2), (64, 4, 2), (96, 3, 1)]
    for channels, repeats, first in stages:
        for repeat in range(repeats):
            inverted(net, 3, net.channels * 6, channels, first if repeat == 0 else 1)
    middle = net.conv(576).here()
    net.depthwise(3, 2).conv(160, activation="")
    for channels in (160, 160, 320):
        inverted(net, 3, 960, channels, 1)
    deep = net.conv(1280).depthwise().conv(576).here()
    net.resize(2).pool(2, 1)
    upsampled = net.name
    net.back(middle).depthwise().conv(576).add(upsampled).depthwise().conv(576).conv(75, activation="")
    net.back(deep).conv(75, activation="")
    return tuple(net.ops)


def yolov4_tiny() -> Ops:
    net = Net(416, 416, 3).conv(32, 3, 2).conv(64, 3, 2)
    for width in (64, 128, 256):
        source = net.conv(width, 3).here()
        net.elementwise("move").channels = width // 2
        first = net.conv(width // 2, 3).here()
        middle = net.conv(width // 2, 3).concat((first[0], first[3])).conv(width).here()
        net.concat((source[0], source[3])).pool(2, 2)
    deep = net.conv(512, 3).conv(256).here()
    net.conv(512, 3).conv(255, activation="")
    net.back(deep).conv(128).resize(2).concat((middle[0], middle[3])).conv(256, 3).conv(255, activation="")
    return tuple(net.ops)


def nanodet_m() -> Ops:
    net = Net(320, 320, 3)
    laterals = [net.back(level).conv(96, activation="").here() for level in shuffle_v2_trunk(net, (116, 232, 464))]
    upward = [laterals[2]]
    for lateral in (laterals[1], laterals[0]):
        net.back(upward[-1]).resize(2).add(lateral[0])
        upward.append(net.here())
    outputs = [upward[2]]
    for level in (upward[1], upward[0]):
        net.elementwise("resize").back((net.name, level[1], level[2], 96)).add(level[0])
        outputs.append(net.here())
    for output in outputs:
        net.back(output).depthwise().conv(96).depthwise().conv(96).conv(112, activation="")
        net.elementwise("activation").elementwise("move")
    return tuple(net.ops)


def _separable(net: Net, out: int, count: int = 2) -> Net:
    for _ in range(count):
        net.depthwise(5).conv(out, activation="")
    return net


def yolo_fastest() -> Ops:
    """YOLO-Fastest 1.1."""
    net = Net(320, 320, 3).conv(8, 3, 2).conv(8).depthwise().conv(4, activation="")
    middle = net.here()
    # expanded width, output, stride
    blocks = [(8, 4, 1), (24, 8, 2), (32, 8, 1), (32, 8, 1), (32, 8, 2), (48, 8, 1), (48, 8, 1), (48, 16, 1)]
    blocks += [(96, 16, 1)] * 4 + [(96, 24, 2)] + [(136, 24, 1)] * 4 + [(136, 48, 2)] + [(224, 48, 1)] * 5
    for expanded, out, stride in blocks:
        if out == 48 and stride == 2:
            middle = net.here()
        inverted(net, 3, expanded, out, stride)
    source, pools = net.here(), []
    for kernel in (3, 5, 9):
        pools.append(net.back(source).pool(kernel, 1).here())
    deep = net.back(source).concat(*((pool[0], pool[3]) for pool in pools)).conv(96).here()
    _separable(net, 96).conv(255, activation="")
    net.back(deep).resize(2).concat((middle[0], middle[3]))
    _separable(net, 120).conv(255, activation="")
    return tuple(net.ops)


def yolo_fastestv2() -> Ops:
    net = Net(352, 352, 3)
    _, middle, deep = shuffle_v2_trunk(net, (48, 96, 192))
    upsampled = net.resize(2).concat((middle[0], middle[3])).here()
    for level in (deep, upsampled):
        source = net.back(level).conv(72).here()
        classes = _separable(net, 72).here()
        boxes = _separable(net.back(source), 72).here()
        parts = [net.back(boxes).conv(12, activation="").here(), net.back(classes).conv(3, activation="").here()]
        net.back(classes).conv(80, activation="").elementwise("move").elementwise("softmax").elementwise("move")
        net.concat(*((part[0], part[3]) for part in parts)).elementwise("move")
    return tuple(net.ops)


def fastestdet() -> Ops:
    net = Net(352, 352, 3)
    shallow, middle, deep = shuffle_v2_trunk(net, (48, 96, 192))
    pooled = net.back(shallow).pool(3, 2).here()
    net.back(deep).resize(2).concat((middle[0], middle[3]), (pooled[0], pooled[3])).conv(96)
    source, sides = net.here(), []
    for count in (1, 2, 3):
        net.back(source)
        for _ in range(count):
            net.depthwise(5)
        sides.append(net.here())
    net.concat(*((side[0], side[3]) for side in sides[:2])).conv(96, activation="").add(source[0])
    shared = net.elementwise("activation").conv(96).here()
    parts = [net.back(shared).depthwise(5).conv(out, activation="").here() for out in (1, 4, 80)]
    net.elementwise("softmax").concat(*((part[0], part[3]) for part in parts[:2]))
    return tuple(net.ops)


BUILDERS: dict[str, Callable[[], Ops]] = {
    "ncnn_mobilenet_ssd": mobilenet_ssd,
    "ncnn_squeezenet_ssd": squeezenet_ssd,
    "ncnn_mobilenet_yolo": mobilenet_yolo,
    "ncnn_mobilenetv2_yolov3": mobilenetv2_yolov3,
    "ncnn_yolov4_tiny": yolov4_tiny,
    "ncnn_nanodet_m": nanodet_m,
    "ncnn_yolo_fastest_1.1": yolo_fastest,
    "ncnn_yolo_fastestv2": yolo_fastestv2,
    "ncnn_FastestDet": fastestdet,
}


def build(model_id: str) -> Ops | None:
    """The operators of a detector as ncnn's benchmark runs it; None for one that is not defined here."""
    make = BUILDERS.get(model_id)
    return make() if make else None
