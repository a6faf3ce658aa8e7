"""Whole blocks go: pruned equals the model with their weights at zero, and the planned graph is what comes out."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from edgeprune.errors import UsageError
from edgeprune.graph import Graph, Node, Ref
from edgeprune.pruning import check
from edgeprune.pruning.blocks import Anatomy, Fate
from edgeprune.pruning.check import TOLERANCE, difference
from edgeprune.pruning.curves import measured_curves, relative_error
from edgeprune.pruning.groups import ChannelGroup, ChannelGroups, channel_groups
from edgeprune.pruning.plan import Plan, apply
from edgeprune.pruning.surgery import prune
from edgeprune.pruning.trace import Captured, trace
from tests.pruning.nets import NETS, Lambda, conv, randomised
from tests.pruning.operator_nets import CASES
from tests.pruning.test_operators import grouped, opened

T = torch.Tensor
Opened = tuple[nn.Module, tuple[T, ...], Captured, ChannelGroups]
BLOCKS: dict[str, Callable[[], nn.Module]] = {}


def block(build: Callable[[], nn.Module]) -> Callable[[], nn.Module]:
    BLOCKS[build.__name__] = build
    return build


def made(forward: Callable[[Any, T], T], **layers: nn.Module) -> nn.Module:
    return Lambda(forward, stem=conv(3, 8), head=nn.Linear(8, 4), **layers)


@block
def in_place() -> nn.Module:
    """The public residual networks: the skip path is added into the branch."""

    def forward(m: Any, x: T) -> T:
        x = m.stem(x)
        y = m.b(m.a(x))
        y += x
        return m.head(F.relu_(y).mean((2, 3)))

    return made(forward, a=conv(8, 12), b=nn.Conv2d(12, 8, 3, padding=1))


@block
def padded_constant() -> nn.Module:
    """The constant is convolved with padding, so that it differs at the border."""

    def forward(m: Any, x: T) -> T:
        x = m.stem(x)
        return m.head((x - m.c(m.b(m.a(x)))).mean((2, 3)))

    return made(forward, a=conv(8, 6), b=conv(6, 10), c=nn.Conv2d(10, 8, 3, padding=1))


@block
def nested() -> nn.Module:
    """A skip path inside a branch of a skip path, and a gate on the inner one."""

    def forward(m: Any, x: T) -> T:
        x = m.stem(x)
        y = m.a(x)
        gate = torch.sigmoid(m.up(F.relu(m.down(y.mean((2, 3), keepdim=True)))))
        y = y + m.b2(m.b1(y)) * gate
        return m.head((x + m.c(y)).mean((2, 3)))

    return made(
        forward,
        a=conv(8, 10),
        b1=conv(10, 6),
        b2=nn.Conv2d(6, 10, 1),
        down=nn.Conv2d(10, 4, 1),
        up=nn.Conv2d(4, 10, 1),
        c=nn.Conv2d(10, 8, 1),
    )


@block
def parallel() -> nn.Module:
    """Two branches and nothing else: one may go, not both."""

    def forward(m: Any, x: T) -> T:
        x = m.stem(x)
        return m.head((m.a2(m.a(x)) + m.b2(m.b(x))).mean((2, 3)))

    return made(forward, a=conv(8, 6), a2=nn.Conv2d(6, 8, 1), b=conv(8, 5), b2=nn.Conv2d(5, 8, 3, padding=1))


@block
def pooled_and_resized() -> nn.Module:
    """A constant through pooling, resizing and a reshape, times the rest; a map that is smaller than what it meets."""

    def forward(m: Any, x: T) -> T:
        x = m.stem(x)
        y = F.interpolate(F.max_pool2d(m.b(m.a(x)), 2), scale_factor=2.0)
        x = x * y + m.c2(m.c(F.adaptive_avg_pool2d(x, 1)))
        return m.head(x.flatten(2).mean(-1))

    return made(forward, a=conv(8, 6), b=nn.Conv2d(6, 8, 1), c=nn.Conv2d(8, 4, 1), c2=nn.Conv2d(4, 8, 1))


@block
def constant_decides_the_size() -> nn.Module:
    """The other side is broadcast to the constant, which keeps its full size."""

    def forward(m: Any, x: T) -> T:
        x = m.stem(x)
        return m.head((m.b(m.a(x)) + x.mean((2, 3), keepdim=True)).amax((2, 3)))

    return made(forward, a=conv(8, 6), b=nn.Conv2d(6, 8, 1))


def opened_block(name: str) -> Opened:
    if name in CASES:
        model, inputs, dense = opened(name)
        return model, inputs, dense, grouped(name, False)
    build = NETS.get(name) or BLOCKS[name]
    model = randomised(build).double()
    inputs = (torch.randn(2, 3, 16, 16, dtype=torch.float64, generator=torch.Generator().manual_seed(0)),)
    dense = trace(model, inputs)
    return model, inputs, dense, channel_groups(dense.graph)


_OPENED: dict[str, Opened] = {}


def found(name: str) -> Opened:
    if name not in _OPENED:
        _OPENED[name] = opened_block(name)
    return _OPENED[name]


WITH_BLOCKS = [
    *sorted(BLOCKS),
    *"residual padded_shortcut dense_block inverted_residual squeeze_excite decoder".split(),
    *"convnext_block selective_kernel gated_units mixer multihead_attention transformer_encoder fused_qkv".split(),
    *"separate_qkv_with_mask_and_relative_positions windowed_attention grouped_query_and_rotary small_gpt".split(),
    *"positions_by_list written_in_place time_convolutions u_net speech_transformer".split(),
]
TOO_MANY = ("parallel", "positions_by_list", "written_in_place")  # nothing is left when all that can go alone goes


def removable(groups: ChannelGroups) -> list[ChannelGroup]:
    return [group for group in groups.groups if group.removable]


def zeroed(model: nn.Module, groups: ChannelGroups, names: list[str]) -> nn.Module:
    """The user's own module with every weight of the groups at zero."""
    model = copy.deepcopy(model)
    state = dict(model.named_parameters(remove_duplicate=False))
    for group in (groups.by_name[name] for name in names):
        for path, axis in group.members:
            if path in state:
                components = groups.components_at(groups.graph.parameters[path].name, axis)
                assert components is not None
                mine = torch.from_numpy(np.flatnonzero(np.isin(components, group.channels)))
                state[path].data.index_fill_(axis, mine, 0.0)
    return model


