"""The report: self-contained, escaped, every number with its source, the same facts in every form."""

from __future__ import annotations

import re
from html.parser import HTMLParser
from pathlib import Path

import pytest

from edgeprune.cost import Source
from edgeprune.documents import BudgetRow, Figure, FitRecord, FrozenRow, KeepRow, OpRow
from edgeprune.errors import NoRoomError
from edgeprune.report import charts, tables
from edgeprune.report.files import write_reports
from edgeprune.report.html import render_html, tiles
from edgeprune.report.markdown import render_markdown
from edgeprune.report.summary import summary
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
