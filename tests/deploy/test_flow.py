"""Deploying, verifying and going back, on a board that works, and what is refused."""

from __future__ import annotations

import threading
import time
from pathlib import Path

import pytest

from edgeprune.deploy import flow, trial
from edgeprune.deploy.bundle import Bundle
from edgeprune.errors import (
    DeployError,
    DeviceError,
    MissingExtraError,
    QualityError,
    TrustError,
    UnknownStateError,
    UsageError,
)
from tests.deploy.board import APP, Board, bundle, put, state, tried, whole


@pytest.fixture
def board(tmp_path: Path) -> Board:
    return Board(tmp_path / "board")


@pytest.fixture
def releases(tmp_path: Path) -> list[Bundle]:
    return [bundle(tmp_path / f"release-{text}", text) for text in ("one", "two", "three", "four", "five")]


def verify(board: Board, **options: object) -> object:
    return flow.verify(board.link, APP, trial.by_python, flow.Options(root=str(board.root), **options))  # type: ignore[arg-type]


def rollback(board: Board, **options: object) -> object:
    chosen = flow.Options(root=str(board.root), patience_s=0, **options)  # type: ignore[arg-type]
    return flow.rollback(board.link, APP, trial.by_python, chosen)


def entries(board: Board) -> set[str]:
    return {path.name for path in board.app.iterdir()}


def test_a_release_becomes_current_and_nothing_else_is_left(board: Board, releases: list[Bundle]) -> None:
    one = releases[0]
    record = put(board, one)
    assert (record.outcome, record.release, record.previous) == ("deployed", one.name, "")
    assert record.sent_bytes == one.size_bytes and record.self_test and record.self_test.vectors == 2
    assert board.current() == one.name and entries(board) == {"current", "incoming", "releases", "state.json"}
    assert not list((board.app / "incoming").iterdir())
    assert state(board)["current"] == one.name and state(board)["tested"] is True
    assert (board.app / "current" / "model.tflite").stat().st_mode & 0o777 == 0o644


def test_the_same_release_again_sends_nothing(board: Board, releases: list[Bundle]) -> None:
    put(board, releases[0])
    before = (board.app / "state.json").read_bytes()
    record = put(board, releases[0])
    assert (record.outcome, record.sent_bytes) == ("already current", 0)
    assert (board.app / "state.json").read_bytes() == before


def test_three_releases_are_kept_and_a_kept_one_is_not_sent_again(board: Board, releases: list[Bundle]) -> None:
    for release in releases:
        put(board, release)
    names = [release.name for release in releases]
    assert {path.name for path in (board.app / "releases").iterdir()} == set(names[2:])
    assert state(board)["releases"] == [names[4], names[3], names[2]]
    record = put(board, releases[2])
    assert (record.outcome, record.sent_bytes, record.previous) == ("deployed", 0, names[4])


def test_rollback_swaps_the_two_and_back(board: Board, releases: list[Bundle]) -> None:
    one, two = releases[:2]
    put(board, one)
    with pytest.raises(UsageError, match="no release before the current one of app"):
        rollback(board)
    put(board, two)
    for now, other in ((one, two), (two, one)):
        record = rollback(board)
        assert (record.outcome, record.release, record.previous) == ("rolled back", now.name, other.name)  # type: ignore[attr-defined]
        assert board.current() == now.name and state(board)["previous"] == other.name


def test_rollback_to_a_damaged_release_is_refused(board: Board, releases: list[Bundle]) -> None:
    put(board, releases[0])
    put(board, releases[1])
    (board.app / "previous" / "model.tflite").write_text("onE")
    with pytest.raises(TrustError, match="'model.tflite' is changed"):
        rollback(board)
    assert board.current() == releases[1].name


def test_verify_hashes_all_releases_and_tests_the_current_one(board: Board, releases: list[Bundle]) -> None:
    for release in releases[:3]:
        put(board, release)
    tests = len(board.tested())
    record = verify(board)
    assert record.releases[0].name == record.current == releases[2].name  # type: ignore[attr-defined]
    assert {row.name for row in record.releases} == {release.name for release in releases[:3]}  # type: ignore[attr-defined]
    assert record.settled and record.self_test and len(board.tested()) == tests + 1  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("harm", "message"),
    [
        (lambda folder: (folder / "model.tflite").write_text("oNe"), "'model.tflite' is changed"),
        (lambda folder: (folder / "golden.npz").unlink(), "'golden.npz' is missing"),
        (lambda folder: (folder / "numpy.py").write_text(""), "'numpy.py' is not of it"),
        (lambda folder: (folder / ".hidden").mkdir(), "'.hidden' is not of it"),
        (lambda folder: (folder / "new\nline").write_text(""), "is not of it"),
        (lambda folder: [(folder / "check.py").unlink(), (folder / "check.py").symlink_to("golden.npz")], "changed"),
        (lambda folder: (folder / "manifest.json").write_text("{}"), "the manifest is not that of the release"),
    ],
)
def test_verify_finds_every_change(board: Board, releases: list[Bundle], harm: object, message: str) -> None:
    put(board, releases[0])
    harm(board.app / "releases" / releases[0].name)  # type: ignore[operator]
    with pytest.raises(TrustError, match=message):
        verify(board)


