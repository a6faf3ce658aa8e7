import pytest
import torch
from torch import nn

from edgeprune.device.fusion import absorb_padding, fuse
from edgeprune.device.ops import Op
from edgeprune.graph import Graph, Node, Ref
from edgeprune.pruning.trace import trace


def traced(model: nn.Module, *shape: int) -> tuple[Op, ...]:
    return fuse(trace(model.eval(), torch.zeros(1, *shape)).graph)


class Residual(nn.Module):
    """Convolution, depthwise, residual add, squeeze-excite, linear: what mobile networks are made of."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 16, 3, 2, 1, bias=False), nn.BatchNorm2d(16), nn.ReLU6(inplace=True))
        self.deep = nn.Sequential(nn.Conv2d(16, 16, 3, 1, 1, groups=16), nn.BatchNorm2d(16), nn.Hardswish(inplace=True))
        self.point = nn.Sequential(nn.Conv2d(16, 16, 1), nn.BatchNorm2d(16))
        self.squeeze, self.excite = nn.Conv2d(16, 4, 1), nn.Conv2d(4, 16, 1)
        self.head = nn.Linear(16, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.stem(x)
        y = torch.relu_(self.point(self.deep(x)) + x)
        gate = nn.functional.adaptive_avg_pool2d(y, 1)
        y = y * torch.sigmoid(self.excite(torch.relu(self.squeeze(gate))))
        y = nn.functional.dropout(y.mean((2, 3)), 0.1, self.training)
        return self.head(y.flatten(1))


def test_a_mobile_block_becomes_the_ops_a_runtime_runs() -> None:
    ops = traced(Residual(), 3, 32, 32)
    assert [(op.kind, op.activation) for op in ops] == [
        ("conv", "relu6"),
        ("depthwise", ""),
        ("activation", ""),
        ("conv", ""),
        ("add", "relu"),
        ("mean", ""),
        ("conv", "relu"),
        ("conv", ""),
        ("activation", ""),
        ("mul", ""),
        ("mean", ""),
        ("dense", ""),
    ]


def test_sizes_follow_the_shapes() -> None:
    stem, deep, *_, head = traced(Residual(), 3, 32, 32)
    assert (stem.in_channels, stem.out_channels, stem.kernel, stem.stride) == (3, 16, 9, 4)
    assert (stem.in_positions, stem.out_positions, stem.macs, stem.weights) == (1024, 256, 256 * 16 * 27, 16 * 27)
    assert (deep.groups, deep.macs) == (16, 256 * 16 * 9)
    assert (head.macs, head.weights, head.out_positions) == (160, 160, 1)


def test_every_input_is_an_earlier_output_or_a_graph_input() -> None:
    graph = trace(Residual().eval(), torch.zeros(1, 3, 32, 32)).graph
    known = {node.name for node in graph.inputs}
    for op in fuse(graph):
        assert set(op.inputs) <= known, op
        known.add(op.output)
        assert op.name == op.output == op.nodes[-1]


def test_widths_are_read_on_axes_of_the_graph_with_that_size() -> None:
    graph = trace(Residual().eval(), torch.zeros(1, 3, 32, 32)).graph
    for op in fuse(graph):
        for axis, width in ((op.in_axis, op.in_channels), (op.out_axis, op.out_channels)):
            assert axis is not None
            assert graph.by_name[axis[0]].shape[axis[1]] == width, op


def test_macs_and_weights_equal_those_of_the_modules() -> None:
    class Counted(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b = nn.Conv1d(4, 8, 5), nn.ConvTranspose1d(8, 6, 4, 2)
            self.c = nn.Linear(28, 9)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            y: torch.Tensor = self.c(self.b(self.a(x)))
            return y

    conv, transposed, dense = traced(Counted(), 4, 17)
    assert conv.macs == 13 * 8 * 4 * 5
    assert transposed.transposed and transposed.macs == 13 * 6 * 8 * 4 and transposed.weights == 6 * 8 * 4
    assert (dense.kind, dense.macs, dense.out_positions) == ("dense", 6 * 28 * 9, 6)


def test_a_value_read_before_its_activation_keeps_the_activation_apart() -> None:
    class Both(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv2d(3, 4, 1)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            y = self.conv(x)
            return torch.relu(y) + y

    assert [op.kind for op in traced(Both(), 3, 8, 8)] == ["conv", "activation", "add"]


def test_a_batch_norm_without_a_convolution_is_an_op_with_the_activation_in_it() -> None:
    model = nn.Sequential(nn.MaxPool2d(2), nn.BatchNorm2d(3), nn.ReLU(), nn.Conv2d(3, 4, 1))
    assert [(op.kind, op.activation) for op in traced(model, 3, 8, 8)] == [("pool", ""), ("norm", "relu"), ("conv", "")]


def test_concat_slice_and_split_are_moves_and_what_nobody_reads_is_dropped() -> None:
    class Mixed(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            x.mean()
            a, b = x.chunk(2, 1)
            return torch.cat([b, a[:, :, 1:]], 2)

    ops = traced(Mixed(), 4, 8, 8)
    assert [op.kind for op in ops] == ["move", "move", "concat"]
    assert ops[0].out_elements == 4 * 64 and ops[2].out_elements == 2 * 15 * 8


def test_attention_and_recurrent_layers_are_costed() -> None:
    class Sequence(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.lstm = nn.LSTM(10, 12, 2, batch_first=True, bidirectional=True)
            self.attention = nn.MultiheadAttention(24, 4, batch_first=True)
            self.norm = nn.LayerNorm(24)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            h = self.lstm(x)[0]
            y: torch.Tensor = self.norm(self.attention(h, h, h, need_weights=False)[0])
            return y

    model = Sequence()
    ops = traced(model, 5, 10)
    layers = [op for op in ops if op.kind == "rnn"]
    held = sum(p.numel() for name, p in model.lstm.named_parameters() if "weight" in name)
    assert sum(op.weights for op in layers) == held
    assert layers[1].inputs == (layers[0].output,)
    assert sum(op.macs for op in ops if op.kind == "matmul") == 2 * 5 * 5 * 24
    assert ops[-1].kind == "norm" and ops[-1].out_axis == (ops[-1].name, 2)


@pytest.mark.parametrize(
    ("operator", "args", "shape", "kind", "macs"),
    [
        ("aten.einsum.default", ("bij,bjk->bik", (Ref("x"), Ref("x"))), (1, 4, 4), "matmul", 64),
        ("aten.einsum.default", ("...ij,...jk", (Ref("x"), Ref("x"))), (1, 4, 4), "matmul", 16),
        ("aten.softmax.int", (Ref("x"), -1), (1, 4, 4), "softmax", 0),
        ("aten.upsample_nearest2d.vec", (Ref("x"),), (1, 4, 8), "resize", 0),
        ("aten.fft_rfft.default", (Ref("x"),), (1, 4, 3), "other", 0),
        ("custom.my_operator.default", (Ref("x"),), (), "other", 0),
        ("unheard_of", (Ref("x"),), (7,), "other", 0),
    ],
)
def test_every_operator_has_a_kind(operator: str, args: tuple, shape: tuple, kind: str, macs: int) -> None:  # type: ignore[type-arg]
    graph = Graph((Node("x", "input", shapes=((1, 4, 4),)), Node("y", operator, args, shapes=(shape,))))
    graph = Graph((*graph.nodes, Node("output", "output", (Ref("y"),))))
    (op,) = fuse(graph)
    assert (op.kind, op.macs, op.inputs) == (kind, macs, ("x",))


def test_what_depends_on_no_input_costs_nothing() -> None:
    class Constant(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.table = nn.Parameter(torch.ones(4))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x + torch.softmax(self.table * 2, 0)

    assert [op.kind for op in traced(Constant(), 4)] == ["add"]


def test_views_and_moves_of_unit_axes_are_free_but_transposes_are_not() -> None:
    class Views(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x.unsqueeze(1).transpose(1, 2).squeeze(2).reshape(-1, 6, 2).transpose(1, 2)

    (op,) = traced(Views(), 4, 3)
    assert op.kind == "move" and op.inputs == ("x",) and op.out_elements == 12


def test_a_pad_before_one_convolution_is_absorbed_and_others_stay() -> None:
    pad = Op("p", "pad", ("x",), "p", 8, 8, in_positions=100, out_positions=144)
    conv = Op("y", "conv", ("p",), "y", 8, 16, in_positions=144, out_positions=25, kernel=9, stride=4)
    (alone,) = absorb_padding((pad, conv))
    assert (alone.inputs, alone.in_positions, alone.macs) == (("x",), 100, conv.macs)
    channels = Op("p", "pad", ("x",), "p", 8, 16, in_positions=144, out_positions=144)
    assert absorb_padding((channels, conv)) == (channels, conv)
    pool = Op("z", "pool", ("p",), "z", 8, 8, in_positions=144, out_positions=25, kernel=9)
    assert absorb_padding((pad, pool)) == (pad, pool)
    assert absorb_padding((pad, conv, pool)) == (pad, conv, pool)


def test_a_captured_pad_is_absorbed_too() -> None:
    ops = traced(nn.Sequential(nn.ZeroPad2d(1), nn.Conv2d(3, 8, 3, 2)), 3, 16, 16)
    assert [op.kind for op in ops] == ["pad", "conv"]
    (conv,) = absorb_padding(ops)
    assert (conv.inputs, conv.in_positions, conv.nodes[0]) == (ops[0].inputs, 256, ops[0].name)
