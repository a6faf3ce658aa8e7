"""The report of a sweep: one target and one source per table and chart, every number with its place."""

from __future__ import annotations

from html.parser import HTMLParser

import pytest

from edgeprune.cost import Source
from edgeprune.documents import BudgetRow
from edgeprune.report.front import (
    front_summary,
    front_title,
    misses,
    parts,
    render_front_html,
    render_front_markdown,
)
from tests.front.made_up import made_up_sweep, row


def test_targets_and_sources_have_tables_of_their_own() -> None:
    estimated, measured = parts(made_up_sweep())
    assert estimated.heading == "rpi4, estimated (tflite, 4 threads)"
    assert measured.heading == "host, measured (tflite, 4 threads; latency: 99 % upper bound of p90)"
    assert ("latency", "rpi4, estimated") in estimated.table.columns
    assert ("latency", "host, measured") in measured.table.columns
    assert [cells[0].text for cells in estimated.table.rows] == ["", "1", "2", "3", "4"]
    assert [cells[0].text for cells in measured.table.rows] == ["7"]


def test_points_behind_the_front_are_marked() -> None:
    table = parts(made_up_sweep())[0].table
    assert [cells[-1].text for cells in table.rows] == ["", "yes", "yes", "no: 2 is no worse", "yes"]
    assert table.strong == (1, 2, 4)


def test_what_is_not_met_is_listed_with_its_reason() -> None:
    lines = [[cell.text for cell in cells] for cells in misses(made_up_sweep()).rows]
    assert [line[0] for line in lines] == ["5", "6", "7"]
    assert [line[3] for line in lines] == ["infeasible", "failed", "missed"]
    assert lines[1][4] == "disturbed" and lines[0][2] == "latency 1 ms at p90"


@pytest.mark.parametrize("scale", [1e-4, 0.03, 1.0, 9.7, 400.0])
def test_charts_stay_inside_their_box_at_any_scale(scale: float) -> None:
    record = made_up_sweep()
    points = tuple(
        point.model_copy(
            update={
                "latency_ns": None if point.latency_ns is None else round(point.latency_ns * scale),
                "latency_interval_ns": None
                if point.latency_interval_ns is None
                else tuple(round(end * scale) for end in point.latency_interval_ns),
                "validation": None if point.validation is None else point.validation * min(scale, 1.0),
            }
        )
        for point in record.points
    )
    chart = parts(record.model_copy(update={"points": points, "dense": ()}))[0].chart
    assert chart is not None and len(chart.dots) == 4 and chart.bands
    for dot in chart.dots:
        assert chart.left <= dot.low <= dot.x <= dot.high <= chart.right
        assert chart.top <= dot.y <= chart.bottom
    assert 3 <= len(chart.ticks) <= 8 and len({tick.text for tick in chart.ticks}) == len(chart.ticks)
    assert 2 <= len(chart.levels) <= 8


def test_the_chart_places_what_is_better_higher_and_what_is_faster_to_the_left() -> None:
    chart = parts(made_up_sweep())[0].chart
    assert chart is not None
    dots = {dot.label: dot for dot in chart.dots}
    assert dots["1"].x < dots["2"].x < dots["3"].x < dots["4"].x < dots["dense"].x
    assert dots["dense"].y < dots["4"].y < dots["2"].y < dots["3"].y < dots["1"].y
    assert [dots[label].style for label in ("1", "2", "3", "4", "dense")] == [
        "result",
        "result",
        "before",
        "result",
        "promise",
    ]
    assert len(chart.line.split()) == 3 and "estimated" in chart.title


def test_a_sweep_of_sizes_has_them_on_its_axis() -> None:
    points = tuple(
        row(f"p{size}", 9, None, 0.9, budget=BudgetRow(size_bytes=size), size_bytes=size) for size in (1000, 2000)
    )
    (part,) = parts(made_up_sweep(points=points, dense=()))
    assert part.chart is not None and "over size" in part.chart.title and not part.chart.bands


class _Tags(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.seen: set[str] = set()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen.add(tag)
        if tag not in ("meta", "line", "circle", "polyline", "br", "i"):
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        if tag in self.open:
            assert self.open.pop() == tag


def test_the_page_is_whole_escaped_and_fetches_nothing() -> None:
    text = render_front_html(made_up_sweep())
    tags = _Tags()
    tags.feed(text)
    assert not tags.open and "script" not in tags.seen and "svg" in tags.seen and "link" not in tags.seen
    assert "<b>much</b>" not in text and "&lt;b&gt;much" in text and "https://" not in text
    assert text == render_front_html(made_up_sweep())


def test_all_forms_say_the_same() -> None:
    record = made_up_sweep()
    texts = (render_front_html(record), render_front_markdown(record), front_summary(record))
    for said in ("digits: 4 of 7 budgets met, 1 failed", "95.80 %", "9.72 to 11.9 ms", "disturbed", "98.10 %"):
        assert all(said in text for text in texts), said
    assert "\\|" in texts[1] and front_title(record) in texts[2].splitlines()[0]
    assert all("sweep --resume" in text for text in texts[:2]) and "report.html" in texts[2]


def test_a_sweep_where_everything_failed_has_a_report_too() -> None:
    failed = tuple(point for point in made_up_sweep().points if point.verdict == "failed")
    record = made_up_sweep(points=failed, dense=(), workload=None, metric="")
    assert parts(record) == () and "0 of 1 budgets met" in render_front_html(record)


def test_an_emulated_part_is_judged_by_the_upper_end_of_its_interval() -> None:
    point = row("nucleo-90ms", 90, 80, 0.95, target="nucleo-l4r5zi", runtime="edgeprune-c", source=Source.EMULATED)
    assert point.latency_upper_ns == 88_000_000
    (emulated,) = parts(made_up_sweep(points=(point,), dense=()))
    assert emulated.heading == "nucleo-l4r5zi, emulated (edgeprune-c, 4 threads)"
    assert ("interval", "of latency") in emulated.table.columns
