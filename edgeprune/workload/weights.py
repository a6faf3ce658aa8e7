"""Weights from safetensors or tensor-only checkpoints into a model: all it has, or an error naming the first few."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import nn

from edgeprune.errors import TrustError, UsageError

_CHECKPOINTS = (".pt", ".pth", ".th", ".bin", ".ckpt", ".tar")
_CODE = (".pt2", ".pkl", ".pickle", ".joblib", ".dill")
_WRAPPERS = ("state_dict", "model_state_dict", "model")
_PREFIXES = ("module.", "_orig_mod.")  # left by DataParallel and torch.compile
_SHOWN = 4


def read_weights(path: Path) -> dict[str, torch.Tensor]:
    """The tensors in a file by their names in the model.

    Args:
        path: `.safetensors`, or a checkpoint that torch reads with `weights_only=True`.

    Raises:
        UsageError: Missing or unreadable file, unknown ending, or no tensors in it.
        TrustError: The file could run code when it is opened.
    """
    suffix = path.suffix.lower()
    if suffix in _CODE:
        raise refuse_code(path)
    if not path.is_file():
        raise UsageError(f"no such file: {path}", where="--weights")
    if suffix == ".safetensors":
        try:
            return _tensors(load_file(path), path)
        except (SafetensorError, OSError) as err:
            raise UsageError(f"cannot read {path.name}: {err}", where="--weights") from None
    if suffix not in _CHECKPOINTS:
        raise UsageError(
            f"unknown kind of weights {path.name!r}",
            where="--weights",
            hint=f"known endings: .safetensors, {', '.join(_CHECKPOINTS)}",
        )
    return _tensors(_read_checkpoint(path), path)


def refuse_code(path: Path) -> TrustError:
    """The error for a file that is code rather than numbers."""
    return TrustError(
        f"{path.name} can run code when it is opened",
        where=str(path),
        hint="save numbers only: safetensors.torch.save_file(model.state_dict(), 'w.safetensors')",
    )


def _read_checkpoint(path: Path) -> Any:
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as err:  # a damaged file raises many unrelated types
        if any(sign in str(err) for sign in ("Unsupported global", "Unsupported class", "Trying to ", "TorchScript")):
            raise refuse_code(path) from None
        raise UsageError(
            f"cannot read {path.name}: no checkpoint of tensors, or a damaged one ({type(err).__name__})",
            where="--weights",
            hint="save model.state_dict() with torch.save or safetensors",
        ) from None


def _tensors(content: Any, path: Path) -> dict[str, torch.Tensor]:
    for key in _WRAPPERS:
        if isinstance(content, Mapping) and isinstance(content.get(key), Mapping):
            content = content[key]
    numbers = isinstance(content, Mapping) and all(isinstance(value, torch.Tensor) for value in content.values())
    if not numbers or not content:
        raise UsageError(
            f"{path.name} holds no state dict",
            where="--weights",
            hint="save model.state_dict(), alone or under the key 'state_dict'",
        )
    state = {str(key): value for key, value in content.items()}
    for prefix in _PREFIXES:
        if all(key.startswith(prefix) for key in state):
            state = {key.removeprefix(prefix): value for key, value in state.items()}
    return state


def load_weights(model: nn.Module, state: Mapping[str, torch.Tensor], where: str) -> None:
    """Put `state` into `model`, every name and shape matching. Counters of BatchNorm may be absent.

    Raises:
        UsageError: Names missing from the file, names unknown to the model, or other shapes; the first few by name.
    """
    own = model.state_dict()
    missing = [key for key in own if key not in state and not key.endswith("num_batches_tracked")]
    unknown = [key for key in state if key not in own]
    shapes = [
        f"{key} ({_sizes(state[key])} in the file, {_sizes(own[key])} in the model)"
        for key in own
        if key in state and state[key].shape != own[key].shape
    ]
    found = [("missing in the file", missing), ("unknown to the model", unknown), ("of another shape", shapes)]
    if any(names for _, names in found):
        parts = [f"{len(names)} {what}: {_first(names)}" for what, names in found if names]
        raise UsageError(
            f"the weights do not fit the model: {'; '.join(parts)}",
            where=where,
            hint="check --model-arg and that the file belongs to this architecture",
        )
    model.load_state_dict({**own, **state})


def _first(names: Sequence[str]) -> str:
    return ", ".join(names[:_SHOWN]) + (", …" if len(names) > _SHOWN else "")


def _sizes(value: torch.Tensor) -> str:
    return "x".join(str(size) for size in value.shape) or "a number"
