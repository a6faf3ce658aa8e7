"""What the kernels of the C library do for an operator, counted by hand."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeprune.device.kernel_work import (
    LAWS,
    STAND_INS,
    Variant,
    amounts,
    constant_bytes,
    is_guessed,
    law_name,
    pricing_law,
    scratch_bytes,
)
from edgeprune.device.ops import Op

KINDS = (
    "conv depthwise dense matmul add mul activation pool mean concat pad resize softmax norm move rnn quantize other"
).split()
CONV = Op("z", "conv", ("x",), "z", 8, 12, in_positions=64, out_positions=64, kernel=9, activation="relu")
VARIANTS: tuple[Variant, ...] = ("plain", "dsp")


@st.composite
def ops(draw: st.DrawFn) -> Op:
    kind = draw(st.sampled_from(KINDS))
    width, positions = draw(st.integers(1, 40)), draw(st.sampled_from([1, 2, 49, 1024]))
    same = kind not in ("conv", "dense", "matmul", "rnn")
    return Op(
        "z",
        kind,  # type: ignore[arg-type]
        ("x", "y")[: draw(st.integers(1, 2))],
        "z",
        in_channels=width,
        out_channels=width if same else draw(st.integers(1, 40)),
        in_positions=positions,
        out_positions=positions,
        kernel=draw(st.sampled_from([1, 9, 25])),
        groups=width if kind == "depthwise" else 1,
        transposed=kind == "conv" and draw(st.booleans()),
    )


@given(ops(), st.sampled_from(VARIANTS))
def test_amounts_are_never_negative_and_as_many_as_the_law_has(op: Op, variant: Variant) -> None:
    found = amounts(op, variant)
    assert min(found) >= 0 and found[0] >= 1
    wider = amounts(op.resized(op.in_channels + 3, op.out_channels + 3), variant)
    assert len(wider) == len(found) or law_name(op.resized(op.in_channels + 3, op.out_channels + 3)) != law_name(op)
    assert constant_bytes(op, variant) >= op.weights


@pytest.mark.parametrize(
    ("change", "name"),
    [
        ({}, "spatial"),
        ({"kernel": 1}, "pointwise"),
        ({"transposed": True}, "transposed"),
        ({"kind": "depthwise", "out_channels": 8, "groups": 8}, "depthwise.3x3"),
        ({"kind": "depthwise", "out_channels": 8, "groups": 8, "kernel": 25}, "depthwise.any"),
        ({"kind": "depthwise", "out_channels": 8, "groups": 8, "stride": 9}, "depthwise.any"),
        ({"kind": "depthwise", "in_channels": 1, "out_channels": 1}, "spatial"),
        ({"kind": "pool", "function": "max"}, "pool.max"),
        ({"kind": "add"}, "add"),
        ({"kind": "add", "function": "minimum"}, "add.minimum"),
        ({"kind": "activation", "function": "gelu"}, "activation.table"),
        ({"kind": "activation", "function": "relu6"}, "activation.clamp"),
        ({"kind": "activation", "function": "prelu"}, "activation.prelu"),
        ({"kind": "mean", "out_channels": 8, "out_positions": 1}, "mean"),
        ({"kind": "mean", "out_channels": 8}, "mean.channels"),
        ({"kind": "concat"}, "concat"),
        ({"kind": "concat", "out_positions": 128}, "concat.positions"),
        ({"kind": "move", "function": "slice"}, "move.slice"),
        ({"kind": "move", "function": "slice", "out_positions": 4}, "move.slice.positions"),
        ({"kind": "depthwise", "out_channels": 8, "groups": 8, "kernel_rows": 1}, "depthwise.any"),
    ],
)
def test_an_op_goes_to_the_law_of_its_kernel(change: dict[str, object], name: str) -> None:
    assert law_name(replace(CONV, **change)) == name  # type: ignore[arg-type]


def test_a_packed_convolution_takes_pairs_of_pixels_by_fours_of_rows_and_values() -> None:
    _, pairs, pairs_steps, _, singles, singles_steps, *_ = amounts(CONV, "dsp")
    assert (pairs, pairs_steps, singles, singles_steps) == (32 * 3, 32 * 3 * 18, 0, 0)
    odd = replace(CONV, in_positions=49, out_positions=49, out_channels=13)
    _, pairs, pairs_steps, _, singles, singles_steps, *_ = amounts(odd, "dsp")
    assert (pairs, pairs_steps, singles, singles_steps) == (21 * 4, 21 * 4 * 18, 7 * 4, 7 * 4 * 18)


def test_the_columns_of_an_image_say_where_its_lines_are_odd() -> None:
    tall = replace(CONV, in_positions=125, out_positions=125, kernel=1, stride=4)
    unknown, known = (amounts(replace(tall, columns=columns), "dsp")[4] for columns in (0, 5))
    assert (unknown, known) == (0, 25 * 3)


def test_a_plain_convolution_takes_two_rows_and_single_values() -> None:
    _, pairs, pairs_steps, *_ = amounts(replace(CONV, out_channels=13), "plain")
    assert (pairs, pairs_steps) == (32 * 7, 32 * 7 * 72)


def test_widths_within_a_block_cost_the_same_products() -> None:
    for width in (9, 10, 11, 12):
        assert amounts(replace(CONV, out_channels=width), "dsp")[2] == amounts(CONV, "dsp")[2]


def test_windows_beyond_the_image_leave_taps_out() -> None:
    op = Op("z", "depthwise", ("x",), "z", 4, 4, in_positions=64, out_positions=64, kernel=25, groups=4)
    _, lines, *_, taps_alone, summed = amounts(op, "dsp")
    assert lines == 8 and summed == 0
    assert taps_alone == 4 * (8 * 5 - 6) * (8 * 5 - 6 - 4 * 5)  # four of each line are inside and taken together
    pooled = Op("z", "pool", ("x",), "z", 4, 4, in_positions=16, out_positions=16, kernel=9, function="max")
    assert amounts(pooled, "dsp")[6] == (4 * 3 - 2) ** 2


def test_a_sum_that_is_taken_along_has_amounts_of_its_own() -> None:
    summing, slow = replace(CONV, inputs=("x", "y")), replace(CONV, inputs=("x", "y"), out_channels=13)
    different = [a != b for a, b in zip(amounts(CONV, "dsp"), amounts(summing, "dsp"), strict=True)]
    assert sum(different) == 2
    assert [amount > 0 for amount in amounts(summing, "dsp")[10:16]] == [False, False, True, True, False, False]
    assert [amount > 0 for amount in amounts(slow, "dsp")[10:16]] == [False, False, False, False, True, True]
    assert constant_bytes(summing, "dsp") > constant_bytes(CONV, "dsp")


def test_scratch_holds_both_columns_and_what_is_not_stored_at_once() -> None:
    assert scratch_bytes(CONV, "dsp") == 16 * 18 + 24
    assert scratch_bytes(replace(CONV, out_channels=13), "dsp") == 16 * 18 + 24 + 2 * 16
    assert scratch_bytes(replace(CONV, in_channels=3), "dsp") == 16 * 7 + 12 + 2 * 4
    assert scratch_bytes(CONV, "plain") == 2 * 72
    assert scratch_bytes(replace(CONV, kind="dense", kernel=1), "dsp") == 16
    assert scratch_bytes(replace(CONV, kind="add"), "dsp") == 0


def test_packed_constants_are_whole_blocks() -> None:
    one, other = (constant_bytes(replace(CONV, out_channels=width), "dsp") for width in (9, 12))
    assert one == other
    plain, packed = (constant_bytes(CONV, variant) for variant in VARIANTS)
    assert packed - plain == 3 * (16 + 12 * 4) - 12 * (4 + 8)


def test_what_is_not_counted_has_a_law_that_stands_in_for_it() -> None:
    assert LAWS.issuperset(STAND_INS.values())
    for kind in KINDS:
        for function in ("", "unheard_of"):
            assert pricing_law(replace(CONV, kind=kind, function=function, transposed=True)) in LAWS


def test_a_law_of_another_kernel_or_of_a_few_shapes_is_a_guess() -> None:
    assert not is_guessed(CONV) and not is_guessed(replace(CONV, kind="activation", function="tanh"))
    assert is_guessed(replace(CONV, transposed=True)) and is_guessed(replace(CONV, kind="move", function="transpose"))


def test_copies_cost_what_they_write_and_parts_what_they_are_taken_from() -> None:
    half = Op("z", "move", ("x",), "z", 8, 4, in_positions=16, out_positions=16, function="slice")
    assert amounts(half, "dsp") == (1, 64, 16, 4)
    assert amounts(replace(half, function="split"), "dsp") == (1, 128, 16, 4)
