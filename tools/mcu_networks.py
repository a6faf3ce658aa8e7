"""Operator tables of the networks in the microcontroller tables, by the names used there.

The reference network of visual wake words has 971 pointwise channels whose weights are all zero. Engines that drop them
run a smaller network; `without_dead_channels` is its table, counted in the published int8 file.
"""

from __future__ import annotations

import re

from tools.networks import Net, Ops, build, divisible, mobilenet_v1, mobilenet_v2

VISUAL_WAKE_WORDS = "tiny_vww_mobilenet_0.25"
_ALIVE = (16, 32, 32, 64, 60, 107, 57, 30, 19, 19, 27, 32, 22)  # outputs of the pointwise layers that are not all zero
_STRIDES = (1, 2, 1, 2, 1, 2, 1, 1, 1, 1, 1, 2, 1)


def without_dead_channels() -> Ops:
    """The visual-wake-words network with the channels gone that can only give a constant."""
    net = Net(96, 96, 3).conv(8, 3, 2)
    for channels, stride in zip(_ALIVE, _STRIDES, strict=True):
        net.depthwise(3, stride).conv(channels)
    net.mean().dense(2).elementwise("softmax")
    return tuple(net.ops)


def grey_mobilenet_v1(alpha: float, size: int, classes: int) -> Ops:
    """MobileNetV1 that reads one channel."""
    first = Net(size, size, 1).conv(max(int(32 * alpha), 8), 3, 2)
    return (*first.ops, *mobilenet_v1(alpha, size, classes)[1:])


def fd_mobilenet(alpha: float, size: int, classes: int) -> Ops:
    """MobileNet with fast downsampling (Qin et al. 2018): 32 times smaller after the first twelve layers."""
    net = Net(size, size, 3).conv(int(32 * alpha), 3, 2)
    blocks = [(64, 2), (128, 2), (128, 1), (256, 2), (256, 1), (512, 2), *[(512, 1)] * 4, (1024, 1)]
    for channels, stride in blocks:
        net.depthwise(3, stride).conv(int(channels * alpha))
    net.mean().dense(classes).elementwise("softmax")
    return tuple(net.ops)


def narrow_mobilenet_v2(alpha: float, size: int, classes: int = 1000) -> Ops:
    """MobileNetV2 whose last convolution is thinned like the others."""
    *body, head, mean, classifier, softmax = mobilenet_v2(alpha, size, classes)
    width = divisible(1280 * alpha)
    return (
        *body,
        head.resized(head.in_channels, width),
        mean.resized(width, width),
        classifier.resized(width, classes),
        softmax,
    )


def mcu_network(model_id: str, dead_channels_dropped: bool = False) -> Ops | None:
    """The operators of a network by its name in the microcontroller tables; None for one that is not defined here."""
    if model_id == VISUAL_WAKE_WORDS and dead_channels_dropped:
        return without_dead_channels()
    if model_id == "tflm_person_detection_96":
        return grey_mobilenet_v1(0.25, 96, 2)
    if model_id == "mcunet_mbv2-w0.3-r64":
        return narrow_mobilenet_v2(0.3, 64)
    if model_id == "fdmobilenet_0.25_224":
        return fd_mobilenet(0.25, 224, 5)
    if found := re.fullmatch(r"mobilenet_v1_([\d.]+)_(\d+)_gray_5cls", model_id):
        return grey_mobilenet_v1(float(found[1]), int(found[2]), 5)
    if found := re.fullmatch(r"mobilenet_v([12])_([\d.]+)_(\d+)_5cls", model_id):
        make = mobilenet_v1 if found[1] == "1" else mobilenet_v2
        return make(float(found[2]), int(found[3]), 5)
    return build(model_id)


def mcu_family(model_id: str) -> str:
    """Networks that share their building block; a family is left out of a fit as a whole."""
    if model_id == "mcunet_mbv2-w0.3-r64":
        return "mobilenet_v2"
    if model_id in (VISUAL_WAKE_WORDS, "tflm_person_detection_96") or "mobilenet_v1" in model_id:
        return "mobilenet_v1"
    for name in ("mobilenet_v2", "mobilenet_v3", "fdmobilenet"):
        if name in model_id:
            return name
    return model_id
