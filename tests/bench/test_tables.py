"""The page is what the figures give, and every figure on it is in them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from bench import zoo
from bench.cells import open_sheet, read_document, write_document
from bench.public_models import Listed
from bench.tables import PAGE, page


def fill(path: Path, name: str, cells: dict[str, dict[str, Any]]) -> None:
    sheet = open_sheet(name, {}, f"python -m bench.{name}", path / f"{name}.json")
    for key, result in cells.items():
        sheet.cell(key, lambda: result)  # noqa: B023


COMMANDS = (
    "fit",
    "host",
    "loop",
    "calibration",
    "prune",
    "solver",
    "zoo",
    "device-models",
    "mcu",
    "mcu-fit",
    "mcu-model",
    "schedule",
    "emulator",
    "int8",
)
INT8 = {
    "small": {
        "holds": True,
        "fp32": {"validation": 0.9, "test": 0.88},
        "plain": {"onnx": 0.02, "tflite": 0.01},
        "validation": {"onnx": 0.004, "tflite": -0.001},
        "test": {"onnx": 0.005, "tflite": 0.0},
        "float_ops": {"onnx": ["Conv a", "Pad b"], "tflite": []},
        "steps": [
            {"step": "plain", "drop": 0.02, "kept": True, "in_float": []},
            {"step": "ranges by percentile", "drop": 0.03, "kept": False, "in_float": []},
            {"step": "1 layer in float", "drop": 0.004, "kept": True, "in_float": ["a.weight"]},
        ],
    }
}
ARM: dict[str, Any] = {"fp32": 0.9173, "int8": {"tflite": 0.9151, "onnx": 0.9149}, "parameters": 269722, "macs": 41e6}
FIT = {
    "dense": ARM,
    "ours/seed0": {
        **ARM,
        "fp32": 0.8812,
        "plan": "curves",
        "verdict": "met",
        "rounds": 2,
        "latency_ns": 980_000,
        "budget_ns": 1_000_000,
    },
    "uniform/seed0": {**ARM, "how": "step 4", "timed": 7},
    "latency/seed0": {
        "p50_ns": {"dense": 2_000_000, "ours": 970_000, "uniform": 1_003_950},
        "to_ours": {"dense": 2.0619, "ours": 1.0, "uniform": 1.035},
        "to_dense": {"dense": 1.0, "ours": 0.485, "uniform": 0.502},
        "noise": 0.004,
    },
}
HOST = {
    "dense": {"latency_ns": 4_000_000, "ram_bytes": 9_000_000, "fp32": 0.95},
    "latency/seed0": {
        "verdict": "met",
        "source": "measured",
        "latency_ns": 1_950_000,
        "budget_ns": 2_000_000,
        "ram_bytes": 7_000_000,
        "ram_limit_bytes": None,
        "undershoot": {"latency": 0.025},
        "rounds": 2,
        "drop": 0.004,
    },
}
LOOP = {
    "mobile/range": {"smallest_ns": 200_000, "dense_ns": 1_000_000, "dense": 0.5, "run": "runs/x"},
    "mobile/0.400": {
        "verdict": "met",
        "source": "measured",
        "latency_ns": 480_000,
        "budget_ns": 500_000,
        "undershoot": 0.04,
        "rounds": 1,
        "rehearsals": 3,
        "drop": 0.02,
        "seconds": 61.2,
    },
    "mobile/0.700": {
        "verdict": "missed",
        "source": "measured",
        "latency_ns": 780_000,
        "budget_ns": 760_000,
        "undershoot": -0.0263,
        "rounds": 3,
        "rehearsals": 9,
        "drop": 0.01,
        "seconds": 161.0,
    },
}
ERRORS = {
    "median": 0.0117,
    "p90": 0.0186,
    "largest": 0.0213,
    "rank_correlation": 0.9987,
    "bias": -0.01,
    "in_band": 29 / 30,
}
CALIBRATION = {
    "calibrate": {
        "networks": 303,
        "spread": 0.0051,
        "judged": {"networks": 30, "median": 0.0081, "p90": 0.0312, "rank_correlation": 0.99},
        "band": [0.966, 1.035],
        "tiles": {"pointwise": [7, 16, 8], "spatial": [7, 16, 4]},
        "errors": {"pointwise": 0.009},
    },
    "mobilenet_v2-96": {
        "side": 96,
        "noise": 0.0044,
        "runs": 700,
        "measured_ns": [3, 2, 1],
        "planned": ERRORS,
        "from_file": ERRORS,
    },
}
COUNT = {
    "macs": 4_000_000,
    "instructions": 2_000_000,
    "repeated": 2_000_355,
    "l1_misses": 30_000,
    "l2_misses": 10_000,
    "anonymous_bytes": 2**20,
    "runtime": "ai-edge-litert 2.3.0",
    "emulator": "qemu-aarch64 7.2.22",
}
RATIOS = {"xnnpack/int8/mobilenet_v1_1.0_224": 0.9, "ruy/int8/mobilenet_v2_0.35_96": 1.05}
EMULATOR: dict[str, dict[str, Any]] = {
    "count/ruy/int8/mobilenet_v2_0.35_96": COUNT,
    "count/xnnpack/int8/mobilenet_v1_1.0_224": COUNT,
    "fit": {
        "prices_ns": {"scalar": 0.46, "l2_miss": 26.0},
        **dict.fromkeys(("fitted", "left_out_network", "left_out_family"), RATIOS),
        "device_model": {"xnnpack/int8/mobilenet_v1_1.0_224": 1.03},
    },
}
PRUNE = {
    "resnet50/64": {
        "error": 3.2e-7,
        "retraced": True,
        "trace_s": 2.5,
        "groups_s": 0.21,
        "prune_s": 0.12,
        "solves": [
            {"share": 0.5, "smallest": 0.08, "feasible": True, "reached": 0.4999, "solver_s": 1.25, "gap": 0.0009},
            {"share": 0.25, "smallest": 0.3, "feasible": False, "wall_s": 0.4},
        ],
    }
}


def test_the_page_that_is_kept_is_the_one_the_figures_give() -> None:
    assert PAGE.read_text(encoding="utf-8") == page()


def test_what_was_not_measured_is_named_with_its_command(tmp_path: Path) -> None:
    text = page(tmp_path)
    assert all(f"Not measured yet: `make bench-{name}`." in text for name in COMMANDS)


def test_figures_become_rows(tmp_path: Path) -> None:
    done = {"fit": FIT, "host": HOST, "loop": LOOP, "calibration": CALIBRATION, "prune": PRUNE}
    done |= {"emulator": EMULATOR, "int8": INT8}
    for name, cells in done.items():
        fill(tmp_path, name, cells)
    text = page(tmp_path)
    assert text.count("Not measured") == 7  # zoo, device models, solver, schedule, three of mcu
    assert text == page(tmp_path)
    assert "| small | plain | 90.00 | +2.00 | +1.00 |  |  |" in text
    assert "| small | held | 90.00 | +0.40 | -0.10 |  |  |" in text
    assert "| small | test | 88.00 | +0.50 | +0.00 |  | 1 layer in float (a.weight); 2 tried |" in text
    assert "small: operators in float or that move data: onnx 2 (Conv, Pad)." in " ".join(text.split())
    assert "| ours (curves) | 0 | 0.970 | 1.000 | 88.12 | 91.51 | 91.49 |  | 269,722 | 41.0 |" in text
    assert "| dense |  | 2.000 | 2.062 | 91.73 |" in text
    assert "not equal within 2 %: uniform by +3.5 %" in text and "noise floor 0.4 %" in text
    assert "Seed 0: met in 2 round(s), 98.0 % of the budget used." in text
    assert "| latency | 0 | met | measured | 1.950 | 2.000 | 7.00 |  | 2.5 | 2 | 0.40 |" in text
    assert "Smallest to dense: mobile 0.200 to 1.000 ms. 1 of 2 met, all by measured latency;" in text
    assert "median undershoot 4.0 %" in text.replace("\n", " ") and "at most 3." in text
    assert "| mobile | 0.500 | 0.480 | met | 4.0 | 1 | 3 | 2.0 | 61 |" in text
    assert "| mobile | 0.760 | 0.780 | missed | -2.6 | 3 | 9 | 1.0 | 161 |" in text
    assert "pointwise 7x16x8, spatial 7x16x4" in text and "off by 0.81 % in the median" in " ".join(text.split())
    assert "| mobilenet_v2 | 96 | 2 | 0.44 | 1.17 | 1.86 | 2.13 | 0.999 | 97 |" in text
    assert "| resnet50 | 64 | 3.2e-07 | same | 2.50 | 0.21 | 0.12 | 0.33 |" in text
    assert "| resnet50 | 64 | 0.5 | 0.08 | 0.500 | 1.25 | 0.09 |" in text
    assert "| resnet50 | 64 | 0.25 | 0.30 | infeasible | 0.40 |  |" in text
    assert "| xnnpack | int8 | mobilenet_v1_1.0_224 | 2.0 | 0.50 | 0.03 | 0.01 | 1.0 |" in text
    assert "| xnnpack | int8 | 1 | family left out | 10.0 | 10.0 |" in text
    assert "differ by at most 355 instructions" in " ".join(text.split())


def test_public_models_become_rows_and_what_is_not_exact_a_reason(tmp_path: Path) -> None:
    ours = {"trace_s": 1.5, "prune_s": 0.25, "removed": 0.605, "frozen": [], "error": 4e-16, "exact": True}
    peer = {"removed": 0.61, "prune_s": 0.5, "error": 0.0, "exact": True}
    late = {"failed": "pruned", "reason": "no result within 45 s", "late": True}
    sheet = open_sheet("zoo", {}, "python -m bench.zoo", tmp_path / "zoo-models.json")
    sheet.cell("timm/a", lambda: ours)
    models = [zoo.verdict(Listed("timm", "a"), ours, peer), zoo.verdict(Listed("timm", "b"), late, None)]
    extra = {"summary": zoo.summary(models), "models": models}
    write_document(sheet.path, {**read_document(sheet.path), **extra})
    text = page(tmp_path).replace("\n", " ")
    assert "2 models: 1 exact, 0 refused, 0 wrong, 1 timeout, 0 unjudged." in text
    assert "All in: median 1.75 s, p90 1.75 s, max 1.75 s; without capture: median 0.25 s" in text
    assert "| a | exact | 4.0e-16 | 60.5 | 1.75 | 0.25 | 61.0 | yes | 0.50 |" in text
    assert "| b | timeout |  |  |  |  |  |  |  |" in text and "- b: timeout: no result within 45 s" in text
    assert "The peer, judged the same way: 1 exact." in text


def counts(core: str, **others: Any) -> dict[str, Any]:
    """A cell of the benchmark of microcontrollers."""
    found = {"macs": 2_656_768, "instructions": 3_298_566, "cycles": [5_365_617, 5_868_391], "arena_bytes": 16_256}
    found |= {"arena_bound_bytes": 16_000, "stack_bytes": 400, "flash_bytes": 41_848, "code_bytes": 10_424}
    found |= {"weights_bytes": 31_424, "mismatches": 0, "compared": 100, "core": core, "toolchain": "gcc 12 -O3"}
    return {**found, "emulator": "unicorn 2", "notes": ["executed in an emulator", f"cycles of {core}"], **others}


def test_counts_become_rows_and_those_of_known_networks_stand_beside_their_peers(tmp_path: Path) -> None:
    cells = {
        "refused": {"float.tflite": "the model computes in floating point: " + "operator, " * 50},
        "kws_ref_model.tflite/nucleo-l4r5zi/gcc": counts("Cortex-M4"),
        "kws_ref_model.tflite/nucleo-h7a3zi/gcc": counts("Cortex-M7", cycles=None),
        "autoencoder/nucleo-l4r5zi/zig": counts("Cortex-M4", mismatches=3),  # by its MACs another one
    }
    fill(tmp_path, "mcu", cells)
    text = page(tmp_path)
    sizes = "16,256 | 16,000 | 400 | 41,848 | 10,424 | 31,424"
    assert f"| kws_ref_model.tflite | M4 | gcc | 3.299 | 1.24 | 5.37 to 5.87 | {sizes} | 0 | 100 |" in text
    assert f"| kws_ref_model.tflite | M7 | gcc | 3.299 | 1.24 |  | {sizes} | 0 | 100 |" in text
    assert f"| autoencoder | M4 | zig | 3.299 | 1.24 | 5.37 to 5.87 | {sizes} | 3 | 100 |" in text
    assert "| kws_ref_model.tflite | gcc | 3.299 | 7.843 | 0.42 | 16,256 | 22,820 | 0.71 |" in text
    assert text.count("| kws_ref_model.tflite |") == 3 and text.count("| autoencoder |") == 1
    assert "- made with: gcc 12 -O3, unicorn 2" in text and "- Cortex-M7, cycles of Cortex-M7" in text
    assert "- float.tflite is refused: the model computes in floating point:" in text


def test_a_fit_with_three_limits_shows_what_each_of_them_does(tmp_path: Path) -> None:
    fitted: dict[str, Any] = {"verdict": "met", "source": "emulated", "rounds": 1, "rehearsals": 2, "dense": 0.9173}
    fitted |= {"budget": {"latency_ns": 220_000_000, "ram_bytes": 20_480, "size_bytes": 112_640, "at": "p90"}}
    fitted |= {"latency_ns": 205_000_000, "latency_interval_ns": [196_000_000, 214_000_000], "ram_bytes": 18_125}
    fitted |= {"size_bytes": 109_056, "fp32": 0.853, "int8": {"c": 0.8512}}
    fitted |= {"parameters": {"dense": 269_722, "pruned": 80_000}, "macs": {"dense": 40_600_000, "pruned": 13_000_000}}
    fitted |= {"blocked": {"latency_ns": [9, 10], "ram_bytes": [2, 10], "size_bytes": [8, 10]}}
    fill(tmp_path, "mcu-fit", {"fit/seed0": fitted})
    text = page(tmp_path)
    spent = "214.0 of 220.0 | 17.7 of 20.0 | 106.5 of 110.0"
    rest = "1 | 2 | 91.73 | 85.30 | 85.12 | 269,722 to 80,000 | 40.6 to 13.0"
    assert f"| 0 | met | {spent} | {rest} |" in text
    flat = text.replace("\n", " ")
    assert "latency between 196 and 214 ms (emulated); of 10 narrowed groups" in flat
    assert "9 that on latency, 2 that on RAM, 8 that on flash." in flat


def test_schedules_stand_beside_each_other_with_their_means(tmp_path: Path) -> None:
    one = {"fp32": 0.8, "int8": 0.79, "parameters": 60_000, "macs": 10_000_000, "plan": "curves", "dense": 0.9173}
    cells = {"one-shot/seed0": one, "one-shot/seed1": {**one, "int8": 0.77}, "geometric/seed0": {**one, "int8": 0.81}}
    fill(tmp_path, "schedule", cells)
    text = page(tmp_path)
    assert "| geometric | 0 | 80.00 | 81.00 | 60,000 | 10.00 | curves |" in text
    assert "geometric 81.00 % (spread 0.00), one-shot 78.00 % (spread 2.00)" in text.replace("\n", " ")


def test_machine_versions_command_and_load_stand_below(tmp_path: Path) -> None:
    fill(tmp_path, "prune", PRUNE)
    document = json.loads((tmp_path / "prune.json").read_text())
    text = page(tmp_path)
    assert document["machine"]["cpu"] in text.replace("\n", " ")
    flat = text.replace("\n", " ")
    assert "`python -m bench.prune`" in flat and "load before and after" in flat


@pytest.mark.parametrize("line", page().splitlines())
def test_lines_of_text_are_short(line: str) -> None:
    assert len(line) <= 120 or line.startswith("|")
