"""Operator tables of YOLOX, the only published int8 network of mainly spatial convolutions with timings on the boards.

Structure after the YOLOX definition: focus stem, CSPDarknet, PAFPN, decoupled head; SiLU as sigmoid and product.
"""

from __future__ import annotations

from tools.networks import Net, Ops, Tensor

_SIZES = {"s": (0.33, 0.50), "m": (0.67, 0.75), "l": (1.0, 1.0)}


def _conv(net: Net, out: int, kernel: int = 1, stride: int = 1) -> None:
    net.conv(out, kernel, stride, "").elementwise("activation").elementwise("mul")


def _csp(net: Net, out: int, depth: int, shortcut: bool = True) -> None:
    source, hidden = net.here(), out // 2
    _conv(net, hidden)
    side = net.here()
    net.back(source)
    _conv(net, hidden)
    for _ in range(depth):
        before = net.name
        _conv(net, hidden)
        _conv(net, hidden, 3)
        if shortcut:
            net.add(before)
    net.concat((side[0], side[3]))
    _conv(net, out)


def yolox(letter: str, size: int = 640, classes: int = 80) -> Ops:
    depth, width = _SIZES[letter]
    base, deep = int(64 * width), max(round(3 * depth), 1)
    net = Net(size // 2, size // 2, 12)  # the focus stem moves 2x2 pixels into channels
    net.elementwise("move")
    _conv(net, base, 3)
    levels = []
    for stage, blocks in enumerate((deep, 3 * deep, 3 * deep)):
        _conv(net, base << (stage + 1), 3, 2)
        _csp(net, base << (stage + 1), blocks)
        levels.append(net.here())
    _conv(net, base * 16, 3, 2)
    _conv(net, base * 8)
    half = net.here()
    pools = []
    for kernel in (5, 9, 13):
        net.back(half)
        net.pool(kernel, 1)
        pools.append((net.name, net.channels))
    net.back(half)
    net.concat(*pools)
    _conv(net, base * 16)
    _csp(net, base * 16, deep, shortcut=False)
    _neck_and_head(net, levels, base, deep, classes, int(256 * width))
    return tuple(net.ops)


def _neck_and_head(net: Net, levels: list[Tensor], base: int, deep: int, classes: int, width: int) -> None:
    _conv(net, base * 8)
    lateral = net.here()
    net.resize(2).concat((levels[2][0], levels[2][3]))
    _csp(net, base * 8, deep, shortcut=False)
    _conv(net, base * 4)
    reduced = net.here()
    net.resize(2).concat((levels[1][0], levels[1][3]))
    _csp(net, base * 4, deep, shortcut=False)
    outputs = [net.here()]
    for below, channels in ((reduced, base * 8), (lateral, base * 16)):
        _conv(net, below[3], 3, 2)
        net.concat((below[0], below[3]))
        _csp(net, channels, deep, shortcut=False)
        outputs.append(net.here())
    for output in outputs:
        net.back(output)
        _conv(net, width)
        stem = net.here()
        for predictions in ((classes,), (4, 1)):
            net.back(stem)
            _conv(net, width, 3)
            _conv(net, width, 3)
            tower = net.here()
            for channels in predictions:
                net.back(tower)
                net.conv(channels, activation="")
