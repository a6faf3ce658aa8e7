"""What the student learns from inside the dense model: features of the channels that it kept, and where they look.

Both are compared where channel groups enter the network. A plan says which channels of the dense model a pruned one
has, so they are selected; between models that share no plan, a learned projection makes up for the widths.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import nn
from torch.fx import GraphModule

from edgeprune.errors import UsageError
from edgeprune.pruning.criteria.running import Run
from edgeprune.pruning.groups import ChannelGroups
from edgeprune.pruning.importance import sites
from edgeprune.pruning.plan import Plan, shrinking_of
from edgeprune.pruning.trace import Captured
from edgeprune.recipe import TrainSpec


@dataclass(frozen=True)
class Point:
    """A place where student and teacher are compared.

    Attributes:
        student, teacher: Names of the steps whose results they are.
        axis: Of the channels.
        kept: The teacher's channels that the student has; None: all, or a projection.
        space: Whether there are other axes than samples and channels.
    """

    student: str
    teacher: str
    axis: int
    kept: torch.Tensor | None
    space: bool


@dataclass(frozen=True)
class Guide:
    """The dense model and where to look into it.

    Attributes:
        projections: From the student's channels to the teacher's, (teacher's, student's) by the student's step, where
            no plan says which they are; they are trained with the student.
    """

    teacher: GraphModule
    points: tuple[Point, ...]
    projections: nn.ParameterDict = field(default_factory=nn.ParameterDict)


def wants_guide(recipe: TrainSpec) -> bool:
    """Whether anything is learnt from inside the teacher."""
    return recipe.feature_weight > 0 or recipe.attention_weight > 0


def guide_of_plan(dense: Captured, groups: ChannelGroups, plan: Plan, pruned: Captured) -> Guide:
    """The dense model as a guide of what a plan made of it; places in removed blocks are left out."""
    shrinking, points = shrinking_of(groups, plan), []
    names = {node.name for node in pruned.graph.nodes}
    for site in sites(groups):
        if site.node not in names:
            continue
        mask = shrinking.mask(site.node, site.axis)
        kept = None if mask is None or mask.all() else torch.from_numpy(np.flatnonzero(mask))
        points.append(Point(site.node, site.node, site.axis, kept, _has_space(dense, site.node, site.axis)))
    return Guide(dense.module, tuple(points))


def guide_between(
    teacher: Captured, student: Captured, pairs: Iterable[tuple[str, str]], axis: int = 1, seed: int = 0
) -> Guide:
    """Another model as a guide, which shares no plan with the student.

    Args:
        pairs: Names of a step of the student and of the teacher, with equal sizes on all axes but the channels'.

    Raises:
        UsageError: No such step, or sizes that differ elsewhere.
    """
    points, projections = [], nn.ParameterDict()
    generator = torch.Generator().manual_seed(seed)
    for own, other in pairs:
        ours, theirs = (list(_shape(captured, name)) for captured, name in ((student, own), (teacher, other)))
        if ours[:axis] + ours[axis + 1 :] != theirs[:axis] + theirs[axis + 1 :]:
            raise UsageError(f"{own} is {tuple(ours)}, {other} of the teacher {tuple(theirs)}", where="guide")
        if ours[axis] != theirs[axis]:
            spread = torch.randn(theirs[axis], ours[axis], generator=generator) / ours[axis] ** 0.5
            projections[own] = nn.Parameter(spread)
        points.append(Point(own, other, axis, None, len(ours) > 2))
    return Guide(teacher.module, tuple(points), projections)


def run_watched(
    model: nn.Module, x: torch.Tensor, names: Iterable[str]
) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    """The outputs of a captured program, and the results of the named steps."""
    assert isinstance(model, GraphModule)
    watching = Run(model, names)
    outputs: torch.Tensor = watching.run(x)
    return outputs, {name: value.float() for name, value in watching.kept.items()}


def guide_loss(
    guide: Guide, taught: dict[str, torch.Tensor], learnt: dict[str, torch.Tensor], recipe: TrainSpec
) -> torch.Tensor:
    """The weighted distances between what teacher and student compute inside, averaged over the places.

    Features: the squared difference over the teacher's mean square, so that layers of any scale count alike. Attention:
    the squared distance between the maps, each sample's of norm one.

    Args:
        taught: By the teacher's steps; `learnt` by the student's; both (n, channels, ...).

    Raises:
        UsageError: Attention is asked for and no place has positions to attend to.

    Source: features after Romero et al. 2015 (arXiv 1412.6550), equation 3; attention is Zagoruyko & Komodakis 2017
    (arXiv 1612.03928), equation 2 with the mean of squares over channels.
    """
    total = next(iter(learnt.values())).new_zeros(())
    if recipe.feature_weight > 0:
        distances = [_feature_distance(guide, p, taught[p.teacher], learnt[p.student]) for p in guide.points]
        total = total + recipe.feature_weight * torch.stack(distances).mean()
    if recipe.attention_weight > 0:
        distances = [_attention_distance(taught[p.teacher], learnt[p.student], p.axis) for p in guide.points if p.space]
        if not distances:
            raise UsageError(
                "no layer of this model has positions to attend to",
                where="train.attention_weight",
                hint="use train.feature_weight",
            )
        total = total + recipe.attention_weight * torch.stack(distances).mean()
    return total


def _feature_distance(guide: Guide, point: Point, taught: torch.Tensor, learnt: torch.Tensor) -> torch.Tensor:
    if point.kept is not None:
        taught = taught.index_select(point.axis, point.kept.to(taught.device))
    if point.student in guide.projections:
        learnt = (learnt.movedim(point.axis, -1) @ guide.projections[point.student].T).movedim(-1, point.axis)
    return (learnt - taught).square().mean() / taught.square().mean().clamp(min=1e-6)


def _attention_distance(taught: torch.Tensor, learnt: torch.Tensor, axis: int) -> torch.Tensor:
    maps = [nn.functional.normalize(x.square().mean(axis).flatten(1), dim=1) for x in (taught, learnt)]
    return (maps[0] - maps[1]).square().sum(1).mean()


def _shape(captured: Captured, name: str) -> tuple[int, ...]:
    if name not in captured.graph.by_name:
        raise UsageError(f"there is no step {name!r}", where="guide", hint="edgeprune inspect lists them")
    return captured.graph.by_name[name].shape


def _has_space(captured: Captured, name: str, axis: int) -> bool:
    shape = _shape(captured, name)
    return any(size > 1 for position, size in enumerate(shape) if position not in (0, axis))
