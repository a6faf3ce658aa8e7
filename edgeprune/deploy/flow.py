"""The order of a deployment, and what a failure between any two of its steps means.

Until the switch nothing that is current is touched: whatever fails, the device runs what it ran, and the error is that
of the step. From the switch on a failure has one of two ends. Either the old release is current again and passes its
self-test (`DeployError`, 9), or neither could be confirmed (`UnknownStateError`, 10). A broken link is waited for, and
what was left over is done once more.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import edgeprune
from edgeprune.deploy import steps
from edgeprune.deploy.bundle import Bundle, file_row
from edgeprune.deploy.documents import DeployRecord, Outcome, ReleaseRow, VerifyRecord
from edgeprune.deploy.manifest import MANIFEST, SIGNATURE, same_release
from edgeprune.deploy.self_test import LatencyRow, TestRow
from edgeprune.deploy.session import Release, Session, hashing_s, opened, release_bytes
from edgeprune.deploy.state import Installed, State, copies, differences, folder_names, kept_releases, read_hashes
from edgeprune.deploy.trial import Test, Timing
from edgeprune.device_shell import transfer_s
from edgeprune.errors import (
    DeployError,
    DeviceError,
    EdgepruneError,
    NoRoomError,
    UnknownStateError,
    UsageError,
)
from edgeprune.links import Link
from edgeprune.progress import SILENT, Progress
from edgeprune.units import format_size

PATIENCE_S = 90.0  # a device that starts anew is waited for
HEALTH_S = 30.0
_CLOCK_S = 86_400.0
_SPARE_BYTES = 2**20


@dataclass(frozen=True)
class Options:
    """How to deploy.

    Attributes:
        root: Folder on the device that holds the apps; None is the usual one.
        health: A program on the device and its arguments, which must end well after the switch; none when empty.
        key: Public key that what is installed must be signed with.
        unsigned: Whether a signed release is taken without a key.
        any_clock: Whether the device's clock may be wrong.
        patience_s: How long a device that broke off in the middle of the switch is waited for.
    """

    root: str | None = None
    health: tuple[str, ...] = ()
    health_s: float = HEALTH_S
    key: Path | None = None
    unsigned: bool = False
    any_clock: bool = False
    patience_s: float = PATIENCE_S


def deploy(
    link: Link, bundle: Bundle, test: Test, timing: Timing, options: Options = Options(), progress: Progress = SILENT
) -> DeployRecord:
    """Bring a release onto a device and make it current. The same release again sends nothing.

    Args:
        test: Tests a release on the device, see `trial`; it raises where the release does not pass.
        timing: Times it for a moment; it raises where that is over the budget.

    Raises:
        BudgetError, QualityError: The release failed its test; what was current still is.
        DeployError: The health command failed, or the link broke; the old release is back and passes its self-test.
        DeviceError, NoRoomError, TrustError: What was current still is.
        UnknownStateError: Neither the new nor the old release could be confirmed.
        UsageError: The health command is none.
    """
    _check_health(options.health)
    session = opened(link, bundle.manifest.app, options.root, progress)
    with session.locked():
        before = session.look()
        notes = _check_clock(before, options)
        release, sent = _staged(session, bundle, before)
        progress.note(f"testing {release.name} on {link.name}")
        tested, timed = test(session, release, True), timing(session, release)
        again = same_release(before.current, bundle.name)  # perhaps a damaged copy of it, which is no way back
        previous = before.back if again else before.current
        state = _state(before, release.name, previous, tested is not None)
        outcome: Outcome = "already current"
        if before.current != release.name:
            outcome = "deployed"
            _switched(session, before, release, state, test, options)
        elif not before.settled:
            session.do(steps.commit(state.to_line()))
        notes += _cleared(session, before, state)
    return _record(session, outcome, release, previous, tested, timed, sent, notes)


def rollback(
    link: Link, app: str, test: Test, options: Options = Options(), progress: Progress = SILENT
) -> DeployRecord:
    """Make the previous release current again, after testing it; what was current becomes the previous one.

    Raises:
        As `deploy`; UsageError also where there is no previous release.
    """
    _check_health(options.health)
    session = opened(link, app, options.root, progress)
    _there(session)
    with session.locked():
        before = session.look()
        if not before.current or not before.back:
            what = "no release before the current one" if before.current else "no release"
            raise UsageError(f"{link.name} has {what} of {app}", where=session.folder)
        release = session.release(before.back, options.key, unsigned=options.unsigned)
        session.check(release)
        tested = test(session, release, True)
        state = _state(before, release.name, before.current, tested is not None)
        _switched(session, before, release, state, test, options)
    return _record(session, "rolled back", release, before.current, tested, None, 0, ())


def verify(link: Link, app: str, test: Test, options: Options = Options(), progress: Progress = SILENT) -> VerifyRecord:
    """Hash every release on a device again, check their signatures, and test the current one. Changes nothing.

    Raises:
        DeviceError: The device is not reached.
        QualityError: The current release does not answer as it should.
        TrustError: A release is not whole, or a signature is missing, wrong or not checked.
        UsageError: The device has no such app, or nothing of it is current.
    """
    session = opened(link, app, options.root, progress)
    found = _there(session)
    if not found.current:
        raise UsageError(f"no release of {app} is current on {link.name}", where=session.folder)
    rows, current = [], None
    for name in sorted(set(found.releases) | {found.current}, key=lambda name: (name != found.current, name)):
        progress.note(f"hashing {name} on {link.name}")
        release = session.release(name, options.key, unsigned=options.unsigned)
        session.check(release)
        current = current or release
        size = release_bytes(release.manifest)
        rows.append(
            ReleaseRow(
                name=name,
                app_model=release.manifest.model,
                edgeprune=release.manifest.edgeprune,
                bytes=size,
                signed_by=release.signed_by,
            )
        )
    assert current is not None
    progress.note(f"testing {current.name} on {link.name}")
    tested = test(session, current, False)
    notes = [] if found.settled else ["the last deployment was not brought to its end: deploy again"]
    notes += [] if tested else ["the current release was not tested"]
    return VerifyRecord(
        device=link.name,
        app=app,
        folder=session.folder,
        current=found.current,
        previous=found.back,
        settled=found.settled,
        releases=tuple(rows),
        self_test=tested,
        notes=tuple(notes),
    )


def _there(session: Session) -> Installed:
    """What is there of the app, where there is anything."""
    step = steps.look()
    ended = session.link.run(step.script, *step.full(session.folder, session.token), timeout_s=step.timeout_s)
    if ended.status == steps.ABSENT:
        hint = "--name and --root say which app and where"
        raise UsageError(f"{session.link.name} has no app {session.app}", where=session.folder, hint=hint)
    return session.look()


def _check_health(words: tuple[str, ...]) -> None:
    if words and not words[0].startswith("/"):
        hint = "the whole path of a program on the device, then its arguments"
        raise UsageError(f"not an absolute path: {words[0]!r}", where="--health", hint=hint)


def _check_clock(found: Installed, options: Options) -> tuple[str, ...]:
    """Nothing here asks the device's clock; certificates, logs and what runs there do."""
    if found.clock_s is None:
        return ("the device did not tell its time",)
    off_s = abs(found.clock_s - time.time())
    if off_s <= _CLOCK_S:
        return ()
    wrong = f"its clock is off by {off_s / 86_400:.0f} days ({datetime.fromtimestamp(found.clock_s, UTC):%Y-%m-%d})"
    if not options.any_clock:
        raise DeviceError(wrong, where="its clock", hint="set it, or deploy with --any-clock")
    return (wrong,)


