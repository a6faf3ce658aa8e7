"""A page is whole or it is none."""

from __future__ import annotations

import jinja2
import pytest

from edgeprune.report.page import page


def test_a_value_that_is_not_given_is_an_error() -> None:
    with pytest.raises(jinja2.UndefinedError, match="undefined"):
        page("groups.html.j2", head=())
