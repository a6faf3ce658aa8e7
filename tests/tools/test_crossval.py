from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from tests.tools.published_rows import write_boards, write_ncnn
from tools import crossval
from tools.crossval import LeftOut, affine, counting_macs, covered, half_widths, left_out, macs_only, unseen_device
from tools.fitting import Prior, Row, fit, pooled, predict
from tools.groups import Group, Key, read_groups


@pytest.fixture
def boards(tmp_path: Path) -> list[Group]:
    write_boards(tmp_path)
    return read_groups(tmp_path)[0]


@pytest.fixture
def ncnn(tmp_path: Path) -> list[Group]:
    write_ncnn(tmp_path / "ncnn")
    return read_groups(tmp_path / "ncnn")[0]


def disturbed(groups: list[Group], column: str, value: str) -> list[Group]:
    """The groups with the times of one network or family made absurd."""
    return [
        replace(
            group,
            rows=tuple(
                replace(row, measured_s=row.measured_s * 50) if getattr(row, column) == value else row
                for row in group.rows
            ),
        )
        for group in groups
    ]


@pytest.mark.parametrize("column", ["model_id", "family"])
@pytest.mark.parametrize("which", ["boards", "ncnn"])
def test_no_estimate_depends_on_what_is_left_out(column: str, which: str, request: pytest.FixtureRequest) -> None:
    groups: list[Group] = request.getfixturevalue(which)
    value = getattr(groups[0].rows[0], column)
    before, after = left_out(groups, column), left_out(disturbed(groups, column, value), column)
    for key, entries in before.items():
        for old, new in zip(entries, after[key], strict=True):
            if getattr(old.row, column) == value:
                assert new.estimated_s == old.estimated_s
                assert new.row.measured_s == pytest.approx(50 * old.row.measured_s)


def test_planted_prices_are_found_without_the_rows_judged(boards: list[Group], ncnn: list[Group]) -> None:
    for entries in left_out(boards, "model_id").values():
        assert np.median(np.abs([entry.log for entry in entries])) < 0.02
    for entries in left_out(ncnn, "family").values():
        assert np.max(np.abs([entry.log for entry in entries])) < 0.02


def test_pooling_learns_ratios_that_no_group_could_tell_alone() -> None:
    random = np.random.default_rng(0)
    prior = Prior((1.0, 1.0, 1e-9), (1.0, 1.0, 0.1))
    true = np.array([1.0, 4.0, 1e-9])

    def rows(scale: float, count: int) -> list[Row]:
        works = [(float(a), float(b), 1.0) for a, b in random.uniform(0.5, 2, (count, 2))]
        return [Row(str(i), "f", float(np.dot(w, true)) * scale, w) for i, w in enumerate(works)]

    groups = {str(device): [rows(2.0**device, 3)] for device in range(12)}
    learnt = pooled(groups, prior, 0.1)
    ratio = learnt.prices_s[1] / learnt.prices_s[0]
    assert 3 < ratio < 5
    assert learnt.sigmas[1] < prior.sigmas[1]
    one = rows(7.0, 1)
    test = Row("t", "f", float(np.dot((3.0, 0.1, 1.0), true)) * 7, (3.0, 0.1, 1.0))
    off = [abs(np.log(predict(test, fit(one, p, 0.1)) / test.measured_s)) for p in (learnt, prior)]
    assert off[0] < off[1] / 2
    assert pooled({"only": [one]}, prior) == prior


def test_the_two_baselines_are_exact_where_they_hold(boards: list[Group]) -> None:
    group = counting_macs(boards[:1])[0]
    in_proportion = [replace(row, measured_s=3e-11 * row.work[0]) for row in group.rows]
    with_constant = [replace(row, measured_s=3e-11 * row.work[0] + 0.002) for row in group.rows]
    for fitter, rows in ((macs_only, in_proportion), (affine, with_constant)):
        found = left_out([replace(group, rows=tuple(rows))], "model_id", fitter)[group.key]
        assert np.max(np.abs([entry.log for entry in found])) < 0.01
    assert (
        np.max(
            np.abs(
                [e.log for e in left_out([replace(group, rows=tuple(with_constant))], "model_id", macs_only)[group.key]]
            )
        )
        > 0.05
    )


def test_a_device_of_a_seen_core_is_estimated_from_others_and_its_own_three(boards: list[Group]) -> None:
    found = unseen_device(boards)
    assert {key.device for key in found} == {"one", "two"}  # nobody shares the core of the third
    for by_count in found.values():
        assert set(by_count) == {0, 1, 3}
        judged = {entry.row.model_id for entry in by_count[0]}
        assert len(judged) == len(boards[0].rows) - 3
        for entries in by_count.values():  # twice the clock is twice as fast here, so even none measured will do
            assert {entry.row.model_id for entry in entries} == judged
            assert np.median(np.abs([entry.log for entry in entries])) < 0.05
    slow = [
        replace(g, rows=tuple(replace(r, measured_s=3 * r.measured_s) for r in g.rows)) if g.key.device == "two" else g
        for g in boards
    ]
    after = next(by_count for key, by_count in unseen_device(slow).items() if key.device == "two")
    assert np.median([entry.log for entry in after[0]]) == pytest.approx(np.log(3), abs=0.05)
    assert abs(np.median([entry.log for entry in after[1]])) < 0.05


def test_speed_ups_compare_widths_of_one_network_at_one_resolution(boards: list[Group]) -> None:
    entries = [LeftOut(row, row.measured_s * (2 if "_0.5_" in row.model_id else 1)) for row in boards[0].rows]
    logs = crossval.speed_ups(entries)
    assert len(logs) == 4  # two networks, two resolutions, one pair of widths each
    assert np.abs(logs) == pytest.approx(np.log(2))


def residuals(spreads: dict[str, float], families: int, per_family: int, seed: int) -> dict[Key, list[LeftOut]]:
    random = np.random.default_rng(seed)
    return {
        Key("ruy", device, "", "", "4", "TFLite", "2", "int8"): [
            LeftOut(
                Row(f"{f}-{i}", f"family{f}", 1.0, ()), float(np.exp(-common - 0.3 * spread * random.standard_normal()))
            )
            for f in range(families)
            for common in [spread * random.standard_normal()]
            for i in range(per_family)
        ]
        for device, spread in spreads.items()
    }


def test_bands_hold_about_80_percent_of_families_they_have_not_seen() -> None:
    shares = []
    for seed in range(20):
        spreads = {f"d{i}": spread for i, spread in enumerate(np.random.default_rng(seed).uniform(0.03, 0.15, 12))}
        for own in covered(residuals(spreads, 5, 6, seed)).values():
            shares += list(own.values())
    assert 0.75 < float(np.mean(shares)) < 0.85


def test_a_band_is_wider_where_errors_are_and_knows_nothing_of_the_family_left_out() -> None:
    found = residuals({"good": 0.03, "bad": 0.3}, 5, 6, 0)
    halves = {key.device: half for key, half in half_widths(found).items()}
    assert halves["bad"] > 2 * halves["good"]
    wild = {
        key: [replace(entry, estimated_s=99.0) if entry.row.family == "family3" else entry for entry in entries]
        for key, entries in found.items()
    }
    assert half_widths(wild, without="family3") == half_widths(found, without="family3")
    assert half_widths(wild) != half_widths(found)
    assert all(own["family3"] == 0 for own in covered(wild).values())
