"""Constant structures in C, for the definitions of a lowered step."""

from __future__ import annotations

from collections.abc import Iterable


def members(values: Iterable[int | str]) -> str:
    """Members of a structure or array in braces, which are doubled."""
    return f"{{{{{', '.join(map(str, values))}}}}}"


def structure(kind: str, name: str, values: Iterable[int | str]) -> str:
    """The definition of a constant `struct EP(kind)`, with doubled braces."""
    return f"static const struct EP({kind}) {name} = {members(values)};\n"
