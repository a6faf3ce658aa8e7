"""The counts that the models of the C library are fitted on: the design, the file, and that they are still true."""

from __future__ import annotations

from pathlib import Path

import pytest

from edgeprune.device.kernel_work import law_name
from edgeprune.device.networks import Layer, Network, shapes
from edgeprune.emulate.toolchain import find_toolchain
from tests.emulate.programs import need_emulator, toolchain
from tools import kernel_counts, kernel_design

SMALL = Network("small", (4, 4, 5), (Layer("conv", (0,), 6, 3, activation="relu"), Layer("mean", (1,))))


def test_the_design_is_the_same_every_time_and_its_names_are_its_own() -> None:
    chains, wholes = kernel_design.chains(), kernel_design.wholes()
    assert chains == kernel_design.chains()
    names = [network.name for network in (*chains, *(entry.network for entry in wholes))]
    assert len(set(names)) == len(names)
    assert all(entry.family for entry in wholes) and len({entry.family for entry in wholes}) > 3


def test_chains_hold_widths_between_blocks_and_small_and_odd_maps() -> None:
    sizes = [size for network in kernel_design.chains() for size in shapes(network)]
    assert {width % 4 for _, _, width in sizes} == {0, 1, 2, 3}
    assert {1, 2, 3, 5, 7, 8, 16, 32} <= {height for height, _, _ in sizes}


def test_the_stored_counts_are_those_of_the_design() -> None:
    head, counted = kernel_counts.read()
    assert "arm-none-eabi-gcc" in head[0]
    names = [network.name for network in kernel_design.chains()]
    names += [entry.network.name for entry in kernel_design.wholes()]
    assert [one.name for one in counted] == names
    laws = {law_name(step.op) for one in counted for step in one.steps}
    assert {"pointwise", "spatial", "depthwise.3x3", "depthwise.any", "dense", "add", "mul", "concat"} <= laws
    for one in counted:
        assert one.steps and all(min(step.cycles.values()) > 0 for step in one.steps)
        assert all(0 < one.rest[core] < one.cycles(core) for core in kernel_counts.CORES)


def test_a_file_comes_back_as_written(tmp_path: Path) -> None:
    head, counted = kernel_counts.read()
    copy = tmp_path / "counts.csv"
    copy.write_text(kernel_counts.written(head, counted), encoding="utf-8")
    assert copy.read_bytes() == kernel_counts.FILE.read_bytes()
    assert kernel_counts.read(copy) == (head, counted)


def test_a_network_is_counted_step_by_step() -> None:
    toolchain("gcc")
    need_emulator()
    found = kernel_counts.count(SMALL, cores=("Cortex-M4",))
    assert [step.op.kind for step in found.steps] == ["conv", "mean"]
    assert found.steps[0].cycles["Cortex-M4"] > 16 * 6 * 45 / 2
    assert found.code["Cortex-M4"] > 500
    assert found.cycles("Cortex-M4") == found.rest["Cortex-M4"] + sum(s.cycles["Cortex-M4"] for s in found.steps)


@pytest.mark.slow
def test_a_chain_is_still_counted_as_it_was() -> None:
    toolchain("gcc")
    need_emulator()
    head, counted = kernel_counts.read()
    if find_toolchain("gcc").version not in head[0]:
        pytest.skip("another compiler than that of the counts")
    by_name = {network.name: network for network in kernel_design.chains()}
    for one in counted:
        if one.name in ("grouped-11", "resize-3", "product-6"):
            again = kernel_counts.count(by_name[one.name])  # stored shapes leave out what makes a map square
            assert (again.rest, again.code, again.stack) == (one.rest, one.code, one.stack)
            assert [step.cycles for step in again.steps] == [step.cycles for step in one.steps], "make profiles-mcu"
