from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import accuracy_score, f1_score

from edgeprune.errors import UsageError
from edgeprune.workload.tasks import Classify, check_metrics, check_task, load_task

CODE = """
import torch
class Regress:
    primary = "error"
    higher_is_better = False
    def loss(self, outputs, targets): return ((outputs[:, 0] - targets) ** 2).mean()
    def metrics(self, outputs, targets): return {"error": float(abs(outputs[:, 0] - targets).mean())}
instance = Regress()
def make(): return Regress()
class NoMetrics:
    primary, higher_is_better = "a", True
    def loss(self, outputs, targets): return outputs.mean()
class BadPrimary(Regress):
    primary = 3
class BadDirection(Regress):
    higher_is_better = "yes"
class NumberLoss(Regress):
    def loss(self, outputs, targets): return 3.0
class VectorLoss(Regress):
    def loss(self, outputs, targets): return outputs
class FailingLoss(Regress):
    def loss(self, outputs, targets): raise KeyError("weights")
class FailingMetrics(Regress):
    def metrics(self, outputs, targets): return 1 / 0
class OtherMetrics(Regress):
    def metrics(self, outputs, targets): return {"mse": 1.0}
class NanMetrics(Regress):
    def metrics(self, outputs, targets): return {"error": float("nan")}
class FloatMetrics(Regress):
    def metrics(self, outputs, targets): return 0.5
"""


@pytest.fixture
def code(tmp_path: Path) -> Path:
    path = tmp_path / "tasks.py"
    path.write_text(CODE)
    return path


@given(st.lists(st.tuples(st.integers(0, 4), st.integers(0, 4)), min_size=1, max_size=50))
def test_classification_metrics_agree_with_scikit_learn(pairs: list[tuple[int, int]]) -> None:
    truth, guesses = (np.array(side) for side in zip(*pairs))
    got = Classify().metrics(np.eye(5)[guesses], truth)
    assert got["accuracy"] == pytest.approx(accuracy_score(truth, guesses))
    labels = np.unique(truth)
    assert got["macro_f1"] == pytest.approx(f1_score(truth, guesses, labels=labels, average="macro", zero_division=0))


@pytest.mark.parametrize("name", ["Regress", "instance", "make"])
def test_a_class_an_object_or_a_function_gives_the_task(code: Path, name: str) -> None:
    task = load_task(f"{code}:{name}")
    assert task.primary == "error" and not task.higher_is_better
    check_task(task, torch.zeros(4, 1, requires_grad=True), torch.zeros(4))


def test_classify_is_built_in_and_others_are_named() -> None:
    assert isinstance(load_task("classify"), Classify)
    with pytest.raises(UsageError, match="unknown task 'clasify'") as caught:
        load_task("clasify")
    assert "classify" in caught.value.hint


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("NoMetrics", "has no method 'metrics'"),
        ("BadPrimary", "primary is 3, not a text"),
        ("BadDirection", "higher_is_better is 'yes', not true or false"),
    ],
)
def test_objects_that_are_no_task_are_named(code: Path, name: str, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        load_task(f"{code}:{name}")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("NumberLoss", "NumberLoss.loss gave float, not one number with a gradient"),
        ("VectorLoss", r"VectorLoss.loss gave \(4, 1\)"),
        ("FailingLoss", r"FailingLoss.loss failed on outputs \(4, 1\) and targets \(4,\): 'weights'"),
        ("FailingMetrics", "FailingMetrics.metrics failed"),
        ("OtherMetrics", "gave mse, without the primary metric 'error'"),
        ("FloatMetrics", "gave float, without the primary metric 'error'"),
        ("NanMetrics", "NanMetrics.metrics: error is nan"),
    ],
)
def test_tasks_that_fail_on_a_real_batch_are_named(code: Path, name: str, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        check_task(load_task(f"{code}:{name}"), torch.zeros(4, 1, requires_grad=True), torch.zeros(4))


@pytest.mark.parametrize(
    ("targets", "message"),
    [
        (torch.zeros(4), "targets are torch.float32, not class labels"),
        (torch.zeros(4, 2, dtype=torch.long), r"outputs \(4, 3\) do not belong to targets \(4, 2\)"),
        (torch.tensor([0, 1, 2, 3]), "Classify.loss failed on outputs"),
    ],
)
def test_labels_that_do_not_fit_the_outputs_are_named(targets: torch.Tensor, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        check_task(Classify(), torch.zeros(4, 3, requires_grad=True), targets)


def test_metrics_become_floats() -> None:
    assert check_metrics({"accuracy": np.float32(0.5), "n": 3}, Classify()) == {"accuracy": 0.5, "n": 3.0}
