"""`edgeprune export`: a dense model as checked artifacts, without pruning."""

from __future__ import annotations

import json as json_format
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from edgeprune.cli import options
from edgeprune.cli.terminal import only_results_on_stdout, progress, table
from edgeprune.errors import UsageError

if TYPE_CHECKING:
    from edgeprune.backends import Artifact
    from edgeprune.progress import Progress
    from edgeprune.quantization.gates import GateReport
    from edgeprune.spec import Spec

CHECKED_SAMPLES = 64  # compared with torch, from the validation set


def export(
    model: options.Model = None,
    model_arg: options.ModelArgs = None,
    weights: options.Weights = None,
    trust_model: options.TrustModel = None,
    data: options.Data = None,
    task: options.Task = None,
    config: options.Config = None,
    formats: options.Formats = None,
    precision: Annotated[str, typer.Option(metavar="int8|fp32", help="Number format of the files.")] = "int8",
    out: Annotated[Path, typer.Option(metavar="DIR", help="Folder that the files are written to.")] = Path("exported"),
    settings: options.Settings = None,
    json: options.Json = False,
    quiet: options.Quiet = False,
    debug: options.Debug = False,
) -> None:
    """Export a model as it is: int8 with ranges from the calibration data, or fp32."""
    from edgeprune.spec import load_spec
    from edgeprune.units import format_size

    if precision not in ("int8", "fp32"):
        raise UsageError(f"unknown precision {precision!r}", where="--precision", hint="int8 or fp32")
    backends = options.backends_of(formats)
    flags = {"model__entry": model, "model__weights": weights, "data__source": data, "task": task}
    spec = load_spec(config, options.overrides(settings, model_arg, **flags))
    with only_results_on_stdout(debug=debug):
        kind: Literal["int8", "fp32"] = "int8" if precision == "int8" else "fp32"
        written = _exported(spec, backends, kind, out, progress(quiet=quiet))
    if json:
        rows: Any = {
            name: {**artifact.model_dump(mode="json"), "gates": gates.model_dump(mode="json")}
            for name, (artifact, gates) in written.items()
        }
        typer.echo(json_format.dumps({"schema": "edgeprune.export/1", "artifacts": rows}, indent=2))
        return
    lines = [
        (
            name,
            gates.precision,
            format_size(artifact.size_bytes),
            "exact" if gates.snr_db is None else f"{gates.snr_db:.1f} dB",
            ", ".join(gates.exceptions) or "none",
            str(artifact.path),
        )
        for name, (artifact, gates) in written.items()
    ]
    typer.echo(
        table(("format", "precision", "size", "against torch", "float or layout ops", "file"), lines, right=(2, 3))
    )


def _exported(
    spec: Spec, wanted: tuple[str, ...], precision: Literal["int8", "fp32"], out: Path, report: Progress
) -> dict[str, tuple[Artifact, GateReport]]:
    import numpy as np
    import torch

    from edgeprune import backends
    from edgeprune.pruning.trace import trace
    from edgeprune.quantization.gates import check
    from edgeprune.quantization.ranges import RangePolicy
    from edgeprune.workload.load import load_workload

    wanted = wanted or backends.installed()
    workload = load_workload(spec)
    captured = trace(workload.model, workload.example)
    data, unseen = workload.data.calibration, workload.data.validation
    calibration = np.stack([data[i][0] for i in range(len(data))]) if precision == "int8" else None
    samples = np.stack([unseen[i][0] for i in range(min(len(unseen), CHECKED_SAMPLES))])
    with torch.no_grad():
        reference = captured.module(torch.from_numpy(samples)).numpy()
    written = {}
    for name in report.track(wanted, "export"):
        folder = out / backends.format_of(name)
        folder.mkdir(parents=True, exist_ok=True)
        backend, example = backends.get(name), workload.example.numpy()
        policy = RangePolicy() if precision == "int8" else None
        artifact = backend.export(captured.module, example, folder, precision, calibration, policy)
        written[folder.name] = artifact, check(artifact, reference, samples)
    return written
