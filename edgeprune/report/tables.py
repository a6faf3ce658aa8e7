"""The tables of a report as text cells, shared by its HTML, Markdown and terminal forms."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from edgeprune.documents import CostRow, Figure, FitRecord, RoundRow
from edgeprune.report.text import UNKNOWN, interval_text, metric_text, ranking_text, threads_text, time_text
from edgeprune.units import format_size

Column = tuple[str, str]  # heading, and what it is: the source of every number in the column


@dataclass(frozen=True)
class Cell:
    """A text, and smaller print below it."""

    text: str
    detail: str = ""


@dataclass(frozen=True)
class Table:
    """Rows under headings; `numbers` lists the columns to align on the right, `strong` the rows to stress."""

    columns: tuple[Column, ...]
    rows: tuple[tuple[Cell, ...], ...]
    numbers: tuple[int, ...] = ()
    strong: tuple[int, ...] = ()

    def as_text(self) -> str:
        """Aligned columns for a terminal; the small print of headings and cells is kept."""
        lines = [[head for head, _ in self.columns], [detail for _, detail in self.columns]]
        lines = lines if any(lines[1]) else lines[:1]
        lines += [[cell.text for cell in row] for row in self.rows]
        widths = [max(len(line[i]) for line in lines) for i in range(len(self.columns))]
        return "\n".join(
            "  ".join(
                text.rjust(width) if i in self.numbers else text.ljust(width)
                for i, (text, width) in enumerate(zip(line, widths))
            ).rstrip()
            for line in lines
        )


def before_after(record: FitRecord) -> Table:
    """Dense, pruned and exported models; one latency and one memory column per target and source."""
    latency = _keys(record, lambda f: f.latency_ns is not None)
    memory = _keys(record, lambda f: f.ram_bytes is not None)
    columns: list[Column] = [("model", ""), (record.metric.name, "test set")]
    columns += [("latency", f"{target}, {source}") for target, source, _ in _unique(latency)]
    columns += [("RAM", f"{kind}, {target}, {source}") for target, source, kind in memory]
    columns += [("size", "file"), ("parameters", ""), ("MACs", "")]
    rows = []
    for row in record.costs:
        cells = [Cell(row.name, "deployed" if row.deployed else "")]
        cells.append(Cell(metric_text(row.metric, record.metric)))
        cells += [_latency(row, target, source) for target, source, _ in _unique(latency)]
        cells += [_memory(row, key) for key in memory]
        cells.append(Cell(UNKNOWN if row.size_bytes is None else format_size(row.size_bytes)))
        cells.append(Cell(UNKNOWN if row.parameters is None else f"{row.parameters:,}"))
        cells.append(Cell(UNKNOWN if row.macs is None else f"{row.macs / 1e6:,.1f} M"))
        rows.append(tuple(cells))
    strong = tuple(i for i, row in enumerate(record.costs) if row.deployed)
    return Table(tuple(columns), tuple(rows), tuple(range(1, len(columns))), strong)


def rounds(record: FitRecord) -> Table:
    """What each trained plan was promised and what its final file cost."""
    return _tries(record, record.rounds, "round")


def rehearsals(record: FitRecord) -> Table:
    """What each plan was promised and what its untrained file cost."""
    return _tries(record, record.rehearsals, "rehearsal")


def _tries(record: FitRecord, tries: Sequence[RoundRow], what: str) -> Table:
    source = " or ".join(dict.fromkeys(row.source.value for row in tries))
    columns = (
        (what, ""),
        ("plan", ""),
        ("predicted", "estimated, by the solver"),
        ("profiled", f"{source}, from the file"),
        ("correction", "of the device model"),
        (record.metric.name, "validation"),
        ("RAM", f"{source}, from the file"),
        ("size", ""),
        ("decision", ""),
    )
    rows = tuple(
        (
            Cell(str(number)),
            Cell(row.plan or UNKNOWN),
            Cell(time_text(row.predicted_ns), _interval(row.predicted_interval_ns)),
            Cell(time_text(row.profiled_ns), _interval(row.profiled_interval_ns)),
            Cell(UNKNOWN if row.correction is None else f"×{row.correction:.3g}"),
            Cell(metric_text(row.metric, record.metric)),
            Cell(UNKNOWN if row.profiled_ram_bytes is None else format_size(row.profiled_ram_bytes)),
            Cell(UNKNOWN if row.size_bytes is None else format_size(row.size_bytes)),
            Cell(row.decision or UNKNOWN, row.reason),
        )
        for number, row in enumerate(tries, 1)
    )
    return Table(columns, rows, (0, 2, 3, 4, 5, 6, 7))


def race(record: FitRecord) -> Table:
    """The raced plans of every round."""
    columns = (
        ("round", ""),
        ("plan", ""),
        (record.metric.name, "validation, after a short fine-tune"),
        ("predicted", "estimated"),
        ("", ""),
    )
    rows = tuple(
        (
            Cell(str(row.round)),
            Cell(row.plan),
            Cell(metric_text(row.metric, record.metric)),
            Cell(time_text(row.predicted_ns)),
            Cell("chosen" if row.chosen else ""),
        )
        for row in record.race
    )
    return Table(columns, rows, (0, 2, 3), tuple(i for i, row in enumerate(record.race) if row.chosen))


def quantization(record: FitRecord) -> Table:
    """What was tried so that the int8 file is as good as its float model."""
    rows = tuple(
        (
            Cell(row.step, f"in float: {', '.join(row.in_float)}" if row.in_float else ""),
            Cell(", ".join(metric_text(metric, record.metric) for metric in row.metrics.values())),
            Cell(UNKNOWN if row.drop is None else f"{row.drop * 100:+.2f} pp", row.note),
            Cell("kept" if row.kept else "left out"),
        )
        for row in record.quantization
    )
    columns = (("step", ""), (record.metric.name, "validation"), ("drop", "against the float model"), ("", ""))
    return Table(columns, rows, (1, 2), tuple(i for i, row in enumerate(record.quantization) if row.kept))


def operators(record: FitRecord) -> Table:
    """The deployed file, operator by operator."""
    source = f"{record.target}, {record.source.value}"
    total = sum(op.ns or 0 for op in record.ops)
    counted = any(op.instructions is not None for op in record.ops)
    columns: list[Column] = [("operator", ""), ("type", ""), ("time", source), ("share", ""), ("MACs", "")]
    columns += [("instructions", record.source.value)] if counted else []
    rows = tuple(
        (
            Cell(op.name),
            Cell(op.type),
            Cell(time_text(op.ns)),
            Cell(UNKNOWN if op.ns is None or not total else f"{op.ns / total * 100:.1f} %"),
            Cell(f"{op.macs:,}"),
            *([Cell(UNKNOWN if op.instructions is None else f"{op.instructions:,}")] if counted else []),
        )
        for op in record.ops
    )
    return Table(tuple(columns), rows, (2, 3, 4, 5) if counted else (2, 3, 4))


def frozen(record: FitRecord) -> Table:
    """What was left alone, and why."""
    columns = (("channels of", ""), ("width", ""), ("layers", ""), ("why it stays", ""))
    rows = tuple(
        (Cell(row.group), Cell(str(row.channels)), Cell(", ".join(row.layers)), Cell(row.reason))
        for row in record.frozen
    )
    return Table(columns, rows, (1,))


def artifacts(record: FitRecord) -> Table:
    """The exported files and what the gates found."""
    columns = (
        ("artifact", ""),
        ("precision", ""),
        ("size", "file"),
        (record.metric.name, "test set, in its own runtime"),
        ("SNR", "against torch"),
        ("float operators", "listed exceptions"),
        ("file", ""),
    )
    rows = tuple(
        (
            Cell(row.name),
            Cell(row.precision),
            Cell(UNKNOWN if row.size_bytes is None else format_size(row.size_bytes)),
            Cell(metric_text(record.metric.artifacts.get(row.name), record.metric)),
            Cell(UNKNOWN if row.snr_db is None else f"{row.snr_db:.1f} dB"),
            Cell(", ".join(row.float_ops) or "none", "; ".join(row.notes)),
            Cell(str(row.path), f"sha256 {row.sha256}"),
        )
        for row in record.details
    )
    return Table(columns, rows, (2, 3, 4))


def facts(record: FitRecord) -> Table:
    """What the run was made with."""
    pairs = [("edgeprune", record.edgeprune), ("started", record.created)]
    pairs += [(f"{name} samples", f"{count:,}") for name, count in record.samples.items()]
    pairs += [] if record.ranking is None else [("channels", ranking_text(record.ranking))]
    pairs += [(f"time: {row.stage}", f"{row.seconds:.1f} s") for row in record.timings]
    pairs += list(record.environment.items())
    return Table((("fact", ""), ("value", "")), tuple((Cell(key), Cell(value)) for key, value in pairs if value))


_Key = tuple[str, str, str]  # target, source, kind of memory


def _keys(record: FitRecord, known: Callable[[Figure], bool]) -> list[_Key]:
    found: dict[_Key, None] = {}
    for row in record.costs:
        for figure in row.figures:
            if known(figure):
                found[(figure.target, figure.source.value, figure.ram_kind or "")] = None
    return sorted(found, key=lambda key: key[0] != record.target)  # the target's own columns first


def _unique(keys: list[_Key]) -> list[_Key]:
    return list({(target, source): (target, source, kind) for target, source, kind in keys}.values())


def _latency(row: CostRow, target: str, source: str) -> Cell:
    for figure in row.figures:
        if (figure.target, figure.source.value) == (target, source) and figure.latency_ns is not None:
            return Cell(time_text(figure.latency_ns), _detail(figure))
    return Cell(UNKNOWN)


def _detail(figure: Figure) -> str:
    parts = [_interval(figure.latency_interval_ns), figure.runtime]
    parts += [threads_text(figure.threads)] if figure.threads else []
    return ", ".join(part for part in parts if part)


def _memory(row: CostRow, key: _Key) -> Cell:
    for figure in row.figures:
        if (figure.target, figure.source.value, figure.ram_kind) == key and figure.ram_bytes is not None:
            return Cell(format_size(figure.ram_bytes))
    return Cell(UNKNOWN)


def _interval(interval: tuple[int, int] | None) -> str:
    return "" if interval is None else interval_text(interval)
