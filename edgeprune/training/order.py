"""Which samples each step sees."""

from __future__ import annotations

from typing import Self

import torch


class Order:
    """Batches of indices without end, shuffled anew each time round; what does not fill a batch is left for later.

    Attributes:
        shuffled: The samples of this time round.
        at: How many of them were handed out.
    """

    def __init__(self, count: int, batch_size: int, generator: torch.Generator) -> None:
        self.count = count
        self.size = min(batch_size, count)
        self.generator = generator
        self.shuffled = torch.empty(0, dtype=torch.long)
        self.at = 0

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> torch.Tensor:
        if self.at >= len(self.shuffled):
            shuffled = torch.randperm(self.count, generator=self.generator)
            self.shuffled, self.at = shuffled[: self.count // self.size * self.size], 0
        self.at += self.size
        return self.shuffled[self.at - self.size : self.at]