def program(graph: Graph) -> list[tuple[object, ...]]:
    """The steps of a graph, whatever they are called."""
    steps = [node for node in graph.nodes if node.op != "parameter"]
    known: dict[str, object] = {node.name: i for i, node in enumerate(steps)}
    known |= {node.name: node.target for node in graph.nodes if node.op == "parameter"}

    def told(arg: object) -> object:
        if isinstance(arg, Ref):
            return ("read", known[arg.name])
        return tuple(told(a) for a in arg) if isinstance(arg, tuple) else arg

    return [(n.op, told(n.args), {key: told(arg) for key, arg in n.kwargs.items()}, n.shapes) for n in steps]


def shapes(graph: Graph) -> dict[str, tuple[int, ...]]:
    return {path: node.shape for path, node in graph.parameters.items()}


def random_plan(groups: ChannelGroups, seed: int, emptied: float = 0.5) -> Plan:
    """A share of the removable groups at no channel, the others at any width."""
    rng = np.random.default_rng(seed)
    keep = {}
    for group in groups.groups:
        empty = group.removable and rng.random() < emptied
        width = 0 if empty else int(rng.integers(1, group.width + 1))
        keep[group.name] = tuple(sorted(rng.choice(group.width, width, replace=False).tolist()))
    return Plan(keep=keep)


@pytest.mark.parametrize("name", WITH_BLOCKS)
def test_a_model_without_a_block_is_the_model_with_its_weights_at_zero(name: str) -> None:
    model, inputs, dense, groups = found(name)
    assert removable(groups)
    for group in removable(groups):
        pruned = prune(dense, groups, Plan(keep={group.name: ()}))
        want, got = zeroed(model, groups, [group.name])(*inputs), pruned.module(*inputs)
        torch.testing.assert_close(got, want, rtol=1e-9, atol=1e-9)
        assert not any(0 in shape for node in pruned.graph.nodes for shape in node.shapes)
        assert all(0 not in value.shape for value in pruned.module.state_dict().values())