def _staged(session: Session, bundle: Bundle, before: Installed) -> tuple[Release, int]:
    """The release in a folder of its own that holds all of it, and how many bytes were sent for that."""
    manifest, names = bundle.manifest, tuple(sorted(bundle.manifest.listed))
    own = (MANIFEST, SIGNATURE) if manifest.signed_by else (MANIFEST,)
    known = {name: file_row(bundle.folder / name).sha256 for name in own}
    for name in copies(before, bundle.name):
        found = session.listing(f"releases/{name}", bundle.size_bytes)
        if not differences(found, manifest, known):
            return Release(name, manifest, known, manifest.signed_by), 0
        session.progress.note(f"{name} on {session.link.name} is damaged: sending it anew")
    free, needed = before.free_bytes, 2 * bundle.size_bytes + _SPARE_BYTES
    if free is not None and free < needed:
        raise NoRoomError(
            f"{session.link.name} has {format_size(free)} free, {format_size(needed)} are needed", where=session.folder
        )
    sent = _uploaded(session, bundle, names, known)
    name = next(name for name in folder_names(bundle.name) if name not in before.releases)
    session.do(steps.stage(bundle.name, name))
    return Release(name, manifest, known, manifest.signed_by), sent


def _uploaded(session: Session, bundle: Bundle, names: tuple[str, ...], known: dict[str, str]) -> int:
    wanted = {name: row.sha256 for name, row in bundle.manifest.files.items()} | known
    sizes = {name: (bundle.folder / name).stat().st_size for name in names}
    hashed_s = hashing_s(bundle.size_bytes)
    begin = steps.begin(bundle.name, names, hashed_s, hashed_s + sum(map(transfer_s, sizes.values())))
    there = read_hashes(session.do(begin).stdout)
    absent = [name for name in names if there.get(name) != wanted[name]]
    session.progress.note(f"sending {format_size(sum(sizes[name] for name in absent))} to {session.link.name}")
    for name in absent:
        session.link.push(bundle.folder / name, f"{session.folder}/incoming/{bundle.name}/{name}")
    wrong = differences(read_hashes(session.do(steps.seal(bundle.name, hashed_s)).stdout), bundle.manifest, known)
    if wrong:
        raise DeviceError(
            f"what arrived on {session.link.name} is not what was sent: {', '.join(wrong[:3])}",
            where=f"{session.folder}/incoming/{bundle.name}",
            hint="deploy again: only what is wrong is sent",
        )
    return sum(sizes[name] for name in absent)


