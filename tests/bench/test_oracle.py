"""The oracle against models that were made smaller by hand, and against wrong ones, which it must catch."""

from __future__ import annotations

import ast
from collections.abc import Callable, Mapping
from math import inf, nan
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from bench import oracle
from bench.oracle.alive import Alive, UnjudgedError
from bench.oracle.operators import RULES, rule
from bench.oracle.reference import RemovedOutputError, difference, in_double, in_full, reference
from bench.oracle.survivors import located, survivors


def test_the_oracle_shares_nothing_with_what_it_judges() -> None:
    for file in Path(oracle.__path__[0]).glob("*.py"):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            names = [a.name for a in node.names] if isinstance(node, ast.Import) else []
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            assert not [name for name in names if name.split(".")[0] == "edgeprune"], file


# Single operators: what is alive of the result must be the result for what is alive ---------------------------------

SHAPES: Mapping[str, tuple[int, ...]] = {"image": (2, 6, 4, 4), "tokens": (2, 5, 6), "volume": (2, 6, 3, 4, 4)}
KEEP = (0, 1, 4, 5)  # of six channels; by pairs, so that two groups of three pairs stay groups
ONES: Mapping[str, int] = {"image": 1, "tokens": 2, "volume": 1}


def _written(x: torch.Tensor) -> torch.Tensor:
    whole = torch.zeros(2, x.shape[1] + 2, 4, 4)
    whole[:, 1:-1].copy_(x)
    whole[:, 1:-1] += 1
    return whole


