import errno
from pathlib import Path

import pytest
import torch
from torch import nn

from edgeprune.errors import NoRoomError, UsageError
from edgeprune.training.checkpoint import load_state, save_state


def net() -> nn.Module:
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4))


def test_weights_come_back_bit_by_bit_whatever_their_layout(tmp_path: Path) -> None:
    model, other = net().to(memory_format=torch.channels_last), net()
    save_state(model, tmp_path / "w.safetensors")
    load_state(other, tmp_path / "w.safetensors")
    assert all(torch.equal(a, b) for a, b in zip(model.state_dict().values(), other.state_dict().values()))
    assert [f.name for f in tmp_path.iterdir()] == ["w.safetensors"]


def test_shared_tensors_are_saved_each_in_full(tmp_path: Path) -> None:
    model, other = (nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 3)) for _ in range(2))
    model[1].weight = model[0].weight
    save_state(model, tmp_path / "w.safetensors")
    load_state(other, tmp_path / "w.safetensors")
    assert torch.equal(other[1].weight, model[0].weight) and torch.equal(other[0].weight, model[0].weight)


@pytest.mark.parametrize(("number", "error"), [(errno.ENOSPC, NoRoomError), (errno.EACCES, PermissionError)])
def test_what_stood_there_survives_a_full_disk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int, error: type[Exception]
) -> None:
    path = tmp_path / "w.safetensors"
    save_state(net(), path)
    before = path.read_bytes()

    def full(_: int) -> None:
        raise OSError(number, "no")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(error, match="no room for [0-9,]+ B of weights" if error is NoRoomError else "no"):
        save_state(net(), path)
    assert path.read_bytes() == before and len(list(tmp_path.iterdir())) == 1


def test_missing_damaged_and_foreign_checkpoints_are_named(tmp_path: Path) -> None:
    path = tmp_path / "w.safetensors"
    with pytest.raises(UsageError, match="no such file"):
        load_state(net(), path)
    path.write_bytes(b"garbage")
    with pytest.raises(UsageError, match="the checkpoint is damaged"):
        load_state(net(), path)
    save_state(nn.Linear(3, 2), path)
    with pytest.raises(UsageError, match="the weights do not fit the model"):
        load_state(net(), path)
