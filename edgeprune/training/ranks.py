"""The processes of one training under torchrun: which one this is, and what they tell each other.

`torchrun --nproc-per-node 2 -m edgeprune fit …` starts the same command twice. The first process leads: it carries out
the flow, alone writes the run folder, and tells the others to join in whenever a model is trained. A single process is
ranks of one, for which nothing here does anything.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta

import torch
import torch.distributed as dist
from safetensors.torch import load, save

from edgeprune.errors import DeviceError

_PATIENCE = timedelta(days=30)  # followers wait while the leader exports, measures, solves


@dataclass(frozen=True)
class Ranks:
    """This process (0 leads) among `size` ones."""

    number: int = 0
    size: int = 1

    @property
    def leads(self) -> bool:
        """Whether this process carries out the flow."""
        return self.number == 0

    def rows(self, count: int) -> slice:
        """This process's part of a batch of that many samples; parts differ by one sample at most."""
        start, end = (count * part // self.size for part in (self.number, self.number + 1))
        return slice(start, end)

    def average(self, tensors: Sequence[torch.Tensor], weight: float) -> None:
        """Make the tensors, in place, the weighted sums of those of all processes, in one exchange.

        Args:
            weight: Of this process; those of all sum to one.

        Raises:
            DeviceError: Another process has ended.
        """
        if self.size == 1 or not tensors:
            return
        together = torch.cat([tensor.detach().flatten().to(tensors[0]) for tensor in tensors]) * weight
        with _told_apart():
            dist.all_reduce(together)
        for tensor, value in zip(tensors, torch.split(together, [t.numel() for t in tensors]), strict=True):
            tensor.detach().copy_(value.reshape(tensor.shape))

    def tell(self, text: Callable[[], str]) -> str:
        """The leader's text, in all processes; only the leader computes it.

        Raises:
            DeviceError: Another process has ended.
        """
        return text() if self.size == 1 else self._tell(text().encode() if self.leads else b"").decode()

    def share(self, tensors: Callable[[], Mapping[str, torch.Tensor]]) -> dict[str, torch.Tensor]:
        """The leader's tensors, on the CPU, in all processes; only the leader computes them.

        Raises:
            DeviceError: Another process has ended.
        """
        data = b""
        if self.leads:
            plain = {name: value.detach().cpu().contiguous().clone() for name, value in tensors().items()}
            data = save(plain)
        told: dict[str, torch.Tensor] = load(self._tell(data))
        return told

    def _tell(self, data: bytes) -> bytes:
        if self.size == 1:
            return data
        length = torch.tensor([len(data)])
        with _told_apart():
            dist.broadcast(length, 0)
            content = torch.zeros(int(length), dtype=torch.uint8)
            if self.leads:
                content = torch.frombuffer(bytearray(data), dtype=torch.uint8)
            dist.broadcast(content, 0)
        return content.numpy().tobytes()


ALONE = Ranks()


def launched() -> Ranks:
    """Who this process is by what torchrun said when it started it; alone without torchrun."""
    if "TORCHELASTIC_RUN_ID" not in os.environ:
        return ALONE
    return Ranks(int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"]))


@contextlib.contextmanager
def joined() -> Iterator[Ranks]:
    """This process among those that torchrun started; within, they can tell each other things."""
    ranks = launched()
    if ranks.size == 1 or dist.is_initialized():
        yield ranks
        return
    if torch.cuda.is_available():
        torch.cuda.set_device(int(os.environ["LOCAL_RANK"]) % torch.cuda.device_count())
    dist.init_process_group("cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo", timeout=_PATIENCE)
    try:
        yield ranks
    finally:
        dist.destroy_process_group()


@contextlib.contextmanager
def _told_apart() -> Iterator[None]:
    """A broken exchange as what it is: another process's end, whose own error says why."""
    try:
        yield
    except RuntimeError as err:
        raise DeviceError(
            "another process of this training has ended",
            where="torchrun",
            hint="its own error says why; fit --resume goes on, also with other numbers of processes",
        ) from err
