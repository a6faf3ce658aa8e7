"""The picture of an inspected model: every layer, its channels by group, and escaped names."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ET

from edgeprune.cost import Source
from edgeprune.documents import FrozenGroupRow, GroupRow, InspectedCost, InspectRecord, LayerRow, SegmentRow
from edgeprune.report.picture import letter, picture, picture_text, render_picture


def layer(name: str, reads: str | None, *computes: tuple[str | None, int], reasons: tuple[str, ...] = ()) -> LayerRow:
    return LayerRow(
        name=name,
        kind="conv",
        reads=(SegmentRow(group=reads, width=8),),
        computes=tuple(SegmentRow(group=group, width=width) for group, width in computes),
        macs=100,
        latency_ns=5,
        reasons=reasons,
    )


def group(name: str, *layers: str) -> GroupRow:
    return GroupRow(name=name, width=8, unit=1, layers=layers, parameters=10, macs=7, latency_share=0.25)


def record(*layers: LayerRow) -> InspectRecord:
    return InspectRecord(
        model="<b>nets.py:make",
        input=(1, 3, 8, 8),
        parameters=100,
        macs=1000,
        by_head=False,
        groups=(group("stem", "stem", "b"), group("a", "a"), group("c", "c", "d")),
        frozen=(FrozenGroupRow(name="head", width=4, reasons=("model output",)),),
        layers=layers,
        dense=InspectedCost(source=Source.ESTIMATED, target="rpi4", runtime="tflite", threads=4, precision="int8"),
        notes=("in training mode only: operators mul",),
    )


NET = record(
    layer("stem", None, ("stem", 8)),
    layer("a", "stem", ("a", 8)),
    layer("b", "a", ("stem", 8)),
    layer("c", "stem", ("c", 4), (None, 4), reasons=("no rule for <odd>",)),
    layer("d", "c", ("c", 4)),
    layer("head", "stem", (None, 2), reasons=("model output",)),
)


def test_equal_letters_go_together_and_fixed_channels_are_shaded() -> None:
    lines = picture_text(NET).splitlines()
    bars = {line.split()[0]: line.split()[1] for line in lines}
    assert bars["stem"] == bars["b"] == "A" * 32 and bars["a"] == "B" * 32
    assert bars["c"] == "C" * 16 + "░" * 16 and bars["head"] == "░" * 8
    assert [line.split()[-1] for line in lines] == ["8", "8", "8", "8", "4", "2"]
    assert letter(0) == "A" == letter(52)


def test_a_long_net_is_cut_in_the_terminal_and_whole_on_the_page() -> None:
    deep = record(*(layer(f"layer{i}", None, ("stem", 8)) for i in range(300)))
    assert picture_text(deep).splitlines()[-1] == "and 240 more layers: --html FILE shows all"
    assert len(picture(deep).lines) == 300 and len(picture(deep).ties[0].dots) == 300


def test_lines_join_the_layers_of_a_group_and_share_lanes_where_they_can() -> None:
    ties = {tie.group: tie for tie in picture(NET).ties}
    assert set(ties) == {0, 2}, "a group of one layer needs no line"
    assert len(ties[0].dots) == 2 and ties[0].bottom < ties[2].top and ties[0].x == ties[2].x
    assert "shrink together in stem, b" in ties[0].title


def test_the_page_is_well_formed_and_escapes_what_others_wrote() -> None:
    page = render_picture(NET)
    assert "<b>nets" not in page and "<odd>" not in page and "no rule for &lt;odd&gt;" in page
    svg = re.search(r"<svg.*</svg>", page, re.DOTALL)
    assert svg is not None
    found = ET.fromstring(svg[0])
    rects = [rect for rect in found.iter("rect") if rect.get("class")]
    assert len(rects) == sum(len(row.reads) + len(row.computes) for row in NET.layers)
    assert sum(rect.get("class") == "fixed" for rect in rects) == 3
    assert "<script" not in page and "http" not in page and "latency not known" in page
    assert "model output: head (4 channels)" in page and "in training mode only" in page
