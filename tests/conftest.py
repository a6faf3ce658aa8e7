"""`--no-unexpected-skips`: a test may be skipped for a listed reason only, so that nothing drops out unseen."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

# Reasons that are right on some machine or other; each is a regular expression for the whole reason.
ALLOWED_SKIPS = (
    r"needs a GPU.*",
    r"needs the published measurements.*",
    r"needs the shared data.*",
    r"not a git checkout",
)


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--no-unexpected-skips", action="store_true", help="fail when a skip has an unlisted reason")


def _reason(report: Any) -> str:
    text = report.longrepr[2] if isinstance(report.longrepr, tuple) else str(report.longrepr)
    return text.removeprefix("Skipped: ")


def unexpected(reasons: list[str]) -> list[str]:
    """The reasons that no pattern of the list covers."""
    return [reason for reason in reasons if not any(re.fullmatch(p, reason, re.DOTALL) for p in ALLOWED_SKIPS)]


def pytest_terminal_summary(terminalreporter: Any, config: pytest.Config) -> None:
    if not config.getoption("--no-unexpected-skips"):
        return
    skipped = terminalreporter.stats.get("skipped", [])
    bad = unexpected([_reason(report) for report in skipped])
    for reason in bad:
        terminalreporter.write_line(f"unexpected skip: {reason}", red=True)
    if bad and terminalreporter._session.exitstatus == 0:
        terminalreporter._session.exitstatus = pytest.ExitCode.TESTS_FAILED


@pytest.fixture(scope="session")
def root() -> Path:
    """The repository's root folder."""
    return Path(__file__).parents[1]