def _switched(
    session: Session, before: Installed, release: Release, state: State, test: Test, options: Options
) -> None:
    """Make a staged release current, ask the health command, and write it down; else the way back.

    Raises:
        DeployError: The old release is current again, and passes its self-test.
        UnknownStateError: That could not be confirmed.
    """
    session.progress.note(f"switching {session.link.name} to {release.name}")
    cause: EdgepruneError | None = None
    try:
        for attempt in (1, 2):
            try:
                if attempt == 1 or _again(session, release, options) != release.name:
                    session.do(steps.swap(release.name, before.current, state.previous))
                _healthy(session, options)
                session.do(steps.commit(state.to_line()))
                return
            except EdgepruneError as error:
                cause = cause or error
                if not isinstance(error, DeviceError):
                    break
        assert cause is not None
        _back(session, before, release, test, options, cause)
    except (KeyboardInterrupt, SystemExit):
        session.progress.note("interrupted while switching: edgeprune verify says which release is current")
        raise


class _UnhealthyError(EdgepruneError):
    """The health command ended badly."""


def _again(session: Session, release: Release, options: Options) -> str:
    """What is current after a failure, once the device answers; the new release is still whole."""
    found = session.settled(options.patience_s)
    session.check(release)
    return found.current


def _healthy(session: Session, options: Options) -> None:
    if not options.health:
        return
    ended = session.do(steps.health(options.health, options.health_s))
    if ended.status != 0:
        raise _UnhealthyError(f"the health command ended with status {ended.status}: {ended.last_line}")


def _back(
    session: Session, before: Installed, release: Release, test: Test, options: Options, cause: EdgepruneError
) -> None:
    """The end of a deployment that failed after the switch began."""
    name, old = session.link.name, before.current
    session.progress.note(f"{cause.message}: going back to {old or 'nothing'}")
    try:
        found = session.settled(options.patience_s)
        if found.current == release.name:
            session.do(steps.swap(old, release.name, before.previous) if old else steps.withdraw(release.name))
        tested = None
        if old:
            kept = session.release(old)
            session.check(kept)
            tested = test(session, kept, True)
        if session.look().current != old:
            raise DeviceError("something else has become current")
    except EdgepruneError as error:
        flags = f"--name {session.app}" if options.root is None else f"--name {session.app} --root {options.root}"
        raise UnknownStateError(
            f"{cause.message}; then {error.message}: it is not known whether {release.name} or "
            f"{old or 'nothing'} is current on {name}",
            where=session.folder,
            hint=f"when it answers again: edgeprune verify --device {name} {flags}",
        ) from cause
    whole = f"{old}, which passes its self-test" if tested else f"{old}, which is whole but was not tested"
    raise DeployError(
        f"{cause.message}; {name} is on {whole}"
        if old
        else f"{cause.message}; nothing is current on {name}, as before",
        where=session.folder,
        hint=cause.hint,
    ) from cause


def _state(before: Installed, current: str, previous: str, tested: bool) -> State:
    return State(
        current=current,
        previous=previous,
        releases=kept_releases(before, current, previous)[0],
        tested=tested,
        edgeprune=edgeprune.__version__,
        written=datetime.now(UTC).isoformat(timespec="seconds"),
    )


def _cleared(session: Session, before: Installed, state: State) -> tuple[str, ...]:
    """Remove what is not kept. Failing to changes nothing that matters."""
    try:
        session.do(steps.collect(kept_releases(before, state.current, state.previous)[1]))
    except (DeviceError, NoRoomError) as error:
        return (f"old releases could not be removed: {error.message}",)
    return ()


def _record(
    session: Session,
    outcome: Outcome,
    release: Release,
    previous: str,
    tested: TestRow | None,
    timed: LatencyRow | None,
    sent: int,
    notes: tuple[str, ...],
) -> DeployRecord:
    return DeployRecord(
        device=session.link.name,
        app=session.app,
        outcome=outcome,
        folder=session.folder,
        release=release.name,
        previous=previous,
        signed_by=release.signed_by,
        sent_bytes=sent,
        self_test=tested,
        latency=timed,
        notes=(*notes, *(() if tested else ("the release was not tested on the device",))),
    )
