"""The user's job: flags and `edgeprune.toml`, validated once, every default explicit.

The same keys are accepted in the file and on the command line; flags override the file. `resolved_toml` of a spec
repeats the run.
"""

from __future__ import annotations

import json
import re
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, ValidationError

from edgeprune.augmentations import Augmentation
from edgeprune.cost import Budget, Percentile
from edgeprune.errors import UsageError, did_you_mean
from edgeprune.recipe import TrainSpec
from edgeprune.units import Drop, parse_count, parse_drop, parse_energy, parse_size, parse_time
from edgeprune.values import Value

FILE_NAME = "edgeprune.toml"
# The demo's network is heavy for a desk machine: a schedule that ends within minutes. Keys that the user sets win.
DEMO_FIT: dict[str, Any] = {
    "epochs": 1,
    "batch_size": 32,
    "race_steps": 16,
    "curves_limit_s": 8.0,
    "importance_samples": 128,
    "calibration_samples": 64,
}


class ModelSpec(Value):
    """Where the dense model comes from: `file.py:name`, `timm:NAME`, `torchvision:NAME` or an archive `net.pt2`."""

    entry: str | None = None
    weights: Path | None = None
    args: dict[str, bool | int | float | str] = {}
    pretrained: bool = False
    trust: bool = False  # open an archive of torch.export, which can run code


class DataSpec(Value):
    """Where the samples come from: `images:DIR`, `npz:FILE`, `idx:DIR` or `file.py:name`."""

    source: str | None = None
    size: tuple[int, int] | None = None  # height, width that images are scaled to
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None
    flip: bool = False  # augmentation: horizontal flip
    crop: int = Field(0, ge=0)  # augmentation: random shift by up to this many pixels
    augment: tuple[Augmentation, ...] = ()  # more of it, such as [{name = "cutout", size = 8}]


NO_DEVICE = "none"  # instead of a device's address


class TargetSpec(Value):
    """What the model must run on."""

    name: str = "host"
    runtime: str | None = None  # None: the target's default
    threads: int | None = Field(None, ge=1)  # None: the target's default
    device: str | None = None  # such as ssh://pi@board; "none"; None: emulated where that is set up
    python: str | None = None  # on the linked device; None: python3


class BudgetSpec(Value):
    """Limits as the user wrote them, units included."""

    latency: str | None = None
    at: Percentile = "p90"
    ram: str | None = None
    size: str | None = None
    macs: str | None = None  # multiply-accumulates of one inference, as designed
    energy: str | None = None  # of one inference
    max_drop: str | None = None
    require: Literal["measured", "emulated"] | None = None  # what the verdict must rest on at least; None: anything

    @property
    def limits_cost(self) -> bool:
        """Whether anything but the metric's drop is limited."""
        return any(limit is not None for limit in (self.latency, self.ram, self.size, self.macs, self.energy))

    def parsed(self) -> Budget:
        """The budget in SI base units.

        Raises:
            UsageError: A value without a clear unit.
        """
        return Budget(
            latency_s=parse_time(self.latency, "latency") if self.latency else None,
            at=self.at,
            ram_bytes=parse_size(self.ram, "ram") if self.ram else None,
            size_bytes=parse_size(self.size, "size") if self.size else None,
            macs=parse_count(self.macs, "macs") if self.macs else None,
            energy_j=parse_energy(self.energy, "energy") if self.energy else None,
            max_drop=parse_drop(self.max_drop, "max-drop") if self.max_drop else None,
        )


class LayerBound(Value):
    """How many channels of a layer may stay."""

    min: int | None = Field(None, ge=1)
    max: int | None = Field(None, ge=1)
    keep: float = Field(0.0, ge=0, le=1)  # at least this share of the channels stays
    frozen: bool = False  # all of them stay


class FitSpec(Value):
    """How the fit is carried out."""

    seed: int = Field(0, ge=0)
    rounds: int = Field(3, ge=1)  # plans that are trained at most
    rehearsals: int = Field(4, ge=1)  # plans per round whose untrained files are profiled at most
    schedule: Literal["one-shot", "geometric", "agp"] = "geometric"  # how the budget is approached
    stages: int = Field(3, ge=1)  # of a schedule, the search for the budget included
    regrowth: bool = True  # a stage may take channels back that an earlier one removed
    epochs: int = Field(4, ge=0)
    batch_size: int = Field(64, ge=1)
    learning_rate: float = Field(0.01, gt=0)
    weight_decay: float = Field(1e-4, ge=0)
    clip_norm: float = Field(5.0, gt=0)
    patience: int = Field(3, ge=1)  # epochs without a better validation metric before stopping
    distill: bool = True
    criterion: str = "logit_taylor"  # a built-in one (docs/criteria.md), or file.py:name
    importance_samples: int = Field(256, ge=8)
    curves: bool = True  # measure loss curves per group as one of the raced allocations
    curves_limit_s: float = Field(60.0, gt=0)
    race_steps: int = Field(40, ge=0)  # fine-tuning steps each raced plan gets; 0: no race
    solver_limit_s: float = Field(20.0, gt=0)
    solver_gap: float = Field(1e-3, ge=0)
    formats: tuple[str, ...] = ()  # empty: every installed backend that needs no asking (all but c)
    step: int | None = Field(None, ge=1)  # channel step; None: the target's
    blocks: bool = False  # whole blocks may go where a skip path keeps the model alive
    min_keep: float = Field(0.1, ge=0, le=1)  # smallest share of a group's channels that may stay
    layers: dict[str, LayerBound] = {}  # by pattern of layer or group names, such as "layer3.*"
    freeze: tuple[str, ...] = ()  # patterns of layers that stay whole
    calibration_samples: int = Field(256, ge=8)
    device: Literal["auto", "cpu", "cuda"] = "auto"  # where training runs


