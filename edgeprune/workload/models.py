"""The dense model, from the user's code or a model library, with its weights."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from torch import nn

from edgeprune.errors import MissingExtraError, UsageError, did_you_mean
from edgeprune.pruning.opening import check_finite
from edgeprune.spec import ModelSpec
from edgeprune.workload.entries import call_entry, load_entry
from edgeprune.workload.weights import load_weights, read_weights, refuse_code

_CODE = (".pt2", ".pt", ".pth", ".th", ".pkl", ".pickle", ".ckpt", ".bin")
_GRAPHS = (".onnx", ".tflite", ".xml")


def load_model(spec: ModelSpec) -> nn.Module:
    """The model in eval mode, float32 on the CPU, with the weights of `spec.weights` when given.

    Raises:
        UsageError: Nothing to load, code that fails, something that is no module, weights that do not fit.
        QualityError: Weights that are not finite.
        TrustError: A file that would run code when opened.
        MissingExtraError: The model library is not installed or broken.
    """
    if spec.entry is None:
        raise UsageError("no model given", where="--model", hint="write --model file.py:name")
    model = _build(spec, spec.entry)
    if not isinstance(model, nn.Module):
        raise UsageError(
            f"{spec.entry} gave {type(model).__name__}, not a torch.nn.Module", where="--model", hint="return the model"
        )
    where = "--model"
    if spec.weights is not None:
        where = str(spec.weights)
        load_weights(model, read_weights(spec.weights), where)
    check_finite(model, where)
    return model.float().cpu().eval()


def _build(spec: ModelSpec, entry: str) -> Any:
    suffix = Path(entry).suffix.lower()
    if suffix in _CODE:
        raise refuse_code(Path(entry))
    if suffix in _GRAPHS:
        raise UsageError(
            f"{entry} cannot be pruned, only profiled",
            where="--model",
            hint=f"edgeprune profile {entry}, or give the PyTorch model as file.py:name",
        )
    library, _, name = entry.partition(":")
    if library == "timm":
        return _from_timm(name, spec)
    if library == "torchvision":
        return _from_torchvision(name, spec)
    found = load_entry(entry, "--model")
    if isinstance(found, nn.Module):
        if spec.args:
            raise UsageError(f"{entry} is a ready model and takes no arguments", where="--model-arg")
        return found
    if not callable(found):
        raise UsageError(f"{entry} is {type(found).__name__}, not a function or a module class", where="--model")
    return call_entry(found, spec.args, "--model")


def _from_timm(name: str, spec: ModelSpec) -> Any:
    try:
        import timm
    except (ImportError, RuntimeError) as err:
        raise _no_library("timm", name, err) from None
    if name not in timm.list_models():
        raise UsageError(f"timm has no model {name!r}", where="--model", hint=did_you_mean(name, timm.list_models()))
    return call_entry(timm.create_model, {"model_name": name, "pretrained": spec.pretrained, **spec.args}, "--model")


def _from_torchvision(name: str, spec: ModelSpec) -> Any:
    try:
        from torchvision import models
    except (ImportError, RuntimeError) as err:  # RuntimeError: built for another torch
        raise _no_library("torchvision", name, err) from None
    if name not in models.list_models():
        known = models.list_models()
        raise UsageError(f"torchvision has no model {name!r}", where="--model", hint=did_you_mean(name, known))
    weights = "DEFAULT" if spec.pretrained else None
    builder = models.get_model_builder(name)
    arguments: dict[str, Any] = {} if weights is None else {"weights": weights}
    return call_entry(builder, {**arguments, **spec.args}, "--model")


def _no_library(library: str, name: str, err: Exception) -> MissingExtraError:
    if isinstance(err, ModuleNotFoundError):
        return MissingExtraError(
            f"{library}:{name} needs {library}, which is not installed", where="--model", hint=f"pip install {library}"
        )
    return MissingExtraError(
        f"{library} is installed but does not load: {err}",
        where="--model",
        hint=f"install the build that belongs to this torch: pip install --force-reinstall {library}",
    )