@pytest.mark.parametrize("name", WITH_BLOCKS)
@settings(max_examples=4, deadline=None)
@given(seed=st.integers(0, 2**32 - 1))
def test_pruned_computes_what_masked_computes(name: str, seed: int) -> None:
    _, inputs, dense, groups = found(name)
    plan = random_plan(groups, seed)
    try:
        pruned = prune(dense, groups, plan)
    except UsageError as err:
        assert name in TOO_MANY and "cannot go together" in str(err)
        return
    assert difference(dense, groups, plan, pruned, inputs) <= TOLERANCE


@pytest.mark.parametrize("name", WITH_BLOCKS)
def test_tracing_the_pruned_model_gives_the_planned_graph(name: str) -> None:
    _, inputs, dense, groups = found(name)
    names = [group.name for group in removable(groups)][: 1 if name in TOO_MANY else None]
    plan = Plan(keep={**random_plan(groups, 1, 0.0).keep, **dict.fromkeys(names, ())})
    pruned = prune(dense, groups, plan)
    assert pruned.graph == apply(plan, groups)
    again = trace(pruned.module, inputs).graph
    assert program(again) == program(pruned.graph)
    assert shapes(again) == shapes(pruned.graph)
    stored = {key: tuple(value.shape) for key, value in pruned.module.state_dict().items()}
    assert stored == {path: shapes(pruned.graph)[path] for path in stored}


