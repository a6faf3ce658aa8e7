"""An invented record of a sweep over two targets, with every verdict."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from edgeprune.cost import Source
from edgeprune.documents import BudgetRow
from edgeprune.front.documents import DenseRow, PointRow, SweepRecord, marked

RUN = Path("/work/<runs>/20260101T000000Z-digits-sweep")


def row(name: str, limit_ms: float, found_ms: float | None, validation: float | None, **changes: Any) -> PointRow:
    """A met point on rpi4, estimated with a band of a tenth."""
    latency = None if found_ms is None else round(found_ms * 1e6)
    known = PointRow(
        name=name,
        target="rpi4",
        runtime="tflite",
        threads=4,
        budget=BudgetRow(latency_ns=round(limit_ms * 1e6)),
        verdict="met",
        exit_code=0,
        source=Source.ESTIMATED,
        latency_ns=latency,
        latency_interval_ns=None if latency is None else (round(0.9 * latency), round(1.1 * latency)),
        ram_bytes=412_000,
        ram_kind="activations",
        size_bytes=181_240,
        validation=validation,
        test=None if validation is None else validation - 0.004,
        run=RUN / "points" / name,
    )
    return known.model_copy(update=changes)


def made_up_sweep(**changes: Any) -> SweepRecord:
    """Six points: three on the front of one target, one behind it, one infeasible, one failed, and a measured one."""
    nothing = {"latency_ns": None, "latency_interval_ns": None, "ram_bytes": None, "ram_kind": None, "size_bytes": None}
    rows = (
        row("rpi4-8ms", 8, 7.1, 0.931),
        row("rpi4-12ms", 12, 10.8, 0.958),
        row("rpi4-16ms", 16, 14.2, 0.955),
        row("rpi4-24ms", 24, 21.5, 0.974),
        row("rpi4-1ms", 1, None, None, verdict="infeasible", exit_code=3, reason="needs | <b>much</b>", **nothing),
        row("rpi4-9ms", 9, None, None, verdict="failed", exit_code=6, source=None, reason="disturbed", **nothing),
        row(
            "host-4ms",
            4,
            4.4,
            0.97,
            target="host",
            source=Source.MEASURED,
            latency_interval_ns=(4_200_000, 4_400_000),
            ram_kind="process",
            verdict="missed",
            exit_code=3,
            reason="latency: needs 4.4 ms, budget 4 ms",
        ),
    )
    record = SweepRecord(
        workload="user",
        metric="accuracy",
        points=marked(rows, higher_is_better=True),
        dense=(
            DenseRow(
                target="rpi4",
                source=Source.ESTIMATED,
                latency_ns=40_000_000,
                latency_interval_ns=(36_000_000, 44_000_000),
                ram_bytes=800_000,
                size_bytes=603_008,
                validation=0.981,
                test=0.979,
            ),
        ),
        cpus=1,
        run=RUN,
        name="digits",
        created="2026-01-01T00:00:00+00:00",
        edgeprune="0.1.0",
    )
    return record.model_copy(update=changes)
