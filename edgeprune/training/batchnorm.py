"""BatchNorm statistics measured anew, as pruning changes what flows through the layers.

Works on ordinary modules and on captured programs, whose BatchNorms are operators with buffers.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn
from torch.fx import GraphModule, Node
from torch.nn.modules.batchnorm import _BatchNorm

_BATCH_NORM = torch.ops.aten.batch_norm.default  # input, weight, bias, mean, var, training, momentum, eps, cudnn
_TRAINING, _MOMENTUM = 5, 6


def batchnorm_buffers(model: nn.Module) -> tuple[tuple[str, str], ...]:
    """Names of (running mean, running variance) of every BatchNorm that keeps them, in order of the forward pass
    for captured programs and of registration for modules."""
    if isinstance(model, GraphModule):
        pairs = ((node.args[3], node.args[4]) for node in _operators(model))
        return tuple((str(m.target), str(v.target)) for m, v in pairs if isinstance(m, Node) and isinstance(v, Node))
    norms = [(name, m) for name, m in model.named_modules() if isinstance(m, _BatchNorm) and m.running_mean is not None]
    return tuple((f"{name}.running_mean".lstrip("."), f"{name}.running_var".lstrip(".")) for name, _ in norms)


@torch.no_grad()
def re_estimate_batchnorm(model: nn.Module, batches: Iterator[torch.Tensor]) -> int:
    """Replace every BatchNorm's running statistics by those over `batches`; dropout stays off, weights untouched.

    The mean is the average of the batch means. The variance is the average of the batch variances plus the variance
    of the batch means: for equal batches of one layer that is the variance over all samples. The model is left in
    eval mode. Without any BatchNorm nothing is run.

    Args:
        batches: Inputs (n, ...) with n >= 2, on the model's device.

    Returns:
        How many batches were used; 0 when there is no BatchNorm.
    """
    names = batchnorm_buffers(model)
    if not names:
        model.eval()
        return 0
    buffers = dict(model.named_buffers())
    means = [buffers[mean] for mean, _ in names]
    variances = [buffers[variance] for _, variance in names]
    sums = [[torch.zeros_like(b, dtype=torch.float64) for b in means] for _ in range(3)]  # mean, mean squared, variance
    count = 0
    with _batch_statistics(model):
        for batch in batches:
            model(batch)
            for i, (mean, variance) in enumerate(zip(means, variances)):
                sums[0][i] += mean
                sums[1][i] += mean.double() ** 2
                sums[2][i] += variance
            count += 1
    for i, (mean, variance) in enumerate(zip(means, variances)):
        average = sums[0][i] / count
        mean.copy_(average)
        variance.copy_(sums[2][i] / count + (sums[1][i] / count - average**2).clamp(min=0))
    return count


@contextmanager
def _batch_statistics(model: nn.Module) -> Iterator[None]:
    """Within, BatchNorms alone are in train mode and leave each batch's own statistics in their buffers."""
    model.eval()
    norms = [m for m in model.modules() if isinstance(m, _BatchNorm) and m.running_mean is not None]
    operators = _operators(model) if isinstance(model, GraphModule) else []
    before = [norm.momentum for norm in norms]
    arguments = [node.args for node in operators]
    try:
        for norm in norms:
            norm.train()
            norm.momentum = 1.0
        for node in operators:
            node.update_arg(_TRAINING, True)
            node.update_arg(_MOMENTUM, 1.0)
        if isinstance(model, GraphModule):
            model.recompile()
        yield
    finally:
        for norm, momentum in zip(norms, before):
            norm.momentum = momentum
        for node, args in zip(operators, arguments):
            node.args = args
        if isinstance(model, GraphModule):
            model.recompile()
        model.eval()


def _operators(model: GraphModule) -> list[Node]:
    """BatchNorm operators that keep running statistics."""
    nodes = (n for n in model.graph.nodes if n.op == "call_function" and n.target is _BATCH_NORM)
    return [n for n in nodes if n.args[3] is not None]
