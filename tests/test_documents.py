"""The JSON documents: their fields, their units, and that they come back unchanged."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from edgeprune.cost import Budget, Cost, Measurement, OpCost, Source, Violation
from edgeprune.documents import FitRecord, budget_row, figure, interval_ns, profile_record, violation_row
from edgeprune.units import Drop
from tests.report.made_up import infeasible_record, made_up_record, missed_record

FIT_FIELDS = (
    "schema workload verdict violations source target runtime threads budget latency_ns latency_interval_ns "
    "ram_bytes ram_kind size_bytes metric rounds artifacts run"
).split()
PROFILE_FIELDS = (
    "schema source runtime threads precision runs p50_ns p90_ns p99_ns latency_ns latency_interval_ns "
    "ram_bytes ram_kind size_bytes ops"
).split()


def measurement(**changes: object) -> Measurement:
    cost = Cost(source=Source.MEASURED, latency_s=0.0021, latency_interval_s=(0.002, 0.0021), size_bytes=99)
    made = Measurement(
        cost=cost,
        target="host",
        runtime="tflite",
        runtime_version="2.3.0",
        threads=1,
        precision="int8",
        runs=200,
        p50_s=0.0015,
        p90_s=0.002,
        p99_s=0.003,
        ops=(OpCost(name="a", kind="conv", latency_s=None, macs=5),),
    )
    return made.model_copy(update=changes)


@pytest.mark.parametrize("record", [made_up_record(), missed_record(), infeasible_record()], ids=lambda r: r.verdict)
def test_a_fit_document_has_the_promised_fields_and_comes_back(record: FitRecord) -> None:
    document = json.loads(record.to_json(), parse_constant=pytest.fail)
    assert document["schema"] == "edgeprune.fit/1" and set(FIT_FIELDS) <= set(document)
    assert set(document["metric"]) >= {"name", "dense", "pruned", "artifacts"}
    for row in document["rounds"]:
        assert set(row) >= {"budget_ns", "predicted_ns", "profiled_ns", "source"}
    assert FitRecord.model_validate_json(record.to_json()) == record


def test_a_profile_document_has_the_promised_fields_in_nanoseconds() -> None:
    document = json.loads(profile_record(measurement(), Path("m.tflite")).to_json())
    assert document["schema"] == "edgeprune.profile/1" and set(PROFILE_FIELDS) <= set(document)
    assert (document["p50_ns"], document["latency_ns"], document["latency_interval_ns"]) == (
        1_500_000,
        2_100_000,
        [2_000_000, 2_100_000],
    )
    assert document["ops"] == [{"name": "a", "type": "conv", "ns": None, "macs": 5, "instructions": None}]


def test_what_a_source_cannot_know_is_null() -> None:
    unknown = Cost(source=Source.ESTIMATED)
    document = json.loads(profile_record(measurement(cost=unknown, p50_s=None), Path("m")).to_json())
    assert document["latency_ns"] is None and document["p50_ns"] is None and document["ram_kind"] is None
    assert interval_ns(None) is None and figure(unknown, "rpi4").latency_ns is None


def test_violations_are_in_the_units_they_name() -> None:
    row = violation_row(Violation(what="latency_s", needs=0.0214, limit=0.02))
    assert (row.what, row.needs, row.limit) == ("latency_ns", pytest.approx(21.4e6), pytest.approx(20e6))
    assert violation_row(Violation(what="drop", needs=0.02, limit=0.01)).what == "drop"
    unknown = violation_row(Violation(what="ram_bytes", needs=float("inf"), limit=10))
    assert unknown.needs is None and unknown.text == "ram: not known from this source"


def test_the_budget_is_in_integers() -> None:
    budget = Budget(latency_s=0.02, max_drop=Drop(amount=0.01, kind="points"))
    assert budget_row(budget).latency_ns == 20_000_000


def test_the_exit_code_tells_cost_from_quality() -> None:
    assert [r.exit_code for r in (made_up_record(), missed_record(), infeasible_record())] == [0, 4, 3]
    both = (*missed_record().violations, *infeasible_record().violations)
    assert missed_record().model_copy(update={"violations": both}).exit_code == 3
