"""What lies in an app's folder on a device, and what follows from it: no step is taken here."""

from __future__ import annotations

import contextlib
import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from pydantic import ConfigDict, Field, ValidationError

from edgeprune.deploy.manifest import Manifest, is_release, same_release
from edgeprune.errors import DeviceError, TrustError
from edgeprune.values import Value

KEPT = 3
_LISTED = re.compile(r"([0-9a-f]{64}|other) (.*)", re.DOTALL)


class State(Value):
    """What `state.json` holds: the last deployment that was brought to its end.

    Attributes:
        releases: Those kept, the newest first.
        tested: Whether the current release passed its self-test on the device.
        written: UTC by the deploying computer's clock, ISO 8601.
    """

    model_config = ConfigDict(populate_by_name=True)

    schema_: str = Field("edgeprune.state/1", alias="schema", pattern=r"^edgeprune\.state/1$")
    current: str
    previous: str = ""
    releases: tuple[str, ...] = ()
    tested: bool = True
    edgeprune: str = ""
    written: str = ""

    def to_line(self) -> str:
        """The document on one line."""
        return self.model_dump_json(by_alias=True)


@dataclass(frozen=True)
class Installed:
    """What a device has of an app.

    Attributes:
        current, previous: Names of releases; empty where the link is not there.
        releases: Names of all folders of releases.
        state: What the last deployment wrote; None when it cannot be read.
        clock_s: The device's, in seconds since 1970.
    """

    current: str = ""
    previous: str = ""
    releases: tuple[str, ...] = ()
    state: State | None = None
    clock_s: int | None = None
    free_bytes: int | None = None

    @property
    def back(self) -> str:
        """The release that a rollback goes to: the previous one.

        A deployment that broke off between its two renames has left `previous` at what is current; the one before is
        then still in the state.
        """
        if self.previous != self.current:
            return self.previous
        noted = self.state.previous if self.state and self.state.current == self.current else ""
        return noted if noted in self.releases and noted != self.current else ""

    @property
    def settled(self) -> bool:
        """Whether the last deployment was brought to its end."""
        return self.state is not None and self.state.current == self.current


def read_state(text: bytes, where: str) -> Installed:
    """What a device printed when it was looked at.

    Raises:
        DeviceError: It is not whole, or `current` or `previous` is no link to a release.
    """
    said: dict[str, list[str]] = {}
    for line in text.decode(errors="replace").splitlines():
        key, _, value = line.partition("\t")
        said.setdefault(key, []).append(value)
    if said.get("end") != ["end"]:
        raise DeviceError("the device gave no whole answer about its releases", where=where)
    links = {}
    for name in ("current", "previous"):
        value = said.get(name, [""])[0]
        links[name] = value.removeprefix("releases/")
        if value and (not value.startswith("releases/") or not is_release(links[name])):
            hint = "somebody else uses this folder: choose another --root or --name"
            raise DeviceError(f"{name} is no link to a release: {value!r}", where=where, hint=hint)
    free = said.get("free_kib", [""])[0]
    clock = said.get("clock", [""])[0]
    return Installed(
        current=links["current"],
        previous=links["previous"],
        releases=tuple(name for name in said.get("release", []) if is_release(name)),
        state=_state(said.get("state", [""])[0]),
        clock_s=int(clock) if clock.isdigit() else None,
        free_bytes=int(free) * 1024 if free.isdigit() else None,
    )


def read_hashes(text: bytes) -> dict[str, str]:
    """Hashes by name of what a folder holds; `other` for what is no plain file or not readable as a line."""
    found = {}
    for line in text.decode(errors="replace").splitlines():
        match = _LISTED.fullmatch(line)
        found[match[2] if match else line] = match[1] if match else "other"
    return found


def differences(found: Mapping[str, str], manifest: Manifest, known: Mapping[str, str]) -> list[str]:
    """How a folder's files differ from those of a release; empty when they are the release.

    Args:
        known: Hashes of the manifest itself and, where it is known, of its signature.
    """
    wanted = {name: row.sha256 for name, row in manifest.files.items()} | dict(known)
    missing = sorted(manifest.listed - set(found))
    extra = sorted(set(found) - manifest.listed)
    other = sorted(name for name in manifest.listed & set(found) if found[name] != wanted.get(name, found[name]))
    links = sorted(name for name in manifest.listed & set(found) if found[name] == "other" and name not in other)
    told = (("missing", missing), ("not of it", extra), ("changed", [*other, *links]))
    return [f"{name!r} is {what}" for what, names in told for name in names]


def check_files(found: Mapping[str, str], manifest: Manifest, known: Mapping[str, str], where: str) -> None:
    """Check that a folder holds a release, all of it and nothing else.

    Raises:
        TrustError: It does not; the first differences are named.
    """
    wrong = differences(found, manifest, known)
    if wrong:
        more = f" and {len(wrong) - 3} more" if len(wrong) > 3 else ""
        raise TrustError(f"the files are not those of the release: {', '.join(wrong[:3])}{more}", where=where)


def folder_names(identity: str) -> Iterable[str]:
    """What the folder of a release may be called, in the order in which they are tried."""
    yield identity
    yield from (f"{identity}.{number}" for number in range(2, 1000))


def kept_releases(installed: Installed, current: str, previous: str) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """(releases that stay, the newest first; releases that go).

    The current and the previous one stay, then the newest others as the state remembers them, three in all.
    """
    remembered = installed.state.releases if installed.state else ()
    here = [*remembered, *(name for name in installed.releases if name not in remembered)]
    order = list(dict.fromkeys([name for name in (current, previous) if name] + here))
    there = {*installed.releases, current}
    order = [name for name in order if name in there]
    return tuple(order[:KEPT]), tuple(order[KEPT:])


def copies(installed: Installed, identity: str) -> list[str]:
    """The folders there that claim to be this release, the current one first."""
    names = [name for name in installed.releases if same_release(name, identity)]
    return sorted(names, key=lambda name: (name != installed.current, name))


def _state(line: str) -> State | None:
    with contextlib.suppress(ValidationError, json.JSONDecodeError):
        return State.model_validate_json(line)
    return None
