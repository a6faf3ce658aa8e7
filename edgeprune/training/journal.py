"""Curves of a training for TensorBoard, where the job asks for them and the extra is installed."""

from __future__ import annotations

from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Protocol

from edgeprune.errors import missing_extra


class Journal(Protocol):
    """Where the numbers of a training are written to."""

    def add(self, step: int, values: Mapping[str, float]) -> None:
        """Points of curves, by the curves' names."""
        ...

    def close(self) -> None:
        """Everything is written."""
        ...


class _Nothing:
    def add(self, step: int, values: Mapping[str, float]) -> None:
        pass

    def close(self) -> None:
        pass


class _TensorBoard:
    def __init__(self, folder: Path, first_step: int) -> None:
        from torch.utils.tensorboard import SummaryWriter

        self._writer = SummaryWriter(str(folder), purge_step=first_step)

    def add(self, step: int, values: Mapping[str, float]) -> None:
        for name, value in values.items():
            self._writer.add_scalar(name, value, step)

    def close(self) -> None:
        self._writer.close()


def check_journal(wanted: bool) -> None:
    """Refuse curves that cannot be written.

    Raises:
        MissingExtraError: TensorBoard is not installed.
    """
    if wanted and find_spec("tensorboard") is None:
        raise missing_extra("tensorboard", "train.tensorboard")


def journal(folder: Path | None, first_step: int = 0) -> Journal:
    """Curves below a folder, from a step on (what an interrupted training wrote beyond it is hidden); None: none."""
    return _Nothing() if folder is None else _TensorBoard(folder, first_step)
