"""How a network is trained: the `[train]` section of a job. What each setting is for: docs/training.md.

How long (epochs, batch size), how fast (rate), weight decay and patience are in `[fit]`, which every job has.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from edgeprune.values import Value

Share = Annotated[float, Field(gt=0, lt=1)]


class TrainSpec(Value):
    """The recipe of fine-tuning; the defaults are what the benchmarks were made with."""

    optimizer: Literal["sgd", "adamw"] = "sgd"
    momentum: float = Field(0.9, ge=0, lt=1)  # of sgd, in Nesterov's form
    schedule: Literal["cosine", "linear", "step", "constant", "one-cycle"] = "cosine"  # of the learning rate
    warmup: float = Field(0.0, ge=0, lt=1)  # share of the steps in which the rate rises to its full height
    step_at: tuple[Share, ...] = (0.5, 0.75)  # shares of the steps after which `step` lowers the rate
    step_factor: float = Field(0.1, gt=0, lt=1)  # by which it does
    clip: Literal["norm", "value", "adaptive", "none"] = "norm"  # of gradients; the norm's limit is fit.clip_norm
    clip_value: float = Field(1.0, gt=0)  # largest entry of a gradient
    clip_factor: float = Field(0.01, gt=0)  # largest norm of a unit's gradient, in norms of its weights
    label_smoothing: float = Field(0.0, ge=0, lt=1)
    ema: float = Field(0.0, ge=0, lt=1)  # decay of the average of weights, which is kept where it is better; 0: none
    sam: float = Field(0.0, ge=0)  # radius in which sharpness is looked for; 0: none
    temperature: float = Field(4.0, gt=0)  # scores are divided by it before student and teacher are compared
    teacher_share: float = Field(0.5, ge=0, le=1)  # of the loss; the rest is the task's own
    feature_weight: float = Field(0.0, ge=0)  # of the distance to the features of the dense model's kept channels
    attention_weight: float = Field(0.0, ge=0)  # of the distance to where the dense model looks
    precision: Literal["auto", "fp32", "bf16", "fp16"] = "auto"  # auto: bf16 on a GPU that has it, else fp32
    compile: bool = False  # by torch.compile; a model that it cannot compile is an error
    tensorboard: bool = False  # curves in the run folder; needs the extra tensorboard
    checkpoint_s: float = Field(60.0, ge=0)  # seconds between two writes of the training's state; 0: after every step
    checkpoint_steps: int | None = Field(None, ge=1)  # steps between two writes, where that is sooner
