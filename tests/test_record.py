"""The run folder: whole or absent after any failure, one writer, resumable, explained when it is not."""

from __future__ import annotations

import errno
import json
import os
import subprocess
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from edgeprune.errors import NoRoomError, UsageError
from edgeprune.record import Run, create, create_or_reopen, lock_folder, read_record, reopen, write_text
from edgeprune.spec import BudgetSpec, FitSpec, ModelSpec, Spec, TargetSpec, load_spec
from edgeprune.values import Value
from tests.report.made_up import made_up_record


class Result(Value):
    number: float
    text: str = "x" * 1000


def fresh(folder: Path) -> Run:
    return create(Spec(out=folder), "demo rpi4")


def lines(run: Run) -> list[str]:
    return (run.path / "events.jsonl").read_text(encoding="utf-8").splitlines()


def test_a_new_run_lies_in_the_out_folder_under_time_and_name(tmp_path: Path) -> None:
    with fresh(tmp_path / "deep" / "runs") as run:
        assert run.path.parent == tmp_path / "deep" / "runs"
        assert run.path.name.endswith("Z-demo-rpi4")


def test_two_runs_within_a_second_do_not_meet(tmp_path: Path) -> None:
    with fresh(tmp_path) as one, fresh(tmp_path) as two:
        assert one.path != two.path


def test_the_spec_comes_back_from_either_file(tmp_path: Path) -> None:
    spec = Spec(model=ModelSpec(args={"width": 8}), fit=FitSpec(epochs=2), out=tmp_path)
    with create(spec, "x") as run:
        assert load_spec(run.path / "spec.toml", {}) == spec
    with reopen(run.path) as again:
        assert again.spec == spec and again.name == "x"


def test_a_value_is_absent_until_saved_and_then_survives_reopening(tmp_path: Path) -> None:
    with fresh(tmp_path) as run:
        assert run.load("03-round-1-plan", Result) is None
        run.save("03-round-1-plan", Result(number=float("inf")))
    with reopen(run.path) as again:
        assert again.load("03-round-1-plan", Result) == Result(number=float("inf"))


def test_a_stage_is_computed_once(tmp_path: Path) -> None:
    calls: list[int] = []

    def compute() -> Result:
        calls.append(1)
        return Result(number=len(calls))

    with fresh(tmp_path) as run:
        first = run.stage("01-trace", Result, compute)
    with reopen(run.path) as again:
        assert again.stage("01-trace", Result, compute) == first
    assert calls == [1]
    assert [json.loads(line)["stage"] for line in lines(run)] == ["01-trace"]


def test_what_an_unfinished_stage_keeps_goes_when_its_result_is_stored(tmp_path: Path) -> None:
    with create(Spec(out=tmp_path), "a") as run:
        for key in ("one", "two", "three"):
            run.workspace(key).mkdir(parents=True)
            (run.workspace(key) / "kept").write_text("x")
        run.save("one", Spec())
        assert {path.name for path in (run.path / "unfinished").iterdir()} == {"two", "three"}
        (run.path / "stages" / "two.json").write_text("{}")  # killed between the two steps of `save`
    with reopen(run.path) as run:
        assert [path.name for path in (run.path / "unfinished").iterdir()] == ["three"]
        with pytest.raises(ValueError, match="not a stage key"):
            run.workspace("../three")


def test_a_folder_is_there_only_after_its_block_succeeded(tmp_path: Path) -> None:
    with fresh(tmp_path) as run:
        with pytest.raises(RuntimeError, match="half way"), run.write_folder("artifacts") as folder:
            (folder / "model.onnx").write_text("half")
            raise RuntimeError("half way")
        assert run.folder("artifacts") is None
        with run.write_folder("artifacts") as folder:
            (folder / "sub").mkdir()
            (folder / "sub" / "model.onnx").write_text("whole")
        assert run.folder("artifacts") == run.path / "artifacts"
        assert (run.path / "artifacts/sub/model.onnx").read_text() == "whole"
        with pytest.raises(FileExistsError, match="already written"), run.write_folder("artifacts"):
            pass
    assert not list(run.path.rglob(".tmp-*"))


