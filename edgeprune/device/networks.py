"""Networks described by sizes alone: all that a backend needs to write a file whose speed matters, not its answers."""

from __future__ import annotations

from dataclasses import dataclass

from edgeprune.device.ops import Kind

Shape = tuple[int, int, int]  # height, width, channels, at batch one


@dataclass(frozen=True)
class Layer:
    """One layer; images are padded so that only strides make them smaller.

    Attributes:
        inputs: What it reads: 0 is the network's input, n the output of its n-th layer.
        channels: Output channels of convolutions and dense layers; others keep those of their first input.
        kernel, stride: Per axis; a resize multiplies each axis by `stride`, a pad adds `kernel // 2` on each side.
        activation: Of convolutions, dense layers and sums: empty, `relu` or `relu6`. Of an activation layer the
            function: `hard_swish`, `logistic`, `relu` or `tanh`. Of a pool: `max` or `average`. Of a move: `transpose`
            (channels before columns), `slice` (half of the channels) or `strided` (every second row, or column where
            the image is wider than high).
    """

    kind: Kind
    inputs: tuple[int, ...]
    channels: int = 0
    kernel: int = 1
    stride: int = 1
    groups: int = 1
    activation: str = ""


@dataclass(frozen=True)
class Network:
    """Layers in order; the output is that of the last one."""

    name: str
    input: Shape
    layers: tuple[Layer, ...]


def shapes(network: Network) -> tuple[Shape, ...]:
    """The shape of the input, then that of each layer's output."""
    found = [network.input]
    for layer in network.layers:
        found.append(_shape(layer, [found[index] for index in layer.inputs]))
    return tuple(found)


def _shape(layer: Layer, read: list[Shape]) -> Shape:
    height, width, channels = read[0]
    match layer.kind:
        case "conv" | "depthwise" | "pool":
            return -(-height // layer.stride), -(-width // layer.stride), layer.channels or channels
        case "dense":
            return height, width, layer.channels
        case "mean":
            return 1, 1, channels
        case "matmul":  # rows of the first with rows of the second, per line of the image
            return height, width, read[1][1]
        case "concat":
            return height, width, sum(shape[2] for shape in read)
        case "pad":
            edge = 2 * (layer.kernel // 2)
            return height + edge, width + edge, channels
        case "resize":
            return height * layer.stride, width * layer.stride, channels
        case "move":
            return _moved(layer, read[0])
        case _:
            return height, width, channels


def _moved(layer: Layer, before: Shape) -> Shape:
    height, width, channels = before
    if layer.activation == "transpose":
        return height, channels, width
    if layer.activation == "slice":
        return height, width, -(-channels // 2)
    return (-(-height // 2), width, channels) if height >= width else (height, -(-width // 2), channels)
