"""Several processes train one model: what they tell each other, and that they do what one process does."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from edgeprune.errors import DeviceError, UsageError
from edgeprune.training.fine_tune import fine_tune
from edgeprune.training.ranks import ALONE, Ranks, joined, launched
from tests.training.test_fine_tune import SETTINGS, toy_net, toy_workload

# What two processes do; each asserts for itself, and the launcher fails when one of them does.
TOGETHER = """
import os, sys
import torch
from dataclasses import replace
from pathlib import Path
from torch import nn
from edgeprune.recipe import TrainSpec
from edgeprune.spec import DataSpec
from edgeprune.training.fine_tune import fine_tune
from edgeprune.training.ranks import joined
from tests.training.test_fine_tune import SETTINGS, toy_net, toy_workload, weights
from tests.training.test_resume import Stop, Stopping

def net():  # nothing in it depends on the batch it is in
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(1, 8, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(32, 4))

torch.set_num_threads(1)
with joined() as ranks:
    assert ranks.size == 2 and ranks.leads == (os.environ["RANK"] == "0")
    assert ranks.tell(lambda: f"said by {ranks.number}") == "said by 0"
    shared = ranks.share(lambda: {"a": torch.full((2, 3), float(ranks.number)), "empty": torch.zeros(0)})
    assert shared["a"].tolist() == [[0.0] * 3] * 2 and shared["empty"].shape == (0,)
    mine = [torch.full((3,), ranks.number + 1.0), torch.tensor([[10.0 * ranks.number]])]
    ranks.average(mine, 0.25 if ranks.leads else 0.75)
    assert mine[0].tolist() == [1.75] * 3 and mine[1].tolist() == [[7.5]]

    workload = replace(toy_workload(augment=DataSpec(flip=True, crop=1)), mixup_alpha=0.2)
    recipe = TrainSpec(ema=0.5, sam=0.01, checkpoint_steps=1)
    settings = SETTINGS.model_copy(update={"batch_size": 15})
    options = dict(settings=settings, recipe=recipe, teacher=toy_net(3))
    alone, together = net(), net()
    expected = fine_tune(alone, workload, **options)
    if not ranks.leads:
        with torch.no_grad():
            for parameter in together.parameters():
                parameter.zero_()  # the leader's weights count
    found = fine_tune(together, workload, ranks=ranks, **options)
    torch.testing.assert_close(weights(together), weights(alone), rtol=1e-3, atol=1e-5)
    assert found.steps == expected.steps and found.best_epoch == expected.best_epoch
    same = ranks.share(lambda: {"w": weights(together)})
    assert torch.equal(same["w"], weights(together)), "all processes end with the same bits"

    model = toy_net()  # with BatchNorm and dropout
    result = fine_tune(model, toy_workload(), settings=SETTINGS.model_copy(update={"epochs": 6}), ranks=ranks)
    assert result.best_metric > 0.7

    folder, stopped = (Path(sys.argv[1]) if ranks.leads else None), net()
    try:
        fine_tune(stopped, workload, ranks=ranks, workspace=folder, progress=Stopping(5), **options)
        sys.exit("it did not stop")
    except Stop:
        pass
    again = net()
    assert fine_tune(again, workload, ranks=ranks, workspace=folder, **options).steps == found.steps
    assert torch.equal(weights(again), weights(together)), "resumed with the same bits"
"""

FAILING = """
import sys
from edgeprune.errors import DeviceError
from edgeprune.training.ranks import joined

with joined() as ranks:
    ranks.tell(lambda: "begun")
    if not ranks.leads:
        sys.exit("out of luck")
    try:
        for _ in range(3):
            ranks.tell(lambda: "something")
            ranks.share(lambda: {})
            ranks.average([torch.zeros(3)], 1.0)
    except DeviceError as err:
        sys.exit(err.message)
"""


def torchrun(script: str, *arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(cwd)}
    return subprocess.run(
        [*launcher, script, *arguments], cwd=cwd, env=environment, capture_output=True, text=True, check=False
    )


@pytest.mark.slow
def test_two_processes_do_what_one_does(tmp_path: Path, root: Path) -> None:
    script = tmp_path / "together.py"
    script.write_text(TOGETHER)
    done = torchrun(str(script), str(tmp_path / "work"), cwd=root)
    assert done.returncode == 0, done.stderr


@pytest.mark.slow
def test_a_process_that_fails_ends_all_with_its_error(tmp_path: Path, root: Path) -> None:
    script = tmp_path / "failing.py"
    script.write_text(FAILING.replace("import sys\n", "import sys\nimport torch\n"))
    done = torchrun(str(script), cwd=root)
    assert done.returncode != 0 and "out of luck" in done.stderr


@pytest.mark.parametrize(("count", "size"), [(64, 2), (15, 2), (7, 3), (3, 3)])
def test_parts_of_a_batch_are_all_of_it_and_nearly_equal(count: int, size: int) -> None:
    parts = [range(count)[Ranks(number, size).rows(count)] for number in range(size)]
    assert [index for part in parts for index in part] == list(range(count))
    assert max(map(len, parts)) - min(map(len, parts)) <= 1


def test_one_process_tells_itself_and_exchanges_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    value = torch.ones(2)
    ALONE.average([value], 1.0)
    assert ALONE.leads and ALONE.tell(lambda: "x") == "x" and value.tolist() == [1, 1]
    assert torch.equal(ALONE.share(lambda: {"a": value})["a"], value)
    for name in ("TORCHELASTIC_RUN_ID", "RANK", "WORLD_SIZE"):
        monkeypatch.delenv(name, raising=False)
    with joined() as ranks:
        assert ranks == ALONE == launched()


def test_an_exchange_that_breaks_off_is_the_end_of_another_process(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object) -> None:
        raise RuntimeError("connection closed by peer")

    for name in ("broadcast", "all_reduce"):
        monkeypatch.setattr(f"torch.distributed.{name}", broken)
    leader = Ranks(0, 2)
    for exchange in (lambda: leader.tell(str), lambda: leader.average([torch.ones(1)], 0.5)):
        with pytest.raises(DeviceError, match="another process of this training has ended"):
            exchange()


def test_who_it_is_is_what_torchrun_said(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {"TORCHELASTIC_RUN_ID": "none", "RANK": "1", "WORLD_SIZE": "4"}.items():
        monkeypatch.setenv(name, value)
    assert launched() == Ranks(1, 4) and not launched().leads


def test_more_processes_than_samples_of_a_batch_are_refused() -> None:
    with pytest.raises(UsageError, match="17 processes for batches of 16 samples") as caught:
        fine_tune(toy_net(), toy_workload(), settings=SETTINGS, ranks=Ranks(0, 17))
    assert caught.value.where == "fit.batch_size"
