"""What `explain` says is what the record holds: groups by what they bought, limits, race, frozen channels."""

from __future__ import annotations

import json

from edgeprune.documents import FitRecord, FrozenRow, RankingRow, StageRow
from edgeprune.report.explain import by_reason, explain_text, explanation, groups_table
from edgeprune.report.text import ranking_text
from tests.report.made_up import infeasible_record, made_up_record


def test_groups_come_in_the_order_of_what_they_bought() -> None:
    rows = [[cell.text for cell in row] for row in groups_table(made_up_record()).rows]
    assert rows[0][:5] == ["g7", "256 → 72", "28%", "38%", "0.287"]
    assert rows[0][5:] == ["5.52 ms", "0", "161.7 KiB", "3.68 ms", "-64 B", "89.8 KiB"]
    assert [row[0] for row in rows][-1] == "g6" and rows[-1][1] == "128"


def test_a_ranking_without_halves_says_what_it_saw() -> None:
    row = RankingRow(criterion="mine.py:score", samples=64)
    assert ranking_text(row) == "channels ranked by mine.py:score on 64 samples"
    assert ranking_text(row.model_copy(update={"samples": 0})) == "channels ranked by mine.py:score without data"


def test_without_curves_or_savings_nothing_is_made_up() -> None:
    record = made_up_record()
    bare = [row.model_copy(update={"damage": None, "importance": None}) for row in record.worth]
    table = groups_table(record.model_copy(update={"worth": tuple(bare)}))
    assert ("damage", "") not in table.columns and table.rows[0][3].text == "–"


def test_the_text_says_what_binds_why_the_plan_won_and_what_was_left() -> None:
    record = made_up_record()
    failed = FrozenRow(group="g11", channels=8, layers=("odd",), reason="pruned differs from masked", by_check=True)
    text = explain_text(record.model_copy(update={"frozen": (*record.frozen, failed)}))
    assert "latency: dense 34.8 ms, plan 16.7 ms of 17.1 ms; binds: the next wider level of 6 of 8 shrunk" in text
    assert "size: dense 588.9 KiB, plan 177.0 KiB of 390.6 KiB; does not bind: 0 of 8" in text
    assert "plan curves won the race: accuracy 96.17 % on validation after 40 steps, against uniform 95.61 %" in text
    assert "round 2: accept: all limits hold" in text
    ranked = (
        "ranked by logit_taylor on 256 samples; two halves of them agree to 0.93 (Spearman, mean by width; least in"
    )
    assert f"{ranked} g7: 0.71)" in text
    assert "left whole by the check:\n  g11: pruned differs from masked" in text
    assert "frozen:\n  reaches the output: g9 (10 channels)" in text


def test_the_stages_on_the_way_are_told() -> None:
    shared = {"plan": "curves", "predicted_ns": 27_000_000, "dense": 1120}
    stages = (StageRow(kept=900, regrown=0, **shared), StageRow(kept=700, regrown=12, **shared))
    text = explain_text(made_up_record(stages=stages))
    assert "stage 1: 900 of 1120 channels left\n" in text
    assert "stage 2: 700 of 1120 channels left, 12 of them back from an earlier stage\n" in text


def test_the_document_holds_all_of_it() -> None:
    document = json.loads(json.dumps(explanation(made_up_record())))
    assert document["schema"] == "edgeprune.explain/1" and document["verdict"] == "met"
    assert [row["binds"] for row in document["limits"]] == [True, False]
    assert document["ranking"]["agreement"] == 0.934 and document["ranking"]["groups"]["g7"] == 0.71
    assert {row["group"] for row in document["groups"]} == {f"g{i}" for i in range(9)}
    assert document["frozen"][0]["reason"] == "reaches the output" and document["left_whole"] == []


def test_a_budget_out_of_reach_names_what_holds_it_up() -> None:
    text = explain_text(infeasible_record())
    assert "no plan reaches the budget; what costs most at the smallest widths: stem.conv, head.conv" in text


def test_records_of_earlier_versions_are_explained_as_far_as_they_go() -> None:
    record = FitRecord.model_validate_json(made_up_record(worth=(), limits=(), ranking=None).to_json())
    assert "saved alone" not in explain_text(record) and "ranked by" not in explain_text(record)
    assert "won the race" in explain_text(record)


def test_equal_reasons_come_together_and_long_lists_are_cut() -> None:
    entries = [(f"layer{i}", 8, "shared reason") for i in range(6)] + [("head", 1000, "model output")]
    assert by_reason(entries) == [
        "model output: head (1000 channels)",
        "shared reason: layer0, layer1, layer2, layer3 and 2 more (48 channels)",
    ]
