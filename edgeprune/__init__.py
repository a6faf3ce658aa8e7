"""edgeprune: a model, its data, a device and a budget in; the best model that meets the budget out.

Importing this package loads no torch; the functions of `edgeprune.api` are loaded when first asked for.
"""

from __future__ import annotations

from typing import Any

__version__ = "0.1.0"

_API = ("channel_groups", "fit", "prune", "profile")

__all__ = ["__version__", *_API]


def __getattr__(name: str) -> Any:
    if name in _API:
        from edgeprune import api

        return getattr(api, name)
    raise AttributeError(f"module 'edgeprune' has no attribute {name!r}")
