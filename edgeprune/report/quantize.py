"""What was tried so that int8 holds, as text for the terminal and the report."""

from __future__ import annotations

from collections.abc import Sequence

from edgeprune.documents import QuantizeRow
from edgeprune.quantize_document import QuantizeRecord
from edgeprune.units import format_size


def steps_text(steps: Sequence[QuantizeRow]) -> str:
    """One line per step: what it was, the drop of every file that was judged, and whether it stayed."""
    best = min((row.drop for row in steps if row.drop is not None), default=0.0)
    lines = ["step  drop of the worst file on validation"]
    for number, row in enumerate(steps):
        kept = "kept" if row.kept else "left out"
        layers = f"; in float: {', '.join(row.in_float)}" if row.in_float else ""
        chosen = ", the best" if row.drop == best and row.kept else ""
        drop = f"{row.drop * 100:+.2f} pp" if row.drop is not None else "no file"
        lines.append(f"{number:>4}  {drop}  {row.step} ({row.note or kept + chosen}){layers}")
    return "\n".join(lines)


def artifacts_table(record: QuantizeRecord) -> tuple[tuple[str, ...], list[tuple[str, ...]]]:
    """Headings and rows of the files that were written."""
    head = (
        "format",
        "precision",
        "size",
        "drop, validation",
        "drop, test",
        "against torch",
        "float or layout ops",
        "file",
    )
    return head, [
        (
            row.name,
            row.precision,
            "" if row.size_bytes is None else format_size(row.size_bytes),
            f"{row.validation_drop * 100:+.2f} pp",
            f"{row.test_drop * 100:+.2f} pp",
            "exact" if row.snr_db is None else f"{row.snr_db:.1f} dB",
            ", ".join(row.float_ops) or "none",
            str(row.path),
        )
        for row in record.artifacts
    ]
