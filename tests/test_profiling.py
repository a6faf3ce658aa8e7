from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgeprune import backends, timing
from edgeprune.cost import Source
from edgeprune.errors import MeasurementError, UsageError
from edgeprune.profiling import compare_p50, profile
from edgeprune.target import load_target
from edgeprune.timing import Reference, Turns

HOST = load_target("host")


def document(latencies_s: np.ndarray, others: float = 0.0, **changes: Any) -> dict[str, Any]:
    """What the runner prints for these latencies."""
    pieces = [[len(part), others] for part in np.array_split(latencies_s, 24)]
    return {
        "samples_ns": [(latencies_s * 1e9).tolist()],
        "slices": pieces,
        "runtime_version": "tflite 1",
        "threads": 1,
        "precision": ["int8"],
        "load_ns": 10**6,
        "first_ns": 10**6,
        "warm_up": {"runs": 9, "seconds": 0.5, "settled": True},
        "wall_s": float(latencies_s.sum()),
        "peak_rss_bytes": 60_000_000,
        "empty_rss_bytes": 50_000_000,
        **dict.fromkeys(("cpu", "system", "python", "cpu_share", "preemptions"), "x"),
        "before": {"load": "0"},
        "after": {"load": "0"},
        **changes,
    }


@pytest.fixture
def scripted(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Runs answer the given documents one after the other, without a pause between them."""

    def script(*documents: dict[str, Any]) -> list[int]:
        left, asked = list(documents), []

        def run_bench(turns: Turns) -> dict[str, Any]:
            asked.append(turns.runs)
            return left.pop(0)

        monkeypatch.setattr(timing, "run_bench", run_bench)
        monkeypatch.setattr(timing, "_COOL_DOWN_S", 0.0)
        return asked

    return script


STEADY = np.linspace(1.0, 1.01, 2400) * 1e-3
FALLING = np.concatenate([np.full(1200, 1e-3), np.full(1200, 1.3e-3)])


def test_a_file_is_measured_on_this_machine(exported: Any, small_net: Any, any_machine: None) -> None:
    artifact = exported("tflite", "residual")
    result = profile(artifact.path, HOST, inputs=small_net("residual").samples)
    cost = result.cost
    assert cost.source is Source.MEASURED and cost.ram_kind == "process"
    assert result.p50_s <= result.p90_s <= result.p99_s
    assert cost.latency_interval_s[0] <= result.p90_s <= cost.latency_interval_s[1] == cost.latency_s
    assert result.runs >= 200 and result.precision == "int8" and result.threads == 1
    assert cost.size_bytes == artifact.size_bytes and cost.ram_bytes > 0
    assert sum(op.macs for op in result.ops) == small_net("residual").macs
    assert result.environment["judged_at"] == "p90" and "ai-edge-litert" in result.runtime_version


def test_a_board_is_estimated_from_the_operators_in_the_file(exported: Any, small_net: Any) -> None:
    artifact = exported("tflite", "depthwise")
    result = profile(artifact.path, load_target("rpi4"))
    assert result.cost.source is Source.ESTIMATED and result.cost.ram_kind == "activations"
    assert result.cost.size_bytes == artifact.size_bytes
    assert sum(op.macs for op in result.ops) == small_net("depthwise").macs
    assert result.precision == "int8" and result.threads == 4


def test_a_microcontroller_needs_the_arena_that_its_kernels_plan(exported: Any) -> None:
    path = exported("tflite", "depthwise").path
    result = profile(path, load_target("nucleo-l4r5zi"), runtime="tflm")
    assert result.cost.ram_kind == "arena"
    assert result.cost.ram_bytes == backends.get("tflite").arena_bytes(path)


def test_the_verdict_rests_on_the_upper_bound_of_the_asked_for_percentile(exported: Any, scripted: Any) -> None:
    path = exported("tflite", "residual").path
    asked = scripted(document(STEADY), document(STEADY), document(STEADY))
    costs = [profile(path, HOST, at=at, per_op=False).cost for at in ("p50", "p90", "p99")]
    assert costs[0].latency_s < costs[1].latency_s < costs[2].latency_s
    assert asked == [200, 200, 459], "p99 needs more runs than the default"


def test_a_disturbed_run_is_repeated_once(exported: Any, scripted: Any) -> None:
    path = exported("tflite", "residual").path
    asked = scripted(document(FALLING), document(STEADY))
    assert profile(path, HOST, per_op=False).cost.latency_s < 1.1e-3
    assert len(asked) == 2


def test_two_disturbed_runs_are_an_error_and_no_number(exported: Any, scripted: Any) -> None:
    scripted(document(FALLING), document(FALLING))
    with pytest.raises(MeasurementError, match="not itself during .* repetition: it became slower by 30 %; it"):
        profile(exported("tflite", "residual").path, HOST)


def paired_document(reference_s: list[float]) -> dict[str, Any]:
    """Ten runs at half of the reference's time before each of its turns."""
    latencies_s = np.repeat(reference_s, 10) / 2
    return document(latencies_s, slices=[], stretches=[[10, seconds * 1e9] for seconds in reference_s])


@pytest.mark.slow
def test_a_file_is_timed_beside_a_reference(exported: Any, any_machine: None) -> None:
    artifact, fp32 = exported("onnxruntime", "residual"), exported("onnxruntime", "residual", "fp32")
    result = profile(artifact.path, HOST, per_op=False, reference=Reference(artifact.path))
    assert result.to_reference is not None and 0.2 < result.to_reference < 5  # of one file to itself
    assert result.reference_s is not None and "stretches_kept" in result.environment
    alone = profile(fp32.path, HOST, per_op=False)
    assert alone.to_reference is None and "others_cpus_max" in alone.environment


def test_what_the_reference_saw_is_left_out_and_said(exported: Any, scripted: Any) -> None:
    path = exported("tflite", "residual").path
    scripted(paired_document([1e-3] * 40 + [2e-3] * 8 + [1e-3] * 12))
    result = profile(path, HOST, per_op=False, reference=Reference(path))
    assert result.cost.latency_s == pytest.approx(0.5e-3) and result.to_reference == pytest.approx(0.5)
    assert any("15 % of the run left out: the dense file" in note for note in result.notes)
    assert result.reference_s == pytest.approx(1e-3)


def test_a_machine_that_is_faster_than_usual_is_no_gain_and_a_slower_one_counts(exported: Any, scripted: Any) -> None:
    path = exported("tflite", "residual").path
    scripted(paired_document([0.8e-3] * 60), paired_document([1.25e-3] * 60))
    fast = profile(path, HOST, per_op=False, reference=Reference(path, 1e-3))
    assert fast.cost.latency_s == pytest.approx(0.5e-3) and fast.p90_s == pytest.approx(0.4e-3)
    assert any("the latency is 1.25 times what was timed" in note for note in fast.notes)
    slow = profile(path, HOST, per_op=False, reference=Reference(path, 1e-3))
    assert slow.cost.latency_s == pytest.approx(0.625e-3) and not any("times what was timed" in n for n in slow.notes)


def test_a_run_in_which_too_much_is_left_out_is_repeated_and_then_refused(exported: Any, scripted: Any) -> None:
    path = exported("tflite", "residual").path
    scripted(paired_document([1e-3] * 35 + [2e-3] * 25), paired_document([1e-3] * 60))
    beside = Reference(path, 1e-3)
    assert profile(path, HOST, per_op=False, reference=beside).cost.latency_s == pytest.approx(0.5e-3)
    scripted(*[paired_document([1e-3] * 35 + [2e-3] * 25)] * 2)
    with pytest.raises(MeasurementError, match="and was far slower than usual in 42 % of it"):
        profile(path, HOST, reference=beside)


def test_a_throttling_flag_that_appears_is_a_disturbance(exported: Any, scripted: Any) -> None:
    hot = document(STEADY, before={"throttled": "0x0"}, after={"throttled": "0x50005"})
    scripted(hot, hot)
    with pytest.raises(MeasurementError, match="became slower"):
        profile(exported("tflite", "residual").path, HOST)


def test_a_busy_machine_is_noted(exported: Any, scripted: Any) -> None:
    unsettled = {"runs": 9, "seconds": 10.0, "settled": False}
    scripted(document(FALLING, others=1.0, warm_up=unsettled))
    notes = profile(exported("tflite", "residual").path, HOST, per_op=False).notes
    assert any("other jobs used the CPU" in note for note in notes)
    assert any("did not settle within 10 s" in note for note in notes)


def test_too_few_runs_within_the_time_limit_are_an_error(exported: Any, scripted: Any) -> None:
    scripted(document(STEADY[:30]))
    with pytest.raises(MeasurementError, match="only 30 runs .* p90 needs 44"):
        profile(exported("tflite", "residual").path, HOST)


def test_a_missing_file_and_an_unknown_kind_are_named(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no such model file"):
        profile(tmp_path / "m.tflite", HOST)
    with pytest.raises(UsageError, match=r"no backend runs 'm\.h5'"):
        profile(tmp_path / "m.h5", HOST)


def test_a_file_that_the_target_does_not_take_is_named(exported: Any) -> None:
    path = exported("onnxruntime", "residual").path
    with pytest.raises(UsageError, match="runtime tflite of target host takes files for tflite"):
        profile(path, HOST, runtime="tflite")
    with pytest.raises(UsageError, match=r"target nucleo-l4r5zi cannot run \.onnx files"):
        profile(path, load_target("nucleo-l4r5zi"))


def test_files_are_compared_in_turns_with_a_noise_floor(exported: Any) -> None:
    int8, fp32 = exported("onnxruntime", "residual").path, exported("onnxruntime", "residual", "fp32").path
    outcome = compare_p50([int8, fp32], runs=20, min_time_s=0.05)
    assert len(outcome.p50_s) == 2 and all(value > 0 for value in outcome.p50_s)
    assert outcome.noise >= 0 and outcome.runs >= 20


def test_files_of_two_runtimes_cannot_be_compared() -> None:
    with pytest.raises(UsageError, match="2 files for onnxruntime, tflite"):
        compare_p50([Path("a.onnx"), Path("b.tflite")])