QuantizeStep = Literal["equalise", "ranges", "correct", "train", "mix"]


class QuantizeSpec(Value):
    """What is done so that an int8 file is as good as its float model; the first steps that suffice are taken."""

    max_drop: str = "0.5pp"  # of the file against its float model, on validation
    steps: tuple[QuantizeStep, ...] = ("equalise", "ranges", "correct", "train", "mix")
    epochs: int = Field(2, ge=0)  # of training on the int8 grid

    def limit(self) -> Drop:
        """The largest drop.

        Raises:
            UsageError: It has no clear unit.
        """
        return parse_drop(self.max_drop, "quantize.max_drop")


class Spec(Value):
    """One job."""

    model: ModelSpec = ModelSpec()
    data: DataSpec = DataSpec()
    task: str = "classify"
    target: TargetSpec = TargetSpec()
    budget: BudgetSpec = BudgetSpec()
    fit: FitSpec = FitSpec()
    quantize: QuantizeSpec = QuantizeSpec()
    train: TrainSpec = TrainSpec()
    out: Path = Path("runs")

    @property
    def is_demo(self) -> bool:
        return self.model.entry is None


def load_spec(path: Path | None, overrides: Mapping[str, Any], *, needs_data: bool = True) -> Spec:
    """The job in `path` (None: `edgeprune.toml` in the current folder when there is one) with flags on top.

    File names in a job file are relative to that file; those of flags to the current folder.

    Args:
        overrides: Dotted keys to values, such as `{"budget.latency": "20ms"}`; None values are flags not given.
        needs_data: A model without data is an error.

    Raises:
        UsageError: Missing or unreadable file, unknown key (with the nearest known one), value out of range,
            a model without data or data without a model.
    """
    tree: dict[str, Any] = {}
    if path is not None or Path(FILE_NAME).is_file():
        file = path or Path(FILE_NAME)
        tree = _read_toml(file)
        _anchor(tree, file.parent)
    for key, value in overrides.items():
        if value is not None and value != () and value != {}:
            _put(tree, key, value)
    given = bool(tree)
    if "entry" not in tree.get("model", {}) and isinstance(tree.get("fit", {}), dict):
        tree["fit"] = {**DEMO_FIT, **tree.get("fit", {})}
    spec = _validated(tree, str(path or FILE_NAME) if given else "command line")
    if needs_data and spec.model.entry is not None and spec.data.source is None:
        raise UsageError(
            "a model without data: nothing to fine-tune or calibrate with",
            where="--model",
            hint="add --data npz:FILE, images:DIR, idx:DIR or file.py:name",
        )
    if spec.model.entry is None and spec.data.source is not None:
        raise UsageError("data without a model", where="--data", hint="add --model file.py:name")
    if spec.model.entry is None and spec.model.weights is not None:
        raise UsageError("weights without a model", where="--weights", hint="add --model file.py:name")
    spec.budget.parsed()
    spec.quantize.limit()
    return spec


def changed(spec: Spec, overrides: Mapping[str, Any]) -> Spec:
    """The job with other values at dotted keys; None and nothing are flags not given.

    Raises:
        UsageError: Unknown key, or a value out of range.
    """
    tree = spec.model_dump(mode="json", exclude_none=True)
    for key, value in overrides.items():
        if value not in (None, {}):
            _put(tree, key, value)
    found = _validated(tree, "command line")
    found.quantize.limit()
    return found


def parse_setting(text: str) -> tuple[str, Any]:
    """The dotted key and the typed value of `fit.epochs=2` or `budget.latency=20ms`.

    A value that TOML reads (number, true, list, quoted text) has that type; anything else is text.

    Raises:
        UsageError: No `=`, or no key before it.
    """
    key, equals, value = text.partition("=")
    if not equals or not key.strip():
        raise UsageError(f"cannot read {text!r}", where="--set", hint="write it like fit.epochs=2")
    try:
        return key.strip(), tomllib.loads(f"value = {value}")["value"]
    except tomllib.TOMLDecodeError:
        return key.strip(), value.strip()


