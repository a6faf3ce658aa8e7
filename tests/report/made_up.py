"""A made-up record with the shape of a real one, for tests of what is rendered from it."""

from __future__ import annotations

from pathlib import Path

from edgeprune.cost import Source
from edgeprune.documents import (
    ArtifactRow,
    BudgetRow,
    CostRow,
    Figure,
    FitRecord,
    FrozenRow,
    KeepRow,
    LimitRow,
    MetricRow,
    OpRow,
    RaceRow,
    RankingRow,
    RoundRow,
    Saving,
    TimingRow,
    ViolationRow,
    WorthRow,
)
from edgeprune.spec import Spec
from edgeprune.units import Drop

RUN = Path("runs/20261122T101500Z-demo-rpi4")


def board(ms: float, low: float, high: float, kib: float, precision: str = "int8") -> Figure:
    return Figure(
        source=Source.ESTIMATED,
        target="rpi4",
        runtime="tflite",
        threads=4,
        precision=precision,
        latency_ns=round(ms * 1e6),
        latency_interval_ns=(round(low * 1e6), round(high * 1e6)),
        ram_bytes=round(kib * 1024),
        ram_kind="activations",
    )


def host(runtime: str, ms: float, mib: float, precision: str = "int8") -> Figure:
    return Figure(
        source=Source.MEASURED,
        target="host",
        runtime=runtime,
        threads=2,
        precision=precision,
        latency_ns=round(ms * 1e6),
        latency_interval_ns=(round(ms * 0.97e6), round(ms * 1e6)),
        ram_bytes=round(mib * 2**20),
        ram_kind="process",
    )


LAYERS = [
    ("stem.conv", "g0", 32, 24),
    ("blocks.0.conv1", "g1", 64, 40),
    ("blocks.0.conv2", "g0", 32, 24),
    ("blocks.1.conv1", "g2", 64, 48),
    ("blocks.1.conv2", "g3", 64, 56),
    ("blocks.2.conv1", "g4", 128, 56),
    ("blocks.2.conv2", "g3", 64, 56),
    ("blocks.3.conv1", "g5", 128, 88),
    ("blocks.3.conv2", "g6", 128, 128),
    ("blocks.4.conv1", "g7", 256, 72),
    ("head.conv", "g8", 256, 160),
]


