"""Networks of torchvision and timm by name, with random weights in which no channel is neutral, and their inputs.

Both come from the environment, or from the folder that EDGEPRUNE_TORCHVISION names.
"""

from __future__ import annotations

import csv
import importlib
import inspect
import os
import sys
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from torch import nn
from torch.utils._pytree import tree_leaves, tree_map

from edgeprune.errors import MissingExtraError, UsageError

VARIABLE = "EDGEPRUNE_TORCHVISION"
LADDER = (64, 96, 128, 160, 192, 224, 256, 384, 448)  # input heights and widths, the smallest accepted one is taken
_SCHEMAS = ("nms", "qnms")  # operators that the Python side of torchvision registers meta kernels for
_libraries: list[torch.library.Library] = []  # their operators vanish with them
# Parts of a detector whose outputs are compared: what comes after them chooses and sorts boxes.
_DETECTOR_HEADS = (
    "rpn.head",
    "roi_heads.box_predictor",
    "roi_heads.mask_predictor",
    "roi_heads.keypoint_predictor",
    "head",
)
_FEW_BOXES = {
    "rcnn": {
        "rpn_pre_nms_top_n_test": 50,
        "rpn_post_nms_top_n_test": 20,
        "box_detections_per_img": 5,
        "box_score_thresh": 0.0,
    },
    "": {"topk_candidates": 50, "detections_per_img": 5, "score_thresh": 0.0},
}


@dataclass(frozen=True)
class Listed:
    """A line of a list of models.

    Attributes:
        library: `torchvision` or `timm`.
        input: Sizes such as `1x3x64x64`; empty: the smallest of `LADDER` that the model accepts.
        peer_exact: What the list says about the peer; None where it says nothing.
    """

    library: str
    name: str
    family: str = ""
    input: str = ""
    peer_exact: bool | None = None


@dataclass(frozen=True)
class PublicModel:
    """A network and what it takes.

    Attributes:
        inputs: The arguments of its forward.
        heads: Dotted paths of the parts whose outputs are compared; none: the outputs of the model.
    """

    model: nn.Module
    inputs: tuple[Any, ...]
    heads: tuple[str, ...] = ()

    def outputs(self, model: nn.Module) -> list[torch.Tensor]:
        """What is compared, from this model or a pruned one: floating-point tensors, in order."""
        dtype = next((p.dtype for p in model.parameters()), torch.float32)
        inputs = tree_map(lambda x: x.to(dtype) if _is_float(x) else x, self.inputs)
        if not self.heads:
            return _floats(model(*inputs))
        found: list[torch.Tensor] = []
        handles = [
            model.get_submodule(path).register_forward_hook(
                lambda _module, _inputs, result: found.extend(_floats(result))
            )
            for path in self.heads
        ]
        try:
            model(*inputs)
        finally:
            for handle in handles:
                handle.remove()
        return found


def _floats(result: Any) -> list[torch.Tensor]:
    return [leaf for leaf in tree_leaves(result) if _is_float(leaf)]


def _is_float(value: Any) -> bool:
    return isinstance(value, torch.Tensor) and value.is_floating_point()


def read_list(path: Path) -> list[Listed]:
    """The lines of a list: columns `library`, `model`, and optional `family`, `input`, `peer_exact`.

    Raises:
        UsageError: No such file, or a column is missing.
    """
    if not path.is_file():
        raise UsageError("no such list of models", where=str(path), hint="a CSV file with the columns library, model")
    with path.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    if not rows or not {"library", "model"} <= rows[0].keys():
        raise UsageError("no list of models", where=str(path), hint="it needs the columns library and model")
    return [_listed(row) for row in rows]


def _listed(row: Mapping[str, str | None]) -> Listed:
    exact = row.get("peer_exact") or ""
    return Listed(
        str(row["library"]),
        str(row["model"]),
        row.get("family") or "",
        row.get("input") or "",
        None if exact == "" else exact == "1",
    )


def public_model(listed: Listed, seed: int = 0) -> PublicModel:
    """The network in eval mode, randomised, with its example input.

    Raises:
        MissingExtraError: The library is not there.
        UsageError: It has no such network, or the network takes none of the inputs tried.
    """
    sizes = [int(size) for size in listed.input.split("x")] if listed.input else None
    detector = "detection" in listed.family or any(part in listed.name for part in ("rcnn", "retinanet", "fcos", "ssd"))
    options = _detector_options(listed.name, sizes) if detector and listed.library == "torchvision" else {}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about weights and names that will change
        model = randomised(_builder(listed, options), seed)
        generator = torch.Generator().manual_seed(seed)
        if options:
            image = torch.rand(*(sizes or [1, 3, 128, 128])[1:], generator=generator)
            heads = tuple(path for path in _DETECTOR_HEADS if _has(model, path))
            return PublicModel(model, ([image],), heads)
        tried = [sizes] if sizes else [[1, 3, side, side] for side in LADDER]
        for shape in tried:
            x = torch.randn(*shape, generator=generator)
            if sizes or _accepts(model, x):
                return PublicModel(model, (x,))
    raise UsageError(f"{listed.name} takes no square image of {LADDER}", where=listed.library, hint="name its input")


