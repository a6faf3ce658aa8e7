"""`edgeprune report`: the report again, from the record."""

from __future__ import annotations

from pathlib import Path

from edgeprune.documents import FitRecord
from edgeprune.record import create
from edgeprune.spec import Spec
from tests.cli.conftest import Command
from tests.report.made_up import made_up_record


def finished(folder: Path) -> Path:
    with create(Spec(out=folder), "demo") as run:
        run.finish(made_up_record(run=run.path))
    return run.path


def test_both_files_are_written_and_the_summary_printed(command: Command, tmp_path: Path) -> None:
    run = finished(tmp_path)
    done = command("report", str(run))
    assert done.code == 0 and done.out.startswith("demo: met:")
    assert (run / "report.html").is_file() and (run / "report.md").is_file()


def test_markdown_goes_to_stdout_and_json_is_the_record(command: Command, tmp_path: Path) -> None:
    run = finished(tmp_path)
    done = command("report", str(run), "--markdown")
    assert done.out.startswith("# demo on rpi4") and not (run / "report.md").exists()
    assert FitRecord.model_validate_json(command("report", str(run), "--json").out).run == run


def test_an_unfinished_or_foreign_folder_is_named(command: Command, tmp_path: Path) -> None:
    with create(Spec(out=tmp_path), "demo") as run:
        pass
    unfinished, foreign = command("report", str(run.path)), command("report", str(tmp_path))
    assert (unfinished.code, foreign.code) == (2, 2)
    assert f"hint: edgeprune fit --resume {run.path}" in unfinished.err and "not a run folder" in foreign.err
