"""The benchmark of microcontrollers: what it counts, what it refuses, and when it starts over."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from bench import mcu, mcu_nets
from bench.cells import read_document
from edgeprune import backends
from edgeprune.backends.tflite.writer import write
from edgeprune.device.networks import Layer, Network, shapes
from edgeprune.errors import UsageError
from edgeprune.progress import SILENT
from tests.emulate.programs import need_emulator, toolchain


@pytest.fixture
def gcc() -> None:
    """Skips where nothing can be compiled or executed."""
    toolchain("gcc")
    need_emulator()


@pytest.fixture
def models(tmp_path: Path) -> Path:
    """A folder with an int8 file and a float one."""
    folder = tmp_path / "models"
    folder.mkdir()
    network = Network("dense", (1, 1, 6), (Layer("dense", (0,), 5, activation="relu"), Layer("dense", (1,), 3)))
    write(network, folder / "dense.tflite", "int8")
    write(network, folder / "float.tflite", "fp32")
    return folder


@pytest.mark.usefixtures("gcc")
def test_files_are_counted_on_every_core_and_float_ones_refused(models: Path, tmp_path: Path) -> None:
    file = tmp_path / "mcu.json"
    words = ["--models", str(models), "--nets", "", "--toolchains", "gcc", "--compared", "3", "--quiet"]
    assert mcu.main([*words, "--results", str(file)]) == 0
    cells = {key: cell["result"] for key, cell in read_document(file)["cells"].items()}
    targets = mcu.TARGETS if shutil.which("qemu-system-arm") else mcu.TARGETS[:3]
    assert list(cells) == ["refused", *(f"dense.tflite/{target}/gcc" for target in targets)]
    refused = cells.pop("refused")
    assert list(refused) == ["float.tflite"] and "floating point" in refused["float.tflite"]
    cores = ["Cortex-M4", "Cortex-M7", "Cortex-M33", "Cortex-M55"][: len(targets)]
    assert [found["core"] for found in cells.values()] == cores
    for found in cells.values():
        assert (found["mismatches"], found["compared"], found["macs"]) == (0, 3, 45)
        assert found["instructions"] > found["macs"]
        assert (found["cycles"] is None) == (found["core"] == "Cortex-M55")
        assert found["cycles"] is None or found["cycles"][0] < found["cycles"][1]
        assert found["code_bytes"] + found["weights_bytes"] == found["flash_bytes"]
        assert str(tmp_path) not in json.dumps(found)


@pytest.mark.usefixtures("gcc")
def test_a_smoke_run_needs_no_file_of_others(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bench.command.ROOT", tmp_path)
    monkeypatch.setenv("EDGEPRUNE_SHARED", str(tmp_path / "nowhere"))
    assert mcu.main(["--smoke", "--quiet"]) == 0
    cells = read_document(tmp_path / "runs" / "bench" / "mcu-smoke" / "results.json")["cells"]
    found = cells["autoencoder/nucleo-l4r5zi/gcc"]["result"]
    assert found["macs"] == mcu.PEERS["autoencoder"].macs and found["mismatches"] == 0


def test_what_does_not_fit_is_an_error_before_anything_is_counted(
    models: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["--results", str(tmp_path / "mcu.json"), "--quiet"]
    for options, message in (
        (["--models", str(tmp_path / "none")], "error: no models here"),
        (["--models", str(models), "--nets", "unett"], "error: unknown net 'unett'"),
        (["--models", str(models), "--nets", "", "--toolchains", "iar"], "error: no toolchain 'iar'"),
    ):
        assert mcu.main([*words, *options]) == 2
        assert message in capsys.readouterr().err


def test_a_network_of_two_outputs_is_refused(monkeypatch: pytest.MonkeyPatch, models: Path) -> None:
    class Ends:
        inputs, outputs = (0,), (1, 2)

    class Program:
        model = Ends

    monkeypatch.setattr(mcu, "schedule", lambda model: Program)
    refused = mcu.refusals([models / "dense.tflite"])
    assert refused == {"dense.tflite": "the emulator runs one input and one output, this has 3 in all"}


def test_figures_of_other_kernels_are_dropped(tmp_path: Path) -> None:
    kernel = tmp_path / "csrc" / "ep_dense.c"
    kernel.parent.mkdir()
    kernel.write_text("int one;\n")
    before = [mcu.digest(kernel.parent, ("*.c", "*.h"))]
    results = tmp_path / "mcu.json"
    assert not mcu.stale(results, before)
    results.write_text(json.dumps({"schema": "edgeprune.bench/1", "settings": {"sources": before}, "cells": {}}))
    assert not mcu.stale(results, before)
    kernel.write_text("int two;\n")
    assert mcu.stale(results, [mcu.digest(kernel.parent, ("*.c", "*.h"))])


def test_networks_have_the_sizes_they_say() -> None:
    assert shapes(mcu_nets.autoencoder())[5] == (1, 1, 8) and shapes(mcu_nets.autoencoder())[-1] == (1, 1, 640)
    sizes = shapes(mcu_nets.unet())
    assert min(size[0] for size in sizes) == 12 and sizes[10] == (24, 24, 48) and sizes[-1] == (48, 48, 2)
    assert mcu_nets.chosen_nets("unet, resnet8") == ("unet", "resnet8") and mcu_nets.chosen_nets("") == ()
    with pytest.raises(UsageError, match="unknown net 'resnet9'") as caught:
        mcu_nets.chosen_nets("resnet9")
    assert "resnet8" in caught.value.hint


def test_a_network_is_written_once(tmp_path: Path) -> None:
    path = mcu_nets.written("unet", tmp_path)
    stored = path.stat().st_mtime_ns
    assert mcu_nets.written("unet", tmp_path) == path and path.stat().st_mtime_ns == stored


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # torch's exporters warn about themselves
@pytest.mark.usefixtures("gcc")
def test_half_the_widths_take_a_third_of_the_instructions(tmp_path: Path) -> None:
    dense, half = (
        mcu.counted(lambda: mcu_nets.written(name, tmp_path), mcu.TARGETS[0], "gcc", 4, SILENT)  # noqa: B023
        for name in ("resnet8", "resnet8-pruned")
    )
    assert dense["mismatches"] == half["mismatches"] == 0
    assert half["macs"] < 0.27 * dense["macs"] and half["instructions"] < 0.4 * dense["instructions"]
    assert half["arena_bytes"] < 0.55 * dense["arena_bytes"] and half["flash_bytes"] < 0.4 * dense["flash_bytes"]


def test_a_files_lstm_has_four_gates_that_read_the_input_and_the_state(tmp_path: Path) -> None:
    first = backends.get("tflite").read_ops(mcu_nets.written("lstm", tmp_path))[0]
    steps, inputs, units = first.out_positions, first.in_channels, first.out_channels
    assert first.kind == "rnn" and steps > 1
    assert first.macs == steps * 4 * units * (inputs + units)
    assert first.weights == 4 * units * (inputs + units)