def _accepts(model: nn.Module, x: torch.Tensor) -> bool:
    try:
        with torch.no_grad():
            model(x)
    except Exception:  # whatever a network says to a size it cannot take
        return False
    return True


def _has(model: nn.Module, path: str) -> bool:
    try:
        return model.get_submodule(path) is not None
    except AttributeError:
        return False


def _builder(listed: Listed, options: Mapping[str, Any]) -> Callable[[], nn.Module]:
    models = torchvision_models()  # timm imports torchvision, too
    try:
        if listed.library == "torchvision":
            build = models.get_model_builder(listed.name)
            unset = {"weights": None, "weights_backbone": None} if "weights_backbone" in _parameters(build) else {}
            return lambda: build(**unset, **options)
        if listed.library == "timm":
            return lambda: _timm().create_model(listed.name, pretrained=False)
    except ValueError as err:
        raise UsageError(str(err), where=listed.library) from None
    raise UsageError(f"no library {listed.library!r}", where=listed.name, hint="torchvision or timm")


def _parameters(build: Callable[..., Any]) -> Sequence[str]:
    return list(inspect.signature(build).parameters)


def _detector_options(name: str, sizes: Sequence[int] | None) -> dict[str, Any]:
    options = dict(_FEW_BOXES["rcnn" if "rcnn" in name else ""])
    if sizes and "ssd" not in name:  # which have one size
        options |= {"min_size": sizes[2], "max_size": sizes[3]}
    return options


def _timm() -> ModuleType:
    try:
        return importlib.import_module("timm")
    except ImportError as err:
        raise _missing("timm", err) from None


def torchvision_models() -> Any:
    """The module `torchvision.models`, also where its compiled part does not fit this torch.

    Raises:
        MissingExtraError: There is no torchvision.
    """
    if (folder := os.environ.get(VARIABLE)) and folder not in sys.path:
        sys.path.append(folder)
    try:
        return importlib.import_module("torchvision.models")
    except ImportError as err:
        raise _missing("torchvision", err) from None
    except RuntimeError:  # the compiled operators are missing; only detectors need one of them
        for name in [name for name in sys.modules if name.split(".")[0] == "torchvision"]:
            del sys.modules[name]
        library = torch.library.Library("torchvision", "DEF")  # type: ignore[no-untyped-call]
        for name in _SCHEMAS:
            library.define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")  # type: ignore[no-untyped-call]
        library.impl("nms", nms, "CPU")  # type: ignore[no-untyped-call]
        _libraries.append(library)
        models = importlib.import_module("torchvision.models")
        importlib.import_module("torchvision.extension")._has_ops = lambda: True  # nms is there now
        return models


def _missing(library: str, err: Exception) -> MissingExtraError:
    return MissingExtraError(
        f"the networks come from {library}, which does not load: {err}",
        where="bench.public_models",
        hint=f"install {library}, or set {VARIABLE} to a folder that holds it",
    )


def nms(boxes: torch.Tensor, scores: torch.Tensor, iou_threshold: float) -> torch.Tensor:
    """Indices of the boxes (n, 4: x1, y1, x2, y2) that overlap no better one by more than the threshold, best first."""
    left = scores.argsort(descending=True, stable=True)
    area = (boxes[:, 2:] - boxes[:, :2]).clamp(min=0).prod(1)
    kept = []
    while len(left):
        best, left = left[0], left[1:]
        kept.append(best)
        corner = torch.maximum(boxes[best, :2], boxes[left, :2])
        overlap = (torch.minimum(boxes[best, 2:], boxes[left, 2:]) - corner).clamp(min=0).prod(1)
        left = left[overlap <= iou_threshold * (area[best] + area[left] - overlap)]
    return torch.stack(kept) if kept else torch.empty(0, dtype=torch.int64)


def randomised(build: Callable[[], nn.Module], seed: int = 0) -> nn.Module:
    """The network with weights and statistics that make no channel trivially neutral, in eval mode.

    Batch statistics are drawn, and so is every parameter that was filled with one number: weights and biases of norms,
    layer scales, zero-initialised tensors.
    """
    torch.manual_seed(seed)
    model = build().eval()
    with torch.no_grad():
        for name, buffer in model.named_buffers():
            if name.endswith("running_mean"):
                buffer.normal_(0, 0.3)
            elif name.endswith("running_var"):
                buffer.uniform_(0.5, 2)
        for parameter in model.parameters():
            if not parameter.is_floating_point() or not parameter.numel():
                continue
            value = parameter.flatten()[0].item()
            if bool((parameter == value).all()):
                _draw(parameter, value)
    return model


def _draw(parameter: torch.Tensor, value: float) -> None:
    if value == 0:
        parameter.normal_(0, 0.3 if parameter.ndim == 1 else 0.1)
    elif abs(value) < 0.1:  # a layer scale, whose branch would drown in the rounding of its trunk
        parameter.uniform_(0.1, 0.5)
    else:
        parameter.uniform_(0.5, 1.5).mul_(value)
