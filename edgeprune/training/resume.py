"""The state of an unfinished training in a file, so that a killed process goes on from the middle of an epoch.

One safetensors file holds everything that changes: weights, the last good and the best ones, what the optimiser
remembers, random states, the order of samples; as JSON in its header the counts, the history and a fingerprint of what
was trained with. It is written beside its name, flushed and renamed, so it is whole whenever it is there. Nothing else
is needed: teachers and data are made anew by whoever resumes.
"""

from __future__ import annotations

import hashlib
import math
import time
from pathlib import Path
from typing import Literal

import torch
from pydantic import ValidationError

from edgeprune.errors import UsageError
from edgeprune.training.checkpoint import read_tensors, write_tensors
from edgeprune.training.state import (
    Best,
    EpochResult,
    Setup,
    Snapshot,
    State,
    fresh_optimiser,
    put_back,
    trained_tensors,
)
from edgeprune.values import Value

_FILE = "training.safetensors"
_HOW_OFTEN = frozenset(
    {"checkpoint_s", "checkpoint_steps", "tensorboard"}
)  # what may differ between the starts of one training


class Position(Value):
    """Where a training was when its state was written."""

    schema_: Literal["edgeprune.training/1"] = "edgeprune.training/1"
    fingerprint: str
    step: int
    halvings: int
    epoch: int
    done: int
    loss: float
    seconds: float
    order_at: int
    best: Best | None
    scaler: dict[str, int | float] | None = None
    history: tuple[EpochResult, ...]


class Keeper:
    """Writes the state of one training as often as the recipe wants.

    Args:
        folder: Where the file is; None: nothing is kept.
        fingerprint: Of what the training began with.
    """

    def __init__(self, folder: Path | None, fingerprint: str, every_s: float, every_steps: int | None) -> None:
        self.file = None if folder is None else folder / _FILE
        self.fingerprint = fingerprint
        self.every_s = every_s
        self.every_steps = every_steps or math.inf
        self._time_s = time.monotonic()
        self._steps = 0
        self._in_use = False

    def after_step(self, setup: Setup, state: State) -> None:
        """Write the state when that is due.

        Raises:
            NoRoomError: The disk is full; the state that was written before is intact.
        """
        self._steps += 1
        if self._steps >= self.every_steps or time.monotonic() - self._time_s >= self.every_s:
            self._write(setup, state)

    def at_end(self, setup: Setup, state: State) -> None:
        """Write the final state of a training that was long enough to be written before: it is not made twice."""
        if self._in_use:
            self._write(setup, state)

    def taken_up(self, setup: Setup, state: State) -> State:
        """The state that the file holds, or the given one where there is no file or it is of another training.

        Raises:
            UsageError: The file is damaged.
        """
        if self.file is None or not self.file.is_file():
            return state
        tensors, text = read_tensors(self.file)
        try:
            position = Position.model_validate_json(text.get("training", ""))
        except ValidationError as err:
            raise UsageError(
                f"not the state of a training of this version: {err.errors()[0]['msg']}",
                where=str(self.file),
                hint="remove it and resume",
            ) from None
        if position.fingerprint != self.fingerprint:
            setup.progress.note(f"what {self.file} holds is of another training; this one starts from its beginning")
            return state
        self._in_use = True
        setup.progress.note(f"going on after step {position.step} of {setup.total_steps}")
        return _restored(setup, state, position, tensors)

    def _write(self, setup: Setup, state: State) -> None:
        if self.file is None:
            return
        self.file.parent.mkdir(parents=True, exist_ok=True)
        position = _position(state, self.fingerprint)
        write_tensors(_tensors(setup, state), self.file, {"training": position.model_dump_json()})
        self._time_s, self._steps, self._in_use = time.monotonic(), 0, True


def keeper(setup: Setup, folder: Path | None, seed: int) -> Keeper:
    """The keeper of a training that is about to begin with this seed."""
    recipe = setup.recipe
    return Keeper(
        folder, "" if folder is None else _fingerprint(setup, seed), recipe.checkpoint_s, recipe.checkpoint_steps
    )


