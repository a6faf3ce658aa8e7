"""What the terminal shows at the end: the summary of a fit, the table of a profile."""

from __future__ import annotations

from edgeprune import vela
from edgeprune.cost import Source
from edgeprune.documents import FitRecord, ProfileRecord
from edgeprune.report.quantize import steps_text
from edgeprune.report.tables import before_after
from edgeprune.report.text import UNKNOWN, interval_text, threads_text, time_text, title, verdict_line
from edgeprune.units import format_size

_RESTS_ON = {
    Source.MEASURED: "99 % upper bound of the percentile",
    Source.EMULATED: "executed on an emulated core",
    Source.ESTIMATED: "device model",
}


def summary(record: FitRecord) -> str:
    """What `edgeprune fit` prints at the end, with a last newline."""
    lines = [f"{title(record).removesuffix(f' on {record.target}')}: {verdict_line(record)}"]
    if record.costs:
        lines += ["", before_after(record).as_text()]
    if len(record.quantization) > 1:
        lines += ["", steps_text(record.quantization)]
    lines += [""]
    lines += [f"{name}: {path}" for name, path in record.artifacts.items()]
    lines += [f"report: {record.run / 'report.html'}"]
    return "\n".join(lines) + "\n"


def profile_table(document: ProfileRecord) -> str:
    """A profile as aligned lines, with a last newline."""
    latency = UNKNOWN if document.latency_ns is None else f"{time_text(document.latency_ns)} ({_rests_on(document)})"
    kind = document.ram_kind if document.stack_bytes is None else "arena and stack"
    memory = UNKNOWN if document.ram_bytes is None else f"{format_size(document.ram_bytes)} ({kind})"
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
    if document.p50_ns is not None:
        percentiles = (document.p50_ns, document.p90_ns, document.p99_ns)
        facts.append(("p50 p90 p99", f"{', '.join(map(time_text, percentiles))} over {document.runs} runs"))
    elif document.runs:
        facts.append(("percentiles", f"none: no single runs are known, {document.runs} in all"))
    facts += [("ram", memory), *(_counts(document) or [("size", _size(document.size_bytes))])]
    facts += _board(document)
    lines = [f"{key:<12} {value}" for key, value in facts]
    lines += ["", *_operators(document)] if document.ops else []
    lines += [f"note: {note}" for note in document.notes]
    return "\n".join(lines) + "\n"


def _rests_on(document: ProfileRecord) -> str:
    if document.runs and not document.p50_ns:
        return "mean of the runs"
    if document.board is not None:
        return "estimate from what was counted"
    return "estimate of the NPU's compiler" if document.runtime == vela.RUNTIME else _RESTS_ON[document.source]


def _counts(document: ProfileRecord) -> list[tuple[str, str]]:
    """What executing it on an emulated core showed; nothing where it was not."""
    if document.instructions is None:
        return []
    cycles = "no estimate for this core" if document.cycles is None else "{:,} to {:,}".format(*document.cycles)
    compared = f"{document.mismatches} output values of {document.compared} inputs, against LiteRT's reference kernels"
    return [
        ("instructions", f"{document.instructions:,}"),
        ("cycles", cycles),
        ("arena", f"{_size(document.arena_bytes)} (at least {_size(document.arena_bound_bytes)} in this order)"),
        ("stack", _size(document.stack_bytes)),
        ("flash", f"{_size(document.flash_bytes)} ({_parts(document)})"),
        ("mismatches", "not compared: the .tflite file is not beside it" if document.mismatches is None else compared),
    ]


def _board(document: ProfileRecord) -> list[tuple[str, str]]:
    """What running it on an emulated Linux board showed; nothing where it was not."""
    board = document.board
    if board is None:
        return []
    most = sorted(board.classes.items(), key=lambda entry: -entry[1])
    shares = ", ".join(f"{name.replace('_', ' ')} {count / board.instructions:.0%}" for name, count in most[:5])
    same = f"{board.values - board.differing:,} of {board.values:,} output values are those of this machine"
    differ = f", the others up to {board.difference:.3g} apart (largest {board.largest:.3g})" if board.differing else ""
    return [
        ("instructions", f"{board.instructions:,} ({shares})"),
        ("cache misses", f"{board.l1_misses:,} of the first level, {board.l2_misses:,} of the second (simulated)"),
        ("answers", same + differ),
    ]


def _parts(document: ProfileRecord) -> str:
    return f"code {_size(document.code_bytes)}, weights {_size(document.weights_bytes)}"


def _size(count: int | None) -> str:
    return UNKNOWN if count is None else format_size(count)


def _operators(document: ProfileRecord) -> list[str]:
    """The table of operators; instructions where they were counted."""
    counted = document.instructions is not None
    head = f"{'instructions':>13}  " if counted else ""
    lines = [f"{'ns':>12}  {head}{'MACs':>13}  {'type':<12} op"]
    for op in document.ops:
        ns, executed = (UNKNOWN if value is None else format(value, ",") for value in (op.ns, op.instructions))
        middle = f"{executed:>13}  " if counted else ""
        lines.append(f"{ns:>12}  {middle}{op.macs:>13,}  {op.type:<12} {op.name}")
    return lines
