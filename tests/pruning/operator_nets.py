"""Small networks, one per operator or way of writing a layer that people deploy. Each comes with its inputs."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn
from torch.nn.utils import parametrizations

from tests.pruning.nets import Lambda, conv

Case = tuple[nn.Module, tuple[torch.Tensor, ...]]
CASES: dict[str, Callable[[], Case]] = {}

T = torch.Tensor


def case(build: Callable[[], Case]) -> Callable[[], Case]:
    CASES[build.__name__] = build
    return build


def image(size: int = 8, channels: int = 3) -> tuple[T, ...]:
    return (torch.randn(2, channels, size, size),)


def tokens(length: int = 6, width: int = 12) -> tuple[T, ...]:
    return (torch.randn(2, length, width),)


def words(length: int = 6) -> tuple[T, ...]:
    return (torch.randint(0, 11, (2, length)),)


def made(forward: Callable[[Any, Any], Any], inputs: tuple[T, ...], **layers: nn.Module) -> Case:
    return Lambda(forward, **layers), inputs


# Convolutions ------------------------------------------------------------------------------------------------------


@case
def conv_1d() -> Case:
    layers = [nn.Conv1d(3, 8, 3, padding="same"), nn.BatchNorm1d(8), nn.ELU(), nn.Conv1d(8, 6, 3, dilation=2)]
    return nn.Sequential(*layers, nn.AdaptiveAvgPool1d(1), nn.Flatten(), nn.Linear(6, 4)), (torch.randn(2, 3, 16),)


@case
def conv_3d() -> Case:
    layers = [nn.Conv3d(2, 8, 3), nn.BatchNorm3d(8), nn.ReLU(), nn.MaxPool3d(2), nn.Conv3d(8, 6, 2)]
    return nn.Sequential(*layers, nn.AdaptiveAvgPool3d(1), nn.Flatten(), nn.Linear(6, 4)), (torch.randn(2, 2, 8, 8, 8),)


@case
def convolved_across_branches() -> Case:
    """A convolution that mixes two branches and takes the channels as its space, one at a time."""

    def forward(m: Any, x: T) -> T:
        y = torch.stack([m.a(x), m.b(x)], 2).flatten(0, 1)
        return m.head(m.mix(y).view(x.shape[0], 6, 10).mean(1))

    return made(
        forward, tokens(), a=nn.Linear(12, 10), b=nn.Linear(12, 10), mix=nn.Conv1d(2, 1, 1), head=nn.Linear(10, 3)
    )


@case
def transposed_1d_3d() -> Case:
    def forward(m: Any, x: T) -> T:
        y = F.relu(m.b(F.relu(m.a(x))))
        return m.d(F.relu(m.c(y.unsqueeze(-1).unsqueeze(-1)))).flatten(2)

    return made(
        forward,
        (torch.randn(2, 3, 8),),
        a=nn.Conv1d(3, 8, 3),
        b=nn.ConvTranspose1d(8, 6, 3),
        c=nn.ConvTranspose3d(6, 8, 2),
        d=nn.Conv3d(8, 2, 1),
    )


@case
def transposed_grouped() -> Case:
    layers = [conv(3, 12), nn.ConvTranspose2d(12, 8, 3, groups=4), nn.ReLU(), nn.Conv2d(8, 8, 1)]
    return nn.Sequential(*layers, nn.ConvTranspose2d(8, 8, 2, groups=8), nn.ReLU(), nn.Conv2d(8, 2, 1)), image()


@case
def many_groups() -> Case:
    """More groups than channels in a group: whole groups go."""
    layers = [conv(3, 16), conv(16, 32, g=8), conv(32, 8, k=1)]
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 4)), image()


@case
def shuffle_unit() -> Case:
    """Half of the channels pass, half are convolved, then the halves are interleaved."""

    def forward(m: Any, x: T) -> T:
        x = m.stem(x)
        left, right = x.chunk(2, dim=1)
        x = torch.cat((left, m.branch(right)), dim=1)
        return m.head(F.channel_shuffle(x, 2).mean((2, 3)))

    return made(forward, image(), stem=conv(3, 16), branch=conv(8, 8), head=nn.Linear(16, 4))


@case
def pixel_shuffled() -> Case:
    layers = [conv(3, 8), nn.Conv2d(8, 24, 3, padding=1), nn.PixelShuffle(2), nn.ReLU(), nn.Conv2d(6, 3, 3, padding=1)]
    return nn.Sequential(*layers), image()


@case
def pixel_unshuffled() -> Case:
    return nn.Sequential(conv(3, 6), nn.PixelUnshuffle(2), nn.Conv2d(24, 8, 1), nn.ReLU(), nn.Conv2d(8, 2, 1)), image()


@case
def space_to_depth_by_hand() -> Case:
    def forward(m: Any, x: T) -> T:
        x = m.stem(x)
        b, c, h, w = x.shape
        x = x.view(b, c, h // 2, 2, w // 2, 2).permute(0, 3, 5, 1, 2, 4).reshape(b, 4 * c, h // 2, w // 2)
        return m.head(m.mix(x).mean((2, 3)))

    return made(forward, image(), stem=conv(3, 6), mix=conv(24, 8), head=nn.Linear(8, 4))


@case
def focus_slices() -> Case:
    def forward(m: Any, x: T) -> T:
        x = m.stem(x)
        parts = [x[..., ::2, ::2], x[..., 1::2, ::2], x[..., ::2, 1::2], x[..., 1::2, 1::2]]
        return m.head(m.mix(torch.cat(parts, 1)).mean((2, 3)))

    return made(forward, image(), stem=conv(3, 6), mix=conv(24, 8), head=nn.Linear(8, 4))


@case
def unfolded_patches() -> Case:
    def forward(m: Any, x: T) -> T:
        x = m.stem(x)
        patches = F.unfold(x, 2, stride=2).transpose(1, 2)
        y = F.fold(m.mlp(patches).transpose(1, 2), (8, 8), 2, stride=2)
        return m.head(y.mean((2, 3)))

    mlp = nn.Sequential(nn.Linear(32, 20), nn.GELU(), nn.Linear(20, 24))
    return made(forward, image(), stem=conv(3, 8), mlp=mlp, head=nn.Linear(6, 4))


@case
def standardised_weights() -> Case:
    """A convolution whose weight is normalised over its inputs at every call."""

    class Standardised(nn.Conv2d):
        def forward(self, x: T) -> T:
            w = F.batch_norm(self.weight.reshape(1, self.out_channels, -1), None, None, training=True, momentum=0.0)
            return F.conv2d(x, w.reshape_as(self.weight), self.bias, padding=1)

    layers = [nn.Conv2d(3, 8, 3), nn.ReLU(), Standardised(8, 12, 3), nn.ReLU(), Standardised(12, 6, 3)]
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(6, 3)), image()


@case
def parametrised_weights() -> Case:
    a = parametrizations.weight_norm(nn.Conv2d(3, 8, 3))
    b = parametrizations.spectral_norm(nn.Linear(8, 12))
    return nn.Sequential(a, nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), b, nn.ReLU(), nn.Linear(12, 3)), image()


# Norms, gates, scales ----------------------------------------------------------------------------------------------


@case
def group_norms() -> Case:
    """Few wide groups are thinned; of many narrow ones, whole groups go."""
    layers = [nn.Conv2d(3, 12, 3), nn.GroupNorm(2, 12), nn.ReLU(), nn.Conv2d(12, 16, 3), nn.GroupNorm(8, 16)]
    return nn.Sequential(*layers, nn.SiLU(), nn.Conv2d(16, 6, 1), nn.GroupNorm(1, 6), nn.Conv2d(6, 2, 1)), image()


@case
def instance_norm() -> Case:
    layers = [nn.Conv2d(3, 12, 3), nn.InstanceNorm2d(12, affine=True), nn.LeakyReLU(), nn.Conv2d(12, 2, 3)]
    return nn.Sequential(*layers), image()


@case
def convnext_block() -> Case:
    """Channels last, layer norm, a scale per channel, stochastic depth off."""

    def forward(m: Any, x: T) -> T:
        x = m.stem(x)
        y = m.depthwise(x).permute(0, 2, 3, 1)
        y = m.fc2(F.gelu(m.fc1(m.norm(y)))) * m.scale.weight[:, 0]
        x = x + y.permute(0, 3, 1, 2)
        return m.head(m.last(x.mean((2, 3))))

    return made(
        forward,
        image(),
        stem=nn.Conv2d(3, 8, 2, 2),
        depthwise=nn.Conv2d(8, 8, 3, padding=1, groups=8),
        norm=nn.LayerNorm(8),
        fc1=nn.Linear(8, 20),
        fc2=nn.Linear(20, 8),
        scale=nn.Linear(1, 8),
        last=nn.LayerNorm(8),
        head=nn.Linear(8, 3),
    )


class OwnRms(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.rand(width) + 0.5)

    def forward(self, x: T) -> T:
        return x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + 1e-6) * self.weight


class OwnLayerNorm2d(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.weight, self.bias = nn.Parameter(torch.rand(width) + 0.5), nn.Parameter(torch.randn(width))

    def forward(self, x: T) -> T:
        mean = x.mean(1, keepdim=True)
        spread = (x - mean).pow(2).mean(1, keepdim=True)
        x = (x - mean) / torch.sqrt(spread + 1e-6)
        return self.weight[:, None, None] * x + self.bias[:, None, None]


@case
def own_norms() -> Case:
    def forward(m: Any, x: T) -> T:
        x = F.relu(m.norm(m.stem(x))).flatten(2).transpose(1, 2)
        return m.head(m.rms2(m.fc(m.rms(x))).mean(1))

    return made(
        forward,
        image(),
        stem=nn.Conv2d(3, 10, 3),
        norm=OwnLayerNorm2d(10),
        rms=OwnRms(10),
        fc=nn.Linear(10, 12),
        rms2=nn.RMSNorm(12),
        head=nn.Linear(12, 3),
    )


@case
def spatial_attention() -> Case:
    """Mean and maximum over channels as a map, standard deviation and norm as a gate."""

    def forward(m: Any, x: T) -> T:
        x = m.stem(x)
        gate = torch.sigmoid(m.gate(torch.cat([x.mean(1, keepdim=True), x.max(1, keepdim=True).values], 1)))
        x = m.trunk(x * gate)
        x = F.normalize(x, dim=1) + x / (x.var(1, correction=0, keepdim=True) + 1.0)
        return m.head(x.amax((2, 3)))

    return made(
        forward, image(), stem=conv(3, 8), gate=nn.Conv2d(2, 1, 3, padding=1), trunk=conv(8, 8), head=nn.Linear(8, 3)
    )


@case
def selective_kernel() -> Case:
    """A softmax over branches that share their channels."""

    def forward(m: Any, x: T) -> T:
        x = m.stem(x)
        branches = torch.stack([m.a(x), m.b(x)], dim=1)
        squeezed = branches.sum(1).mean((2, 3))
        weights = m.up(F.relu(m.down(squeezed))).view(-1, 2, 8).softmax(dim=1)
        return m.head((branches * weights[..., None, None]).sum(1).mean((2, 3)))

    return made(
        forward,
        image(),
        stem=conv(3, 8),
        a=conv(8, 8),
        b=conv(8, 8, k=1),
        down=nn.Linear(8, 6),
        up=nn.Linear(6, 16),
        head=nn.Linear(8, 3),
    )


@case
def gated_units() -> Case:
    """Two ways to write a gated linear unit, and per-channel slopes."""

    def forward(m: Any, x: T) -> T:
        a, b = m.fc1(x).chunk(2, -1)
        x = x + m.fc2(F.silu(a) * b)
        x = m.slope(m.fc4(F.glu(m.fc3(x))).transpose(1, 2))
        return m.head(x.mean(-1))

    return made(
        forward,
        tokens(),
        fc1=nn.Linear(12, 32),
        fc2=nn.Linear(16, 12),
        fc3=nn.Linear(12, 20),
        fc4=nn.Linear(10, 8),
        slope=nn.PReLU(8),
        head=nn.Linear(8, 3),
    )


@case
def mixer() -> Case:
    """Maps over tokens and over channels in turn."""

    def forward(m: Any, x: T) -> T:
        x = m.embed(x)
        x = x + m.t2(F.gelu(m.t1(m.norm1(x).transpose(1, 2)))).transpose(1, 2)
        x = x + m.c2(F.gelu(m.c1(m.norm2(x))))
        return m.head(x.mean(1))

    return made(
        forward,
        tokens(),
        embed=nn.Linear(12, 16),
        norm1=nn.LayerNorm(16),
        t1=nn.Linear(6, 10),
        t2=nn.Linear(10, 6),
        norm2=nn.LayerNorm(16),
        c1=nn.Linear(16, 24),
        c2=nn.Linear(24, 16),
        head=nn.Linear(16, 3),
    )


# Attention ---------------------------------------------------------------------------------------------------------


@case
def multihead_attention() -> Case:
    def forward(m: Any, x: T) -> T:
        x = m.embed(x)
        y = m.norm(x)
        x = x + m.attention(y, y, y, need_weights=False)[0]
        return m.head(x[:, 0])

    return made(
        forward,
        tokens(),
        embed=nn.Linear(12, 16),
        norm=nn.LayerNorm(16),
        attention=nn.MultiheadAttention(16, 4, batch_first=True),
        head=nn.Linear(16, 3),
    )


@case
def transformer_encoder() -> Case:
    def forward(m: Any, x: T) -> T:
        return m.head(m.layers(m.embed(x)).mean(1))

    layer = nn.TransformerEncoderLayer(16, 2, 24, dropout=0.1, batch_first=True, activation="gelu")
    layers = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)
    return made(forward, tokens(), embed=nn.Linear(12, 16), layers=layers, head=nn.Linear(16, 3))


@case
def fused_qkv() -> Case:
    """The public vision transformers: one map for queries, keys and values, a class token, positions."""

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.patch = nn.Conv2d(3, 16, 4, 4)
            self.token = nn.Parameter(torch.randn(1, 1, 16))
            self.positions = nn.Parameter(torch.randn(1, 5, 16))
            self.norm, self.qkv, self.proj = nn.LayerNorm(16), nn.Linear(16, 48), nn.Linear(16, 16)
            self.head = nn.Linear(16, 3)

        def forward(self, x: T) -> T:
            x = self.patch(x).flatten(2).transpose(1, 2)
            x = torch.cat([self.token.expand(x.shape[0], -1, -1), x], 1) + self.positions
            b, n, c = x.shape
            q, k, v = self.qkv(self.norm(x)).reshape(b, n, 3, 2, c // 2).permute(2, 0, 3, 1, 4).unbind(0)
            y = F.scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(b, n, c)
            return self.head((x + self.proj(y))[:, 0])

    return Net(), image()


@case
def separate_qkv_with_mask_and_relative_positions() -> Case:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.q, self.k, self.v = (nn.Linear(12, 16) for _ in range(3))
            self.proj, self.head = nn.Linear(16, 12), nn.Linear(12, 3)
            self.table = nn.Parameter(torch.randn(11, 4))
            offset = torch.arange(6)[:, None] - torch.arange(6)[None] + 5
            self.register_buffer("index", offset)

        def forward(self, x: T) -> T:
            b, n, _ = x.shape
            q, k, v = (f(x).view(b, n, 4, 4).transpose(1, 2) for f in (self.q, self.k, self.v))
            scores = q @ k.transpose(-2, -1) / math.sqrt(4)
            scores = scores + self.table[self.index.view(-1)].view(6, 6, 4).permute(2, 0, 1)
            scores = scores.masked_fill(torch.ones(n, n, dtype=torch.bool).triu(1), float("-inf"))
            y = (scores.softmax(-1) @ v).transpose(1, 2).reshape(b, n, 16)
            return self.head((x + self.proj(y)).mean(1))

    return Net(), tokens()


@case
def windowed_attention() -> Case:
    """Windows of a shifted map, with a mask computed in the forward pass."""

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.stem, self.norm = nn.Conv2d(3, 16, 1), nn.LayerNorm(16)
            self.qkv, self.proj, self.head = nn.Linear(16, 48), nn.Linear(16, 16), nn.Linear(16, 3)
            self.merge = nn.Linear(64, 20)
            self.out = nn.Linear(20, 3)

        def forward(self, x: T) -> T:
            x = self.stem(x).permute(0, 2, 3, 1)
            b, h, w, c = x.shape
            y = torch.roll(self.norm(x), (-2, -2), (1, 2))
            y = y.view(b, h // 4, 4, w // 4, 4, c).permute(0, 1, 3, 2, 4, 5).reshape(-1, 16, c)
            mask = x.new_zeros((h, w))
            mask[:4, :4], mask[4:, 4:] = 1, 2
            mask = mask.view(2, 4, 2, 4).permute(0, 2, 1, 3).reshape(4, 16)
            mask = (mask.unsqueeze(1) - mask.unsqueeze(2)).ne(0).to(x.dtype) * -100.0
            qkv = self.qkv(y).reshape(y.shape[0], 16, 3, 2, c // 2).permute(2, 0, 3, 1, 4)
            q, k, v = qkv[0], qkv[1], qkv[2]
            scores = (q * (c // 2) ** -0.5) @ k.transpose(-2, -1)
            scores = scores.view(b, 4, 2, 16, 16) + mask.unsqueeze(1).unsqueeze(0)
            y = (scores.view(-1, 2, 16, 16).softmax(-1) @ v).transpose(1, 2).reshape(-1, 16, c)
            y = self.proj(y).view(b, 2, 2, 4, 4, c).permute(0, 1, 3, 2, 4, 5).reshape(b, h, w, c)
            x = x + torch.roll(y, (2, 2), (1, 2))
            x = torch.cat([x[:, 0::2, 0::2], x[:, 1::2, 0::2], x[:, 0::2, 1::2], x[:, 1::2, 1::2]], -1)
            return self.out(F.gelu(self.merge(x)).mean((1, 2)))

    return Net(), image()


@case
def grouped_query_and_rotary() -> Case:
    """A decoder block: fewer key and value heads than query heads, rotary positions, causal, gated feed-forward."""

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.embed = nn.Embedding(11, 16)
            self.norm1, self.norm2, self.norm3 = OwnRms(16), OwnRms(16), OwnRms(16)
            self.q, self.k, self.v = nn.Linear(16, 32), nn.Linear(16, 16), nn.Linear(16, 16)
            self.proj = nn.Linear(32, 16)
            self.gate, self.up, self.down = nn.Linear(16, 24), nn.Linear(16, 24), nn.Linear(24, 16)
            self.head = nn.Linear(16, 11, bias=False)
            self.head.weight = self.embed.weight

        def rotary(self, x: T) -> T:
            n, d = x.shape[-2:]
            angle = torch.arange(n)[:, None] * 0.5 ** torch.arange(d // 2)[None]
            cos, sin = torch.cat([angle.cos()] * 2, -1).to(x), torch.cat([angle.sin()] * 2, -1).to(x)
            first, second = x.chunk(2, -1)
            return x * cos + torch.cat([-second, first], -1) * sin

        def forward(self, ids: T) -> T:
            x = self.embed(ids)
            b, n, _ = x.shape
            y = self.norm1(x)
            q = self.rotary(self.q(y).view(b, n, 4, 8).transpose(1, 2))
            k = self.rotary(self.k(y).view(b, n, 2, 8).transpose(1, 2)).repeat_interleave(2, 1)
            v = self.v(y).view(b, n, 2, 8).transpose(1, 2)[:, :, None].expand(b, 2, 2, n, 8).reshape(b, 4, n, 8)
            y = F.scaled_dot_product_attention(q, k, v, is_causal=True)
            x = x + self.proj(y.transpose(1, 2).flatten(2))
            y = self.norm2(x)
            x = x + self.down(F.silu(self.gate(y)) * self.up(y))
            return self.head(self.norm3(x))

    return Net(), words()


@case
def small_gpt() -> Case:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.embed, self.positions = nn.Embedding(11, 16), nn.Embedding(8, 16)
            self.norm1, self.norm2 = nn.LayerNorm(16), nn.LayerNorm(16)
            self.qkv, self.proj = nn.Linear(16, 48), nn.Linear(16, 16)
            self.fc1, self.fc2, self.head = nn.Linear(16, 40), nn.Linear(40, 16), nn.Linear(16, 11)

        def forward(self, ids: T) -> T:
            n = ids.shape[1]
            x = self.embed(ids) + self.positions(torch.arange(n))
            q, k, v = self.qkv(self.norm1(x)).split(16, dim=-1)
            q, k, v = (t.view(t.shape[0], n, 2, 8).transpose(1, 2) for t in (q, k, v))
            scores = (q @ k.transpose(-2, -1)) * 8**-0.5
            scores = scores.masked_fill(torch.tril(torch.ones(8, 8))[:n, :n] == 0, float("-inf"))
            y = (scores.softmax(-1) @ v).transpose(1, 2).contiguous().view(-1, n, 16)
            x = x + self.proj(y)
            x = x + self.fc2(F.gelu(self.fc1(self.norm2(x))))
            return self.head(x)

    return Net(), words()


@case
def linear_attention() -> Case:
    """Features of queries and keys instead of a softmax, written as sums over letters."""

    def forward(m: Any, x: T) -> T:
        b, n, _ = x.shape
        q, k, v = (f(x).view(b, n, 2, 8) for f in (m.q, m.k, m.v))
        q, k = F.elu(q) + 1, F.elu(k) + 1
        kv = torch.einsum("bnhd,bnhe->bhde", k, v)
        norm = torch.einsum("bnhd,bhd->bnh", q, k.sum(1))
        y = torch.einsum("bnhd,bhde->bnhe", q, kv) / (norm[..., None] + 1.0)
        return m.head(m.proj(y.flatten(2)).mean(1))

    return made(
        forward,
        tokens(),
        q=nn.Linear(12, 16),
        k=nn.Linear(12, 16),
        v=nn.Linear(12, 16),
        proj=nn.Linear(16, 10),
        head=nn.Linear(10, 3),
    )


@case
def channel_attention() -> Case:
    """Attention between channels: the softmax runs over the width of a head."""

    def forward(m: Any, x: T) -> T:
        b, n, _ = x.shape
        q, k, v = m.qkv(x).reshape(b, n, 3, 2, 8).permute(2, 0, 3, 4, 1).unbind(0)
        q, k = F.normalize(q, dim=-1), F.normalize(k, dim=-1)
        y = ((q @ k.transpose(-2, -1)) * 1.5).softmax(-1) @ v
        return m.head(m.proj(y.permute(0, 3, 1, 2).reshape(b, n, 16)).mean(1))

    return made(forward, tokens(), qkv=nn.Linear(12, 48), proj=nn.Linear(16, 10), head=nn.Linear(10, 3))


# Recurrent ---------------------------------------------------------------------------------------------------------


def recurrent(layer: nn.Module, width: int) -> Case:
    def forward(m: Any, x: T) -> T:
        return m.head(F.relu(m.mix(m.rnn(m.embed(x))[0]))[:, -1])

    layers = {"embed": nn.Linear(12, 10), "rnn": layer, "mix": nn.Linear(width, 6), "head": nn.Linear(6, 3)}
    return made(forward, tokens(), **layers)


@case
def lstm() -> Case:
    return recurrent(nn.LSTM(10, 8, 2, batch_first=True), 8)


@case
def lstm_both_ways_projected() -> Case:
    return recurrent(nn.LSTM(10, 8, 2, batch_first=True, bidirectional=True, proj_size=6), 12)


@case
def gru_both_ways() -> Case:
    return recurrent(nn.GRU(10, 8, bidirectional=True, batch_first=True, bias=False), 16)


@case
def rnn_of_tanh() -> Case:
    return recurrent(nn.RNN(10, 8, 2, batch_first=True), 8)


@case
def lstm_with_given_state() -> Case:
    """Initial states that a layer computes, the last state as the output."""

    def forward(m: Any, x: T) -> T:
        start = torch.tanh(m.start(x[:, 0])).unsqueeze(0)
        _, (h, c) = m.rnn(m.embed(x), (start, start))
        return m.head(torch.cat([h[-1], c[-1]], -1))

    return made(
        forward,
        tokens(),
        embed=nn.Linear(12, 10),
        start=nn.Linear(12, 8),
        rnn=nn.LSTM(10, 8, batch_first=True),
        head=nn.Linear(16, 3),
    )


@case
def unrolled_cell() -> Case:
    def forward(m: Any, x: T) -> T:
        h = torch.zeros(x.shape[0], 8, dtype=x.dtype)
        c = x.new_zeros(x.shape[0], 8)
        g = torch.zeros(x.shape[0], 6, dtype=x.dtype)
        for i in range(3):
            h, c = m.lstm(x[:, i], (h, c))
            g = m.gru(h, g)
        return m.head(g)

    return made(forward, tokens(), lstm=nn.LSTMCell(12, 8), gru=nn.GRUCell(8, 6), head=nn.Linear(6, 3))


# Ways of writing a model -------------------------------------------------------------------------------------------


@case
def used_twice() -> Case:
    def forward(m: Any, x: T) -> T:
        x = m.stem(x)
        return m.head(m.trunk(m.trunk(x)).mean((2, 3)))

    return made(forward, image(), stem=conv(3, 8), trunk=conv(8, 8), head=nn.Linear(8, 3))


@case
def several_inputs_and_outputs() -> Case:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b, self.mix = nn.Linear(12, 10), nn.Conv2d(3, 8, 3), nn.Bilinear(10, 8, 6)
            self.heads = nn.ModuleDict({"x": nn.Linear(6, 3), "y": nn.Linear(6, 1)})

        def forward(self, x: T, image: T) -> dict[str, Any]:
            y = F.relu(self.mix(F.relu(self.a(x[:, 0])), self.b(image).mean((2, 3))))
            return {"classes": self.heads["x"](y), "rest": (self.heads["y"](y), [y.sum(-1)])}

    return Net(), (*tokens(), *image())


@case
def positions_by_list() -> Case:
    """Channels picked by constant lists, reversed, repeated, and put back in halves."""

    def forward(m: Any, x: T) -> T:
        x = m.stem(x)
        odd = x[:, torch.tensor([1, 3, 5, 7, 0])]
        even = torch.index_select(x, 1, torch.tensor([6, 2, 4]))
        x = torch.cat([odd, even.flip(1)], 1).repeat_interleave(2, 1)
        return m.head(m.mix(x.repeat(1, 2, 1, 1)).mean((2, 3)))

    return made(forward, image(), stem=conv(3, 8), mix=conv(32, 6), head=nn.Linear(6, 3))


@case
def fixed_sizes() -> Case:
    """Sizes written as numbers everywhere."""

    def forward(m: Any, x: T) -> T:
        x = m.stem(x).view(-1, 8, 64).unflatten(1, (2, 4)).reshape(-1, 8, 8, 8)
        x = m.mid(x).reshape(x.shape[0], 10 * 64)
        return m.head(F.relu(m.fc(x)).expand(x.shape[0], 12) + torch.ones(12).expand(x.shape[0], 12))

    return made(forward, image(), stem=conv(3, 8), mid=conv(8, 10), fc=nn.Linear(640, 12), head=nn.Linear(12, 3))


@case
def written_in_place() -> Case:
    """A result assembled by writing into slices of an empty tensor."""

    def forward(m: Any, x: T) -> T:
        x = m.stem(x)
        out = torch.zeros(x.shape[0], 12, 8, 8, dtype=x.dtype)
        out[:, :4] = m.a(x)
        out[:, 4:] += m.b(x)
        out.mul_(2.0).clamp_(max=3.0)
        return m.head(out.mean((2, 3)))

    return made(forward, image(), stem=conv(3, 8), a=conv(8, 4), b=conv(8, 8), head=nn.Linear(12, 3))


@case
def time_convolutions() -> Case:
    """A temporal convolution network: causal padding, dilation, residual maps."""

    def forward(m: Any, x: T) -> T:
        x = x.transpose(1, 2)
        y = F.relu(m.a(F.pad(x, (2, 0))))
        y = F.relu(m.b(F.pad(y, (4, 0))) + m.shortcut(x))
        return m.head(y[:, :, -1])

    return made(
        forward,
        tokens(),
        a=nn.Conv1d(12, 10, 3),
        b=nn.Conv1d(10, 8, 3, dilation=2),
        shortcut=nn.Conv1d(12, 8, 1),
        head=nn.Linear(8, 3),
    )


@case
def u_net() -> Case:
    def forward(m: Any, x: T) -> T:
        a = m.a(x)
        b = m.b(F.max_pool2d(a, 2))
        c = m.c(F.max_pool2d(b, 2))
        b = m.d(torch.cat([F.interpolate(c, size=b.shape[-2:], mode="bilinear"), b], 1))
        return m.out(torch.cat([m.up(b), a], 1))

    return made(
        forward,
        image(),
        a=conv(3, 8),
        b=conv(8, 12),
        c=conv(12, 16),
        d=conv(28, 12),
        up=nn.ConvTranspose2d(12, 8, 2, 2),
        out=nn.Conv2d(16, 2, 1),
    )


@case
def generator() -> Case:
    """Noise to an image, with a reshape from a linear layer to a map."""

    def forward(m: Any, x: T) -> T:
        x = F.relu(m.fc(x)).view(-1, 16, 4, 4)
        return torch.tanh(m.c(F.relu(m.norm(m.b(x)))))

    return made(
        forward,
        (torch.randn(2, 10),),
        fc=nn.Linear(10, 256),
        b=nn.ConvTranspose2d(16, 8, 4, 2, 1),
        norm=nn.BatchNorm2d(8),
        c=nn.ConvTranspose2d(8, 3, 4, 2, 1),
    )


@case
def speech_transformer() -> Case:
    """Convolutions over a spectrogram, then encoder layers over time."""

    def forward(m: Any, x: T) -> T:
        x = F.gelu(m.conv2(F.gelu(m.conv1(x)))).transpose(1, 2)
        return m.head(m.encoder(x + m.positions.weight))

    layer = nn.TransformerEncoderLayer(16, 4, 32, batch_first=True, norm_first=True)
    return made(
        forward,
        (torch.randn(2, 10, 12),),
        conv1=nn.Conv1d(10, 14, 3, padding=1),
        conv2=nn.Conv1d(14, 16, 3, 2, padding=1),
        positions=nn.Embedding(6, 16),
        encoder=nn.TransformerEncoder(layer, 1, enable_nested_tensor=False),
        head=nn.Linear(16, 5),
    )
