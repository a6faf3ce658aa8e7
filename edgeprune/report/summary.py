"""What the terminal shows at the end: the summary of a fit, the table of a profile."""

from __future__ import annotations

from edgeprune.cost import Source
from edgeprune.documents import FitRecord, ProfileRecord
from edgeprune.report.tables import before_after
from edgeprune.report.text import UNKNOWN, interval_text, threads_text, time_text, title, verdict_line
from edgeprune.units import format_size


def summary(record: FitRecord) -> str:
    """What `edgeprune fit` prints at the end, with a last newline."""
    lines = [f"{title(record).removesuffix(f' on {record.target}')}: {verdict_line(record)}"]
    if record.costs:
        lines += ["", before_after(record).as_text()]
    lines += [""]
    lines += [f"{name}: {path}" for name, path in record.artifacts.items()]
    lines += [f"report: {record.run / 'report.html'}"]
    return "\n".join(lines) + "\n"


def profile_table(document: ProfileRecord) -> str:
    """A profile as aligned lines, with a last newline."""
    of = "99 % upper bound of the percentile" if document.source is Source.MEASURED else "device model"
    latency = UNKNOWN if document.latency_ns is None else f"{time_text(document.latency_ns)} ({of})"
    memory = UNKNOWN if document.ram_bytes is None else f"{format_size(document.ram_bytes)} ({document.ram_kind})"
    facts = [
        ("artifact", str(document.artifact)),
        ("target", f"{document.target} ({document.source.value})"),
        (
            "runtime",
            f"{document.runtime} {document.runtime_version}, {threads_text(document.threads)}".replace(" ,", ","),
        ),
        ("precision", document.precision),
        ("latency", latency),
        ("interval", UNKNOWN if document.latency_interval_ns is None else interval_text(document.latency_interval_ns)),
    ]
    if document.runs:
        percentiles = (document.p50_ns, document.p90_ns, document.p99_ns)
        facts.append(("p50 p90 p99", f"{', '.join(map(time_text, percentiles))} over {document.runs} runs"))
    facts += [("ram", memory), ("size", UNKNOWN if document.size_bytes is None else format_size(document.size_bytes))]
    lines = [f"{key:<12} {value}" for key, value in facts]
    if document.ops:
        lines += ["", f"{'ns':>12}  {'MACs':>13}  {'type':<12} op"]
        lines += [
            f"{UNKNOWN if op.ns is None else format(op.ns, ','):>12}  {op.macs:>13,}  {op.type:<12} {op.name}"
            for op in document.ops
        ]
    lines += [f"note: {note}" for note in document.notes]
    return "\n".join(lines) + "\n"
