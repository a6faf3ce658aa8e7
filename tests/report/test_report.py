"""The report: self-contained, escaped, every number with its source, the same facts in every form."""

from __future__ import annotations

import re
from html.parser import HTMLParser
from pathlib import Path

import pytest

from edgeprune.cost import Cost, Counts, Measurement, OpCost, Source
from edgeprune.documents import (
    BudgetRow,
    Figure,
    FitRecord,
    FrozenRow,
    KeepRow,
    OpRow,
    ProfileRecord,
    profile_record,
)
from edgeprune.errors import NoRoomError
from edgeprune.report import charts, tables
from edgeprune.report.files import write_reports
from edgeprune.report.html import render_html, tiles
from edgeprune.report.markdown import render_markdown
from edgeprune.report.summary import profile_table, summary
from edgeprune.report.text import interval_text, metric_text, verdict_line
from tests.report.made_up import infeasible_record, made_up_record, missed_record

HOSTILE = '<script>alert("x")</script>|`*_[a](b)'
RECORDS = [made_up_record(), missed_record(), infeasible_record()]


def hostile_record() -> FitRecord:
    return made_up_record(
        name=HOSTILE,
        layers=(KeepRow(layer=HOSTILE, group=HOSTILE, dense=8, kept=4),),
        frozen=(FrozenRow(group=HOSTILE, channels=1, layers=(HOSTILE,), reason=HOSTILE),),
        ops=(OpRow(name=HOSTILE, type=HOSTILE, ns=None, macs=1),),
        notes=(HOSTILE,),
        environment={"cpu": HOSTILE},
    )


