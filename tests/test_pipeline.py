"""The whole flow on a tiny real problem: rounds, resume, infeasible budgets, and the promises of the record."""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

import pytest
import torch
from torch import nn

from edgeprune import job, pipeline, quantized, stages, summary
from edgeprune.cost import Correction, Cost, Measurement, Source
from edgeprune.decide import Rehearse
from edgeprune.device.estimate import estimate
from edgeprune.documents import FitRecord
from edgeprune.errors import UsageError
from edgeprune.pruning.groups import ChannelGroups
from edgeprune.pruning.trace import Captured
from edgeprune.record import Run, create, create_or_reopen, read_record
from edgeprune.spec import QuantizeSpec, Spec
from edgeprune.stages import Importance, Race
from edgeprune.target import load_target
from edgeprune.training import fine_tune
from tests.digits import workload

T = TypeVar("T")
BOARD = Path(__file__).parent / "golden" / "test-board.toml"


def spec(out: Path, **changes: Any) -> Spec:
    """A fast fit for a made-up board that takes ONNX files, which are quick to export."""
    tree: dict[str, Any] = {
        "model": {"entry": "digits"},
        "data": {"source": "digits"},
        "target": {"name": str(BOARD)},
        "budget": {"latency": "250us"},
        "fit": {
            "schedule": "one-shot",
            "epochs": 1,
            "race_steps": 4,
            "formats": ("onnxruntime",),
            "step": 4,
            "calibration_samples": 32,
            "curves_limit_s": 600.0,  # so that a busy machine finds the same
            "solver_limit_s": 600.0,
        },
        "train": {},
        "out": out,
    }
    for key, value in changes.items():
        section, name = key.split("__")
        tree[section] = {**tree[section], name: value}
    return Spec.model_validate(tree)


@pytest.fixture(autouse=True)
def _live(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pipeline, "load_workload", lambda spec: workload())


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FitRecord]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pipeline, "load_workload", lambda spec: workload())
        yield pipeline.fit(spec(tmp_path_factory.mktemp("runs")))


def test_a_met_budget_says_so_with_its_source(finished: FitRecord) -> None:
    assert finished.verdict == "met"
    assert finished.source is Source.ESTIMATED
    assert finished.latency_interval_ns is not None
    assert finished.latency_interval_ns[1] <= 250_000
    assert finished.exit_code == 0
    assert finished.runtime == "onnxruntime"
    assert finished.threads == 1


def test_the_record_compares_dense_pruned_and_exported(finished: FitRecord) -> None:
    names = [row.name for row in finished.costs]
    assert names == ["dense fp32", "dense onnx int8", "pruned fp32", "onnx int8"]
    dense, _, pruned, exported = finished.costs
    assert pruned.macs is not None and dense.macs is not None and pruned.macs < dense.macs
    assert exported.deployed
    assert finished.metric.artifacts["onnx"] > 0.2
    assert all(row.figures[0].source is Source.ESTIMATED for row in finished.costs)
    assert {row.layer for row in finished.layers} == {"stem", "a", "b", "head"}
    assert [row.group for row in finished.frozen] == ["head"]


def test_the_run_folder_holds_everything_and_no_pickle(finished: FitRecord) -> None:
    run = finished.run
    for name in ("spec.toml", "events.jsonl", "plan.json", "record.json", "report.html", "report.md"):
        assert (run / name).is_file(), name
    assert finished.artifacts["onnx"] == run / "artifacts" / "model.onnx"
    assert finished.artifacts["onnx"].is_file()
    assert read_record(run) == finished
    endings = {file.suffix for file in run.rglob("*") if file.is_file()}
    assert endings <= {".toml", ".json", ".jsonl", ".html", ".md", ".safetensors", ".onnx", ""}


def test_the_record_says_what_was_tried_so_that_int8_holds(finished: FitRecord) -> None:
    plain, *_ = finished.quantization
    assert plain.step == "plain" and plain.kept and set(plain.metrics) == {"onnx"}
    chosen = min((row for row in finished.quantization if row.kept), key=lambda row: row.drop)
    assert chosen.metrics["onnx"] == finished.metric.validation_artifacts["onnx"]
    assert "Steps to int8" in (finished.run / "report.md").read_text()