def test_verify_runs_the_self_test(board: Board, releases: list[Bundle]) -> None:
    put(board, releases[0])
    (board.folder / "python").write_text("#!/bin/sh\nexit 1\n")
    with pytest.raises(QualityError, match="the self-test ended with status 1"):
        verify(board)


def test_what_is_not_there_is_said(board: Board, releases: list[Bundle]) -> None:
    for call in (verify, rollback):
        with pytest.raises(UsageError, match="board has no app app"):
            call(board)
    tried(board, releases[0], health=("/bin/false",))
    with pytest.raises(UsageError, match="no release of app is current on board"):
        verify(board)
    with pytest.raises(UsageError, match="board has no release of app"):
        rollback(board)


def test_a_release_that_fails_its_self_test_never_becomes_current(board: Board, tmp_path: Path) -> None:
    wrong = bundle(tmp_path / "w", "wrong")
    with pytest.raises(QualityError, match="the answer to real input 0 is off by 9, 1 is allowed"):
        put(board, wrong)
    assert board.current() == "" and not (board.app / "lock").is_symlink()


def test_a_damaged_release_is_sent_anew_beside_the_old_one(board: Board, releases: list[Bundle]) -> None:
    one, two = releases[:2]
    put(board, one)
    put(board, two)
    (board.app / "current" / "model.tflite").write_text("twO")
    record = put(board, two)
    assert record.release == f"{two.name}.2" and record.previous == one.name and board.current() == record.release
    assert rollback(board).release == one.name  # type: ignore[attr-defined]


def test_an_upload_that_broke_off_is_continued(board: Board, releases: list[Bundle], tmp_path: Path) -> None:
    one = releases[0]
    incoming = board.app / "incoming" / one.name
    incoming.mkdir(parents=True)
    (incoming / "check.py").write_text("#")
    (incoming / "model.tflite").write_text("half")
    (incoming / "golden.npz.part").write_text("")
    (incoming / "of another").mkdir()
    record = put(board, one)
    assert record.sent_bytes == one.size_bytes - 1 and board.current() == one.name


def test_a_health_command_decides(board: Board, releases: list[Bundle], tmp_path: Path) -> None:
    one, two = releases[:2]
    script = tmp_path / "healthy?"
    script.write_text("#!/bin/sh\n[ \"$1\" = 'two words $(date)' ] && grep -q one model.tflite\n")
    script.chmod(0o755)
    health = (str(script), "two words $(date)")
    put(board, one, health=health)
    with pytest.raises(DeployError, match=r"the health command ended with status 1: .*; board is on .* self-test"):
        put(board, two, health=health)
    assert board.current() == one.name and state(board)["current"] == one.name
    with pytest.raises(UsageError, match="not an absolute path: 'sh'"):
        put(board, two, health=("sh", "-c", "true"))


def test_a_health_command_that_does_not_end_is_a_failure(board: Board, releases: list[Bundle]) -> None:
    put(board, releases[0])
    with pytest.raises(DeployError, match="did not finish"):
        put(board, releases[1], health=("/bin/sleep", "20"), health_s=0.3)
    assert board.current() == releases[0].name


def test_a_first_release_that_is_not_healthy_leaves_nothing_current(board: Board, releases: list[Bundle]) -> None:
    with pytest.raises(DeployError, match="nothing is current on board, as before"):
        put(board, releases[0], health=("/bin/false",))
    assert board.current() == ""


def test_an_old_release_that_fails_its_test_too_is_an_unknown_state(board: Board, releases: list[Bundle]) -> None:
    one, two = releases[:2]
    put(board, one)
    (board.app / "current" / "golden.npz").write_text("G")
    with pytest.raises(UnknownStateError, match="it is not known whether") as caught:
        put(board, two, health=("/bin/false",))
    assert f"edgeprune verify --device board --name app --root {board.root}" in caught.value.hint


def test_one_of_two_deployers_wins_and_the_other_is_told(board: Board, releases: list[Bundle]) -> None:
    one, two = releases[:2]
    codes: list[tuple[int, str]] = []
    inside = threading.Event()

    def second(number: int, script: str) -> None:
        if 'cd "incoming/$1" || exit 1' in script and not inside.is_set():
            inside.set()
            with pytest.raises(DeviceError) as caught:
                put(board.sound(), two)
            codes.append((caught.value.exit_code, caught.value.message))

    board.before = second
    put(board, one)
    assert board.current() == one.name and codes[0][0] == 5
    assert "app is being deployed to board by " in codes[0][1] and "for at most" in codes[0][1]
    assert put(board.sound(), two).release == two.name


