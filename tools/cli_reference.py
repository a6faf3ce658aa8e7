"""Writes `docs/cli.md` from the program itself: `python -m tools.cli_reference`."""

from __future__ import annotations

import contextlib
import io
import os
from pathlib import Path

from edgeprune.cli.main import EXIT_CODES, app, run

FILE = Path(__file__).parents[1] / "docs" / "cli.md"
WIDTH = 100


def reference() -> str:
    """The whole page."""
    verbs = [command.callback.__name__ for command in app.registered_commands if command.callback]
    pages = [[], *([verb] for verb in verbs), ["targets"], ["targets", "show"], ["keys", "new"]]
    codes = "\n".join(f"| {code} | {meaning} |" for code, meaning in EXIT_CODES)
    parts = [
        "# Command line",
        "Written by `make docs` from the program; do not edit.",
        "Quantities carry their unit: `20ms`, `256KiB` (powers of 1024) or `256kB` (of 1000), `1pp` (points of the\n"
        "metric) or `2%` (relative to the dense model). The result goes to stdout, with `--json` as one document;\n"
        "progress and errors go to stderr.",
        *(f"## {' '.join(['edgeprune', *page])}\n\n```text\n{_help(page)}\n```" for page in pages),
        f"## Exit codes\n\n| code | meaning |\n|---:|---|\n{codes}",
    ]
    return "\n\n".join(parts) + "\n"


def _help(page: list[str]) -> str:
    before = os.environ.get("COLUMNS")
    os.environ["COLUMNS"] = str(WIDTH)
    text = io.StringIO()
    try:
        with contextlib.redirect_stdout(text):
            code = run([*page, "--help"])
    finally:
        if before is None:
            del os.environ["COLUMNS"]
        else:
            os.environ["COLUMNS"] = before
    assert code == 0, page
    return "\n".join(line.rstrip() for line in text.getvalue().strip().splitlines())


if __name__ == "__main__":
    FILE.parent.mkdir(exist_ok=True)
    FILE.write_text(reference(), encoding="utf-8")
