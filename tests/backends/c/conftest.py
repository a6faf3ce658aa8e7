"""What tests of the C backend share."""

from __future__ import annotations

import pytest

from edgeprune.backends.c import lowering
from tests.backends.c import toys


@pytest.fixture
def toy_lowerings(monkeypatch: pytest.MonkeyPatch) -> None:
    """The operators of `toys` instead of the real ones."""
    monkeypatch.setattr(lowering, "lowerings", lambda: toys.LOWERINGS)
