"""Progress and tables: bars only for a terminal, lines elsewhere, every item handed on."""

from __future__ import annotations

import sys

import pytest

from edgeprune.cli import terminal
from edgeprune.progress import SILENT


def test_lines_hand_on_every_item_and_end_with_a_count(capsys: pytest.CaptureFixture[str]) -> None:
    assert list(terminal.Lines().track(range(3), "tune")) == [0, 1, 2]
    assert list(terminal.Lines().track(iter("ab"), "open end")) == ["a", "b"]
    err = capsys.readouterr().err
    assert "tune: 3/3 in " in err and "open end: 2 in " in err


def test_long_work_gives_a_line_now_and_then(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = iter(range(0, 1000, 10))
    monkeypatch.setattr(terminal.time, "monotonic", lambda: next(clock))
    list(terminal.Lines().track(range(4), "tune"))
    assert capsys.readouterr().err.splitlines()[:2] == ["tune: 2/4", "tune: 4/4"]


def test_bars_nest_and_clean_up_also_when_left_early(capsys: pytest.CaptureFixture[str]) -> None:
    bars = terminal.Bars()
    for outer in bars.track([1, 2], "outer"):
        for inner in bars.track([3, 4], "inner [bold]"):
            bars.note(f"{outer} {inner} [not markup]")
            if inner == 3:
                break
    captured = capsys.readouterr()
    assert captured.out == "" and "2 3 [not markup]" in captured.err
    assert not bars._bars.tasks


def test_bars_are_for_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    assert isinstance(terminal.progress(quiet=False), terminal.Bars)
    assert terminal.progress(quiet=True) is SILENT
    monkeypatch.setattr(sys.stderr, "isatty", lambda: False, raising=False)
    assert isinstance(terminal.progress(quiet=False), terminal.Lines)


def test_a_table_is_aligned() -> None:
    text = terminal.table(("name", "n"), [("a", "1"), ("long", "200")], right=(1,))
    assert text.splitlines() == ["name    n", "a       1", "long  200"]
