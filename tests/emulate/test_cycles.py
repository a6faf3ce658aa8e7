from collections import Counter

import pytest

from edgeprune.emulate.cycles import FlashFacts, core_cycles, cycle_interval, fit, fit_of, provenance
from edgeprune.emulate.instructions import Instruction, Kind, Timed
from edgeprune.emulate.published import ROWS, Row

FITTED = ("Cortex-M4", "Cortex-M7", "Cortex-M33")


def census(*parts: tuple[Instruction, bool, int]) -> Counter[Timed]:
    return Counter({Timed(instruction, taken): count for instruction, taken, count in parts})


@pytest.mark.parametrize("core", FITTED)
def test_every_published_row_lies_in_the_interval(core: str) -> None:
    found = fit_of(core)
    assert found is not None
    for row in (row for row in ROWS if row.core == core):
        low = found.scale[0] * row.core_cycles + found.per_byte[0] * row.weights_bytes
        high = found.scale[1] * row.core_cycles + found.per_byte[1] * row.weights_bytes
        assert low <= row.cycles <= high, row


@pytest.mark.parametrize("core", FITTED)
def test_the_interval_covers_each_row_predicted_from_the_others(core: str) -> None:
    rows = [row for row in ROWS if row.core == core]
    found = fit_of(core)
    assert found is not None
    waits = found.per_byte[0] if core == "Cortex-M4" else 0.0
    ratios = {
        row: (row.cycles - waits * row.weights_bytes) / row.core_cycles
        for row in rows
        if core == "Cortex-M4" or row.model != "ad"
    }
    half = (found.scale[1] / found.scale[0]) ** 0.5
    for row, ratio in ratios.items():
        others = [other for key, other in ratios.items() if key is not row]
        middle = 1.0
        for other in others:
            middle *= other ** (1 / len(others))
        assert middle / half * 0.9999 <= ratio <= middle * half * 1.0001
    assert found.worst_left_out == pytest.approx(half - 1)


def test_how_well_the_cycles_are_known() -> None:
    """The figures that the documentation gives: the width of each interval, and the error of the row left out."""
    widths = {core: (f.scale[0], f.scale[1], f.worst_left_out) for core in FITTED if (f := fit_of(core))}
    assert widths["Cortex-M4"] == pytest.approx((1.18, 1.29, 0.046), abs=0.01)
    assert widths["Cortex-M33"] == pytest.approx((1.15, 1.38, 0.094), abs=0.01)
    assert widths["Cortex-M7"] == pytest.approx((0.61, 1.10, 0.34), abs=0.01)
    m4 = fit_of("Cortex-M4")
    assert m4 is not None and m4.per_byte == (0.625, 0.625)


def test_without_the_second_term_the_dense_model_is_too_fast() -> None:
    ratio = {row.model: row.cycles / row.core_cycles for row in ROWS if row.core == "Cortex-M4"}
    others = (ratio["ic"] * ratio["kws"] * ratio["vww"]) ** (1 / 3)
    assert 0.85 < others / ratio["ad"] < 0.89


def test_the_timings_of_an_m4_are_those_of_its_manual() -> None:
    load, after = Instruction(Kind.LOAD), Instruction(Kind.LOAD, follows=True)
    assert core_cycles("Cortex-M4", census((load, False, 1), (after, False, 3))) == (5, 5, 5)
    assert core_cycles("Cortex-M4", census((Instruction(Kind.LOAD, 2), False, 1))) == (3, 3, 3)
    assert core_cycles("Cortex-M4", census((Instruction(Kind.LOAD, 4, jumps=True), True, 1))) == (6, 7, 8)
    assert core_cycles("Cortex-M4", census((Instruction(Kind.STORE), False, 1))) == (1, 1, 2)
    assert core_cycles("Cortex-M4", census((Instruction(Kind.STORE, 3), False, 1))) == (4, 4, 4)
    branch = Instruction(Kind.BRANCH, jumps=True)
    assert core_cycles("Cortex-M4", census((branch, True, 10), (branch, False, 1))) == (21, 31, 41)
    for kind in (Kind.MAC, Kind.LONG_MULTIPLY, Kind.SIMD, Kind.ALU, Kind.MULTIPLY):
        assert core_cycles("Cortex-M4", census((Instruction(kind), False, 1))) == (1, 1, 1)
    assert core_cycles("Cortex-M4", census((Instruction(Kind.DIVIDE), False, 1))) == (2, 7, 12)


