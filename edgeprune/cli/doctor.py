"""`edgeprune doctor`: what is installed, what each missing extra would bring, and the command that gets it."""

from __future__ import annotations

import json as json_format
import platform
import shutil
from dataclasses import asdict, dataclass
from importlib import metadata
from pathlib import Path

import typer

import edgeprune
from edgeprune.cli import options
from edgeprune.cli.terminal import table

CORE = (
    "torch",
    "numpy",
    "scipy",
    "pydantic",
    "typer",
    "rich",
    "jinja2",
    "safetensors",
    "onnx",
    "onnxscript",
    "onnxruntime",
    "pillow",
    "scikit-learn",
    "joblib",
    "threadpoolctl",
)


@dataclass(frozen=True)
class Extra:
    """One optional part: what it needs, what it brings, and about how much is downloaded for it."""

    name: str
    packages: tuple[str, ...]
    brings: str
    download: str


EXTRAS = (
    Extra("tflite", ("litert-torch", "ai-edge-quantizer", "ai-edge-litert"), "export to TFLite", "~950 MB installed"),
    Extra("openvino", ("openvino",), "export to OpenVINO and its runtime", "~180 MB installed"),
    Extra(
        "mcu",
        ("ai-edge-litert", "unicorn", "capstone", "pyelftools", "ziglang"),
        "the TFLite runtime, and a compiler and an emulator for microcontrollers",
        "~540 MB installed",
    ),
    Extra("ethos", ("ethos-u-vela",), "the compiler that estimates for Ethos-U NPUs", "~10 MB installed"),
    Extra("cluster", ("distributed",), "sweeps on machines of a Dask cluster", "~35 MB installed"),
    Extra("tensorboard", ("tensorboard",), "curves of trainings", "~40 MB installed"),
    Extra("sign", ("cryptography",), "signatures of what is deployed", "~20 MB installed"),
)


def doctor(json: options.Json = False, debug: options.Debug = False) -> None:
    """Say what is installed, what each missing extra would bring, and how to get it."""
    from edgeprune import backends
    from edgeprune.boards import kit
    from edgeprune.units import format_size

    core = {name: _version(name) for name in CORE}
    runtimes = {name: backends.get(name).missing() for name in backends.names()}
    extras = [
        {
            **asdict(extra),
            "missing": [name for name in extra.packages if _version(name) is None],
            "install": f'pip install "edgeprune[{extra.name}]"',
        }
        for extra in EXTRAS
    ]
    free = shutil.disk_usage(Path.cwd()).free
    boards = (
        sorted(path.parents[2].name for path in kit.folder().glob("*/root/proc/cpuinfo")) if kit.installed() else []
    )
    broken = [name for name, version in core.items() if version is None]
    if json:
        document = {
            "schema": "edgeprune.doctor/1",
            "edgeprune": edgeprune.__version__,
            "python": platform.python_version(),
            "core": core,
            "backends": runtimes,
            "extras": extras,
            "emulated_boards": boards,
            "free_bytes": free,
        }
        typer.echo(json_format.dumps(document, indent=2))
    else:
        typer.echo(f"edgeprune {edgeprune.__version__}, Python {platform.python_version()}, {platform.platform()}")
        typer.echo(f"free disk here: {format_size(free)}\n")
        typer.echo(table(("package", "version"), [(name, version or "MISSING") for name, version in core.items()]))
        typer.echo("\n" + table(("backend", "state"), [(name, why or "ready") for name, why in runtimes.items()]))
        rows = [
            (
                extra.name,
                "installed" if not found["missing"] else f"missing {', '.join(found['missing'])}",
                f"{extra.brings} ({extra.download})",
                "" if not found["missing"] else str(found["install"]),
            )
            for extra, found in zip(EXTRAS, extras, strict=True)
        ]
        typer.echo("\n" + table(("extra", "state", "brings", "get it with"), rows))
        about = f"{', '.join(boards) or 'none set up'}; see edgeprune emulate status"
        typer.echo(f"\nemulated Linux boards: {about}")
    if broken:
        typer.echo(f"hint: the core is incomplete ({', '.join(broken)}): pip install edgeprune", err=True)
        raise typer.Exit(7)


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None
