"""Models of the C library on a core: cycles by laws, seconds by a target's clock and flash, bytes of flash."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from edgeprune.cost import Correction
from edgeprune.device.corrected import Corrected
from edgeprune.device.counted import MOST_OVER_GUESS, CoreModel, CountedLaw, CountedModel, Rates
from edgeprune.device.estimate import estimate, fixed_bytes, op_bytes, size_bytes
from edgeprune.device.kernel_work import LAWS, amounts, constant_bytes, kernels_of, pricing_law
from edgeprune.device.latency import Band
from edgeprune.device.ops import Op
from edgeprune.device.profiles import PROFILE_SCHEMA, load_latency_model, models_of, read_profile
from edgeprune.emulate.cycles import rates
from edgeprune.errors import UsageError
from edgeprune.target import Target, load_target, target_names

ROOT = Path(__file__).parents[2]
CORES = {path.stem: path for path in sorted((ROOT / "profiles").glob("*.edgeprune-c.json"))}
ADD = Op("z", "add", ("x", "y"), "z", 8, 8, in_positions=16, out_positions=16)
DENSE = Op("z", "dense", ("x",), "z", 20, 10)
MODEL = CoreModel(
    runtime="edgeprune-c",
    core="Cortex-M4",
    variant="dsp",
    laws={
        **{name: CountedLaw(prices=(1, 2, 3, 4), steps=1, error=0) for name in LAWS},
        "add": CountedLaw(prices=(100, 8, 0, 0), steps=3, error=0.01),
        "dense": CountedLaw(prices=(0, 0, 0, 10, 0, 0, 0, 0), steps=3, error=0.01),
    },
    call_cycles=50,
    end_cycles=2,
    rates=Rates(scale=(1.0, 1.5), per_byte=(0.5, 0.5), from_flash=(False, True)),
    spread=Band(low=0.9, high=1.1),
    code_bytes={"": 300, "elementwise": 150, "add": 50, "dense": 400},
    step_bytes=20,
    stack_bytes=64,
    source="made up",
)


@pytest.fixture
def board() -> Target:
    return load_target("nucleo-l4r5zi")


def at(clock_hz: int, flash: float | None = None) -> CountedModel:
    return CountedModel(MODEL, clock_hz, flash)


def test_seconds_are_the_middle_of_what_the_counts_would_be_given() -> None:
    cycles = 100 + 8 * 128
    waiting = 0.5 * constant_bytes(ADD, "dsp")
    assert at(1000).op_s(ADD) == pytest.approx((cycles * 1.25 + waiting) / 1000)
    assert at(2000).op_s(ADD) == pytest.approx(at(1000).op_s(ADD) / 2)
    assert at(1000).total_s((ADD, ADD)) == pytest.approx(2 * at(1000).op_s(ADD) + (50 + 2 * (128 + 128)) * 1.25 / 1000)


def test_the_interval_has_the_ends_of_an_execution_as_unsure_as_the_laws() -> None:
    low, high = at(1000).interval_s((ADD,))
    needed, constants = 50 + 2 * (128 + 128) + 100 + 8 * 128, constant_bytes(ADD, "dsp")
    assert low == pytest.approx(0.9 * (needed + 0.5 * constants) / 1000)
    assert high == pytest.approx(1.1 * (1.5 * needed + 0.5 * constants) / 1000)
    assert (at(1).band.low, at(1).band.high) == pytest.approx((0.9 / 1.25, 1.1 * 1.5 / 1.25))


def test_the_targets_flash_replaces_the_ends_that_follow_from_it() -> None:
    slow, usual = at(1000, flash=2.5), at(1000)
    assert slow.interval_s((DENSE,))[0] == usual.interval_s((DENSE,))[0]
    extra = 1.1 * 2.0 * constant_bytes(DENSE, "dsp") / 1000
    assert slow.interval_s((DENSE,))[1] - usual.interval_s((DENSE,))[1] == pytest.approx(extra)


def test_what_was_not_counted_is_priced_by_what_stands_in_and_said_by_name(board: Target) -> None:
    recurrent = Op("z", "rnn", ("x",), "z", 8, 8, kernel=4)
    assert pricing_law(recurrent) == "dense" and MODEL.core_cycles(recurrent) == 10 * amounts(recurrent, "dsp")[3]
    assert at(1).guessed((recurrent, ADD, replace(recurrent, name="y"))) == ("z", "y")
    notes = estimate((recurrent, ADD), board, "edgeprune-c", latency=Corrected(at(1), Correction())).notes
    assert notes == ("made up", "not counted, so priced by what comes nearest and up to 8 times as much: z")
    assert estimate((ADD,), board, "edgeprune-c", latency=at(1)).notes == ("made up",)


def test_what_is_guessed_takes_from_nothing_to_several_times_its_price() -> None:
    minimum = replace(ADD, function="minimum")
    counted, constants = 50 + 2 * (128 + 128), constant_bytes(minimum, "dsp")
    low, high = at(1000).interval_s((minimum,))
    assert low == pytest.approx(0.9 * (counted + 0.5 * constants) / 1000)
    assert high == pytest.approx(
        1.1 * (1.5 * (counted + MOST_OVER_GUESS * MODEL.core_cycles(minimum)) + 0.5 * constants) / 1000
    )


def test_a_model_that_lacks_a_law_is_refused() -> None:
    laws = {name: law for name, law in MODEL.laws.items() if name not in ("add", "mean")}
    with pytest.raises(ValueError, match="there is no law for add, mean"):
        CoreModel.model_validate({**MODEL.model_dump(), "laws": laws})


def test_code_that_was_not_counted_is_as_large_as_other_parts() -> None:
    assert at(1).kernel_bytes((replace(ADD, kind="rnn"),)) == 300 + (150 + 50 + 400) / 3


def test_flash_is_constants_and_the_code_of_the_kernels_used() -> None:
    ops = (replace(ADD, output="a"), DENSE, DENSE)
    by_hand = 300 + 200 + 400 + 3 * 20 + sum(constant_bytes(op, "dsp") for op in ops)
    for model in (at(1), Corrected(at(1), Correction())):
        assert size_bytes(ops, "int8", model) == by_hand
        assert fixed_bytes(ops, model) == 900 and op_bytes(ADD, "int8", model) == 20 + constant_bytes(ADD, "dsp")


def test_a_correction_scales_the_whole_interval() -> None:
    plain, doubled = at(1000), Corrected(at(1000), Correction(latency=2.0))
    assert doubled.interval_s((ADD, DENSE)) == pytest.approx([2 * end for end in plain.interval_s((ADD, DENSE))])


def test_a_price_below_nothing_is_refused() -> None:
    with pytest.raises(ValueError, match="a price is negative"):
        CountedLaw(prices=(1.0, -1.0), steps=1, error=0)


def test_a_target_without_a_clock_has_no_latency(board: Target) -> None:
    with pytest.raises(UsageError, match="without a clock"):
        MODEL.at(board.cpu.model_copy(update={"clock_hz": None}))


def test_a_profile_is_of_a_target_or_of_a_core_and_only_of_its_own(tmp_path: Path, board: Target) -> None:
    tree = {"schema": PROFILE_SCHEMA, "runtime": "edgeprune-c", "models": [MODEL.model_dump(mode="json")]}
    path = tmp_path / "x.json"
    path.write_text(json.dumps(tree))
    with pytest.raises(UsageError, match="not a device profile"):
        read_profile(path)
    path.write_text(json.dumps({**tree, "core": "Cortex-M4"}))
    (found,) = models_of(read_profile(path), board)
    assert found == CountedModel(MODEL, 120_000_000, 5 / 8)
    with pytest.raises(UsageError, match="of a Cortex-M4, target nucleo-h7a3zi has a Cortex-M7"):
        models_of(read_profile(path), load_target("nucleo-h7a3zi"))


@pytest.mark.parametrize("stem", CORES)
def test_a_shipped_core_turns_its_cycles_into_time_as_the_emulator_does(stem: str) -> None:
    (model,) = read_profile(CORES[stem]).models
    assert isinstance(model, CoreModel)
    emulated = rates(model.core)
    assert emulated is not None and model.rates.from_flash == emulated.from_flash
    assert model.rates.scale == pytest.approx(emulated.scale, rel=1e-4)
    assert model.rates.per_byte == pytest.approx(emulated.per_byte, rel=1e-4, abs=1e-9)


@pytest.mark.parametrize("stem", CORES)
def test_every_law_of_a_shipped_core_has_a_price_for_each_amount(stem: str) -> None:
    (model,) = read_profile(CORES[stem]).models
    assert isinstance(model, CoreModel)
    assert model.laws.keys() == LAWS
    assert len(model.laws["dense"].prices) == len(amounts(DENSE, model.variant))
    assert len(model.laws["add"].prices) == len(amounts(ADD, model.variant))
    assert {"", *kernels_of(DENSE), *kernels_of(ADD)} <= {*model.code_bytes}


def test_every_target_with_a_core_that_was_counted_foretells_the_library() -> None:
    cores = {read_profile(path).core for path in CORES.values()}
    counted = [target for target in map(load_target, target_names()) if target.cpu.core in cores]
    assert len(counted) > 5
    for target in counted:
        assert isinstance(load_latency_model(target, "edgeprune-c", "int8", 1), CountedModel)
        assert estimate((DENSE,), target, "edgeprune-c").cost.latency_s
