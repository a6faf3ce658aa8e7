"""What `edgeprune inspect FILE --against MODEL` shows."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from edgeprune.cli.terminal import only_results_on_stdout, table

if TYPE_CHECKING:
    from edgeprune.against_document import AgainstRecord
    from edgeprune.spec import Spec

_SAMPLES = 16  # from the validation set


def show_against(artifact: Path, spec: Spec, *, json: bool, debug: bool) -> str:
    """The comparison as a table or as its document, with a last newline."""
    with only_results_on_stdout(debug=debug):
        record = _compared(artifact, spec)
    return record.to_json() if json else _shown(record) + "\n"


def _compared(artifact: Path, spec: Spec) -> AgainstRecord:
    from edgeprune.compared import compare
    from edgeprune.pruning.trace import trace
    from edgeprune.workload.load import load_workload
    from edgeprune.workload.samples import batches

    workload = load_workload(spec)
    samples, _ = next(iter(batches(workload.data.validation, _SAMPLES)))
    return compare(artifact, trace(workload.model, workload.example), samples)


def _shown(record: AgainstRecord) -> str:
    rows = [
        (row.layer, row.kind, _ratio(row.snr_db), _ratio(row.scaled_snr_db), _lost(row.lost_db), row.tensor)
        for row in record.tensors
    ]
    head = ("layer", "kind", "SNR", "channels scaled", "lost here", "tensor in the file")
    parts = [
        f"{record.artifact.name} on {record.runtime}, {record.samples} validation samples, the worst first",
        table(head, rows, right=(2, 3, 4)),
    ]
    if record.unmatched:
        parts.append(f"not in the file by themselves: {', '.join(record.unmatched)}")
    return "\n\n".join(parts)


def _ratio(decibels: float | None) -> str:
    return "equal" if decibels is None else f"{decibels:.1f} dB"


def _lost(decibels: float | None) -> str:
    return "" if decibels is None else f"{decibels:+.1f} dB"