class Page(HTMLParser):
    """Tags still open, everything that could load something, and the text."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.loads: list[str] = []
        self.text = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag not in ("meta", "br", "line", "circle"):
            self.open.append(tag)
        self.loads += [f"{tag} {name}" for name, _ in attrs if name in ("src", "href", "onload", "onclick")]
        self.loads += [tag] if tag in ("script", "link", "img", "iframe", "object") else []

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        pass

    def handle_data(self, data: str) -> None:
        self.text += data


@pytest.mark.parametrize("record", RECORDS, ids=lambda record: record.verdict)
def test_the_page_is_well_formed_and_loads_nothing(record: FitRecord) -> None:
    text = render_html(record)
    page = Page(text)
    assert page.open == [] and page.loads == []
    assert "url(" not in text and "@import" not in text and "http" not in text
    assert verdict_line(record).removeprefix(record.verdict) in page.text


def test_names_from_files_cannot_become_markup() -> None:
    page = render_html(hostile_record())
    assert "<script" not in page and "&lt;script&gt;" in page
    markdown = render_markdown(hostile_record())
    assert "<script" not in markdown and "\n## " in markdown
    for line in markdown.splitlines():
        if "&lt;script" in line and line.startswith("|"):
            assert "\\|\\`\\*\\_\\[a\\](b)" in line


def test_every_number_column_names_its_source_or_is_a_plain_count() -> None:
    record = made_up_record()
    for table in (tables.before_after(record), tables.rounds(record), tables.race(record), tables.operators(record)):
        for index, (head, detail) in enumerate(table.columns):
            if head in ("latency", "RAM", "time", "predicted", "profiled", record.metric.name):
                assert re.search("measured|emulated|estimated|test set|validation", detail), (head, index)


def test_sources_never_share_a_column() -> None:
    table = tables.before_after(made_up_record())
    latency = [detail for head, detail in table.columns if head == "latency"]
    assert latency == ["rpi4, estimated", "host, measured"]
    deployed = next(row for i, row in enumerate(table.rows) if i in table.strong)
    texts = dict(zip([f"{head} {detail}" for head, detail in table.columns], [cell.text for cell in deployed]))
    assert texts["latency rpi4, estimated"] == "16.9 ms" and texts["latency host, measured"] == "1.94 ms"


def test_memory_of_different_kinds_has_columns_of_its_own() -> None:
    columns = tables.before_after(made_up_record()).columns
    assert [detail for head, detail in columns if head == "RAM"] == [
        "activations, rpi4, estimated",
        "process, host, measured",
    ]


@pytest.mark.parametrize("record", RECORDS, ids=lambda record: record.verdict)
def test_markdown_tables_have_as_many_cells_in_each_row(record: FitRecord) -> None:
    blocks = re.findall(r"(?:^\|.*\|\n?)+", render_markdown(record), re.MULTILINE)
    assert blocks
    for block in blocks:
        assert len({len(re.findall(r"(?<!\\)\|", line)) for line in block.splitlines()}) == 1


def test_the_verdict_says_source_interval_runtime_threads_and_limits() -> None:
    assert verdict_line(made_up_record()) == (
        "met: 16.9 ms on rpi4 (estimated; 80 % interval 14.3 to 19.4 ms; tflite, 4 threads); "
        "budget: latency 20 ms at p90, drop 1pp"
    )
    measured = made_up_record(source=Source.MEASURED, target="host", threads=1)
    assert "on host (measured; 99 % upper bound of p90; tflite, 1 thread)" in verdict_line(measured)
    assert "violated: drop: 2.10 pp, allowed 1.00 pp" in verdict_line(missed_record())
    assert verdict_line(infeasible_record()).startswith("infeasible; budget: latency 1 ms at p90; violated: latency:")
    ram_only = made_up_record(latency_ns=None, budget=BudgetRow(ram_bytes=262144, size_bytes=1000))
    assert verdict_line(ram_only).endswith("budget: RAM 256.0 KiB, size 1000 B")
    assert "budget: none" in verdict_line(made_up_record(budget=BudgetRow()))


def test_the_title_says_the_target_once() -> None:
    for name in ("nets", "nets-rpi4"):
        record = made_up_record(name=name)
        assert render_markdown(record).startswith("# nets on rpi4\n") and "<h1>nets on rpi4</h1>" in render_html(record)
        assert summary(record).startswith("nets: met: ")
    assert summary(made_up_record(name="")).startswith("demo: met: ")


def test_the_summary_names_every_artifact_and_the_report() -> None:
    text = summary(made_up_record())
    assert text.splitlines()[0].startswith("demo: met: 16.9 ms")
    for name in ("model.onnx", "model.tflite", "model.xml", "report.html"):
        assert name in text


def test_the_tiles_show_limits_as_shares() -> None:
    by_name = {tile.name: tile for tile in tiles(made_up_record())}
    assert by_name["Latency"].share == pytest.approx(0.97)
    assert by_name["Accuracy"].share == pytest.approx(0.34)
    assert by_name["Peak RAM"].share is None
    infeasible = tiles(infeasible_record())
    assert infeasible[0].share == pytest.approx(4.1) and infeasible[0].name == "Smallest latency"
    assert tiles(infeasible_record().model_copy(update={"smallest": None})) == ()


def test_metrics_are_percent_when_they_are_shares() -> None:
    share = made_up_record().metric
    error = share.model_copy(update={"name": "mse", "higher_is_better": False, "dense": 0.1})
    assert [metric_text(v, share) for v in (0.9735, None)] == ["97.35 %", "–"]
    assert metric_text(0.123456, error) == "0.1235"


def test_an_interval_says_its_unit_once_when_both_ends_share_it() -> None:
    assert interval_text((14_300_000, 19_400_000)) == "14.3 to 19.4 ms"
    assert interval_text((900_000, 1_200_000)) == "900 µs to 1.2 ms"


@pytest.mark.parametrize("scale", [1e-5, 0.01, 1.0, 7.3, 1000.0])
def test_charts_stay_inside_their_box_at_any_scale(scale: float) -> None:
    record = made_up_record()
    rows = tuple(
        row.model_copy(
            update={
                "predicted_ns": round((row.predicted_ns or 0) * scale),
                "profiled_ns": round((row.profiled_ns or 0) * scale),
                "predicted_interval_ns": None,
                "profiled_interval_ns": tuple(round(v * scale) for v in row.profiled_interval_ns or ()),
            }
        )
        for row in record.rounds
    )
    budget = BudgetRow(latency_ns=round(20e6 * scale))
    chart = charts.rounds_chart(record.model_copy(update={"rounds": rows, "budget": budget}))
    assert chart is not None and chart.limit_x is not None
    for mark in chart.marks:
        assert chart.left <= mark.low <= mark.x <= mark.high <= chart.right
    assert chart.left <= chart.limit_x <= chart.right
    assert 3 <= len(chart.ticks) <= 8 and len({tick.text for tick in chart.ticks}) == len(chart.ticks)


def test_the_latency_chart_shows_only_the_source_of_the_verdict() -> None:
    chart = charts.before_after_chart(made_up_record())
    assert chart is not None and [mark.label for mark in chart.marks] == ["dense int8", "tflite int8"]
    lonely = made_up_record(costs=made_up_record().costs[4:5])
    assert charts.before_after_chart(lonely) is None


def test_keep_bars_are_shares_of_the_widest_layer() -> None:
    bars = charts.keep_bars(made_up_record())
    assert max(bar.dense_share for bar in bars) == 100
    assert all(0 < bar.kept_share <= bar.dense_share for bar in bars)
    assert charts.keep_bars(infeasible_record()) == ()


def test_a_figure_of_an_emulated_device_gets_a_column_of_its_own() -> None:
    record = made_up_record()
    figure = Figure(source=Source.EMULATED, target="rpi4", ram_bytes=1024, ram_kind="process")
    row = record.costs[4].model_copy(update={"figures": (*record.costs[4].figures, figure)})
    columns = tables.before_after(record.model_copy(update={"costs": (row,)})).columns
    assert ("RAM", "process, rpi4, emulated") in columns and ("latency", "rpi4, emulated") not in columns


def test_both_files_are_written_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    record = made_up_record()
    html, markdown = write_reports(tmp_path, record)
    assert html.read_text(encoding="utf-8") == render_html(record)
    assert markdown.read_text(encoding="utf-8") == render_markdown(record)
    monkeypatch.setattr("os.fsync", lambda _: (_ for _ in ()).throw(OSError(28, "No space left on device")))
    with pytest.raises(NoRoomError, match="the disk is full"):
        write_reports(tmp_path, missed_record())
    assert html.read_text(encoding="utf-8") == render_html(record)


def test_rendering_twice_gives_the_same_bytes() -> None:
    assert render_html(made_up_record()) == render_html(made_up_record())


def counted_profile(**changes: object) -> ProfileRecord:
    """A file executed on an emulated Cortex-M4."""
    counts = Counts(
        instructions=5_000_000,
        cycles=(9_600_000, 12_000_000),
        arena_bytes=53 * 1024,
        arena_bound_bytes=51 * 1024,
        stack_bytes=512,
        flash_bytes=100 * 1024,
        code_bytes=12 * 1024,
        weights_bytes=88 * 1024,
        mismatches=0,
        compared=100,
    )
    cost = Cost(
        source=Source.EMULATED,
        latency_s=0.09,
        latency_interval_s=(0.08, 0.1),
        ram_bytes=53 * 1024 + 512,
        ram_kind="arena",
        size_bytes=100 * 1024,
    )
    found = Measurement(
        cost=cost,
        target="nucleo-l4r5zi",
        runtime="edgeprune-c",
        runtime_version="0.1.0",
        threads=1,
        precision="int8",
        ops=(
            OpCost(name="head", kind="dense", latency_s=0.001, macs=640, instructions=1_234),
            OpCost(name="shape", kind="reshape", latency_s=None, macs=0),
        ),
        counts=counts,
    )
    return profile_record(found, Path("m.tflite")).model_copy(update=changes)


def test_a_profile_that_was_executed_shows_its_counts() -> None:
    text = profile_table(counted_profile())
    for line in (
        r"target +nucleo-l4r5zi \(emulated\)",
        r"latency +90 ms \(executed on an emulated core\)",
        r"interval +80 to 100 ms",
        r"ram +53.5 KiB \(arena and stack\)",
        r"instructions +5,000,000",
        r"cycles +9,600,000 to 12,000,000",
        r"arena +53.0 KiB \(at least 51.0 KiB in this order\)",
        r"stack +512 B",
        r"flash +100.0 KiB \(code 12.0 KiB, weights 88.0 KiB\)",
        r"mismatches +0 output values of 100 inputs, against LiteRT's reference kernels",
        r" +1,000,000 +1,234 +640 +dense +head",
        r" +– +– +0 +reshape +shape",
    ):
        assert re.search(f"^{line}$", text, re.MULTILINE), line
    assert "device model" not in text and "size  " not in text


def test_a_profile_says_what_could_not_be_known() -> None:
    text = profile_table(counted_profile(cycles=None, latency_ns=None, latency_interval_ns=None, mismatches=None))
    for line in ("latency +–", "cycles +no estimate for this core", "mismatches +not compared: the .tflite file .*"):
        assert re.search(f"^{line}$", text, re.MULTILINE), line


def test_profiles_that_were_not_executed_show_no_counts() -> None:
    plain = dict.fromkeys(Counts.model_fields)
    for source, says in (
        (Source.ESTIMATED, "(device model)"),
        (Source.MEASURED, "(99 % upper bound of the percentile)"),
    ):
        text = profile_table(counted_profile(source=source, **plain))
        assert says in text and "instructions" not in text and "size         100.0 KiB" in text


def emulated_record() -> FitRecord:
    """A fit to 100 ms on a microcontroller that was executed."""
    return made_up_record(
        source=Source.EMULATED,
        target="nucleo-l4r5zi",
        runtime="edgeprune-c",
        threads=1,
        budget=BudgetRow(latency_ns=110_000_000, at="p90"),
        latency_ns=95_000_000,
        latency_interval_ns=(90_000_000, 100_000_000),
        ops=(OpRow(name="head", type="dense", ns=1000, macs=640, instructions=1_234),),
    )


def test_an_emulated_verdict_rests_on_the_upper_end_of_its_interval() -> None:
    record = emulated_record()
    assert verdict_line(record).startswith(
        "met: 95 ms on nucleo-l4r5zi (emulated; interval 90 to 100 ms; edgeprune-c); budget: latency 110 ms"
    )
    latency = tiles(record)[0]
    assert latency.limit == "upper end 100 ms of 110 ms" and latency.share == pytest.approx(100 / 110)
    table = tables.operators(record)
    assert table.columns[-1] == ("instructions", "emulated") and table.rows[0][-1].text == "1,234"
