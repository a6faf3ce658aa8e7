"""Fused operators: what a runtime really runs, which is what costs time.

A convolution takes its BatchNorm and activation with it; dropout, views of contiguous memory and identities vanish.
`Op` is the one currency of the device side: `fuse(graph)` makes it from a captured model, each backend's `read_ops`
makes it from an exported file, and every cost (latency, memory, size) is a function of it. An op can be resized, so
the solver can ask what it would cost at other widths.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

Kind = Literal[
    "conv",  # convolution, any kernel, any number of groups that is not depthwise
    "depthwise",  # one input channel per group
    "dense",  # fully connected: in_channels features to out_channels features at out_positions rows
    "matmul",  # product of two activations
    "add",  # element-wise with two or more tensors (add, sub, ...)
    "mul",  # element-wise or broadcast product (squeeze-excite gates among them)
    "activation",  # an activation that is not fused into its producer
    "pool",  # max or average pooling with a window
    "mean",  # global reduction
    "concat",
    "pad",
    "resize",
    "softmax",
    "norm",  # a normalisation that is not folded away
    "move",  # transpose, slice, split, gather: bytes moved, nothing computed
    "rnn",
    "quantize",  # change of number format
    "other",
]

Axis = tuple[str, int]  # (graph node, axis of its output)


@dataclass(frozen=True)
class Op:
    """One fused operator at batch one.

    Attributes:
        name: The node (or, in a file, the tensor) that holds its output.
        kind: What it is; costs are fitted per kind.
        inputs: Names of the activations it reads, `output` the one it writes: the edges memory planning needs.
        in_channels: Width of what it reduces over (all groups together); for element-wise ops that of the output.
        out_channels: Width of its output.
        in_positions, out_positions: Elements per channel of the first input and the output (H*W, T, or 1).
        kernel: Kernel positions (kh*kw); 1 for dense.
        groups: Convolution groups; equals in_channels for depthwise.
        stride: Product of strides.
        columns, kernel_rows: Of a convolution on images those of its output and of its kernel; 0 where not known.
        function: What an activation, a pool or a move does, such as hard_swish, max or strided; what an `add`, `mean`
            or `resize` is where that is no sum, mean or bilinear resizing, such as minimum. Else empty.
        transposed: Whether the convolution spreads its input (deconvolution) instead of gathering it.
        activation: The fused activation, such as relu; empty for none.
        nodes: All graph nodes folded into it, in order.
        in_axis, out_axis: Where in the graph its two widths are read; None when read from a file.
    """

    name: str
    kind: Kind
    inputs: tuple[str, ...]
    output: str
    in_channels: int
    out_channels: int
    in_positions: int = 1
    out_positions: int = 1
    kernel: int = 1
    groups: int = 1
    stride: int = 1
    activation: str = ""
    nodes: tuple[str, ...] = ()
    in_axis: Axis | None = None
    out_axis: Axis | None = None
    transposed: bool = False
    function: str = ""
    columns: int = 0
    kernel_rows: int = 0

    @property
    def reduction(self) -> int:
        """Multiply-accumulates per output element (K): cin/groups * kernel.

        A recurrent layer has `kernel` gates and `groups` directions; each gate reads the input and the state.
        """
        if self.kind in ("conv", "depthwise", "dense", "matmul"):
            return self.in_channels // self.groups * self.kernel
        if self.kind == "rnn":
            return (self.in_channels + self.out_channels // self.groups) * self.kernel
        return 0

    @property
    def macs(self) -> int:
        positions = self.in_positions if self.transposed else self.out_positions
        return positions * self.out_channels * self.reduction

    @property
    def weights(self) -> int:
        """Number of weights, biases not counted."""
        if self.kind in ("conv", "depthwise", "dense", "rnn"):
            return self.out_channels * self.reduction
        return 0

    @property
    def out_elements(self) -> int:
        return self.out_positions * self.out_channels

    @property
    def in_elements(self) -> int:
        """Elements of the first input."""
        return self.in_positions * self.in_channels

    def resized(self, in_channels: int, out_channels: int) -> Op:
        """The same op at other widths; a depthwise op keeps one input channel per group."""
        groups = in_channels if self.kind == "depthwise" else self.groups
        return replace(self, in_channels=in_channels, out_channels=out_channels, groups=groups)
