"""Tensors in files: safetensors, written whole or not at all."""

from __future__ import annotations

import errno
import os
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load, save
from torch import nn

from edgeprune.errors import NoRoomError, UsageError
from edgeprune.workload.weights import load_weights


def save_state(model: nn.Module, path: Path) -> None:
    """Write the weights; readers see the old file or the new one.

    Raises:
        NoRoomError: The disk is full; what stood at `path` before is intact.
    """
    write_tensors(model.state_dict(), path)


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
        raise _damaged(path, err) from None
    load_weights(model, state, str(path))


def write_tensors(tensors: Mapping[str, torch.Tensor], path: Path, text: Mapping[str, str] | None = None) -> None:
    """Write tensors, and text beside them, under a temporary name, flush, then rename, then flush the folder.

    Raises:
        NoRoomError: The disk is full; what stood at `path` before is intact.
    """
    plain = {key: value.detach().cpu().clone(memory_format=torch.contiguous_format) for key, value in tensors.items()}
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with temporary.open("wb") as file:
            file.write(save(plain, metadata=None if text is None else dict(text)))
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
        _sync_folder(path.parent)
    except OSError as err:
        if err.errno in (errno.ENOSPC, errno.EDQUOT):
            size_bytes = sum(value.numel() * value.element_size() for value in plain.values())
            raise NoRoomError(
                f"no room for {size_bytes:,} B of weights", where=str(path), hint="free some space and resume the run"
            ) from None
        raise
    finally:
        temporary.unlink(missing_ok=True)


def read_tensors(path: Path) -> tuple[dict[str, torch.Tensor], dict[str, str]]:
    """The tensors, on the CPU, and the text that `write_tensors` wrote.

    Raises:
        UsageError: The file is damaged.
    """
    try:
        with safe_open(path, "pt") as file:
            return {key: file.get_tensor(key) for key in file.keys()}, file.metadata() or {}
    except SafetensorError as err:
        raise _damaged(path, err) from None


def _damaged(path: Path, err: SafetensorError) -> UsageError:
    return UsageError(f"the checkpoint is damaged: {err}", where=str(path), hint="remove it and resume")


def _sync_folder(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
