"""Units: what is read, what is refused with its readings spelled out, and the way back."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeprune.errors import UsageError
from edgeprune.units import (
    Drop,
    format_count,
    format_energy,
    format_size,
    format_time,
    parse_count,
    parse_drop,
    parse_energy,
    parse_size,
    parse_time,
)

TIMES = {"ns": 1e-9, "us": 1e-6, "µs": 1e-6, "ms": 1e-3, "s": 1.0, "min": 60.0, "h": 3600.0}
SIZES = {"B": 1, "kB": 1000, "MB": 1000**2, "GB": 1000**3, "KiB": 1024, "MiB": 1024**2, "GiB": 1024**3}


@given(value=st.floats(1e-6, 1e6), unit=st.sampled_from(list(TIMES)), space=st.sampled_from(["", " ", "  "]))
def test_a_time_is_its_number_times_its_unit(value: float, unit: str, space: str) -> None:
    assert parse_time(f"{value!r}{space}{unit}") == pytest.approx(value * TIMES[unit])


@given(value=st.integers(1, 10**6), unit=st.sampled_from(list(SIZES)))
def test_a_size_is_its_number_times_its_unit(value: int, unit: str) -> None:
    assert parse_size(f"{value}{unit}") == value * SIZES[unit]


@given(value=st.floats(0.001, 100))
def test_a_drop_is_points_or_relative(value: float) -> None:
    points, relative = parse_drop(f"{value!r}pp"), parse_drop(f"{value!r}%")
    assert points.allowed(0.5) == pytest.approx(value / 100)
    assert relative.allowed(-0.5) == pytest.approx(value / 200)


@given(text=st.text(max_size=12))
def test_any_text_is_read_or_refused_as_a_usage_error(text: str) -> None:
    for parse in (parse_time, parse_size, parse_count, parse_drop):
        try:
            assert parse(text) is not None
        except UsageError as err:
            assert err.exit_code == 2


@pytest.mark.parametrize(
    ("parse", "text", "message", "hint"),
    [
        (parse_time, "20", "'20' has no unit", "write 20ms or 20s"),
        (parse_time, "20 parsec", "unknown unit 'parsec'", "one of ns"),
        (parse_time, "fast", "cannot read 'fast'", "write it like 20ms"),
        (parse_time, "0ms", "'0ms' is not above zero", ""),
        (parse_time, "-1ms", "cannot read '-1ms'", "write it like 20ms"),
        (parse_time, "1e999s", "'1e999s' is not above zero", ""),
        (parse_size, "512KB", "'512KB' has no clear unit", "write 512kB (512,000 B) or 512KiB (524,288 B)"),
        (parse_size, "512", "'512' has no clear unit", "write 512kB"),
        (parse_size, "0B", "'0B' is not above zero", ""),
        (parse_count, "40", "'40' has no clear unit", "write 40M"),
        (parse_count, "40MB", "'40MB' has no clear unit", "write 40M"),
        (parse_count, "0M", "'0M' is not above zero", ""),
        (parse_drop, "1", "'1' has no clear unit", "write 1pp (points of the metric) or 1% (relative to dense)"),
    ],
)
def test_what_is_unclear_is_refused_with_the_readings(parse: object, text: str, message: str, hint: str) -> None:
    assert callable(parse)
    with pytest.raises(UsageError, match=message) as caught:
        parse(text, "limit")
    assert hint in caught.value.hint and caught.value.message.startswith("limit: ")


@pytest.mark.parametrize(
    ("seconds", "text"), [(0.0173, "17.3 ms"), (2.0, "2 s"), (1.5e-5, "15 µs"), (3e-8, "30 ns"), (0.0, "0 ns")]
)
def test_times_are_shown_in_the_unit_that_fits(seconds: float, text: str) -> None:
    assert format_time(seconds) == text


@pytest.mark.parametrize(
    ("size", "text"), [(12, "12 B"), (1536, "1.5 KiB"), (3 * 2**20, "3.0 MiB"), (2**31, "2.0 GiB")]
)
def test_sizes_are_shown_in_powers_of_1024(size: int, text: str) -> None:
    assert format_size(size) == text


@given(value=st.integers(1, 999), unit=st.sampled_from("kMG"))
def test_a_count_is_its_number_times_its_unit_and_shown_like_it(value: int, unit: str) -> None:
    count = parse_count(f"{value}{unit}")
    assert count == value * {"k": 10**3, "M": 10**6, "G": 10**9}[unit]
    assert format_count(count) == f"{value}.0 {unit}" and format_count(value) == str(value)


@given(seconds=st.floats(1e-9, 1e4))
def test_a_shown_time_reads_back_within_its_digits(seconds: float) -> None:
    assert parse_time(format_time(seconds)) == pytest.approx(seconds, rel=6e-3)


def test_a_drop_prints_as_it_was_written() -> None:
    assert (str(Drop(amount=0.01, kind="points")), str(Drop(amount=0.02, kind="relative"))) == ("1pp", "2%")


def test_energy_needs_its_unit() -> None:
    assert parse_energy("5mJ") == 5e-3 and parse_energy("300 uJ") == pytest.approx(3e-4)
    assert [format_energy(value) for value in (2.0, 3.9e-3, 4.2e-5, 7e-9)] == ["2 J", "3.9 mJ", "42 µJ", "7 nJ"]
    for text in ("5", "5mW", "0mJ"):
        with pytest.raises(UsageError, match="energy: '"):
            parse_energy(text)