@pytest.mark.parametrize("key", ["", "../x", "a/b", ".hidden", "a b"])
def test_a_key_cannot_leave_the_folder(tmp_path: Path, key: str) -> None:
    with fresh(tmp_path) as run:
        with pytest.raises(ValueError, match="not a stage key"):
            run.load(key, Result)
        with pytest.raises(ValueError, match="not a stage key"):
            run.folder(key)


def test_events_are_json_lines_also_for_numbers_that_json_does_not_know(tmp_path: Path) -> None:
    with fresh(tmp_path) as run:
        run.event("tune", epoch=1, loss=float("nan"), note="a\nb")
    (line,) = lines(run)
    event = json.loads(line, parse_constant=pytest.fail)
    assert (event["epoch"], event["loss"], event["note"]) == (1, "nan", "a\nb")


def test_reopening_sweeps_what_a_kill_left_behind(tmp_path: Path) -> None:
    with fresh(tmp_path) as run:
        run.event("one")
    (run.path / ".tmp-artifacts").mkdir()
    (run.path / "stages" / ".tmp-01.json").write_text("{")
    with (run.path / "events.jsonl").open("a") as stream:
        stream.write('{"time": "20')
    with reopen(run.path) as again:
        again.event("two")
    assert not list(run.path.rglob(".tmp-*"))
    assert [json.loads(line)["stage"] for line in lines(run)] == ["one", "two"]


def test_a_second_writer_is_told_who_the_first_is(tmp_path: Path) -> None:
    with fresh(tmp_path) as run, pytest.raises(UsageError, match=f"written by process {os.getpid()} on ") as caught:
        reopen(run.path)
    assert "the lock ends with its process" in caught.value.hint
    with reopen(run.path) as again:
        assert again.path == run.path


def test_a_lock_of_a_process_that_was_killed_does_not_block(tmp_path: Path) -> None:
    script = (
        "import os, sys; from pathlib import Path;"
        "from edgeprune.record import create; from edgeprune.spec import Spec;"
        "print(create(Spec(out=Path(sys.argv[1])), 'x').path, flush=True); os.kill(os.getpid(), 9)"
    )
    done = subprocess.run([sys.executable, "-c", script, str(tmp_path)], capture_output=True, text=True, check=False)
    path = Path(done.stdout.strip())
    assert done.returncode == -9 and (path / "lock").read_text().startswith("process ")
    with reopen(path) as run:
        assert run.path == path


@pytest.mark.parametrize(
    ("damage", "message", "hint"),
    [
        (lambda path: (path / "spec.json").unlink(), "not a run folder", "spec.json"),
        (
            lambda path: (path / "spec.json").write_text('{"schema": "edgeprune.run/9"}'),
            "unknown schema 'edgeprune.run/9'",
            "edgeprune that wrote it",
        ),
        (lambda path: (path / "spec.json").write_text("[]"), "not a _Header of this version", "new run"),
        (lambda path: (path / "spec.json").write_text('{"schema": '), "not a _Header of this version", "new run"),
    ],
)
def test_a_bad_folder_is_named(tmp_path: Path, damage: Callable[[Path], object], message: str, hint: str) -> None:
    with fresh(tmp_path) as run:
        pass
    damage(run.path)
    with pytest.raises(UsageError, match=message) as caught:
        reopen(run.path)
    assert hint in caught.value.hint and str(run.path) in caught.value.where


def test_an_edited_stage_is_named_with_its_key(tmp_path: Path) -> None:
    with fresh(tmp_path) as run:
        run.save("01-trace", Result(number=1))
        (run.path / "stages/01-trace.json").write_text('{"number": "many"}')
        with pytest.raises(UsageError, match="not a Result of this version .number: ") as caught:
            run.load("01-trace", Result)
    assert caught.value.where.endswith("01-trace.json")