def test_two_deployers_at_once_leave_one_complete_release(board: Board, releases: list[Bundle]) -> None:
    codes: dict[str, int] = {}

    def run(release: Bundle) -> None:
        codes[release.name] = tried(board.sound(), release)

    threads = [threading.Thread(target=run, args=(release,)) for release in releases[:3]]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert set(codes.values()) <= {0, 5} and 0 in codes.values()
    assert codes[board.current()] == 0 and not (board.app / "lock").is_symlink()


@pytest.mark.parametrize("way", ["reboot", "lease"])
def test_a_lock_that_was_left_behind_ends_by_itself(board: Board, releases: list[Bundle], way: str) -> None:
    board.app.mkdir(parents=True)
    (board.app / "lock").symlink_to("abc:first:900:200:who@where")
    with pytest.raises(DeviceError, match=r"by who@where, for at most 100 s more"):
        put(board, releases[0])
    if way == "reboot":
        board.reboot()
    else:
        board.set(uptime="1101.00 0")
    assert put(board, releases[0]).outcome == "deployed" and not (board.app / "lock").is_symlink()


def test_an_uptime_before_the_lock_s_is_a_reboot_where_boots_have_no_name(board: Board, releases: list[Bundle]) -> None:
    board.app.mkdir(parents=True)
    (board.app / "lock").symlink_to("abc:first:1001:9999:who@where")
    assert put(board, releases[0]).outcome == "deployed"


@pytest.mark.parametrize("kind", ["file", "link"])
def test_a_lock_of_others_is_left_alone(board: Board, releases: list[Bundle], kind: str) -> None:
    board.app.mkdir(parents=True)
    lock = board.app / "lock"
    lock.write_text("") if kind == "file" else lock.symlink_to("/etc/passwd")
    with pytest.raises(DeviceError, match="lock is no link of ours"):
        put(board, releases[0])
    assert lock.is_symlink() == (kind == "link") and not (board.app / "current").exists()


@pytest.mark.parametrize("what", ["folder", "elsewhere"])
def test_a_folder_that_somebody_else_uses_is_left_alone(board: Board, releases: list[Bundle], what: str) -> None:
    current = board.app / "current"
    board.app.mkdir(parents=True)
    current.mkdir() if what == "folder" else current.symlink_to("/opt/other")
    with pytest.raises(DeviceError, match="current is no link to a release"):
        put(board, releases[0])
    assert current.is_dir() or current.is_symlink()


def test_a_wrong_clock_is_refused_unless_it_may_be(board: Board, releases: list[Bundle]) -> None:
    board.set(clock="86400")
    with pytest.raises(DeviceError, match=r"its clock is off by \d+ days \(1970-01-02\)"):
        put(board, releases[0])
    assert board.current() == ""
    record = put(board, releases[0], any_clock=True)
    assert record.outcome == "deployed" and any("its clock is off" in note for note in record.notes)
    board.set(clock=str(int(time.time()) + 3600))
    assert put(board, releases[1]).notes == ()


def test_roots_and_names_must_be_plain(board: Board, releases: list[Bundle]) -> None:
    with pytest.raises(UsageError, match="not an absolute path: 'here'"):
        flow.verify(board.link, APP, trial.by_python, flow.Options(root="here"))
    with pytest.raises(UsageError, match="not a name: '../x'"):
        flow.verify(board.link, "../x", trial.by_python)


def test_a_root_that_cannot_be_made_is_said(board: Board, releases: list[Bundle]) -> None:
    board.root.write_text("a file")
    with pytest.raises(DeviceError, match="cannot be used: mkdir"):
        put(board, releases[0])


@pytest.mark.parametrize(("tool", "message"), [("sha256sum", "there is no sha256sum"), ("mv", "mv -T does not")])
def test_a_device_that_lacks_a_tool_is_refused(
    board: Board, releases: list[Bundle], monkeypatch: pytest.MonkeyPatch, tool: str, message: str
) -> None:
    translated = board.translated
    double = {"sha256sum": 'command() { [ "$2" != sha256sum ]; }\n', "mv": 'mv() { [ "$1" != -fT ]; }\n'}
    monkeypatch.setattr(Board, "translated", lambda self, script: double[tool] + translated(script))
    with pytest.raises(MissingExtraError, match=message):
        put(board, releases[0])
    assert not list(board.app.glob("lock*"))


def test_a_root_with_an_odd_name_is_only_a_folder(board: Board, releases: list[Bundle]) -> None:
    root = board.folder / 'it\'s $(touch x) `y` "z" * \\'
    assert put(board, releases[0], root=str(root)).folder == f"{root}/{APP}"
    assert whole(root / APP / "releases" / releases[0].name)
    assert (root / APP / "current").resolve().name == releases[0].name and not (board.folder / "x").exists()


def test_the_usual_root_is_in_the_home_folder(
    board: Board, releases: list[Bundle], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    record = flow.deploy(board.link, releases[0], trial.by_python, trial.not_timed)
    assert record.folder == str(tmp_path / "home" / "edgeprune" / APP)
    monkeypatch.setenv("HOME", "nowhere")
    with pytest.raises(DeviceError, match="board has no home folder"):
        flow.verify(board.link, APP, trial.by_python)
