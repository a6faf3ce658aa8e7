"""How many bits a training computes with, and whether it is compiled."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext

import torch
from torch import nn

from edgeprune.errors import UnsupportedError, UsageError
from edgeprune.recipe import TrainSpec

Forward = Callable[[torch.Tensor], torch.Tensor]


def half_type(recipe: TrainSpec, device: torch.device) -> torch.dtype | None:
    """The type of 16 bits that layers compute in where it is safe; None: all in float32.

    `auto` is bfloat16 on a GPU that has it, and float32 on the CPU, where bfloat16 training fell to chance in a trial.

    Raises:
        UsageError: The device cannot train in what the recipe asks for.
    """
    has_bfloat16 = device.type == "cpu" or torch.cuda.is_bf16_supported()
    if recipe.precision == "auto":
        return torch.bfloat16 if device.type == "cuda" and has_bfloat16 else None
    if recipe.precision == "bf16" and not has_bfloat16:
        raise UsageError("this GPU has no bfloat16", where="train.precision", hint="use fp16 or fp32")
    if recipe.precision == "fp16" and device.type != "cuda":
        raise UsageError("fp16 trains on CUDA only", where="train.precision", hint="use fp32, or bf16 at your own risk")
    return {"fp32": None, "bf16": torch.bfloat16, "fp16": torch.float16}[recipe.precision]


def autocast(device: torch.device, half: torch.dtype | None) -> AbstractContextManager[object]:
    """Within, layers compute in 16 bits where that is safe."""
    return nullcontext() if half is None else torch.autocast(device.type, dtype=half)


def loss_scaler(device: torch.device, half: torch.dtype | None) -> torch.amp.GradScaler | None:
    """What keeps gradients of float16 from vanishing; bfloat16 has the range of float32 and needs none.

    Source: Micikevicius et al. 2018 (arXiv 1710.03740), section 3.2.
    """
    return torch.amp.GradScaler(device.type) if half == torch.float16 else None


def forward_of(model: nn.Module, recipe: TrainSpec) -> Forward:
    """The model as it is called in training: compiled, as one graph, where the recipe asks for it."""
    if not recipe.compile:
        return model
    compiled = torch.compile(model, fullgraph=True)

    def forward(x: torch.Tensor) -> torch.Tensor:
        try:
            outputs: torch.Tensor = compiled(x)
            return outputs
        except torch._dynamo.exc.TorchDynamoException as err:
            reason = next((line.strip() for line in str(err).splitlines() if line.strip()), type(err).__name__)
            raise UnsupportedError(
                f"torch cannot compile this model: {reason}", where="train.compile", hint="train.compile = false"
            ) from err

    return forward