def test_the_record_is_read_back_and_an_unfinished_run_says_how_to_go_on(tmp_path: Path) -> None:
    record = made_up_record()
    with fresh(tmp_path) as run:
        with pytest.raises(UsageError, match="has not finished") as caught:
            read_record(run.path)
        assert caught.value.hint == f"edgeprune fit --resume {run.path}"
        run.finish(record)
        assert read_record(run.path) == record


def test_a_folder_that_cannot_be_written_is_a_usage_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UsageError, match="cannot write here: .*Not a directory"):
        fresh(tmp_path / "file" / "runs")


def test_only_a_full_disk_is_translated_inside_a_folder_block(tmp_path: Path) -> None:
    with fresh(tmp_path) as run:
        with pytest.raises(NoRoomError, match="the disk is full"), run.write_folder("a"):
            raise RuntimeError("Error while serializing: No space left on device (os error 28)")
        with pytest.raises(NoRoomError, match="the disk is full"), run.write_folder("a"):
            raise OSError(errno.EDQUOT, os.strerror(errno.EDQUOT))
        with pytest.raises(PermissionError), run.write_folder("b"):
            raise PermissionError(errno.EACCES, "not ours")


CALLS = ("open", "write", "fsync", "replace")


def small_run(folder: Path, run: Run | None = None) -> Run:
    """Everything a fit does to its folder, as often as it has to."""
    run = run or create(Spec(out=folder), "x")
    for number in range(3):
        run.stage(f"0{number}-stage", Result, lambda number=number: Result(number=number))  # type: ignore[misc]
        if run.folder(f"files-{number}") is None:
            with run.write_folder(f"files-{number}") as work:
                write_text(work / "model.bin", str(number) * 999)
    write_text(run.path / "record.json", "done")
    return run


def complete_or_absent(path: Path) -> None:
    for number in range(3):
        file = path / f"stages/0{number}-stage.json"
        if file.exists():
            assert Result.model_validate_json(file.read_bytes()) == Result(number=number)
        file = path / f"files-{number}/model.bin"
        if file.parent.exists():
            assert file.read_text() == str(number) * 999
    if (path / "record.json").exists():
        assert (path / "record.json").read_text() == "done"


