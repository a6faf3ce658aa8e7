"""`edgeprune explain`: from a run folder alone."""

from __future__ import annotations

import json
from pathlib import Path

from tests.cli.conftest import Command
from tests.cli.test_report import finished


def test_a_finished_run_is_explained_as_text_and_as_one_document(command: Command, tmp_path: Path) -> None:
    run = finished(tmp_path)
    done = command("explain", str(run))
    assert done.code == 0 and done.out.startswith("demo on rpi4: met:") and "g7" in done.out
    document = json.loads(command("explain", str(run), "--json").out)
    assert document["schema"] == "edgeprune.explain/1" and document["run"] == str(run)


def test_a_folder_without_a_record_is_named(command: Command, tmp_path: Path) -> None:
    assert command("explain", str(tmp_path)).code == 2
