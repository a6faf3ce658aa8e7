"""Int8 networks of operators that neither the exporter nor the writer has: an LSTM, transposed convolutions.

Weights are random, and one quantisation serves all activations; a weight's scale keeps what it sums at their size.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from edgeprune.backends.c.model import DataType, Model, Operator, Option, Quantization, Tensor

_ACTIVATIONS = Quantization((float(np.float32(0.05)),), (-10,))
_SHARES = Quantization((1 / 256,), (-128,))
_CELLS = Quantization((2.0**-11,), (0,))
_SPREAD = 74.0  # of int8 values drawn evenly
_VERSIONS = {"UNIDIRECTIONAL_SEQUENCE_LSTM": 3, "CONV_2D": 3, "TRANSPOSE_CONV": 3, "FULLY_CONNECTED": 4, "RESHAPE": 1}
_SIDE, _TIMES, _FEATURES, _WIDTH, _CLASSES = 48, 49, 40, 32, 12
_ONCE: Mapping[str, Option] = {"stride_h": 1, "stride_w": 1, "dilation_h_factor": 1, "dilation_w_factor": 1}
_TWICE: Mapping[str, Option] = {"stride_h": 2, "stride_w": 2}


@dataclass
class _Network:
    """Tensors and operators put together one by one; methods return indices of tensors."""

    random: np.random.Generator = field(default_factory=lambda: np.random.default_rng(0))
    tensors: list[Tensor] = field(default_factory=list)
    operators: list[Operator] = field(default_factory=list)

    def add(self, tensor: Tensor) -> int:
        self.tensors.append(tensor)
        return len(self.tensors) - 1

    def activation(self, *shape: int, like: Quantization = _ACTIVATIONS) -> int:
        return self.add(Tensor(f"t{len(self.tensors)}", shape, "int8", like))

    def state(self, dtype: DataType, like: Quantization, width: int) -> int:
        return self.add(Tensor(f"s{len(self.tensors)}", (1, width), dtype, like, None, True))

    def values(self, *values: int) -> int:
        return self.add(Tensor("values", (len(values),), "int32", None, np.array(values, np.int32)))

    def weights(self, shape: tuple[int, ...], terms: int) -> int:
        scale = float(np.float32(1 / (_SPREAD * terms**0.5)))
        data = self.random.integers(-127, 128, shape).astype(np.int8)
        return self.add(Tensor(f"w{len(self.tensors)}", shape, "int8", Quantization((scale,), (0,)), data))

    def bias(self, weights: int, channels: int) -> int:
        scale = float(np.float32(_ACTIVATIONS.scale * self.tensors[weights].scale))
        data = self.random.integers(-500, 500, channels).astype(np.int32)
        return self.add(Tensor(f"b{len(self.tensors)}", (channels,), "int32", Quantization((scale,), (0,)), data))

    def made(self, kind: str, inputs: Sequence[int | None], output: int, **options: Option) -> int:
        version = _VERSIONS.get(kind, 2)
        self.operators.append(Operator(kind, tuple(inputs), (output,), options, version))
        return output

    def conv(self, source: int, channels: int, size: int = 3, activation: str = "RELU") -> int:
        _, height, width, depth = self.tensors[source].shape
        weights = self.weights((channels, size, size, depth), size * size * depth)
        inputs, output = (source, weights, self.bias(weights, channels)), self.activation(1, height, width, channels)
        return self.made("CONV_2D", inputs, output, padding="SAME", fused_activation_function=activation, **_ONCE)

    def pooled(self, source: int) -> int:
        _, height, width, channels = self.tensors[source].shape
        output = self.activation(1, height // 2, width // 2, channels)
        return self.made("MAX_POOL_2D", (source,), output, padding="VALID", filter_height=2, filter_width=2, **_TWICE)

    def raised(self, source: int, channels: int) -> int:
        """Twice the height and width by a transposed convolution."""
        _, height, width, depth = self.tensors[source].shape
        shape = (1, 2 * height, 2 * width, channels)
        weights = self.weights((channels, 2, 2, depth), depth)
        inputs = (self.values(*shape), weights, source, self.bias(weights, channels))
        return self.made("TRANSPOSE_CONV", inputs, self.activation(*shape), padding="VALID", **_TWICE)

    def beside(self, first: int, second: int) -> int:
        *shape, channels = self.tensors[first].shape
        output = self.activation(*shape, channels + self.tensors[second].shape[3])
        return self.made("CONCATENATION", (first, second), output, axis=3)

    def shares(self, source: int) -> int:
        output = self.activation(*self.tensors[source].shape, like=_SHARES)
        return self.made("SOFTMAX", (source,), output, beta=1.0)

    def model(self, source: int, result: int) -> Model:
        return Model(tuple(self.tensors), tuple(self.operators), (source,), (result,))


def unet_transposed() -> Model:
    """The U-Net of the benchmark with transposed convolutions of 2 x 2 on the way up."""
    net = _Network()
    image = net.activation(1, _SIDE, _SIDE, 1)
    wide = net.conv(net.conv(image, 8), 8)
    middle = net.conv(net.conv(net.pooled(wide), 16), 16)
    deep = net.conv(net.conv(net.pooled(middle), 32), 32)
    back = net.conv(net.beside(net.raised(deep, 16), middle), 16)
    last = net.conv(net.beside(net.raised(back, 8), wide), 8)
    return net.model(image, net.shares(net.conv(last, 2, 1, "NONE")))


def lstm() -> Model:
    """An LSTM of 32 cells over 49 frames of 40 features, and a dense layer on its last output: spotting keywords."""
    net = _Network()
    frames = net.activation(1, _TIMES, _FEATURES)
    weights = [net.weights((_WIDTH, size), size) for size in 4 * (_FEATURES,) + 4 * (_WIDTH,)]
    biases = [net.bias(weights[gate], _WIDTH) for gate in range(4)]
    hidden = Quantization((1 / 128,), (0,))
    states = [net.state("int8", hidden, _WIDTH), net.state("int16", _CELLS, _WIDTH)]
    steps = net.activation(1, _TIMES, _WIDTH, like=hidden)
    scales = [Tensor(f"gate{i}", (), "int16", Quantization((2.0**-12,), (0,))) for i in range(4)]
    between = tuple(net.add(tensor) for tensor in (*scales, Tensor("hidden", (), "int8", hidden)))
    inputs = (frames, *weights, *3 * (None,), *biases, *2 * (None,), *states, *4 * (None,))
    options: dict[str, Option] = {"fused_activation_function": "TANH", "time_major": False}
    kind = "UNIDIRECTIONAL_SEQUENCE_LSTM"
    net.operators.append(Operator(kind, inputs, (steps,), options, _VERSIONS[kind], between))
    last = net.activation(1, 1, _WIDTH, like=hidden)
    net.made("SLICE", (steps, net.values(0, _TIMES - 1, 0), net.values(1, 1, _WIDTH)), last)
    flat = net.made("RESHAPE", (last, net.values(1, _WIDTH)), net.activation(1, _WIDTH, like=hidden))
    dense = net.weights((_CLASSES, _WIDTH), _WIDTH)
    scores = net.made("FULLY_CONNECTED", (flat, dense), net.activation(1, _CLASSES))
    return net.model(frames, net.shares(scores))


def written(model: Model, folder: Path) -> Path:
    """The file of a model."""
    from tests.backends.c.files import write

    return write(model, folder / "model.tflite")