def resolved_toml(spec: Spec) -> str:
    """The job as TOML, every default explicit; `load_spec` of it gives the same spec from anywhere."""
    tree = spec.model_dump(mode="json", exclude_none=True)
    _anchor(tree, Path.cwd())
    tables = [(name, value) for name, value in tree.items() if isinstance(value, dict)]
    lines = [f"{key} = {_toml(value)}" for key, value in tree.items() if not isinstance(value, dict)]
    for name, table in tables:
        lines += ["", f"[{name}]", *(f"{key} = {_toml(value)}" for key, value in table.items())]
    return "\n".join(lines) + "\n"


def anchored(spec: Spec) -> Spec:
    """The same job for processes that start in another folder: every file name is absolute."""
    tree = spec.model_dump(mode="json", exclude_none=True)
    _anchor(tree, Path.cwd())
    tree["out"] = str(Path.cwd() / spec.out)
    return Spec.model_validate(tree)


def _toml(value: Any) -> str:
    if isinstance(value, dict):
        return "{" + ", ".join(f"{_toml(key)} = {_toml(item)}" for key, item in value.items()) + "}"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(map(_toml, value)) + "]"
    if isinstance(value, str):
        return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
    return str(value).lower() if isinstance(value, bool) else repr(value)


def _put(tree: dict[str, Any], key: str, value: Any) -> None:
    *sections, leaf = key.split(".")
    table = tree
    for section in sections:
        inner = table.setdefault(section, {})
        if not isinstance(inner, dict):
            raise UsageError(f"{section} is not a section: {inner!r}", where=key)
        table = inner
    table[leaf] = value


def _read_toml(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UsageError(f"no such file: {path}", where="--config") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as err:
        raise UsageError(f"not valid TOML: {err}", where=str(path)) from None


def _validated(tree: dict[str, Any], where: str) -> Spec:
    try:
        return Spec.model_validate(tree)
    except ValidationError as err:
        first = err.errors()[0]
        keys = [str(part) for part in first["loc"]]
        dotted = ".".join(keys)
        if first["type"] == "extra_forbidden":
            known = _keys_beside(keys)
            elsewhere = [name for name, section in _sections().items() if keys[-1] in section.model_fields]
            hint = f"{keys[-1]} is in [{elsewhere[0]}]" if elsewhere else did_you_mean(keys[-1], known)
            raise UsageError(f"unknown key {dotted!r}", where=where, hint=hint) from None
        message = f"{dotted}: {first['msg']}, got {first['input']!r}"
        raise UsageError(message, where=where) from None


def _sections() -> dict[str, type[Value]]:
    kinds = {name: field.annotation for name, field in Spec.model_fields.items()}
    return {name: kind for name, kind in kinds.items() if isinstance(kind, type) and issubclass(kind, Value)}


def _keys_beside(keys: list[str]) -> tuple[str, ...]:
    """The keys that are allowed where the last of `keys` stands."""
    model: type[Value] = Spec
    for key in keys[:-1]:
        if model is FitSpec and key == "layers":
            return tuple(LayerBound.model_fields)
        annotation = model.model_fields[key].annotation
        if not (isinstance(annotation, type) and issubclass(annotation, Value)):
            return ()
        model = annotation
    return tuple(model.model_fields)


def _anchor(tree: dict[str, Any], base: Path) -> None:
    """Make the file names in a job's tree relative to `base`."""
    if base == Path():
        return
    for section, key in (("model", "entry"), ("model", "weights"), ("data", "source")):
        table = tree.get(section)
        if isinstance(table, dict) and isinstance(table.get(key), str):
            table[key] = _anchored(table[key], base, plain=key == "weights")
    fit = tree.get("fit")
    if isinstance(fit, dict) and isinstance(fit.get("criterion"), str):
        fit["criterion"] = _anchored(fit["criterion"], base, plain=False)
    if isinstance(tree.get("task"), str):
        tree["task"] = _anchored(tree["task"], base, plain=False)
    target = tree.get("target")
    if isinstance(target, dict) and isinstance(target.get("name"), str) and target["name"].endswith(".toml"):
        target["name"] = str(base / target["name"])


def _anchored(text: str, base: Path, *, plain: bool) -> str:
    """`npz:FILE`, `images:DIR`, `idx:DIR`, `file.py:name` or (plain) a path, with its file below `base`."""
    if plain:
        return str(base / text)
    scheme = re.fullmatch(r"(npz|images|idx):(.+)", text, re.DOTALL)
    if scheme is not None:
        return f"{scheme[1]}:{base / scheme[2]}"
    if text.endswith(".pt2"):
        return str(base / text)
    python = re.fullmatch(r"(.+\.py)(:[^:/]+)", text, re.DOTALL)
    return f"{base / python[1]}{python[2]}" if python is not None else text
