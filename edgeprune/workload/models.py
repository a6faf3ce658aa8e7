"""The dense model, from the user's code or a model library, with its weights."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import nn

from edgeprune.errors import MissingExtraError, TrustError, UsageError, did_you_mean
from edgeprune.pruning.opening import check_finite
from edgeprune.pruning.trace import CapturedModule, editable
from edgeprune.spec import ModelSpec
from edgeprune.workload.entries import call_entry, load_entry
from edgeprune.workload.weights import load_weights, read_weights, refuse_code

_CODE = (".pt", ".pth", ".th", ".pkl", ".pickle", ".ckpt", ".bin")
_EXPORT = "torch.export.export(model, (x,), dynamic_shapes=({0: torch.export.Dim('batch')},)), with two samples in x"
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
    if suffix == ".pt2":
        return _from_archive(Path(entry), spec)
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


def _from_archive(path: Path, spec: ModelSpec) -> CapturedModule:
    """An archive of torch.export as a module that trains. Opening it can run code, so it must be trusted."""
    if not spec.trust:
        raise TrustError(
            f"{path.name} can run code when it is opened",
            where=str(path),
            hint="add --trust-model if you trust where it comes from (trust = true under [model] in a job file)",
        )
    if spec.args:
        raise UsageError(f"{path.name} is a ready model and takes no arguments", where="--model-arg")
    if not path.is_file():
        raise UsageError(f"no such file: {path}", where="--model")
    try:
        program = torch.export.load(path)
    except Exception as err:  # a damaged file raises many unrelated types
        reason = next((line.strip() for line in str(err).splitlines() if line.strip()), type(err).__name__)
        raise UsageError(f"cannot read {path.name}: {reason}", where="--model", hint=_EXPORT) from err
    if program.dialect != "TRAINING":
        what = f"{path.name} holds a decomposed program ({program.dialect}), which does not train"
        raise UsageError(what, where="--model", hint=f"leave out run_decompositions: {_EXPORT}")
    inputs = [n.meta["val"] for n in program.graph.nodes if n.name in program.graph_signature.user_inputs]
    batches: list[Any] = [value.shape[0] for value in inputs if isinstance(value, torch.Tensor) and value.ndim]
    if not batches or isinstance(batches[0], int):  # a free size is a symbol
        size = f" of {batches[0]}" if batches else ""
        raise UsageError(f"{path.name} has a fixed batch size{size}", where="--model", hint=_EXPORT)
    return editable(program.module())


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
