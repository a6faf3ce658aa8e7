"""Gates: what every exported file must prove before anything else is said of it.

Each gate stands for a failure that was seen in practice and that no converter reported: a file that was not written,
float inputs in an integer model, layers left in float, a bias scale that the runtime ignores, bf16 where fp32 was
asked for, and plainly wrong answers.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

import numpy as np

from edgeprune import backends
from edgeprune.backends import Artifact, Inspection
from edgeprune.errors import QualityError
from edgeprune.values import Value

Array = np.ndarray[Any, np.dtype[Any]]

SNR_FLOOR_DB = {"int8": 10.0, "fp32": 60.0}
# ONNX and OpenVINO files keep float ends: their runtimes quantise the input as the first operator.
_END_TYPES = {
    ("tflite", "int8"): {"int8"},
    ("tflite", "fp32"): {"float32"},
    ("onnxruntime", "int8"): {"float32"},
    ("onnxruntime", "fp32"): {"float32"},
    ("openvino", "int8"): {"float32"},
    ("openvino", "fp32"): {"float32"},
}


class GateReport(Value):
    """What the gates found in one artifact.

    Attributes:
        snr_db: 10·log10(mean(reference²) / mean((answer − reference)²)) over all samples; None when they are equal.
        max_abs_error: Largest distance from the reference, in units of the output.
        argmax_agreement: Share of samples with the same largest output; None for outputs with more than one axis.
        exceptions: Operators in float or that change the layout, as `TYPE name`: allowed because they are named.
        precision: What the runtime really computed in.
        samples: Number of samples compared.
    """

    backend: str
    precision: str
    snr_db: float | None
    max_abs_error: float
    argmax_agreement: float | None
    exceptions: tuple[str, ...]
    integer_macs: int
    float_macs: int
    samples: int


def check(
    artifact: Artifact,
    reference: Array,
    samples: Array,
    *,
    snr_floor_db: float | None = None,
    allow: Collection[str] | None = None,
    float_macs: int = 0,
) -> GateReport:
    """Pass the artifact through all gates.

    Args:
        reference: Outputs (n, ...) float32 of the torch model for `samples`.
        samples: Real inputs (n, ...) float32 as the model takes them.
        snr_floor_db: Least signal-to-noise ratio in dB; 10 for int8, 60 for fp32 when None.
        allow: Operators (`TYPE` or `TYPE name`) that may stay in float or change the layout; None allows any without
            weights, and the report names them.
        float_macs: Multiply-accumulates of layers that were left in float on purpose.

    Raises:
        QualityError: A gate is not passed; the message names the gate and the operator.
        MissingExtraError: The runtime is not installed.
    """
    _exists(artifact)
    backend = backends.get(artifact.backend)
    inspection = backend.inspect(artifact.path)
    _check_ends(artifact, inspection, float_macs)
    exceptions = _check_arithmetic(artifact, inspection, allow, float_macs)
    _check_faults(artifact, inspection)
    session = backend.load(artifact.path)
    if session.precision != artifact.precision:
        _fail(artifact, "precision", f"{artifact.precision} was asked for, {session.runtime} runs {session.precision}")
    answers = session.run(samples)
    snr = _check_answers(
        artifact, reference, answers, SNR_FLOOR_DB[artifact.precision] if snr_floor_db is None else snr_floor_db
    )
    classes = reference.ndim == 2 and reference.shape[1] > 1
    return GateReport(
        backend=artifact.backend,
        precision=session.precision,
        snr_db=snr,
        max_abs_error=float(np.max(np.abs(answers - reference))),
        argmax_agreement=float(np.mean(answers.argmax(1) == reference.argmax(1))) if classes else None,
        exceptions=exceptions,
        integer_macs=inspection.integer_macs,
        float_macs=inspection.float_macs,
        samples=len(samples),
    )


def snr_db(reference: Array, answers: Array) -> float | None:
    """Signal-to-noise ratio of the answers in dB; None when they equal the reference."""
    noise = float(np.mean(np.square(answers.astype(np.float64) - reference)))
    signal = float(np.mean(np.square(reference.astype(np.float64))))
    if noise == 0:
        return None
    return float(10 * np.log10(signal / noise)) if signal else float("-inf")


def _fail(artifact: Artifact, gate: str, message: str, hint: str = "") -> None:
    raise QualityError(f"gate '{gate}': {message}", where=str(artifact.path), hint=hint)


def _exists(artifact: Artifact) -> None:
    if not artifact.path.is_file() or artifact.path.stat().st_size == 0:
        _fail(artifact, "file", "the exported file is missing or empty", "the converter failed silently: export again")
    now = backends.describe(artifact.backend, artifact.path, artifact.precision)
    if now.sha256 != artifact.sha256:
        _fail(artifact, "file", f"its hash is {now.sha256[:12]}, not {artifact.sha256[:12]} as exported")


def _check_ends(artifact: Artifact, inspection: Inspection, float_macs: int) -> None:
    """The number formats at both ends; a first or last layer that was left in float may have float ones."""
    expected = _END_TYPES.get((artifact.backend, artifact.precision), {"int8", "float32"})
    expected = expected | {"float32"} if float_macs else expected
    for end, types in (("input", inspection.input_types), ("output", inspection.output_types)):
        for number in types:
            if number not in expected:
                _fail(artifact, "ends", f"an {end} is {number}, expected {' or '.join(sorted(expected))}")


def _check_arithmetic(
    artifact: Artifact, inspection: Inspection, allow: Collection[str] | None, float_macs: int
) -> tuple[str, ...]:
    """The operators to name. A layer with weights in float is never allowed silently in an int8 file."""
    found = inspection.layout_ops
    if artifact.precision == "int8":
        found = (*inspection.float_ops, *inspection.layout_ops)
        if allow is None and inspection.float_macs > float_macs:
            heavy = ", ".join(inspection.float_ops) or "unnamed layers"
            total = inspection.integer_macs + inspection.float_macs
            _fail(
                artifact,
                "arithmetic",
                f"{inspection.float_macs:,} of {total:,} multiply-accumulates are left in float: {heavy}",
                "allow these operators by name, or keep the model in fp32",
            )
    if allow is not None:
        for name in found:
            if name not in allow and name.split(" ")[0] not in allow:
                _fail(artifact, "arithmetic", f"{name} is left in float or changes the layout and is not allowed")
    return found


def _check_faults(artifact: Artifact, inspection: Inspection) -> None:
    if inspection.faults:
        _fail(
            artifact,
            "format",
            "; ".join(inspection.faults),
            "the converter wrote a wrong file; answers would be wrong on every runtime",
        )


def _check_answers(artifact: Artifact, reference: Array, answers: Array, floor_db: float) -> float | None:
    if answers.shape != reference.shape:
        _fail(artifact, "answers", f"it answers {answers.shape}, the model {reference.shape}")
    if not np.isfinite(answers).all():
        _fail(artifact, "answers", "an answer is not finite")
    snr = snr_db(reference, answers)
    if snr is not None and snr < floor_db:
        _fail(
            artifact,
            "answers",
            f"signal-to-noise ratio {snr:.1f} dB over {len(reference)} samples, at least {floor_db:g} dB is asked for",
            "calibrate on more samples, try percentile ranges, or keep the model in fp32",
        )
    return snr
