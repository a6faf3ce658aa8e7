"""Finished cells are not run again, and cells of different machines, versions or settings never mix."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from bench.cells import Result, Sheet, open_sheet, read_document
from edgeprune.errors import UsageError


def sheet(path: Path, fresh: bool = False, **settings: int) -> Sheet:
    return open_sheet("fit", settings, "python -m bench.fit", path, fresh=fresh)


def never() -> Result:
    pytest.fail("this cell is finished")


def test_a_finished_cell_is_not_run_again(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "fit.json"
    assert sheet(path).cell("a/seed0", lambda: {"keep": {"conv": (1, 2)}}) == {"keep": {"conv": [1, 2]}}
    assert sheet(path).cell("a/seed0", never) == {"keep": {"conv": [1, 2]}}
    assert sheet(path).result("a/seed0") == {"keep": {"conv": [1, 2]}}


def test_a_cell_that_fails_leaves_the_finished_ones(tmp_path: Path) -> None:
    path = tmp_path / "fit.json"
    sheet(path).cell("a", lambda: {"x": 1})
    with pytest.raises(ZeroDivisionError):
        sheet(path).cell("b", lambda: {"x": 1 // 0})
    assert sheet(path).cell("a", never) == {"x": 1}
    assert sheet(path).cell("b", lambda: {"x": 2}) == {"x": 2}
    assert list(read_document(path)["cells"]) == ["a", "b"]


def test_a_file_says_where_and_how_its_figures_were_taken(tmp_path: Path) -> None:
    sheet(tmp_path / "fit.json", epochs=6).cell("a", lambda: {"x": 1})
    document = read_document(tmp_path / "fit.json")
    assert document["machine"]["cpu"] and document["machine"]["cores"] >= 1
    assert {"edgeprune", "python", "torch", "onnxruntime", "openvino", "ai-edge-litert"} <= set(document["versions"])
    assert document["settings"] == {"epochs": 6}
    cell = document["cells"]["a"]
    assert cell["command"] == "python -m bench.fit" and cell["date"].endswith("+00:00")
    assert len(cell["load_1m"]) == 2 and cell["seconds"] >= 0


def test_other_settings_or_versions_are_refused_unless_started_afresh(tmp_path: Path) -> None:
    path = tmp_path / "fit.json"
    sheet(path, epochs=6).cell("a", lambda: {"x": 1})
    with pytest.raises(UsageError, match="other settings than those of the cells there: epochs 6, now 1") as caught:
        sheet(path, epochs=1)
    assert "--fresh" in caught.value.hint
    document = json.loads(path.read_text())
    document["versions"]["torch"] = "1.0"
    path.write_text(json.dumps(document))
    with pytest.raises(UsageError, match=r"other versions than those of the cells there: torch '1\.0', now"):
        sheet(path, epochs=6)
    assert sheet(path, fresh=True, epochs=1).cell("a", lambda: {"x": 3}) == {"x": 3}


def test_a_cell_that_is_not_there_yet_is_named(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="cell uniform/seed0 is not there yet"):
        sheet(tmp_path / "fit.json").result("uniform/seed0")


@pytest.mark.parametrize(("text", "message"), [("{", "not JSON"), ("[]", "not a file of edgeprune.bench/1")])
def test_a_file_that_is_no_result_is_refused(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "fit.json").write_text(text)
    with pytest.raises(UsageError, match=message):
        sheet(tmp_path / "fit.json")
