"""How a network is trained: the `[train]` section of a job. What each setting is for: docs/training.md.

How long (epochs, batch size), how fast (rate), weight decay and patience are in `[fit]`, which every job has.
"""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from edgeprune.values import Value


class TrainSpec(Value):
    """The recipe of fine-tuning; the defaults are what the benchmarks were made with."""

    optimizer: Literal["sgd"] = "sgd"
    momentum: float = Field(0.9, ge=0, lt=1)  # of sgd, in Nesterov's form
    schedule: Literal["cosine"] = "cosine"  # of the learning rate
    clip: Literal["norm"] = "norm"  # how gradients are clipped; the norm's limit is fit.clip_norm
    temperature: float = Field(4.0, gt=0)  # scores are divided by it before student and teacher are compared
    teacher_share: float = Field(0.5, ge=0, le=1)  # of the loss; the rest is the task's own
    checkpoint_s: float = Field(60.0, ge=0)  # seconds between two writes of the training's state; 0: after every step
    checkpoint_steps: int | None = Field(None, ge=1)  # steps between two writes, where that is sooner