OPERATORS: dict[str, tuple[str, Callable[[torch.Tensor], Any]]] = {
    "relu": ("image", F.relu),
    "hardswish": ("image", F.hardswish),
    "sigmoid times itself": ("image", lambda x: x * torch.sigmoid(x)),
    "where": ("image", lambda x: torch.where(x > 0, x, x.exp())),
    "masked fill": ("image", lambda x: x.masked_fill(x > 0, 1.0)),
    "spatial gate": ("image", lambda x: x * x.mean((2, 3), keepdim=True)),
    "in place": ("image", lambda x: x.clone().mul_(2).add_(x)),
    "channel mean": ("image", lambda x: x.mean(1)),
    "mean of all": ("image", lambda x: x.mean()),
    "channel sum": ("tokens", lambda x: x.sum(-1, keepdim=True)),
    "channel maximum": ("image", lambda x: x.amax(1, keepdim=True)),
    "channel minimum": ("image", lambda x: x.amin(1)),
    "pooled maximum": ("image", lambda x: x.flatten(2).max(-1).values),
    "channel product": ("image", lambda x: x.prod(1)),
    "channel variance": ("image", lambda x: x.var(1, unbiased=False)),
    "channel deviation": ("image", lambda x: x.std(1, keepdim=True)),
    "variance and mean": ("tokens", lambda x: torch.cat(torch.var_mean(x, -1, keepdim=True, correction=0), -1)),
    "spatial variance": ("image", lambda x: x.var((2, 3))),
    "channel norm": ("tokens", lambda x: F.normalize(x, dim=-1)),
    "channel softmax": ("tokens", lambda x: x.softmax(-1)),
    "channel log-softmax": ("tokens", lambda x: x.log_softmax(-1)),
    "channel logsumexp": ("tokens", lambda x: x.logsumexp(-1)),
    "token softmax": ("tokens", lambda x: x.softmax(1)),
    "channel sums so far": ("tokens", lambda x: x.cumsum(-1)),
    "layer norm": ("tokens", lambda x: F.layer_norm(x, x.shape[-1:])),
    "layer norm of an image": ("image", lambda x: F.layer_norm(x, x.shape[1:])),
    "rms norm": ("tokens", lambda x: F.rms_norm(x, x.shape[-1:])),
    "one group": ("image", lambda x: F.group_norm(x, 1)),
    "group norm": ("image", lambda x: F.group_norm(x, x.shape[1] // 2)),
    "instance norm": ("image", F.instance_norm),
    "batch norm of the batch": ("image", lambda x: F.batch_norm(x, None, None, training=True)),
    "gated halves": ("tokens", lambda x: F.glu(x.transpose(1, 2).repeat(1, 2, 1), 1)),
    "average pool": ("image", lambda x: F.avg_pool2d(x, 2)),
    "average pool in 1d": ("tokens", lambda x: F.avg_pool1d(x.transpose(1, 2), 2)),
    "average pool in 3d": ("volume", lambda x: F.avg_pool3d(x, 2)),
    "maximum pool": ("image", lambda x: F.max_pool2d(x, 3, 1, 1)),
    "maximum pool in 3d": ("volume", lambda x: F.max_pool3d(x, 2)),
    "adaptive pool": ("image", lambda x: F.adaptive_avg_pool2d(x, 3)),
    "global pool": ("image", lambda x: F.adaptive_avg_pool2d(x, 1)),
    "adaptive maximum pool": ("image", lambda x: F.adaptive_max_pool2d(x, 2)),
    "bilinear": ("image", lambda x: F.interpolate(x, scale_factor=2, mode="bilinear")),
    "bicubic, smoothed": ("image", lambda x: F.interpolate(x, size=3, mode="bicubic", antialias=True)),
    "nearest": ("image", lambda x: F.interpolate(x, scale_factor=2)),
    "zero pad": ("image", lambda x: F.pad(x, (1, 1, 2, 0))),
    "crop": ("image", lambda x: F.pad(x, (-1, 1, 1, -1))),
    "crop and pad of channels": ("image", lambda x: F.pad(x, (0, 0, 1, 0, -1, 2))),
    "mirrored pad": ("image", lambda x: F.pad(x, (1, 1, 1, 1), mode="reflect")),
    "channel pad": ("image", lambda x: F.pad(x, (0, 0, 0, 0, 2, 1))),
    "roll": ("image", lambda x: x.roll((1, -1), (2, 3))),
    "flip": ("image", lambda x: x.flip(1, 2)),
    "windows": ("image", lambda x: x.unfold(2, 2, 2).permute(0, 2, 4, 3, 1).reshape(2, 4, -1, x.shape[1])),
    "concat": ("image", lambda x: torch.cat([x, x * 2, torch.ones(2, 1, 4, 4)], 1)),
    "stack": ("image", lambda x: torch.stack([x, -x], 2).flatten(1, 2)),
    "split": ("tokens", lambda x: torch.cat(x.split(x.shape[-1] // 2, -1)[::-1], -2)),
    "tokens by index": ("tokens", lambda x: x[:, torch.tensor([0, 0, 3])]),
    "pixel shuffle": ("image", lambda x: F.pixel_shuffle(x.repeat_interleave(4, 1), 2)),
    "channel shuffle": ("image", lambda x: x.view(2, -1, 2, 4, 4).transpose(1, 2).reshape(2, -1, 4, 4)),
    "patches": ("image", lambda x: F.unfold(x, 3, padding=1).view(2, x.shape[1], 9, 16)),
    "folded patches": ("image", lambda x: F.fold(F.unfold(x, 3, padding=1), 4, 3, padding=1)),
    "attention of pixels": ("tokens", lambda x: (x @ x.transpose(1, 2)).softmax(-1) @ x),
    "attention of channels": ("tokens", lambda x: (x.transpose(1, 2) @ x).softmax(-1) @ x.transpose(1, 2)),
    "products by einsum": ("tokens", lambda x: torch.einsum("bnc,bmc->bnm", x, x)),
    "written in parts": ("image", _written),
}


@pytest.mark.parametrize("name", OPERATORS)
def test_an_operator_computes_over_what_is_alive(name: str) -> None:
    kind, function = OPERATORS[name]
    axis, keep = ONES[kind], torch.tensor(KEEP)
    x = torch.randn(SHAPES[kind], dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    mask = torch.zeros(SHAPES[kind], dtype=torch.bool).index_fill_(axis, keep, True)
    with in_double():
        want = function(x.index_select(axis, keep))
    with in_double(), Alive(RULES, [(x, mask)]) as mode:
        got = function(x)
    alive = mode.mask(got)
    assert bool(alive.any())
    torch.testing.assert_close(got[alive], want.flatten(), rtol=1e-12, atol=1e-12)


def test_what_is_overwritten_is_alive() -> None:
    x, mask = torch.randn(2, 6), torch.zeros(2, 6, dtype=torch.bool)
    with in_double(), Alive(RULES, [(x, mask)]) as mode:
        part = x[:, 2:]
        part.fill_(3.0)
        mask_after = mode.mask(x).clone()
        x.zero_()
    assert mask_after.tolist() == [[False, False, True, True, True, True]] * 2 and mode.is_alive(x)


@pytest.mark.parametrize(
    ("function", "named"),
    [
        (lambda x: x.sort(1), "aten.sort"),
        (lambda x: x.argmax(1), "aten.argmax"),
        (lambda x: x.max(1), "removes some positions of a channel"),
        (lambda x: torch.linalg.vector_norm(x, 0, 1), "order 0 counts removed channels"),
        (lambda x: F.avg_pool2d(x.permute(0, 2, 1, 3), 2), "removes some positions of a channel"),
        (lambda x: torch.zeros(6)[(x[0, :, 0, 0] > 0).long()], "reads positions from a removed channel"),
        (lambda x: torch.zeros(9).index_put((torch.arange(6),), x[0, :, 0, 0], True), "accumulates on removed"),
        (lambda x: F.batch_norm(x, torch.zeros(6), torch.ones(6), training=True), "updates running statistics"),
    ],
)
def test_what_has_no_meaning_is_not_judged(function: Callable[[torch.Tensor], Any], named: str) -> None:
    x = torch.randn(2, 6, 4, 4, dtype=torch.float64)
    mask = torch.zeros_like(x, dtype=torch.bool).index_fill_(1, torch.tensor(KEEP), True)
    with in_double(), Alive(RULES, [(x, torch.ones_like(mask))]):
        function(x)
    with in_double(), Alive(RULES, [(x, mask)]), pytest.raises(UnjudgedError, match=named):
        function(x)


def test_an_operator_has_one_rule() -> None:
    with pytest.raises(ValueError, match="mm has two rules"):
        rule("mm")(RULES["mm"])


# Networks, made smaller by hand ---------------------------------------------------------------------------------------


class Net(nn.Module):
    """Named layers and a forward pass given as a function of them."""

    def __init__(self, forward: Callable[[Any, torch.Tensor], torch.Tensor], **layers: nn.Module) -> None:
        super().__init__()
        self.body = forward
        for name, layer in layers.items():
            self.add_module(name, layer)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.body(self, x)


Cut = Mapping[str, tuple[torch.Tensor | None, ...]]  # per parameter, what is kept along each axis; None: all


def cut(dense: nn.Module, smaller: nn.Module, kept: Cut) -> dict[str, torch.Tensor]:
    """Fill the smaller network with slices of the dense one; the masks of what is left."""
    masks = {}
    tensors = {**dict(dense.named_parameters()), **dict(dense.named_buffers())}
    for name, target in [*smaller.named_parameters(), *smaller.named_buffers()]:
        value = tensors[name].detach()
        mask = torch.ones(value.shape, dtype=torch.bool)
        for axis, indices in enumerate(kept.get(name, ())):
            if indices is not None:
                value = value.index_select(axis, indices)
                gone = torch.ones(mask.shape[axis], dtype=torch.bool).index_fill_(0, indices, False)
                mask.index_fill_(axis, gone.nonzero().flatten(), False)
        target.data.copy_(value)
        if target.is_floating_point():
            masks[name] = mask
    return masks


def drawn(model: nn.Module) -> nn.Module:
    """Weights and statistics in which nothing is neutral, in eval mode."""
    generator = torch.Generator().manual_seed(0)
    for parameter in model.parameters():
        parameter.data.normal_(0.2, 0.6, generator=generator)
    for name, buffer in model.named_buffers():
        if name.endswith("running_var"):
            buffer.uniform_(0.5, 2, generator=generator)
        elif name.endswith("running_mean"):
            buffer.normal_(0, 0.5, generator=generator)
    return model.eval()


def error(dense: nn.Module, smaller: nn.Module, kept: Cut, x: torch.Tensor) -> float:
    masks = cut(dense, smaller, kept)
    want, full = reference(dense, masks, lambda m: [m(x.double())])
    assert full
    return difference(want, in_full(smaller, lambda m: [m(x.double())]))


A, B = torch.tensor([0, 2, 3]), torch.tensor([1, 2, 4, 5])  # kept of 5 and of 6 channels
X = torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(1))


def chain(a: int, b: int) -> nn.Module:
    layers: list[nn.Module] = [nn.Conv2d(3, a, 3), nn.BatchNorm2d(a), nn.GELU(), nn.Conv2d(a, a, 3, groups=a)]
    layers += [nn.Conv2d(a, b, 1, bias=False), nn.BatchNorm2d(b), nn.PReLU(b), nn.AdaptiveAvgPool2d(1), nn.Flatten()]
    return nn.Sequential(*layers, nn.Linear(b, 4))


def along_chain(consumer: torch.Tensor = B) -> Cut:
    one: tuple[torch.Tensor | None, ...] = (A,)
    two: tuple[torch.Tensor | None, ...] = (B,)
    norms = {f"1.{name}": one for name in ("weight", "bias", "running_mean", "running_var")}
    norms |= {f"5.{name}": two for name in ("weight", "bias", "running_mean", "running_var")}
    convs = {"0.weight": one, "0.bias": one, "3.weight": one, "3.bias": one, "4.weight": (B, A)}
    return {**norms, **convs, "6.weight": two, "9.weight": (None, consumer)}


def test_a_chain_of_convolutions() -> None:
    assert error(drawn(chain(5, 6)), chain(3, 4), along_chain(), X) < 1e-12


def test_one_wrong_index_is_caught() -> None:
    wrong = torch.tensor([1, 2, 3, 5])
    assert error(drawn(chain(5, 6)), chain(3, 4), along_chain(wrong), X) > 1e-3


def test_a_wrong_order_is_caught() -> None:
    """The same weights are left, but the pruned model meets the wrong channels with them."""
    dense, smaller = drawn(chain(5, 6)), chain(3, 4)
    masks = cut(dense, smaller, along_chain())
    smaller.get_parameter("9.weight").data = smaller.get_parameter("9.weight").data.flip(1)
    want, _ = reference(dense, masks, lambda m: [m(X.double())])
    assert difference(want, in_full(smaller, lambda m: [m(X.double())])) > 1e-3


def normed(width: int) -> nn.Module:
    layers = [nn.Linear(8, width), nn.LayerNorm(width), nn.GELU(), nn.Linear(width, width), nn.Softmax(-1)]
    return nn.Sequential(*layers, nn.RMSNorm(width), nn.Linear(width, 4))


def test_norms_and_softmax_run_over_what_is_left() -> None:
    kept: Cut = {f"{i}.{name}": (B,) for i in (0, 1, 3) for name in ("weight", "bias")}
    kept = {**kept, "3.weight": (B, B), "5.weight": (B,), "6.weight": (None, B)}
    assert error(drawn(normed(6)), normed(4), kept, X) < 1e-12


def attention(heads: int, width: int, scale: float) -> nn.Module:
    """Self-attention over eight tokens with one fused projection, (3, heads, width) wide."""

    def forward(m: Any, x: torch.Tensor) -> torch.Tensor:
        n = len(x)
        qkv = m.qkv(x[:, 0]).reshape(n, 8, 3, heads, width).permute(2, 0, 3, 1, 4)
        y = F.scaled_dot_product_attention(qkv[0], qkv[1], qkv[2], scale=scale)
        return m.out(y.transpose(1, 2).reshape(n, 8, -1))

    return Net(forward, qkv=nn.Linear(8, 3 * heads * width), out=nn.Linear(heads * width, 5))


HEADS, WIDTHS = torch.tensor([0, 2]), torch.tensor([1, 2, 3])  # kept of three heads and of four positions in each


def in_heads(heads: torch.Tensor, widths: torch.Tensor) -> Cut:
    each = (heads[:, None] * 4 + widths).flatten()
    fused = (torch.arange(3)[:, None] * 12 + each).flatten()
    return {"qkv.weight": (fused,), "qkv.bias": (fused,), "out.weight": (None, each)}


def test_heads_and_their_width_are_pruned_with_the_scale_kept() -> None:
    dense = drawn(attention(3, 4, 0.5))
    assert error(dense, attention(2, 4, 0.5), in_heads(HEADS, torch.arange(4)), X) < 1e-12
    assert error(dense, attention(2, 3, 0.5), in_heads(HEADS, WIDTHS), X) < 1e-12


def test_a_changed_attention_scale_is_caught() -> None:
    dense = drawn(attention(3, 4, 0.5))
    assert error(dense, attention(2, 3, 3**-0.5), in_heads(HEADS, WIDTHS), X) > 1e-3


def test_torchs_own_attention() -> None:
    dense = drawn(nn.TransformerEncoderLayer(8, 2, 12, 0.0, batch_first=True, norm_first=True))
    smaller = nn.TransformerEncoderLayer(8, 2, 5, 0.0, batch_first=True, norm_first=True)
    left = torch.tensor([0, 3, 4, 8, 11])
    kept: Cut = {"linear1.weight": (left,), "linear1.bias": (left,), "linear2.weight": (None, left)}
    assert error(dense, smaller, kept, X[:, 0]) < 1e-12


def padded_shortcut(stem: int, width: int, left: int) -> nn.Module:
    def forward(m: Any, x: torch.Tensor) -> torch.Tensor:
        x = m.stem(x)
        y = m.conv(x) + F.pad(x[:, :, ::2, ::2], (0, 0, 0, 0, left, width - stem - left))
        return m.head(F.relu(y).mean((2, 3)))

    stage = nn.Conv2d(stem, width, 3, 2, 1)
    return Net(forward, stem=nn.Conv2d(3, stem, 3, padding=1), conv=stage, head=nn.Linear(width, 4))


def test_a_channel_pad_is_no_element_wise_operator() -> None:
    """A shortcut from 2 to 5 channels, one constant before and two after them."""
    dense = drawn(padded_shortcut(2, 5, 1))
    stem, stage = torch.tensor([1]), torch.tensor([0, 2, 4])  # the second channel of the stem is the third of the stage
    right: Cut = {"stem.weight": (stem,), "stem.bias": (stem,), "conv.weight": (stage, stem), "conv.bias": (stage,)}
    right = {**right, "head.weight": (None, stage)}
    assert error(dense, padded_shortcut(1, 3, 1), right, X) < 1e-12
    assert error(dense, padded_shortcut(1, 3, 0), right, X) > 1e-3  # the pad moved as if positions did not matter
    shifted = {**right, "stem.weight": (1 - stem,), "stem.bias": (1 - stem,), "conv.weight": (stage, 1 - stem)}
    assert error(dense, padded_shortcut(1, 3, 1), shifted, X) > 1e-3


def recurrent(kind: str, width: int) -> nn.Module:
    """Two bidirectional layers; gates and directions have one width."""
    layer = getattr(nn, kind)(8, width, 2, batch_first=True, bidirectional=True)
    return Net(lambda m, x: m.head(m.rnn(x[:, 0])[0]), rnn=layer, head=nn.Linear(2 * width, 4))


@pytest.mark.parametrize(("kind", "gates"), [("LSTM", 4), ("GRU", 3), ("RNN", 1)])
def test_recurrent_layers(kind: str, gates: int) -> None:
    dense, smaller = drawn(recurrent(kind, 5)), recurrent(kind, 3)
    rows = (torch.arange(gates)[:, None] * 5 + A).flatten()
    both = torch.cat([A, A + 5])
    kept: dict[str, tuple[torch.Tensor | None, ...]] = {"head.weight": (None, both)}
    for way in ("", "_reverse"):
        for level in (0, 1):
            kept |= {f"rnn.bias_{part}_l{level}{way}": (rows,) for part in ("ih", "hh")}
            kept[f"rnn.weight_hh_l{level}{way}"] = (rows, A)
            kept[f"rnn.weight_ih_l{level}{way}"] = (rows, both if level else None)
    assert error(dense, smaller, kept, X) < 1e-12


def test_a_grouped_and_a_transposed_convolution() -> None:
    def build(a: int, b: int) -> nn.Module:
        middle = nn.ConvTranspose2d(a, b, 3, 2, groups=2)
        return nn.Sequential(nn.Conv2d(3, a, 3), middle, nn.GroupNorm(2, b), nn.Conv2d(b, 3, 3, groups=1))

    ins, outs, each = torch.tensor([0, 3, 4, 5]), torch.tensor([1, 2, 5, 6]), torch.tensor([1, 2])
    kept: Cut = {"0.weight": (ins,), "0.bias": (ins,), "1.weight": (ins, each), "1.bias": (outs,)}
    kept = {**kept, "2.weight": (outs,), "2.bias": (outs,), "3.weight": (None, outs)}
    dense = drawn(build(8, 8))
    assert error(dense, build(4, 4), kept, X) < 1e-12
    wrong = torch.tensor([0, 1, 4, 5])
    assert error(dense, build(4, 4), {**kept, "0.weight": (wrong,), "0.bias": (wrong,)}, X) > 1e-3


def test_normalised_weights() -> None:
    def build(a: int) -> nn.Module:
        first, second = nn.Conv2d(3, a, 3), nn.Conv2d(a, 4, 3)
        return nn.Sequential(*(nn.utils.parametrizations.weight_norm(layer) for layer in (first, second)))

    kept: Cut = {f"0.parametrizations.weight.original{i}": (A,) for i in (0, 1)}
    kept = {**kept, "0.bias": (A,), "1.parametrizations.weight.original1": (None, A)}
    assert error(drawn(build(5)), build(3), kept, X) < 1e-12


def test_tied_weights_lose_what_either_name_loses() -> None:
    class Tied(nn.Module):
        def __init__(self, width: int) -> None:
            super().__init__()
            self.table = nn.Embedding(9, width)
            self.out = nn.Linear(width, 9)
            self.out.weight = self.table.weight

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.out(self.table((x[:, 0, 0] * 9).long().clamp(0, 8)))

    dense, smaller = drawn(Tied(6)), Tied(4)
    masks = cut(dense, smaller, {"table.weight": (None, B)})
    want, _ = reference(dense, masks, lambda m: [m(X)])
    assert difference(want, in_full(smaller, lambda m: [m(X)])) < 1e-12


def test_a_removed_output_is_an_error_of_its_own() -> None:
    dense, smaller = drawn(nn.Linear(8, 6)), nn.Linear(8, 4)
    with pytest.raises(RemovedOutputError, match="an output depends on removed channels"):
        reference(dense, cut(dense, smaller, {"weight": (B,), "bias": (B,)}), lambda m: [m(X.double())])


def test_the_original_stays_as_it_is() -> None:
    dense, smaller = drawn(chain(5, 6)).float(), chain(3, 4)
    before = {name: value.clone() for name, value in dense.state_dict().items()}
    error(dense, smaller, along_chain(), X)
    assert all(torch.equal(value, before[name]) for name, value in dense.state_dict().items())
    assert torch.get_default_dtype() == torch.float32 and torch.backends.mha.get_fastpath_enabled()


def test_narrow_numbers_are_widened_or_told() -> None:
    asked = Net(lambda m, x: m.fc(x.float() + torch.ones(8, dtype=torch.float32)), fc=nn.Linear(8, 2))
    assert reference(asked, {}, lambda m: [m(X.double())])[1]
    constant = torch.full((8,), 0.1)  # made before anyone could widen it
    fixed = Net(lambda m, x: m.fc(x + (constant * 3)), fc=nn.Linear(8, 2))
    assert not reference(fixed, {}, lambda m: [m(X.double())])[1]


def test_differences_are_relative_to_the_largest_output() -> None:
    want = [torch.tensor([2.0, -4.0]), torch.tensor([1.0])]
    assert difference(want, [torch.tensor([2.0, -3.0]), torch.tensor([1.0])]) == 0.25
    assert difference(want, [torch.tensor([2.0, -4.0]), torch.tensor([nan])]) == inf
    assert difference(want, [torch.tensor([2.0, -4.0])]) == inf
    assert difference(want, [torch.tensor([2.0]), torch.tensor([1.0])]) == inf
    for unusable in (0.0, inf):
        with pytest.raises(UnjudgedError, match="an output of the masked model is as large as"):
            difference([torch.tensor([unusable])], [torch.tensor([1.0])])


# Survivors ------------------------------------------------------------------------------------------------------------

DENSE = {"a": torch.randn(4, 3), "steps": torch.tensor([7])}


def pruner(factor: float = 1.0, offset: float = 0.0, rows: tuple[int, ...] = (1, 3)) -> Any:
    def pruned(fill: Callable[[torch.Tensor], torch.Tensor]) -> dict[str, torch.Tensor]:
        return {"a": fill(DENSE["a"])[list(rows)][:, :2] * factor + offset, "steps": DENSE["steps"]}

    return pruned


@pytest.mark.parametrize("factor", [1.0, 3.0, 2**0.5])
def test_survivors_are_found_even_when_scaled(factor: float) -> None:
    found = survivors(DENSE, pruner(factor))
    assert found.keys() == {"a"}
    assert found["a"].tolist() == [[False] * 3, [True, True, False], [False] * 3, [True, True, False]]


def test_values_that_are_no_elements_of_the_original_are_not_judged() -> None:
    with pytest.raises(UnjudgedError, match="pruning changed the values of a"):
        survivors(DENSE, pruner(offset=0.25))
    with pytest.raises(UnjudgedError, match="pruning repeats elements of a"):
        survivors(DENSE, pruner(rows=(1, 1)))
    with pytest.raises(UnjudgedError, match="pruning changed the values of b"):
        located("b", torch.tensor([0.0, 9.0]), torch.Size([4]))
