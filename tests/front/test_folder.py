"""A sweep's folder: made once, found again, and refused where it is not what it was."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from edgeprune.errors import UsageError
from edgeprune.front.flow import fit_point, prepare_target
from edgeprune.front.folder import created, is_sweep, read_sweep, read_sweep_record, reopened
from edgeprune.front.grid import Point, grid
from edgeprune.spec import Spec


@pytest.fixture
def asked() -> tuple[Point, ...]:
    return grid(Spec(), ("rpi4",), {"latency": ("5ms", "9ms")})


def test_the_points_come_back_with_their_place(asked: tuple[Point, ...], tmp_path: Path) -> None:
    with created(tmp_path, "my net", asked, 2) as one, created(tmp_path, "my net", asked, 2) as two:
        assert one != two and one.name.endswith("-my-net-sweep") and is_sweep(one) and not is_sweep(tmp_path)
    stored = read_sweep(one)
    assert stored.cpus == 2 and [point.name for point in stored.points] == ["rpi4-5ms", "rpi4-9ms"]
    assert all(point.spec.out == one / "points" for point in stored.points)


def test_a_folder_that_another_process_holds_or_that_was_moved_is_refused(
    asked: tuple[Point, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with created(tmp_path, "x", asked, 1) as folder:
        with pytest.raises(UsageError, match="is being written by process"), reopened(folder):
            pass
    monkeypatch.chdir(tmp_path)
    with reopened(Path(folder.name)) as home:
        assert home == folder
    folder.rename(tmp_path / "moved")
    with pytest.raises(UsageError, match="this sweep was started as"), reopened(tmp_path / "moved"):
        pass


def test_what_is_not_a_sweep_of_this_version_is_named(asked: tuple[Point, ...], tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="not a sweep's folder"):
        read_sweep(tmp_path)
    with created(tmp_path, "x", asked, 1) as folder:
        pass
    with pytest.raises(UsageError, match="this sweep has not finished"):
        read_sweep_record(folder)
    (folder / "record.json").write_text("{}")
    with pytest.raises(UsageError, match="not a sweep of this version"):
        read_sweep_record(folder)
    tree = json.loads((folder / "sweep.json").read_text())
    (folder / "sweep.json").write_text(json.dumps({**tree, "edgeprune": "0.0.0"}))
    with pytest.raises(UsageError, match="is one of edgeprune 0.0.0"):
        read_sweep(folder)
    (folder / "sweep.json").write_text(json.dumps({**tree, "cpus": 0}))
    with pytest.raises(UsageError, match="not a sweep of this version"):
        read_sweep(folder)


def test_no_folder_can_be_made_below_a_file(asked: tuple[Point, ...], tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(UsageError, match="cannot write here"), created(tmp_path / "file", "x", asked, 1):
        pass


def test_a_worker_that_does_not_see_the_folder_says_so(tmp_path: Path) -> None:
    for function in (prepare_target, fit_point):
        name, why = function(tmp_path / "elsewhere", "rpi4")
        assert name == "rpi4" and why is not None and why.exit_code == 2
        assert "not a sweep's folder" in why.text and "must see the same file system" in why.text
