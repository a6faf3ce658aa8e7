"""One conversation with one device about one app: steps are run, their statuses become errors."""

from __future__ import annotations

import contextlib
import getpass
import hashlib
import re
import secrets
import socket
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from edgeprune.children import Ended
from edgeprune.deploy import steps
from edgeprune.deploy.manifest import (
    MANIFEST,
    SIGNATURE,
    Manifest,
    is_plain_name,
    read_manifest,
    release_id,
    same_release,
)
from edgeprune.deploy.signing import check_signature
from edgeprune.deploy.state import Installed, check_files, read_hashes, read_state
from edgeprune.deploy.steps import Step
from edgeprune.device_shell import SHORT_S, absolute
from edgeprune.errors import DeviceError, EdgepruneError, MissingExtraError, NoRoomError, TrustError, UsageError
from edgeprune.links import Link
from edgeprune.progress import Progress
from edgeprune.units import format_time

_HASHED = 5_000_000  # bytes per second that a slow board's sha256sum surely reaches
_AGAIN_S = 2.0


@dataclass(frozen=True)
class Release:
    """A release as it lies on a device.

    Attributes:
        name: Of its folder.
        known: Hashes of the manifest and of its signature, if it has one.
        signed_by: The key that was checked to have signed; empty where none was.
    """

    name: str
    manifest: Manifest
    known: Mapping[str, str]
    signed_by: str = ""


@dataclass(frozen=True)
class Session:
    """A device, the app's folder there, and the token that our lock has."""

    link: Link
    app: str
    folder: str
    token: str
    progress: Progress

    def do(self, step: Step) -> Ended:
        """Run a step to its good end. One that runs a program may end with any status of that program.

        Raises:
            DeviceError: The device is not reached, the lock is lost, something has moved, or the step failed.
            NoRoomError: The device's disk is full.
        """
        ended = self.link.run(step.script, *step.full(self.folder, self.token), timeout_s=step.timeout_s)
        if ended.status == 0 or (step.program and ended.status not in (steps.LOST, steps.ABSENT)):
            return ended
        name, where = self.link.name, self.folder
        if b"No space left" in ended.stderr or b"quota exceeded" in ended.stderr:
            raise NoRoomError(f"the disk of {name} is full", where=where, hint="free some room there, then repeat")
        if ended.status == steps.LOST:
            raise DeviceError(
                f"another deployment has taken over on {name}",
                where=where,
                hint="wait for it, then look: edgeprune verify",
            )
        if ended.status == steps.MOVED:
            raise DeviceError(f"{step.name} on {name}: the folder is not as it was a moment ago", where=where)
        if ended.status == steps.ABSENT:
            raise DeviceError(f"{step.name} on {name}: there is nothing of that name", where=where)
        raise DeviceError(f"{step.name} on {name} failed: {ended.last_line}", where=where)

    def look(self) -> Installed:
        """What the device has of the app.

        Raises:
            DeviceError: As in `do`, or it has nothing, or what it has is not ours.
        """
        return read_state(self.do(steps.look()).stdout, f"{self.link.name}, {self.folder}")

    def listing(self, folder: str, size_bytes: int) -> dict[str, str]:
        """Hashes of everything in a folder of the app.

        Raises:
            DeviceError: As in `do`.
        """
        return read_hashes(self.do(steps.hashes(folder, hashing_s(size_bytes))).stdout)

    def release(self, name: str, key: Path | None = None, *, unsigned: bool = True) -> Release:
        """A release's manifest, checked against its folder's name and, with a key, its signature.

        Args:
            unsigned: Whether a signed release may be taken without a key that says whose it is.

        Raises:
            DeviceError: As in `do`.
            TrustError: The manifest is not that of the release, or its signature is missing, wrong or not checked.
        """
        where = f"{self.link.name}, {self.folder}/releases/{name}"
        document = self.do(steps.read(name, MANIFEST)).stdout
        if not same_release(name, release_id(document)):
            raise TrustError("the manifest is not that of the release", where=where)
        manifest = read_manifest(document, where)
        known = {MANIFEST: hashlib.sha256(document).hexdigest()}
        signature = self.do(steps.read(name, SIGNATURE)).stdout if manifest.signed_by else None
        if signature is not None:
            known[SIGNATURE] = hashlib.sha256(signature).hexdigest()
        if key is None and signature is not None and not unsigned:
            hint = "--key FILE.pub, or --no-signature to leave it unchecked"
            raise TrustError(
                f"the release is signed with the key {manifest.signed_by}, which was not given", where=where, hint=hint
            )
        signed_by = check_signature(document, manifest, signature, key, where) if key else ""
        return Release(name, manifest, known, signed_by)

    def check(self, release: Release) -> None:
        """Hash a release again.

        Raises:
            DeviceError: As in `do`.
            TrustError: Its folder holds anything else than its files.
        """
        folder = f"releases/{release.name}"
        found = self.listing(folder, release_bytes(release.manifest))
        check_files(found, release.manifest, release.known, f"{self.link.name}, {self.folder}/{folder}")

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """Hold the app's lock on the device while the block runs.

        Raises:
            DeviceError: Another deployment holds it, or it cannot be made.
            MissingExtraError: The device lacks a tool that deploying needs.
        """
        step = steps.lock(self.token, _who())
        ended = self.link.run(step.script, *step.full(self.folder, self.token), timeout_s=step.timeout_s)
        said = ended.stdout.decode(errors="replace")
        if ended.status == steps.BUSY:
            left, _, who = said.partition("\t")
            until = f", for at most {format_time(float(left))} more" if left.isdigit() else ""
            raise DeviceError(
                f"{self.app} is being deployed to {self.link.name} by {who or 'somebody'}{until}",
                where=f"{self.folder}/lock",
                hint="wait for it; a lock ends by itself when its time is over or the device starts anew",
            )
        if ended.status == steps.LACKS:
            hint = "deploying needs sha256sum, readlink, ln, sync and mv -T (coreutils, toybox, busybox 1.32)"
            raise MissingExtraError(f"{self.link.name} lacks a tool: {ended.last_line}", where=self.folder, hint=hint)
        if ended.status != 0:
            if b"No space left" in ended.stderr:
                raise NoRoomError(f"the disk of {self.link.name} is full", where=self.folder)
            raise DeviceError(f"{self.folder} on {self.link.name} cannot be used: {ended.last_line}", where="--root")
        if said:
            self.progress.note(f"a lock of {said} was over: it broke off")
        try:
            yield
        finally:
            try:
                self.do(steps.unlock())
            except EdgepruneError as error:
                self.progress.note(f"the lock stays until its time is over: {error.message}")

    def settled(self, patience_s: float) -> Installed:
        """What the device has, once it answers again.

        Raises:
            EdgepruneError: It did not within that time.
        """
        deadline = time.monotonic() + patience_s
        while True:
            try:
                return self.look()
            except DeviceError as error:
                if time.monotonic() + _AGAIN_S > deadline:
                    raise
                self.progress.note(f"waiting for {self.link.name}: {error.message}")
                time.sleep(_AGAIN_S)


