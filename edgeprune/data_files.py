"""Where the shipped data lies: `targets/` and `profiles/`, inside the wheel or beside the package in a checkout."""

from __future__ import annotations

from pathlib import Path

from edgeprune.errors import UsageError

_PACKAGE = Path(__file__).resolve().parent


def data_folders(kind: str) -> tuple[Path, ...]:
    """Folders that may hold the data of a kind (`targets` or `profiles`), the installed one first."""
    return (_PACKAGE / "_data" / kind, _PACKAGE.parent / kind)


def data_folder(kind: str) -> Path:
    """The first of the folders that exists.

    Raises:
        UsageError: None does: the installation is incomplete.
    """
    places = data_folders(kind)
    for place in places:
        if place.is_dir():
            return place
    raise UsageError(
        f"the shipped {kind} are missing",
        where=", ".join(str(place) for place in places),
        hint="install edgeprune again, or run it from a complete checkout",
    )


def profile_path(stem: str, beside: Path | None = None) -> Path:
    """The file of a profile: beside a user's own target file first, then among the shipped ones."""
    if beside is not None and (own := beside.parent / f"{stem}.json").is_file():
        return own
    return data_folder("profiles") / f"{stem}.json"