def made_up_record(**changes: object) -> FitRecord:
    """A fit of the demo to 20 ms on rpi4 that needed two rounds."""
    ops = [("stem.conv", "conv", 3_810_000, 21_233_664), ("stem.add", "add", 240_000, 0)]
    ops += [(f"{name}", "conv", 2_600_000 - 190_000 * i, 9_437_184) for i, (name, *_) in enumerate(LAYERS[1:])]
    record = FitRecord(
        workload="demo",
        verdict="met",
        source=Source.ESTIMATED,
        target="rpi4",
        runtime="tflite",
        threads=4,
        budget=BudgetRow(latency_ns=20_000_000, at="p90", max_drop=Drop(amount=0.01, kind="points")),
        latency_ns=16_900_000,
        latency_interval_ns=(14_300_000, 19_400_000),
        ram_bytes=412 * 1024,
        ram_kind="activations",
        size_bytes=181_240,
        metric=MetricRow(
            name="accuracy",
            dense=0.9735,
            pruned=0.9712,
            artifacts={"onnx": 0.9706, "tflite": 0.9701, "openvino": 0.9708},
            validation_dense=0.9748,
            validation_pruned=0.9733,
            validation_artifacts={"onnx": 0.9720, "tflite": 0.9714, "openvino": 0.9722},
            drop=0.0034,
        ),
        rounds=(
            RoundRow(
                budget_ns=20_000_000,
                predicted_ns=16_400_000,
                predicted_interval_ns=(13_900_000, 19_300_000),
                profiled_ns=18_200_000,
                profiled_interval_ns=(15_400_000, 21_400_000),
                source=Source.ESTIMATED,
                profiled_ram_bytes=440 * 1024,
                size_bytes=196_112,
                plan="score",
                correction=1.0,
                metric=0.9741,
                solver_s=0.41,
                solver_gap=0.0004,
                decision="retry",
                reason="latency: needs 21.4 ms, budget 20 ms",
            ),
            RoundRow(
                budget_ns=20_000_000,
                predicted_ns=16_700_000,
                predicted_interval_ns=(14_100_000, 19_200_000),
                profiled_ns=16_900_000,
                profiled_interval_ns=(14_300_000, 19_400_000),
                source=Source.ESTIMATED,
                profiled_ram_bytes=412 * 1024,
                size_bytes=181_240,
                plan="curves",
                correction=1.11,
                metric=0.9733,
                solver_s=0.38,
                solver_gap=0.0007,
                decision="accept",
                reason="all limits hold",
            ),
        ),
        rehearsals=(
            RoundRow(
                budget_ns=20_000_000,
                predicted_ns=16_400_000,
                profiled_ns=18_300_000,
                source=Source.ESTIMATED,
                plan="score",
                correction=1.0,
            ),
        ),
        artifacts={name: RUN / "artifacts" / f"model.{end}" for name, end in ENDINGS.items()},
        run=RUN,
        name="demo",
        created="2026-11-22T10:15:00+00:00",
        edgeprune="0.1.0",
        spec=Spec(),
        samples={"train": 4000, "validation": 600, "calibration": 256, "test": 1400},
        costs=(
            CostRow(
                name="dense fp32",
                role="dense",
                precision="fp32",
                metric=0.9735,
                size_bytes=2_310_400,
                parameters=577_610,
                macs=231_211_008,
                figures=(host("onnxruntime", 7.91, 61.2, "fp32"),),
            ),
            CostRow(
                name="dense int8",
                role="dense",
                precision="int8",
                size_bytes=603_008,
                parameters=577_610,
                macs=231_211_008,
                figures=(board(34.8, 29.4, 41.2, 902),),
            ),
            CostRow(
                name="pruned fp32",
                role="pruned",
                precision="fp32",
                metric=0.9712,
                size_bytes=670_112,
                parameters=167_530,
                macs=97_402_880,
                figures=(host("onnxruntime", 3.61, 39.9, "fp32"),),
            ),
            CostRow(
                name="onnx int8",
                role="artifact",
                precision="int8",
                metric=0.9706,
                size_bytes=214_996,
                parameters=167_530,
                macs=97_402_880,
                figures=(host("onnxruntime", 1.62, 22.4),),
            ),
            CostRow(
                name="tflite int8",
                role="artifact",
                precision="int8",
                metric=0.9701,
                size_bytes=181_240,
                parameters=167_530,
                macs=97_402_880,
                figures=(board(16.9, 14.3, 19.4, 412), host("tflite", 1.94, 9.8)),
                deployed=True,
            ),
            CostRow(
                name="openvino int8",
                role="artifact",
                precision="int8",
                metric=0.9708,
                size_bytes=249_801,
                parameters=167_530,
                macs=97_402_880,
                figures=(host("openvino", 1.48, 44.1),),
            ),
        ),
        layers=tuple(KeepRow(layer=a, group=b, dense=c, kept=d) for a, b, c, d in LAYERS),
        frozen=(
            FrozenRow(group="g9", channels=10, layers=("head.fc",), reason="reaches the output"),
            FrozenRow(group="g10", channels=3, layers=("stem.conv",), reason="reaches the input"),
        ),
        ranking=RankingRow(criterion="logit_taylor", samples=256, agreement=0.934, groups={"g0": 0.97, "g7": 0.71}),
        worth=tuple(
            WorthRow(
                group=group,
                layers=tuple(layer for layer, other, *_ in LAYERS if other == group),
                dense=dense,
                kept=kept,
                importance=min(1.0, kept / dense + 0.1),
                damage=round(0.4 * (1 - kept / dense), 4),
                alone=Saving(latency_ns=30_000 * (dense - kept), ram_bytes=0, size_bytes=900 * (dense - kept)),
                final=Saving(latency_ns=20_000 * (dense - kept), ram_bytes=-64, size_bytes=500 * (dense - kept)),
            )
            for group, dense, kept in dict.fromkeys((group, *widths) for _, group, *widths in LAYERS)
        ),
        limits=(
            LimitRow(what="latency_ns", limit=17_100_000, dense=34_800_000, planned=16_700_000, blocked=6, shrunk=8),
            LimitRow(what="size_bytes", limit=400_000, dense=603_008, planned=181_240, blocked=0, shrunk=8),
        ),
        race=(
            RaceRow(round=1, plan="uniform", metric=0.9588, predicted_ns=16_500_000),
            RaceRow(round=1, plan="score", metric=0.9633, predicted_ns=16_400_000, chosen=True),
            RaceRow(round=1, plan="curves", metric=0.9630, predicted_ns=16_480_000),
            RaceRow(round=2, plan="uniform", metric=0.9561, predicted_ns=16_600_000),
            RaceRow(round=2, plan="score", metric=0.9602, predicted_ns=16_650_000),
            RaceRow(round=2, plan="curves", metric=0.9617, predicted_ns=16_700_000, chosen=True),
        ),
        details=tuple(
            ArtifactRow(
                name=name,
                path=RUN / "artifacts" / f"model.{end}",
                precision="int8",
                size_bytes=size,
                sha256=f"{i}7d1a4b3" * 8,
                float_ops=("Softmax_12",) if name == "openvino" else (),
                snr_db=snr,
            )
            for i, ((name, end), size, snr) in enumerate(
                zip(ENDINGS.items(), (214_996, 181_240, 249_801), (31.2, 30.4, 31.0), strict=True)
            )
        ),
        ops=tuple(OpRow(name=a, type=b, ns=c, macs=d) for a, b, c, d in ops),
        timings=tuple(
            TimingRow(stage=stage, seconds=seconds)
            for stage, seconds in (("load", 1.2), ("trace", 1.6), ("curves", 21.4), ("tune", 88.1), ("export", 14.7))
        ),
        environment={"python": "3.11.7", "torch": "2.13.0", "cpu": "2 cores", "onnxruntime": "1.31.1"},
        notes=("profiled on rpi4 from the exported file, op by op; no board was connected",),
    )
    return record.model_copy(update=changes)


ENDINGS = {"onnx": "onnx", "tflite": "tflite", "openvino": "xml"}


def missed_record() -> FitRecord:
    """The same fit with too large a drop."""
    row = ViolationRow(what="drop", needs=0.021, limit=0.01, text="drop: 2.10 pp, allowed 1.00 pp")
    return made_up_record(verdict="missed", violations=(row,))


def infeasible_record() -> FitRecord:
    """A budget below the smallest reachable cost: nothing was trained or exported."""
    row = ViolationRow(
        what="latency_ns", needs=4_100_000.0, limit=1_000_000.0, text="latency: needs 4.1 ms, budget 1 ms"
    )
    nothing = {"latency_ns": None, "latency_interval_ns": None, "ram_bytes": None, "ram_kind": None, "size_bytes": None}
    empty = {name: () for name in ("rounds", "costs", "layers", "worth", "limits", "race", "details", "ops", "timings")}
    return made_up_record(
        verdict="infeasible",
        violations=(row,),
        budget=BudgetRow(latency_ns=1_000_000),
        metric=MetricRow(name="accuracy"),
        artifacts={},
        smallest=board(3.6, 3.1, 4.1, 96),
        binding=("stem.conv", "head.conv"),
        **nothing,
        **empty,
    )
