"""Weights in files: safetensors, written whole or not at all."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import nn

from edgeprune.errors import NoRoomError, UsageError
from edgeprune.workload.weights import load_weights


def save_state(model: nn.Module, path: Path) -> None:
    """Write the weights under a temporary name, flush, then rename: readers see the old file or the new one.

    Raises:
        NoRoomError: The disk is full; what stood at `path` before is intact.
    """
    state = model.state_dict()
    tensors = {key: value.detach().cpu().clone(memory_format=torch.contiguous_format) for key, value in state.items()}
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with temporary.open("wb") as file:
            file.write(save(tensors))
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except OSError as err:
        if err.errno in (errno.ENOSPC, errno.EDQUOT):
            size_bytes = sum(value.numel() * value.element_size() for value in tensors.values())
            raise NoRoomError(
                f"no room for {size_bytes:,} B of weights", where=str(path), hint="free some space and resume the run"
            ) from None
        raise
    finally:
        temporary.unlink(missing_ok=True)


def load_state(model: nn.Module, path: Path) -> None:
    """Put the weights of a file that `save_state` wrote into a model of the same architecture.

    Raises:
        UsageError: Missing or damaged file, or weights of another architecture.
    """
    try:
        state = load(path.read_bytes())
    except FileNotFoundError:
        raise UsageError(f"no such file: {path}", where="checkpoint") from None
    except SafetensorError as err:
        raise UsageError(f"the checkpoint is damaged: {err}", where=str(path), hint="remove it and resume") from None
    load_weights(model, state, str(path))