@pytest.mark.slow
def test_a_file_that_loses_too_much_is_made_to_hold_and_the_next_run_finds_the_trained_weights(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    judged: list[int] = []

    def made_up(session: Any, dataset: Any, task: Any, progress: Any) -> dict[str, float]:
        judged.append(len(judged) % 2)
        return {task.primary: 1.0 if judged[-1] else 0.1}  # the second file of each fit holds

    monkeypatch.setattr("edgeprune.int8.evaluate_session", made_up)
    tried = spec(tmp_path)
    tried = tried.model_copy(update={"quantize": QuantizeSpec(steps=("train",), epochs=1)})
    record = pipeline.fit(tried)
    assert [(row.step, row.kept) for row in record.quantization] == [
        ("plain", True),
        ("trained on the int8 grid", True),
    ]
    assert record.quantization[0].drop > 0.005 >= record.quantization[1].drop
    assert record.metric.validation_artifacts["onnx"] == 1.0
    assert (record.run / "round-1-onnxruntime-step-1").is_dir() and (record.run / "round-1-on-grid").is_dir()
    assert "trained on the int8 grid" in (record.run / "report.html").read_text()
    (record.run / "stages" / "round-1-tuned.json").unlink()  # as if it was killed before that was written
    shutil.rmtree(record.run / "round-1-onnxruntime-step-1")
    monkeypatch.setattr("edgeprune.ladder.trained_on_grid", None)  # would be called to train again
    again = pipeline.resume(record.run)
    assert [row.step for row in again.quantization] == [row.step for row in record.quantization]
    assert again.metric.artifacts == record.metric.artifacts


@pytest.mark.slow
def test_a_runs_tuned_model_is_quantised_again(finished: FitRecord, tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.setattr(quantized, "load_workload", lambda spec: workload())
    source = quantized.from_run(finished.run)
    record = quantized.quantize(source, ["onnxruntime"], tmp_path)
    assert record.validation == finished.metric.validation_pruned and record.test == finished.metric.pruned
    assert [row.name for row in record.artifacts] == ["onnx"]


def test_uniform_widths_always_race(finished: FitRecord) -> None:
    assert "uniform" in {row.plan for row in finished.race}
    best = max(row.metric or 0 for row in finished.race)
    assert next(row.metric for row in finished.race if row.chosen) == best


def test_the_record_says_what_every_group_was_worth_and_what_it_bought(finished: FitRecord) -> None:
    dense, planned = finished.limits[0].dense, finished.limits[0].planned
    assert [row.what for row in finished.limits] == ["latency_ns"] and planned <= finished.limits[0].limit < dense
    kept = {row.group: row.kept for row in finished.layers if row.group}
    assert {row.group: row.kept for row in finished.worth} == kept
    for row in finished.worth:
        assert row.importance is not None and (row.importance == 1) == (row.kept == row.dense)
        assert row.alone.latency_ns is not None and row.final.latency_ns is not None
        assert (row.alone.latency_ns > 0) == (row.final.latency_ns > 0) == (row.kept < row.dense)
        assert max(row.alone.latency_ns, row.final.latency_ns) <= dense - planned + 1
    shrunk = [row for row in finished.worth if row.kept < row.dense]
    assert shrunk and 0 < finished.limits[0].blocked <= finished.limits[0].shrunk == len(shrunk)


def test_the_record_says_by_what_channels_were_ranked_and_whether_halves_of_the_samples_agree(
    finished: FitRecord,
) -> None:
    row = finished.ranking
    assert row is not None and row.criterion == "logit_taylor" and row.samples > 0
    assert row.agreement is not None and -1 <= row.agreement <= 1
    assert set(row.groups) == {group.group for group in finished.worth}
    shaky = [note for note in finished.notes if "differently on two halves" in note]
    assert bool(shaky) == (row.agreement < 0.8)


class Halved(nn.Module):
    """Another answer in training mode."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.inner(x) * 0.5 if self.training else self.inner(x)  # type: ignore[no-any-return]


def test_what_the_model_and_the_check_leave_out_is_said_and_recorded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(captured: Captured, groups: ChannelGroups, inputs: Any) -> ChannelGroups:
        return groups.without({groups.groups[0].name: "pruned differs from masked by 1.0e+00"})

    class Heard:
        def __init__(self) -> None:
            self.notes: list[str] = []

        def note(self, text: str) -> None:
            self.notes.append(text)

        def track(self, items: Any, label: str, total: int | None = None) -> Any:
            return iter(items)

    monkeypatch.setattr(job, "vetted", fails)
    problem, heard = workload(), Heard()
    with create(spec(tmp_path), "digits") as run:
        opened = job.open_job(run, replace(problem, model=Halved(problem.model).eval()), heard)
    rows = {row.group: row.by_check for row in summary.frozen_rows(opened)}
    assert rows == {"inner.stem": True, "inner.head": False}
    assert any(note.startswith("left whole: inner.stem") for note in heard.notes)
    assert opened.notes[0] in heard.notes and "in training mode only: operators mul" in opened.notes[0]


class Killed(BaseException):
    """The process dies here."""


@pytest.mark.slow
def test_a_fit_killed_after_any_stage_resumes_to_the_same_result(
    finished: FitRecord, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every attempt dies right after the next stage was stored; the last one finishes."""
    save, deaths = Run.save, 0

    def save_and_die(self: Run, key: str, value: Any) -> None:
        nonlocal deaths
        save(self, key, value)
        deaths += 1
        raise Killed

    monkeypatch.setattr(Run, "save", save_and_die)
    with pytest.raises(Killed):
        pipeline.fit(spec(tmp_path))
    (folder,) = tmp_path.iterdir()
    while True:
        try:
            record = pipeline.resume(folder)
            break
        except Killed:
            continue
    assert deaths >= 6
    assert same_result(record, finished)


@pytest.mark.slow
def test_a_fit_killed_in_the_middle_of_trainings_resumes_to_the_same_weights(
    finished: FitRecord, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Killed in the race, whose first plan is trained by then, and in the round's only epoch."""
    take_step = fine_tune.take_step
    for steps in (6, 9):
        left = iter(range(steps))

        def until_killed(*arguments: Any, left: Iterator[int] = left) -> float | None:
            if next(left, None) is None:
                raise Killed
            return take_step(*arguments)

        monkeypatch.setattr(fine_tune, "take_step", until_killed)
        with pytest.raises(Killed):
            folders = list(tmp_path.iterdir())
            pipeline.resume(folders[0]) if folders else pipeline.fit(spec(tmp_path, train__checkpoint_steps=1))
    (folder,) = tmp_path.iterdir()
    assert [file.parent.name for file in folder.rglob("training.safetensors")] == ["round-1-tuned"]
    monkeypatch.setattr(fine_tune, "take_step", take_step)
    record = pipeline.resume(folder)
    assert same_result(record, finished)
    weights = [(run / "round-1-model" / "model.safetensors").read_bytes() for run in (record.run, finished.run)]
    assert weights[0] == weights[1] and not (folder / "unfinished").exists()


@pytest.mark.slow
def test_a_fit_that_adopts_what_was_prepared_for_another_budget_is_that_of_a_plain_fit(
    finished: FitRecord, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = spec(tmp_path / "shared", budget__latency="400us")
    with create_or_reopen(tmp_path / "shared" / "board", other, "shared") as shared:
        pipeline.prepare(shared)
    for name in ("evaluated", "dense", "importance_and_curves"):
        monkeypatch.setattr(stages, name, lambda *_: pytest.fail("was computed again"))
    with create_or_reopen(tmp_path / "points" / "a", spec(tmp_path / "points"), "a") as run:
        run.adopt(shared.path, ("out", "budget.latency"), ("evaluated", "dense", "importance"))
        assert same_result(pipeline.fit_in(run), finished)


def test_a_run_of_live_objects_is_resumed_with_them(finished: FitRecord, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pipeline, "load_workload", lambda spec: pytest.fail("the live workload was given"))
    assert same_result(pipeline.resume(finished.run, workload=workload()), finished)


def same_result(a: FitRecord, b: FitRecord) -> bool:
    """Equal in everything but times, places and the artifacts' own time stamps."""
    kept = ("verdict", "latency_ns", "ram_bytes", "size_bytes", "metric", "rounds", "layers", "race")
    left, right = (record.model_dump(include=set(kept)) for record in (a, b))
    for tree in (left, right):
        for row in tree["rounds"]:
            row.pop("solver_s")
    plans = [(record.run / "plan.json").read_text() for record in (a, b)]
    return left == right and plans[0] == plans[1]


@pytest.mark.slow
def test_a_file_that_costs_more_than_planned_is_solved_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The exporter adds operators that the graph does not have; round two allows for them."""
    honest = job.profile

    def with_extra_operators(path: Path, *args: Any, **kwargs: Any) -> Measurement:
        found = honest(path, *args, **kwargs)
        cost = found.cost
        if "rehearsal" not in str(path) and "round-" not in str(path):
            return found
        assert cost.latency_s is not None and cost.latency_interval_s is not None
        low, high = cost.latency_interval_s
        extra_s = 40e-6
        more = {"latency_s": cost.latency_s + extra_s, "latency_interval_s": (low + extra_s, high + extra_s)}
        return found.model_copy(update={"cost": cost.model_copy(update=more)})

    monkeypatch.setattr(job, "profile", with_extra_operators)
    record = pipeline.fit(spec(tmp_path))
    assert len(record.rehearsals) >= 2 and len(record.rounds) == 1
    first, last = record.rehearsals[0], record.rounds[-1]
    assert first.profiled_ns is not None and first.predicted_ns is not None
    assert first.profiled_ns > first.predicted_ns + 30_000
    assert last.predicted_ns is not None and last.profiled_ns is not None
    assert abs(last.profiled_ns / last.predicted_ns - 1) < 0.1
    assert record.verdict == "met"


def test_an_infeasible_budget_stops_before_training(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stages, "finish", lambda *_: pytest.fail("nothing may be trained"))
    monkeypatch.setattr(stages, "race", lambda *_: pytest.fail("nothing may be trained"))
    record = pipeline.fit(spec(tmp_path, budget__latency="60us"))
    assert record.verdict == "infeasible"
    assert record.exit_code == 3
    assert record.smallest is not None and record.smallest.latency_ns is not None
    assert record.smallest.latency_ns > 60_000
    assert record.binding
    assert record.violations[0].what == "latency_ns"


class Notes:
    """Keeps what a fit says."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def note(self, text: str) -> None:
        self.lines.append(text)

    def track(self, items: Iterable[T], label: str, total: int | None = None) -> Iterator[T]:
        yield from items


@pytest.mark.slow
def test_whole_blocks_go_where_allowed_and_dead_channels_go_first(tmp_path: Path) -> None:
    """The budget is out of reach with the block in; the model is given three dead channels."""
    live = workload()
    with torch.no_grad():
        live.model.get_parameter("norm_a.weight")[:3] = 0.0
        live.model.get_parameter("norm_a.bias")[:3] = -1.0
    notes = Notes()
    record = pipeline.fit(spec(tmp_path, budget__latency="110us", fit__blocks=True), notes, live)
    assert record.verdict == "met"
    assert "dead channels, which go first: 3 of a" in notes.lines
    assert "dead channels, which go first: 3 of a" in record.notes
    assert {row.layer: row.kept for row in record.layers if row.layer in ("a", "b")} == {"a": 0, "b": 0}
    stored, race = (
        kind.model_validate_json(next(tmp_path.rglob(f"{key}.json")).read_text())
        for key, kind in (("importance", Importance), ("race", Race))
    )
    assert stored.dead == {"a": (0, 1, 2)} and stored.scores["a"][:3] == (0.0, 0.0, 0.0)
    assert race.plans and all(entry.plan.keep["a"] == () for entry in race.plans)


def test_ram_alone_can_be_infeasible(tmp_path: Path) -> None:
    record = pipeline.fit(spec(tmp_path, budget__latency=None, budget__ram="256B"))
    assert record.verdict == "infeasible"
    assert [row.what for row in record.violations] == ["ram_bytes"]


@pytest.mark.slow
def test_a_ram_and_a_size_budget_bind_together(tmp_path: Path) -> None:
    record = pipeline.fit(spec(tmp_path, budget__latency=None, budget__ram="14KiB", budget__size="16kB"))
    assert record.verdict == "met"
    assert record.ram_bytes is not None and record.ram_bytes <= 14 * 1024
    assert record.size_bytes is not None and record.size_bytes <= 16_000


@pytest.mark.slow
def test_a_missed_drop_is_a_miss_of_quality(tmp_path: Path) -> None:
    record = pipeline.fit(spec(tmp_path, budget__max_drop="0.001pp", fit__epochs=0, fit__race_steps=0))
    assert record.metric.drop is not None and record.metric.drop > 0.01  # cut hard and never tuned
    assert record.verdict == "missed"
    assert record.exit_code == 4
    assert [row.what for row in record.violations] == ["drop"]


def test_a_device_that_never_meets_ends_as_missed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    never = Cost(source=Source.ESTIMATED, latency_s=1.0, latency_interval_s=(0.9, 1.1), ram_bytes=1, size_bytes=1)
    target = load_target(str(BOARD))

    def slow(path: Path, *args: Any, **kwargs: Any) -> Measurement:
        return estimate((), target).model_copy(update={"cost": never})

    monkeypatch.setattr(job, "profile", slow)
    monkeypatch.setattr(
        stages,
        "floor",
        lambda _, dense: stages.Floor(
            feasible=True,
            measurement=dense.measurement,
            binding=(),
            aim=Rehearse(correction=Correction(), latency_s=250e-6, reason="made up"),
        ),
    )
    record = pipeline.fit(spec(tmp_path))
    assert record.verdict == "missed"
    assert record.exit_code == 3
    assert len(record.rounds) == 1, "a plan that cannot hold is trained once, for the verdict"


def test_a_latency_limit_where_there_is_no_latency_model_names_what_works(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no latency model for jetson-nano, tflite, int8, 4 thread") as caught:
        pipeline.fit(spec(tmp_path, target__name="jetson-nano", fit__formats=("tflite",)))
    assert caught.value.where == "--latency"
    assert "--ram, --size and --macs" in caught.value.hint and "rk3588" in caught.value.hint