@pytest.mark.parametrize("name", WITH_BLOCKS)
def test_a_model_without_its_blocks_trains_a_step_and_is_pruned_again(name: str) -> None:
    _, inputs, dense, groups = found(name)
    first, *_ = removable(groups)
    before = {key: value.clone() for key, value in dense.module.state_dict().items()}
    once = prune(dense, groups, Plan(keep={first.name: ()}))
    again = channel_groups(once.graph)
    half = Plan(keep={group.name: tuple(range((group.width + 1) // 2)) for group in again.groups})
    twice = prune(once, again, half)
    assert difference(once, again, half, twice, inputs) <= TOLERANCE
    twice.module.train()(*inputs).square().mean().backward()
    gradients = {key: p.grad for key, p in twice.module.named_parameters() if p.grad is not None}
    assert all(torch.isfinite(gradient).all() for gradient in gradients.values())
    constants = [path for path in twice.graph.parameters if path.endswith("_constant")]
    assert all(path in gradients for path in constants)
    assert all(torch.equal(before[key], value) for key, value in dense.module.state_dict().items())


@pytest.mark.parametrize(
    ("name", "group", "shape"),
    [
        ("in_place", "a.0", (1, 8, 1, 1)),
        ("padded_constant", "a.0", (1, 8, 16, 16)),
        ("padded_constant", "b.0", (1, 8, 1, 1)),
        ("nested", "down", (1, 10, 1, 1)),
        ("pooled_and_resized", "a.0", (1, 8, 1, 1)),
        ("constant_decides_the_size", "a.0", (1, 8, 16, 16)),
        ("mixer", "t1", (1, 6, 1)),
    ],
)
def test_a_constant_is_as_small_as_it_can_be(name: str, group: str, shape: tuple[int, ...]) -> None:
    _, _, _, groups = found(name)
    graph = apply(Plan(keep={group: ()}), groups)
    assert [node.shape for path, node in graph.parameters.items() if path.endswith("_constant")] == [shape]


def test_what_only_a_removed_block_reads_goes_too() -> None:
    graph = apply(Plan(keep={"c.0": ()}), found("u_net")[3])
    assert not {path for path in graph.parameters if path.startswith("c.")}
    assert "cat" in {node.base for node in graph.nodes}
    inner = apply(Plan(keep={"a.0": ()}), found("nested")[3])
    assert {path.split(".")[0] for path in inner.parameters} == {"conv2d_6_constant", "stem", "head"}


@pytest.mark.parametrize(
    ("name", "keep", "message"),
    [
        ("in_place", {"stem.0": ()}, r"group 'stem\.0', which the model needs: an output of the model would be"),
        ("parallel", {"a.0": (), "b.0": ()}, r"cannot go together \(a\.0, b\.0\): an output of the model would be"),
        ("u_net", {"b.0": ()}, r"group 'b\.0', which the model needs: a constant would meet cat_1"),
        ("own_norms", {"stem": ()}, "needs at least one channel"),
        ("separate_qkv_with_mask_and_relative_positions", {"q": ()}, "a constant would meet matmul_1"),
    ],
)
def test_a_block_that_the_model_needs_is_refused_by_name(
    name: str, keep: dict[str, tuple[int, ...]], message: str
) -> None:
    with pytest.raises(UsageError, match=message):
        apply(Plan(keep=keep), found(name)[3])


def test_a_random_constant_is_refused() -> None:
    def forward(m: Any, x: T) -> T:
        x = m.stem(x)
        return m.head((x + torch.bernoulli(torch.sigmoid(m.b(m.a(x))))).mean((2, 3)))

    model = made(forward, a=conv(8, 6), b=nn.Conv2d(6, 8, 1))
    groups = channel_groups(trace(model, torch.zeros(1, 3, 8, 8)).graph)
    assert not groups.by_name["a.0"].removable
    with pytest.raises(UsageError, match="is random"):
        apply(Plan(keep={"a.0": ()}), groups)


def test_a_block_that_fails_the_check_is_not_removable(monkeypatch: pytest.MonkeyPatch) -> None:
    _, inputs, dense, groups = found("nested")
    compare = check.difference

    def failing(captured: Captured, groups: ChannelGroups, plan: Plan, *rest: Any) -> float:
        return 1.0 if plan.keep.get("down") == () else compare(captured, groups, plan, *rest)

    assert {group.name for group in removable(check.vetted(dense, groups, inputs))} == {"a.0", "b1.0", "down"}
    monkeypatch.setattr(check, "difference", failing)
    passed = check.vetted(dense, groups, inputs)
    assert {group.name for group in removable(passed)} == {"a.0", "b1.0"}
    assert [group.name for group in passed.groups] == [group.name for group in groups.groups]


def test_a_curve_ends_at_the_measured_damage_of_removing_the_block() -> None:
    model, inputs, dense, groups = found("residual")
    scores = {group.name: np.ones(group.width) for group in groups.groups}
    levels = [(0, 12, 24) if group.removable else (8, 16) for group in groups.groups]
    curves = measured_curves(dense, groups, scores, levels, inputs[0], relative_error, 60.0)
    full, gone = (net.train()(*inputs).detach() for net in (copy.deepcopy(model), zeroed(model, groups, ["a.0"])))
    assert curves["a.0"][0] == pytest.approx(max(relative_error(full, gone), curves["a.0"][1]))


def test_the_blocks_of_a_deep_model_are_found_in_linear_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """Counted in looks at a node: twice the depth, twice the looks, with skip paths and without."""
    looks = 0
    look = Anatomy._fate

    def counted(self: Anatomy, node: Node, *args: Any) -> Fate:
        nonlocal looks
        looks += 1
        return look(self, node, *args)

    monkeypatch.setattr(Anatomy, "_fate", counted)

    def forward(m: Any, x: T) -> T:
        x = m.chain(m.stem(x))
        for layer in m.blocks:
            x = x + layer(x)
        return m.head(x.mean((2, 3)))

    def measured(depth: int) -> int:
        nonlocal looks
        chain = nn.Sequential(*(conv(8, 8) for _ in range(depth)))
        branches = nn.ModuleList(nn.Sequential(conv(8, 6), nn.Conv2d(6, 8, 1)) for _ in range(depth))
        captured = trace(made(forward, chain=chain, blocks=branches), torch.zeros(1, 3, 8, 8))
        looks = 0
        groups = channel_groups(captured.graph)
        assert len(removable(groups)) == depth
        return looks

    small, large = measured(10), measured(20)
    assert large < 2.2 * small
