"""Deployments that are cut anywhere: what is current is always one complete, tested release, and success is never
claimed where there is none.

Every case begins with release `one` current and deploys `two` while something fails. Then, on a link that works, `two`
must go through without any help. Every test prints how many cases were tried.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest

from edgeprune.deploy import flow, trial
from edgeprune.deploy.bundle import Bundle
from edgeprune.errors import EdgepruneError
from edgeprune.links import connect
from tests.deploy.board import APP, Board, bundle, put, state, tried

# Before the switch: 4 quality, 5 link, 8 trust, 11 room; after it: 9 old release, 10 unknown.
UNTOUCHED = (4, 5, 8, 11)


@pytest.fixture(scope="module")
def start(tmp_path_factory: pytest.TempPathFactory) -> tuple[Board, Bundle, Bundle]:
    """A board with release `one` current, and both releases."""
    folder = tmp_path_factory.mktemp("start")
    one, two = bundle(folder / "release one", "one"), bundle(folder / "release two", "two")
    board = Board(folder / "board")
    put(board, one)
    return board, one, two


@pytest.fixture
def sweep(
    start: tuple[Board, Bundle, Bundle], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> Iterator[Callable[..., int]]:
    """`sweep(**of the board)`: deploys `two` to a copy of the board with that fault; the exit code.

    Whatever it is, the properties hold; then the fault is over, and deploying again succeeds.
    """
    board, one, two = start
    codes: Counter[int] = Counter()

    def case(prepare: Callable[[Board], None] = lambda copy: None, **fault: object) -> int:
        copy = board.copy(tmp_path / f"case-{codes.total()}", **fault)
        prepare(copy)
        code = tried(copy, two)
        codes[code] += 1
        holds(copy, code, one, two)
        recovers(copy, two)
        shutil.rmtree(copy.folder)
        return code

    yield case
    with capsys.disabled():
        ends = ", ".join(f"{count} ended with {code}" for code, count in sorted(codes.items()))
        print(f"\n  {codes.total()} cases tried, {codes.total()} survived: {ends}")


def holds(board: Board, code: int, one: Bundle, two: Bundle) -> None:
    current = board.current()
    assert current in (one.name, two.name)
    if code == 0:
        assert current == two.name and state(board)["current"] == two.name
    elif code in UNTOUCHED or code == 9:
        assert current == one.name
    else:
        assert code == 10
    previous = board.app / "previous"
    assert not previous.is_symlink() or previous.resolve().is_dir()
    assert state(board)["current"] in (one.name, two.name)


def recovers(board: Board, two: Bundle) -> None:
    """The lock ends by itself, and the same command goes through."""
    board.reboot()
    again = board.sound()
    assert tried(again, two) == 0 and again.current() == two.name
    left = {path.name for path in board.app.iterdir()}
    assert left == {"current", "previous", "incoming", "releases", "state.json"}
    assert not list((board.app / "incoming").iterdir())
    assert len(list((board.app / "releases").iterdir())) <= 3
    one = (board.app / "previous").readlink().name
    assert one != two.name and state(board)["previous"] == one


def cuts(start: tuple[Board, Bundle, Bundle], folder: Path, every: int) -> list[int]:
    """Bytes after which to cut: the ends of each stretch of the conversation, and `every` so many within.

    Within a head, the line that carries a script, one is enough: what is not a whole line is never evaluated.
    """
    whole = start[0].copy(folder / "whole")
    put(whole, start[2])
    found = set()
    for what, begin, length in whole.segments:
        found |= {begin, begin + length // 2, begin + length - 1} if length else set()
        found |= set(range(begin, begin + length, every)) if what != "head" else set()
    return sorted(found)


def thinned(cases: Iterable[int], count: int) -> list[int]:
    everything = list(cases)
    return everything[:: max(1, len(everything) // count)]


def changes(start: tuple[Board, Bundle, Bundle], folder: Path) -> int:
    """How many changing commands a deployment runs on the board."""
    whole = start[0].copy(folder / "whole", fuse=100_000)
    put(whole, start[2])
    return 100_000 - int((whole.folder / "fuse").read_text())


def test_a_link_that_breaks_after_some_byte(
    start: tuple[Board, Bundle, Bundle], tmp_path: Path, sweep: Callable[..., int]
) -> None:
    for number, cut in enumerate(thinned(cuts(start, tmp_path, 10_000), 3)):
        assert sweep(cut=cut, stays=number % 2 == 0) in (0, 5, 9, 10)


@pytest.mark.slow
@pytest.mark.parametrize("stays", [True, False], ids=["for good", "for one call"])
def test_a_link_that_breaks_after_any_byte(
    start: tuple[Board, Bundle, Bundle], tmp_path: Path, sweep: Callable[..., int], stays: bool
) -> None:
    for cut in cuts(start, tmp_path, int(os.environ.get("EDGEPRUNE_EVERY", "29"))):
        assert sweep(cut=cut, stays=stays) in (0, 5, 9, 10)


def test_power_that_fails_before_some_change(
    start: tuple[Board, Bundle, Bundle], tmp_path: Path, sweep: Callable[..., int]
) -> None:
    total = changes(start, tmp_path)
    for number, fuse in enumerate(thinned(range(2, total + 1), 3)):
        assert sweep(fuse=fuse, stays=number % 2 == 0) in (0, 5, 9, 10)


@pytest.mark.slow
@pytest.mark.parametrize("stays", [True, False], ids=["and stays off", "and comes back"])
def test_power_that_fails_before_any_change(
    start: tuple[Board, Bundle, Bundle], tmp_path: Path, sweep: Callable[..., int], stays: bool
) -> None:
    for fuse in range(1, changes(start, tmp_path) + 1):
        assert sweep(fuse=fuse, stays=stays) in (0, 5, 9, 10)


def calls(start: tuple[Board, Bundle, Bundle], folder: Path) -> int:
    whole = start[0].copy(folder / "whole")
    put(whole, start[2])
    return whole.calls


def test_a_device_that_starts_anew_between_any_two_steps_changes_nothing(
    start: tuple[Board, Bundle, Bundle], tmp_path: Path, sweep: Callable[..., int]
) -> None:
    for step in thinned(range(1, calls(start, tmp_path)), 2):

        def prepare(board: Board, step: int = step) -> None:
            board.before = lambda number, script: board.reboot() if number == step else None

        assert sweep(prepare) == 0


GARBAGE = {
    "nothing": b"",
    "noise": bytes(range(256)) * 40,
    "a kernel's message": b"[12.345678] random: crng init done\n",
    "an empty answer": b"\nedgeprune-board begin\n\nedgeprune-board end 0\n",
    "a wrong answer": b"\nedgeprune-board begin\n/etc\ncurrent\treleases/0123456789abcdef\nedgeprune-board end 0\n",
    "no status": b"\nedgeprune-board begin\nall is well\nedgeprune-board end\n",
}


@pytest.mark.slow
@pytest.mark.parametrize("kind", sorted(GARBAGE))
def test_garbage_instead_of_any_answer_is_never_taken_for_success(
    start: tuple[Board, Bundle, Bundle], tmp_path: Path, sweep: Callable[..., int], kind: str
) -> None:
    """An answer that claims success where there is nothing to say, as of the switch, is then true."""
    for number in range(1, calls(start, tmp_path)):
        sweep(replaced={number: GARBAGE[kind]})


@pytest.mark.parametrize("kind", ["an empty answer"])
def test_garbage_instead_of_some_answers(
    start: tuple[Board, Bundle, Bundle], tmp_path: Path, sweep: Callable[..., int], kind: str
) -> None:
    for number in thinned(range(1, calls(start, tmp_path)), 2):
        sweep(replaced={number: GARBAGE[kind]})


@pytest.mark.slow
def test_a_second_deployer_between_any_two_steps(
    start: tuple[Board, Bundle, Bundle], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """After a reboot the lock of the first is free for the second: exactly one of them is told that it has won."""
    board, one, two = start
    three, ends = bundle(tmp_path / "release three", "three"), Counter[tuple[int, int]]()
    for step in range(1, calls(start, tmp_path)):
        for reboots in (False, True):
            copy, second = board.copy(tmp_path / f"{step}-{reboots}"), []

            def before(number: int, script: str, case: Any = (step, reboots, copy, second)) -> None:
                step, reboots, copy, second = case
                if number == step and not second:
                    second.append(-1)
                    if reboots:
                        copy.reboot()
                    second[0] = tried(copy.sound(), three)

            copy.before = before
            first = tried(copy, two)
            ends[first, second[0]] += 1
            current = copy.current()
            assert current in (one.name, two.name, three.name)
            assert first != 0 or current == two.name or second[0] == 0
            assert second[0] != 0 or current == three.name or first == 0
            assert first == 0 or second[0] == 0
            recovers(copy, two)
    with capsys.disabled():
        print(f"\n  {ends.total()} cases tried, {ends.total()} survived: (first, second): {dict(sorted(ends.items()))}")


@pytest.mark.slow
def test_a_disk_that_is_full_leaves_what_was(start: tuple[Board, Bundle, Bundle], tmp_path: Path) -> None:
    """On a file system of the size of a thimble, filled up before each of the calls."""
    if os.geteuid() != 0 or not shutil.which("mount"):
        pytest.skip("needs the tool mount, as root")
    board, one, two = start
    disk = tmp_path / "disk"
    disk.mkdir()
    options = ["-t", "tmpfs", "-o", "size=3m,nr_inodes=400", "none"]
    if subprocess.run(["mount", *options, str(disk)], capture_output=True, check=False).returncode != 0:
        pytest.skip("needs the tool mount, allowed")
    try:
        codes = Counter[int]()
        for step in thinned(range(1, calls(start, tmp_path)), 5):
            copy = board.copy(disk / "board")

            def fill(number: int, script: str, step: int = step) -> None:
                if number == step:
                    with pytest.raises(OSError, match="No space left"), (disk / "filler").open("wb", 0) as filler:
                        while True:
                            filler.write(bytes(4096))

            copy.before = fill
            code = tried(copy, two)
            codes[code] += 1
            holds(copy, code, one, two)
            (disk / "filler").unlink()
            recovers(copy, two)
            shutil.rmtree(copy.folder)
        assert set(codes) <= {0, 5, 9, 10, 11} and 11 in codes
    finally:
        subprocess.run(["umount", "--lazy", str(disk)], check=False)


@pytest.mark.parametrize(
    "host", ["unknown", "changed", "stranger", "closed", pytest.param("dying", marks=pytest.mark.slow)]
)
def test_a_host_that_is_not_the_one_is_never_deployed_to(
    start: tuple[Board, Bundle, Bundle], ssh_board: str, host: str, tmp_path: Path
) -> None:
    options = flow.Options(root=str(tmp_path / "root"))
    with pytest.raises(EdgepruneError) as caught:
        flow.deploy(connect(f"ssh://{host}"), start[2], trial.by_python, trial.not_timed, options)
    assert caught.value.exit_code == 5 and not (tmp_path / "root" / APP / "current").exists()


@pytest.mark.slow
@pytest.mark.parametrize("manner", ["", "noisy "])
def test_a_board_over_ssh_and_a_phone_over_adb_take_a_release(
    start: tuple[Board, Bundle, Bundle], ssh_board: str, phone: str, tmp_path: Path, manner: str
) -> None:
    board, one, two = start
    for number, address in enumerate((f"ssh://{manner.strip() or 'board'}", f"adb:{manner.strip() or 'phone'}-1")):
        root = tmp_path / str(number)
        link = connect(address, str(board.folder / "python"))
        for release in (one, two):
            record = flow.deploy(link, release, trial.by_python, trial.not_timed, flow.Options(root=str(root)))
            assert record.outcome == "deployed" and (root / APP / "current").resolve().name == release.name
        assert flow.verify(link, APP, trial.by_python, flow.Options(root=str(root))).previous == one.name