def _fingerprint(setup: Setup, seed: int) -> str:
    """Of the weights that a training begins with and of everything that it depends on but the data's values."""
    digest = hashlib.sha256()
    for part in (
        setup.settings.model_dump_json(),
        setup.recipe.model_dump_json(exclude=set(_HOW_OFTEN)),
        repr((setup.epochs, setup.per_epoch, setup.judge_first, seed, len(setup.workload.data.train))),
    ):
        digest.update(part.encode() + b"\0")
    for name, value in trained_tensors(setup).items():
        digest.update(f"{name} {value.dtype} {tuple(value.shape)}\0".encode())
        digest.update(value.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def shared(setup: Setup, state: State) -> State:
    """The leader's state, in all processes of a training; what each draws for itself (dropout) differs."""
    if setup.ranks.size == 1:
        return state
    position = Position.model_validate_json(setup.ranks.tell(lambda: _position(state, "").model_dump_json()))
    tensors = setup.ranks.share(lambda: _tensors(setup, state))
    if not setup.ranks.leads:
        seed = torch.initial_seed() + setup.ranks.number
        _restored(setup, state, position, tensors)
        torch.manual_seed(seed)
    return state


def _position(state: State, fingerprint: str) -> Position:
    return Position(
        fingerprint=fingerprint,
        step=state.step,
        halvings=state.halvings,
        epoch=state.epoch,
        done=state.done,
        loss=state.loss,
        seconds=state.seconds,
        order_at=state.order.at,
        best=state.best,
        scaler=None if state.scaler is None else state.scaler.state_dict(),
        history=tuple(state.history),
    )


def _tensors(setup: Setup, state: State) -> dict[str, torch.Tensor]:
    found = _named("now", trained_tensors(setup)) | _named("good", state.last_good)
    if state.kept is not state.last_good:
        found |= _named("best", state.kept)
    if state.average is not None and state.last_average is not None:
        found |= _named("average", state.average) | _named("good-average", state.last_average)
    for index, values in state.optimiser.state_dict()["state"].items():
        found |= {f"optimiser.{index}.{name}": torch.as_tensor(v) for name, v in values.items() if v is not None}
    found |= {"order": state.order.shuffled, "random.own": state.generator.get_state()}
    found["random.torch"] = torch.get_rng_state()
    if setup.device.type == "cuda":
        found["random.cuda"] = torch.cuda.get_rng_state(setup.device)
    return found


def _restored(setup: Setup, state: State, position: Position, tensors: Snapshot) -> State:
    put_back(setup, _below(tensors, "now", setup.device))  # in place: the layout stays
    good, best, average = (_below(tensors, prefix, setup.device) for prefix in ("good", "best", "good-average"))
    state.last_good = good
    state.kept = best or good
    if state.average is not None:
        state.last_average = average
        for name, value in state.average.items():
            value.copy_(tensors[f"average.{name}"])
    state.optimiser = _with_memory(fresh_optimiser(setup), _below(tensors, "optimiser", torch.device("cpu")))
    state.order.shuffled, state.order.at = tensors["order"], position.order_at
    state.generator.set_state(tensors["random.own"])
    torch.set_rng_state(tensors["random.torch"])
    if "random.cuda" in tensors and setup.device.type == "cuda":
        torch.cuda.set_rng_state(tensors["random.cuda"], setup.device)
    for name in ("step", "halvings", "epoch", "done", "loss", "seconds", "best"):
        setattr(state, name, getattr(position, name))
    state.history = list(position.history)
    if state.scaler is not None and position.scaler is not None:
        state.scaler.load_state_dict(position.scaler)
    return state


def _with_memory(optimiser: torch.optim.Optimizer, memory: Snapshot) -> torch.optim.Optimizer:
    """The optimiser with what it remembered, in the layout of the weights: only then are the sums the same bits."""
    parameters = [p for group in optimiser.param_groups for p in group["params"]]
    for name, value in memory.items():
        index, _, key = name.partition(".")
        parameter = parameters[int(index)]
        same = value.shape == parameter.shape
        optimiser.state[parameter][key] = torch.empty_like(parameter).copy_(value) if same else value
    return optimiser


def _named(prefix: str, tensors: Snapshot) -> Snapshot:
    return {f"{prefix}.{name}": value for name, value in tensors.items()}


def _below(tensors: Snapshot, prefix: str, device: torch.device) -> Snapshot:
    return {
        name.removeprefix(f"{prefix}."): value.to(device)
        for name, value in tensors.items()
        if name.startswith(f"{prefix}.")
    }
