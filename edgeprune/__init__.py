"""edgeprune: a model, its data, a device and a budget in; the best model that meets the budget out.

Importing this package loads no torch; the functions of `edgeprune.api` are loaded when first asked for.
"""

from __future__ import annotations

from typing import Any

__version__ = "0.1.0"

__all__ = ["Plan", "Pruned", "__version__", "channel_groups", "fit", "profile", "prune"]


def __getattr__(name: str) -> Any:
    if name in __all__:
        from edgeprune import api

        return getattr(api, name)
    raise AttributeError(f"module 'edgeprune' has no attribute {name!r}")
