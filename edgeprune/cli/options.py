"""Options that several verbs share, each spelled once."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Any

import typer

from edgeprune.errors import UsageError

Model = Annotated[
    str | None, typer.Option("--model", metavar="ENTRY", help="file.py:name, timm:NAME, torchvision:NAME or net.pt2.")
]
TrustModel = Annotated[
    bool | None, typer.Option("--trust-model", help="Open a .pt2 archive, which can run code.", show_default=False)
]
ModelArgs = Annotated[
    list[str] | None, typer.Option("--model-arg", metavar="K=V", help="Argument of the model's callable; repeatable.")
]
Weights = Annotated[
    Path | None, typer.Option("--weights", metavar="FILE", help="Trained weights: safetensors or a checkpoint.")
]
Data = Annotated[
    str | None, typer.Option("--data", metavar="SOURCE", help="npz:FILE, images:DIR, idx:DIR or file.py:name.")
]
Task = Annotated[str | None, typer.Option("--task", metavar="TASK", help="classify or file.py:name.")]
Config = Annotated[
    Path | None,
    typer.Option("--config", metavar="FILE", help="Job file; without it, edgeprune.toml in this folder if there."),
]
Target = Annotated[str | None, typer.Option("--target", metavar="NAME", help="Device: see edgeprune targets.")]
Runtime = Annotated[str | None, typer.Option("--runtime", metavar="NAME", help="Runtime on it; default: the target's.")]
Threads = Annotated[int | None, typer.Option("--threads", min=1, metavar="N", help="Default: the target's.")]
Device = Annotated[
    str | None,
    typer.Option("--device", metavar="ADDRESS", help="Where it hangs: ssh://user@host, adb:SERIAL, emulator or local."),
]
FitDevice = Annotated[
    str | None,
    typer.Option(
        "--device",
        metavar="ADDRESS",
        help="Where it hangs: ssh://user@host, adb:SERIAL, emulator, local or none; default: the emulator if set up.",
    ),
]
DevicePython = Annotated[
    str | None, typer.Option("--python", metavar="PATH", help="Python on the device; default: python3.")
]
Require = Annotated[
    str | None,
    typer.Option("--require", metavar="SOURCE", help="measured or emulated: refuse a verdict that rests on less."),
]
BenchmarkBinary = Annotated[
    str | None,
    typer.Option(
        "--benchmark-binary",
        metavar="PATH",
        help="TFLite's benchmark_model, here or on the device, where that has no Python.",
    ),
]
AppName = Annotated[
    str | None, typer.Option("--name", metavar="APP", help="What it is called there; default: the run's name.")
]
Root = Annotated[
    str | None,
    typer.Option("--root", metavar="FOLDER", help="Folder of apps there; default: edgeprune in the home folder."),
]
Key = Annotated[Path | None, typer.Option("--key", metavar="FILE.pub", help="What is there must be signed with it.")]
NoSignature = Annotated[
    bool, typer.Option("--no-signature", help="Take a signed release without a key that checks it.")
]
Untested = Annotated[bool, typer.Option("--untested", help="Go without a self-test where the device can run nothing.")]
Criterion = Annotated[
    str | None,
    typer.Option(
        "--criterion", metavar="NAME", help="How channels are ranked: prune --list-criteria, or file.py:name."
    ),
]
At = Annotated[
    str | None, typer.Option("--at", metavar="p50|p90|p99", help="Percentile that latency is judged on (p90).")
]
MaxDrop = Annotated[str | None, typer.Option(metavar="DROP", help="Limit on the metric's loss: 1pp or 2%.")]
Epochs = Annotated[int | None, typer.Option(metavar="N", help="Fine-tuning epochs per round.")]
Seed = Annotated[int | None, typer.Option(metavar="N", help="Everything random follows from it.")]
Step = Annotated[int | None, typer.Option(metavar="N", help="Widths are multiples of this; default: target's.")]
Distill = Annotated[bool | None, typer.Option("--distill/--no-distill", help="Learn from the dense model.")]
Ram = Annotated[str | None, typer.Option("--ram", metavar="SIZE", help="Limit on peak memory: 256KiB.")]
Size = Annotated[str | None, typer.Option("--size", metavar="SIZE", help="Limit on the file: 1MB.")]
Flash = Annotated[
    str | None, typer.Option("--flash", metavar="SIZE", help="The same as --size, as it is called on microcontrollers.")
]
Macs = Annotated[
    str | None, typer.Option("--macs", metavar="COUNT", help="Limit on multiply-accumulates of the design: 40M.")
]
Energy = Annotated[
    str | None, typer.Option("--energy", metavar="ENERGY", help="Limit on one inference, where power is known: 5mJ.")
]
Freeze = Annotated[
    list[str] | None,
    typer.Option("--freeze", metavar="PATTERN", help="Layers that stay whole, such as layer3.*; repeatable."),
]
BudgetOnly = Annotated[
    bool, typer.Option("--budget-only", help="Print the plan and its predicted cost; train nothing.")
]
Resume = Annotated[
    Path | None, typer.Option("--resume", metavar="RUN", help="Continue an interrupted run; no other flags.")
]
Input = Annotated[
    str | None, typer.Option("--input", metavar="1x3x32x32", help="Input shape, batch first, instead of --data.")
]
Formats = Annotated[
    list[str] | None,
    typer.Option(
        "--format", metavar="NAME", help="onnx, tflite, openvino or c; repeatable; default: all installed but c."
    ),
]
Settings = Annotated[
    list[str] | None,
    typer.Option("--set", "-o", metavar="KEY=VALUE", help="Any key of the job file, such as fit.batch_size=32."),
]
Json = Annotated[bool, typer.Option("--json", help="One JSON document on stdout.")]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="No progress.")]
Debug = Annotated[bool, typer.Option("--debug", help="Tracebacks and third-party warnings.")]


def parsed_shape(text: str | None) -> tuple[int, ...] | None:
    """The sizes of `1x3x32x32`.

    Raises:
        UsageError: It is no such text.
    """
    if text is None:
        return None
    if re.fullmatch(r"[1-9][0-9]*(x[1-9][0-9]*)+", text) is None:
        raise UsageError(
            f"cannot read the shape {text!r}", where="--input", hint="write it like 1x3x32x32, batch first"
        )
    return tuple(int(size) for size in text.split("x"))


def backends_of(formats: list[str] | None) -> tuple[str, ...]:
    """The backends of formats as users spell them.

    Raises:
        UsageError: An unknown format.
    """
    from edgeprune import backends

    return tuple(backends.of_format(name) for name in formats or [])


def one_size(size: str | None, flash: str | None) -> str | None:
    """The limit on size, which has two names.

    Raises:
        UsageError: Both are given.
    """
    if size and flash:
        raise UsageError("--size and --flash are one limit", where="--flash", hint="give one of them")
    return size or flash


def overrides(settings: list[str] | None, model_args: list[str] | None, **flags: Any) -> dict[str, Any]:
    """Dotted keys for `load_spec`: `section__key` flags, model arguments and --set, the last one winning.

    Raises:
        UsageError: A setting or a model argument without `=`.
    """
    from edgeprune.spec import parse_setting

    found = {name.replace("__", "."): value for name, value in flags.items()}
    arguments = {}
    for text in model_args or []:
        if "=" not in text:
            raise UsageError(f"cannot read {text!r}", where="--model-arg", hint="write it like width=32")
        key, value = parse_setting(text)
        arguments[key] = value
    if arguments:
        found["model.args"] = arguments
    for text in settings or []:
        key, value = parse_setting(text)
        found[key] = value
    return found