def test_a_disk_that_fills_up_at_any_call_leaves_each_value_whole_or_absent(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    failures = 0
    while True:
        out = tmp_path / str(failures)
        left = failures

        def counted(name: str, real: Callable[..., Any]) -> Callable[..., Any]:
            def call(*args: Any, **kwargs: Any) -> Any:
                nonlocal left
                left -= 1
                if left == -1:
                    if name == "write":
                        real(args[0], bytes(args[1])[: len(args[1]) // 2])
                    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
                return real(*args, **kwargs)

            return call

        with monkeypatch.context() as patch:
            for name in CALLS:
                patch.setattr(os, name, counted(name, getattr(os, name)))
            try:
                small_run(out).close()
                break
            except NoRoomError as err:
                assert err.exit_code == 11 and "what was written is intact" in err.hint
        for path in out.glob("*"):
            complete_or_absent(path)
            if (path / "spec.json").exists():
                with reopen(path) as again:
                    small_run(out, again)
                assert (path / "record.json").read_text() == "done" and not list(path.rglob(".tmp-*"))
                complete_or_absent(path)
        failures += 1
    assert failures > 40


def test_a_kill_at_any_call_leaves_each_value_whole_or_absent_and_the_run_goes_on(tmp_path: Path) -> None:
    script = """
        import os, sys
        from pathlib import Path
        from tests.test_record import CALLS, complete_or_absent, reopen, small_run

        real = {name: getattr(os, name) for name in CALLS}
        for at in range(1000):
            out = Path(sys.argv[1], str(at))
            child = os.fork()
            if child == 0:
                left = at
                def counted(name):
                    def call(*args, **kwargs):
                        global left
                        left -= 1
                        if left == -1:
                            if name == "write":
                                real[name](args[0], bytes(args[1])[:len(args[1]) // 2])
                            os._exit(9)
                        return real[name](*args, **kwargs)
                    return call
                for name in CALLS:
                    setattr(os, name, counted(name))
                small_run(out)
                os._exit(0)
            if os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0:
                break
            for path in out.glob("*"):
                complete_or_absent(path)
                if (path / "spec.json").exists():
                    with reopen(path) as again:
                        small_run(out, again)
                    complete_or_absent(path)
                    assert not list(path.rglob(".tmp-*"))
        print(at)
    """
    root = Path(__file__).parents[1]
    command = [sys.executable, "-c", textwrap.dedent(script), str(tmp_path)]
    done = subprocess.run(command, cwd=root, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) > 40


def test_a_run_at_a_path_is_begun_once_and_then_continued(tmp_path: Path) -> None:
    path, spec = tmp_path / "points" / "a", Spec(out=tmp_path / "points", fit=FitSpec(epochs=2))
    path.mkdir(parents=True)
    (path / "lock").touch()  # killed before the header was written
    with create_or_reopen(path, spec, "a") as run:
        run.save("one", Result(number=1.0))
    with create_or_reopen(path, spec, "a") as again:
        assert again.path == path and again.load("one", Result) == Result(number=1.0)
        assert again.created == run.created
    with pytest.raises(UsageError, match="another job's run lies here: fit.seed differ"):
        create_or_reopen(path, spec.model_copy(update={"fit": FitSpec(epochs=2, seed=1)}), "a")
    os.close(lock_folder(path))  # the refusal did not keep the lock


def test_a_run_at_a_path_waits_for_the_process_that_writes_it(tmp_path: Path) -> None:
    """Each process counts up in the folder that it holds; none of the steps is lost."""
    script = """
        import sys
        from pathlib import Path
        from edgeprune.record import create_or_reopen
        from edgeprune.spec import Spec
        path = Path(sys.argv[1])
        for _ in range(40):
            with create_or_reopen(path, Spec(out=path.parent), "a"):
                count = path / "count"
                count.write_text(str(int(count.read_text() if count.exists() else 0) + 1))
    """
    command = [sys.executable, "-c", textwrap.dedent(script), str(tmp_path / "a")]
    both = [subprocess.Popen(command) for _ in range(2)]
    assert [process.wait(timeout=120) for process in both] == [0, 0]
    assert (tmp_path / "a" / "count").read_text() == "80"


def test_what_another_run_finished_is_adopted_once(tmp_path: Path) -> None:
    limits = [BudgetSpec(latency=latency) for latency in ("5ms", "9ms")]
    one, two = (Spec(out=tmp_path / str(i), budget=budget) for i, budget in enumerate(limits))
    with create(one, "x") as source:
        source.save("dense", Result(number=7.0))
        with source.write_folder("dense") as work:
            (work / "deep").mkdir()
            (work / "deep" / "model.onnx").write_text("whole")
    with create(two, "x") as run:
        for _ in range(2):
            run.adopt(source.path, ("out", "budget.latency"), ("dense", "importance"), ("dense", "smallest"))
        assert run.load("dense", Result) == Result(number=7.0) and run.load("importance", Result) is None
        assert (run.path / "dense/deep/model.onnx").read_text() == "whole"
        assert [json.loads(line)["adopted"] for line in lines(run)] == [str(source.path)]


@pytest.mark.parametrize(
    ("change", "apart", "named"),
    [
        ({"fit": FitSpec(seed=1)}, ("out", "budget"), "fit.seed"),
        ({"target": TargetSpec(name="rpi4"), "task": "multilabel"}, ("target",), "task"),
        ({"budget": BudgetSpec(at="p50", latency="1ms")}, ("budget.latency",), "budget.at"),
    ],
)
def test_results_of_another_job_are_not_adopted(
    tmp_path: Path, change: dict[str, Any], apart: tuple[str, ...], named: str
) -> None:
    with create(Spec(out=tmp_path), "x") as source, create(Spec(out=tmp_path, **change), "x") as run:
        with pytest.raises(UsageError, match=f"not those of this job: {named} differ"):
            run.adopt(source.path, apart, ("dense",))
