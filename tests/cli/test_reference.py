"""`docs/cli.md` is what the program says."""

from __future__ import annotations

from tools.cli_reference import FILE, reference


def test_the_written_reference_is_that_of_the_program() -> None:
    assert FILE.read_text(encoding="utf-8") == reference(), "run make docs"