def test_the_timings_of_other_cores_are_those_of_their_manuals() -> None:
    multiply, long = Instruction(Kind.MAC), Instruction(Kind.LONG_MULTIPLY)
    assert core_cycles("Cortex-M3", census((multiply, False, 1), (long, False, 1))) == (5, 7, 9)
    assert core_cycles("Cortex-M3", census((Instruction(Kind.ALU), False, 1))) == (1, 1, 1)
    parts = (
        (Instruction(Kind.LOAD), False, 2, 2),
        (Instruction(Kind.STORE), False, 2, 2),
        (Instruction(Kind.LOAD, 3), False, 4, 4),
        (Instruction(Kind.LOAD, 3, jumps=True), True, 7, 6),
        (Instruction(Kind.BRANCH, jumps=True), True, 3, 2),
        (Instruction(Kind.BRANCH, jumps=True), False, 1, 1),
        (Instruction(Kind.BRANCH, jumps=True, calls=True), True, 4, 3),
        (Instruction(Kind.MULTIPLY), False, 1, 1),
        (Instruction(Kind.ALU, jumps=True), True, 3, 2),
    )
    for instruction, taken, m0, m0_plus in parts:
        assert core_cycles("Cortex-M0", census((instruction, taken, 1))) == (m0, m0, m0)
        assert core_cycles("Cortex-M0+", census((instruction, taken, 1))) == (m0_plus, m0_plus, m0_plus)


def test_bytes_of_weights_cost_what_the_flash_makes_wait() -> None:
    work = census((Instruction(Kind.ALU), False, 1000))
    board, given = cycle_interval("Cortex-M4", work, 800), cycle_interval("Cortex-M4", work, 800, FlashFacts(4, 16))
    none = cycle_interval("Cortex-M4", work, 0)
    assert board and given and none
    assert board[0] - none[0] == pytest.approx(500) and given[1] - none[1] == pytest.approx(200)
    # on an M33 the published results say it, whatever the flash
    assert cycle_interval("Cortex-M33", work, 800) == cycle_interval("Cortex-M33", work, 800, FlashFacts(4, 16))


def test_a_core_without_published_results_goes_from_no_waiting_to_the_scale_of_an_m4() -> None:
    work = census((Instruction(Kind.ALU), False, 1000))
    m4 = fit_of("Cortex-M4")
    assert m4 is not None
    expected = (1000, pytest.approx(1000 * m4.scale[1] + 200))
    assert cycle_interval("Cortex-M0+", work, 800, FlashFacts(2, 8)) == expected
    assert "none on this core" in provenance("Cortex-M0+")


def test_there_are_no_cycles_of_a_helium_core() -> None:
    assert cycle_interval("Cortex-M55", census((Instruction(Kind.ALU), False, 1)), 0) is None
    assert provenance("Cortex-M55").startswith("none, and no latency: ")


def test_one_row_bound_by_its_weights_says_only_how_much_they_may_cost() -> None:
    def row(model: str, cycles: float) -> Row:
        return Row("board", "core", model, cycles, 100.0, 100)

    found = fit((row("ic", 110.0), row("kws", 110.0), row("ad", 160.0)))
    assert found.scale == pytest.approx((1.1, 1.1)) and found.per_byte == (0.0, pytest.approx(0.5))
    both = fit((row("ic", 110.0), row("kws", 110.0), row("ad", 160.0), row("ad", 130.0)))
    assert both.per_byte == pytest.approx((0.2, 0.5))


def test_where_cycles_come_from_is_said_with_the_error() -> None:
    text = provenance("Cortex-M33")
    assert "fitted on published MLPerf Tiny results (nRF5340-DK" in text and "worst left-out row is 9 % off" in text