def opened(link: Link, app: str, root: str | None, progress: Progress) -> Session:
    """The conversation about an app; asks the device only where its folders are.

    Raises:
        DeviceError: The device is not reached or has no home folder.
        UsageError: The app's name is no plain name, or the root no absolute path.
    """
    if not is_plain_name(app):
        raise UsageError(f"not a name: {app!r}", where="--name", hint="letters, digits, dots, underscores and hyphens")
    if root is not None and (not root.startswith("/") or "\n" in root or "\0" in root):
        raise UsageError(f"not an absolute path: {root!r}", where="--root", hint="such as --root /opt/edgeprune")
    step = steps.where(root)
    ended = link.run(step.script, *step.arguments, timeout_s=step.timeout_s)
    found = ended.stdout.decode(errors="replace")
    if ended.status != 0 or not found.startswith("/"):
        raise DeviceError(f"{link.name} has no home folder", where=link.name, hint="name a folder with --root")
    return Session(link, app, absolute(f"{found.rstrip('/')}/{app}"), secrets.token_hex(8), progress)


def release_bytes(manifest: Manifest) -> int:
    """Of all files of a release."""
    return sum(row.bytes for row in manifest.files.values())


def hashing_s(size_bytes: int) -> float:
    """The longest that hashing so much may take."""
    return SHORT_S + size_bytes / _HASHED


def _who() -> str:
    try:
        user = getpass.getuser()
    except (KeyError, OSError):
        user = "somebody"
    return re.sub(r"[^A-Za-z0-9.@_-]", "-", f"{user}@{socket.gethostname()}")
