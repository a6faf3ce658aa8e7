"""What a job adds to the budget that it was given."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch

from edgeprune.cost import Budget
from edgeprune.errors import UsageError
from edgeprune.job import aimed, check_evidence, evidence, open_job, within_memories
from edgeprune.progress import SILENT
from edgeprune.spec import BudgetSpec, FitSpec, Spec, TargetSpec
from edgeprune.target import load_target
from edgeprune.workload.samples import TensorSet

BOARD = load_target("nucleo-l4r5zi")


def test_a_microcontrollers_memories_are_limits() -> None:
    held = within_memories(Budget(latency_s=0.1), BOARD, "edgeprune-c")
    assert held == Budget(latency_s=0.1, ram_bytes=BOARD.memory.ram_bytes, size_bytes=BOARD.memory.flash_bytes)


def test_a_lower_limit_stays_and_a_higher_one_ends_at_the_memory() -> None:
    held = within_memories(Budget(ram_bytes=1000, size_bytes=2**40), BOARD, "edgeprune-c")
    assert (held.ram_bytes, held.size_bytes) == (1000, BOARD.memory.flash_bytes)


def test_of_ram_in_pieces_the_block_is_the_limit() -> None:
    board = load_target("stm32h743")
    assert board.memory.ram_block_bytes is not None and board.memory.ram_bytes is not None
    assert within_memories(Budget(), board, "edgeprune-c").ram_bytes == board.memory.ram_block_bytes
    assert board.memory.ram_block_bytes < board.memory.ram_bytes


def test_of_a_library_that_is_not_executed_memories_are_limits_too() -> None:
    board = load_target("esp32-s3")
    held = within_memories(Budget(), board, "edgeprune-c")
    assert (held.ram_bytes, held.size_bytes) == (board.memory.ram_bytes, board.memory.flash_bytes)


def test_a_time_limit_without_a_latency_model_is_refused_at_once() -> None:
    asked = Spec(target=TargetSpec(name="esp32-s3", runtime="edgeprune-c"), budget=BudgetSpec(latency="50ms"))
    with pytest.raises(UsageError, match="no latency model for esp32-s3, edgeprune-c, int8") as caught:
        aimed(asked)
    assert (
        "--ram, --size and --macs need no latency model" in caught.value.hint and "--runtime tflm" in caught.value.hint
    )
    without = aimed(asked.model_copy(update={"budget": BudgetSpec(ram="64KiB", size="512KiB")}))
    assert without.latency is None and without.runtime == "edgeprune-c"


def test_an_unknown_criterion_is_refused_before_anything_costs_time() -> None:
    spec = Spec(fit=FitSpec(criterion="taylor_per_sight"))
    with pytest.raises(UsageError, match="unknown criterion 'taylor_per_sight'"):
        open_job(SimpleNamespace(spec=spec), None, SILENT)  # type: ignore[arg-type]


def test_evidence_is_the_first_samples_with_their_targets() -> None:
    x, y = torch.randn(80, 2), torch.arange(80)
    spec = Spec(fit=FitSpec(importance_samples=40, seed=3))
    data = SimpleNamespace(calibration=TensorSet(x, y))
    task = SimpleNamespace(loss=torch.nn.functional.cross_entropy)
    job = SimpleNamespace(
        run=SimpleNamespace(spec=spec), workload=SimpleNamespace(data=data, task=task), device=torch.device("cpu")
    )
    found = evidence(job, "captured", "groups")  # type: ignore[arg-type]
    assert [len(batch) for batch in found.batches] == [32, 8] and found.seed == 3 and found.loss is task.loss
    assert torch.equal(torch.cat([batch.inputs[0] for batch in found.batches]), x[:40])
    assert torch.equal(torch.cat([batch.targets for batch in found.batches if batch.targets is not None]), y[:40])


def test_what_is_no_library_is_not_held_to_them() -> None:
    assert within_memories(Budget(), BOARD, "tflm") == Budget()
    assert within_memories(Budget(), load_target("rpi4"), "tflite") == Budget()
    bare = BOARD.model_copy(update={"memory": BOARD.memory.model_copy(update={"ram_bytes": None, "flash_bytes": None})})
    assert within_memories(Budget(), bare, "edgeprune-c") == Budget()


@pytest.mark.parametrize(
    ("name", "runtime", "linked", "satisfies"),
    [
        ("host", "tflite", False, {None, "emulated", "measured"}),
        ("nucleo-l4r5zi", "edgeprune-c", False, {None, "emulated"}),
        ("rpi4", "tflite", False, {None}),
        ("rpi4", "tflite", True, {None, "emulated", "measured"}),
    ],
)
def test_a_verdict_rests_on_what_is_required_or_is_refused_at_once(
    name: str, runtime: str, linked: bool, satisfies: set[str | None]
) -> None:
    target = load_target(name)
    if linked:
        target = target.model_copy(update={"latency": "measured"})
    passed = set()
    for required in (None, "emulated", "measured"):
        try:
            check_evidence(required, target, runtime)
        except UsageError as error:
            assert f"not {required}" in error.message
        else:
            passed.add(required)
    assert passed == satisfies
