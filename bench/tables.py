"""Writes `docs/benchmarks.md` from the figures in `bench/results`: `python -m bench.tables`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from statistics import fmean, median
from typing import Any

from bench import tables_device_models, tables_emulator, tables_int8, tables_mcu
from bench.cells import RESULTS, ROOT, read_document
from bench.markdown import Document, cells_of, item, percent, scaled, table, wrapped
from bench.zoo import STATUSES

PAGE = ROOT / "docs" / "benchmarks.md"


def page(results: Path = RESULTS) -> str:
    """The whole page; a benchmark without figures is named with its command."""
    parts = [
        "# Benchmarks",
        wrapped(
            "Written by `python -m bench.tables` from the figures in `bench/results/`; do not edit. A benchmark that "
            "was stopped goes on where it was; its figures hold for the machine and versions named below its table."
        ),
    ]
    for name, (title, about, lines_of) in _SECTIONS.items():
        file = results / f"{name}.json"
        parts += [f"## {title}", wrapped(about)]
        if file.is_file():
            document = read_document(file)
            parts += [*lines_of(document), provenance(document)]
        else:
            parts.append(f"Not measured yet: `make bench-{_COMMANDS.get(name, name)}`.")
    return "\n\n".join(parts) + "\n"


def provenance(document: Document) -> str:
    """Machine, versions, command, dates and load of the cells, in a sentence each."""
    machine, versions, cells = document["machine"], document["versions"], list(document["cells"].values())
    dates = sorted(cell["date"][:10] for cell in cells)
    loads = [load for cell in cells for load in cell["load_1m"]]
    when = dates[0] if dates[0] == dates[-1] else f"{dates[0]} to {dates[-1]}"
    commands = ", ".join(f"`{line}`" for line in dict.fromkeys(cell["command"] for cell in cells))
    named = ", ".join(f"{name} {version}" for name, version in versions.items() if version)
    minutes = sum(cell["seconds"] for cell in cells) / 60
    return wrapped(
        f"{machine['cpu']}, {machine['cores']} cores, {machine['memory_gib']} GiB. {named}. {commands}, {when}, "
        f"{minutes:.0f} min in all; load before and after the cells {min(loads):.1f} to {max(loads):.1f}."
    )


def _fit(document: Document) -> list[str]:
    results = cells_of(document)
    arms = [key for key in results if "fp32" in results[key]]
    rows, notes = [], []
    for key in arms:
        arm, _, seed = key.partition("/seed")
        found, timed = results[key], results.get(f"latency/seed{seed or 0}")
        latency = "" if timed is None else f"{timed['p50_ns'][arm] / 1e6:.3f}"
        ratio = "" if timed is None else f"{timed['to_ours'][arm]:.3f}"
        int8 = [percent(found["int8"].get(name)) for name in ("tflite", "onnx", "openvino")]
        name = f"ours ({found['plan']})" if arm == "ours" else arm
        size = [f"{found['parameters']:,}", f"{found['macs'] / 1e6:.1f}"]
        rows.append([name, seed, latency, ratio, percent(found["fp32"]), *int8, *size])
    header = ["arm", "seed", "p50 ms", "to ours", "fp32 %", "TFLite %", "ONNX %", "OpenVINO %", "parameters", "M MACs"]
    for key, found in results.items():
        seed = key.partition("/seed")[2]
        if key.startswith("ours/"):
            used = found["latency_ns"] / found["budget_ns"]
            notes.append(
                f"Seed {seed}: {found['verdict']} in {found['rounds']} round(s), {used * 100:.1f} % of the budget used."
            )
        elif key.startswith("latency/"):
            off = {arm: ratio - 1 for arm, ratio in found["to_ours"].items() if arm not in ("ours", "dense")}
            missed = [f"{arm} by {gap * 100:+.1f} %" for arm, gap in off.items() if abs(gap) > 0.02]
            fair = f"not equal within 2 %: {', '.join(missed)}" if missed else "all arms within 2 % of ours"
            share, noise = found["to_dense"]["ours"], found["noise"]
            notes.append(
                f"Seed {seed}: ours takes {share:.3f} of the dense time; {fair}; noise floor {noise * 100:.1f} %."
            )
        elif key.startswith("uniform/"):
            notes.append(f"Seed {seed}, uniform: {found['how']}, {found['timed']} plans timed.")
    return [table(header, rows), "\n".join(notes)]


def _host(document: Document) -> list[str]:
    results = cells_of(document)
    dense = results["dense"]
    header = [
        "budget",
        "seed",
        "verdict",
        "source",
        "latency ms",
        "of",
        "RAM MB",
        "of ",
        "undershoot %",
        "rounds",
        "drop pp",
    ]
    rows = []
    for key, found in results.items():
        if key == "dense":
            continue
        name, _, seed = key.partition("/seed")
        unused = found["undershoot"]
        row = [name, seed, found["verdict"], found["source"]]
        row += [scaled(found["latency_ns"], 1e6, 3), scaled(found["budget_ns"], 1e6, 3)]
        row += [scaled(found["ram_bytes"], 1e6, 2), scaled(found["ram_limit_bytes"], 1e6, 2)]
        row += [scaled(unused.get(name), 0.01, 1), str(found["rounds"]), scaled(found["drop"], 0.01, 2)]
        rows.append(row)
    text = f"Dense int8: {dense['latency_ns'] / 1e6:.3f} ms, {dense['ram_bytes'] / 1e6:.2f} MB"
    return [f"{text}, accuracy {percent(dense['fp32'])} % in fp32.", table(header, rows)]


def _loop(document: Document) -> list[str]:
    results = cells_of(document)
    fits = {key: found for key, found in results.items() if not key.endswith("/range")}
    header = ["net", "budget ms", "latency ms", "verdict", "undershoot %", "rounds", "rehearsals", "drop pp", "s"]
    rows = []
    for key, found in fits.items():
        row = [key.partition("/")[0], scaled(found["budget_ns"], 1e6, 3), scaled(found["latency_ns"], 1e6, 3)]
        row += [found["verdict"], scaled(found["undershoot"], 0.01, 1), str(found["rounds"])]
        row += [str(found["rehearsals"]), scaled(found["drop"], 0.01, 1), f"{found['seconds']:.0f}"]
        rows.append(row)
    ranges = ", ".join(
        f"{key.partition('/')[0]} {found['smallest_ns'] / 1e6:.3f} to {found['dense_ns'] / 1e6:.3f} ms"
        for key, found in results.items()
        if key.endswith("/range")
    )
    met = [found for found in fits.values() if found["verdict"] == "met"]
    lines = [f"Smallest to dense: {ranges}."]
    if met:
        unused = [found["undershoot"] for found in met]
        rounds = [found["rounds"] for found in fits.values()]
        lines.append(
            f"{len(met)} of {len(fits)} met, all by {' or '.join(sorted({found['source'] for found in met}))} latency; "
            f"largest overshoot {max(0.0, -min(unused)) * 100:.1f} %, median undershoot {median(unused) * 100:.1f} %, "
            f"largest {max(unused) * 100:.1f} %; rounds: {fmean(rounds):.1f} on average, at most {max(rounds)}."
        )
    return [wrapped(" ".join(lines)), table(header, rows)]


def _prune(document: Document) -> list[str]:
    header = ["network", "input", "error", "traced again", "trace s", "groups s", "prune s", "groups + prune s"]
    solves = ["network", "input", "limit", "smallest", "reached", "solver s", "gap %"]
    first, second = [], []
    for key, found in cells_of(document).items():
        name, _, side = key.partition("/")
        both = found["groups_s"] + found["prune_s"]
        seconds = [f"{found[what]:.2f}" for what in ("trace_s", "groups_s", "prune_s")]
        same = "same" if found["retraced"] else "differs"
        first.append([name, side, f"{found['error']:.1e}", same, *seconds, f"{both:.2f}"])
        for solve in found["solves"]:
            asked = [name, side, f"{solve['share']:g}", f"{solve['smallest']:.2f}"]
            if solve["feasible"]:
                gap = "none proven" if solve["gap"] is None else f"{solve['gap'] * 100:.2f}"
                second.append([*asked, f"{solve['reached']:.3f}", f"{solve['solver_s']:.2f}", gap])
            else:
                second.append([*asked, "infeasible", f"{solve['wall_s']:.2f}", ""])
    return [table(header, first), "Solves, in shares of the dense latency:", table(solves, second)]


def _solver(document: Document) -> list[str]:
    header = ["network", "groups", "levels", "limits", "tables s", "solver s", "gap %", "greedy / ours"]
    rows = []
    for name, found in cells_of(document).items():
        for limits, solve in found["solves"].items():
            row = [name, str(found["groups"]), str(found["levels"]), limits, f"{solve['tables_s']:.2f}"]
            if not solve["feasible"]:
                rows.append([*row, "infeasible", "", ""])
                continue
            gap = "none proven" if solve["gap"] is None else f"{solve['gap'] * 100:.3f}"
            rows.append([*row, f"{solve['solver_s']:.2f}", gap, scaled(solve["greedy"], 1, 4)])
    return [table(header, rows)]


def _zoo(document: Document) -> list[str]:
    found, models = document["summary"], document["models"]
    counts = ", ".join(f"{found[status]} {status}" for status in STATUSES)
    lines = [f"{found['models']} models: {counts}."]
    named = (("All in", "seconds"), ("without capture", "prune_s"), ("the peer, without capture", "peer_s"))
    times = [(what, found[key]) for what, key in named if found.get(key)]
    lines.append(
        "; ".join(f"{what}: median {t['p50']:.2f} s, p90 {t['p90']:.2f} s, max {t['max']:.2f} s" for what, t in times)
        + "."
    )
    if "peer_exact" in found:
        lines.append(f"The peer, judged the same way: {found['peer_exact']} exact.")
    header = [
        "model",
        "status",
        "error",
        "removed %",
        "s",
        "without capture s",
        "peer removed %",
        "peer exact",
        "peer s",
    ]
    rows = [_zoo_row(model) for model in models]
    rest = [f"- {m['model']}: {m['status']}: {m['reason']}" for m in models if m["status"] != "exact"]
    return [wrapped(" ".join(lines)), table(header, rows), *(["\n".join(map(item, rest))] if rest else [])]


def _zoo_row(model: Mapping[str, Any]) -> list[str]:
    peer = model.get("peer", {})
    error = "" if model["error"] is None else f"{model['error']:.1e}"
    own = [scaled(model["removed"], 0.01, 1), scaled(model["seconds"], 1, 2), scaled(model["prune_s"], 1, 2)]
    exact = {True: "yes", False: "no", None: ""}[peer.get("exact")]
    beside = [scaled(peer.get("removed"), 0.01, 1), exact, scaled(peer.get("seconds"), 1, 2)]
    return [model["model"], model["status"], error, *own, *beside]


def _calibration(document: Document) -> list[str]:
    results = cells_of(document)
    made = results["calibrate"]
    judged = made["judged"]
    lines = [
        f"Calibrated with {made['networks']} small networks; rounds agree within {percent(made['spread'])} % in the "
        f"median. Whole networks whose family was left out of the fit: off by {percent(judged['median'])} % in the "
        f"median, {percent(judged['p90'])} % at the 90th percentile. Band: {made['band'][0]:.3f} to "
        f"{made['band'][1]:.3f} of an estimate. "
        "Tiles found (positions x outputs x inputs): "
        + ", ".join(f"{name} {'x'.join(map(str, made['tiles'][name]))}" for name in ("pointwise", "spatial"))
        + "."
    ]
    header = ["network", "side", "files", "noise %", "median %", "p90 %", "largest %", "rank", "in the band %"]
    rows = []
    for name, found in results.items():
        if name != "calibrate":
            errors = found["planned"]
            shown = [percent(errors[key]) for key in ("median", "p90", "largest")]
            rest = [f"{errors['rank_correlation']:.3f}", scaled(errors["in_band"], 0.01, 0)]
            count = str(len(found["measured_ns"]) - 1)
            rows.append([name.partition("-")[0], str(found["side"]), count, percent(found["noise"]), *shown, *rest])
    return [wrapped(" ".join(lines)), table(header, rows)]


def _schedule(document: Document) -> list[str]:
    results = cells_of(document)
    header = ["schedule", "seed", "fp32 %", "TFLite %", "parameters", "M MACs", "plan"]
    rows = []
    for key, found in sorted(results.items()):
        arm, _, seed = key.partition("/seed")
        row = [arm, seed, percent(found["fp32"]), percent(found["int8"]), f"{found['parameters']:,}"]
        rows.append([*row, f"{found['macs'] / 1e6:.2f}", found["plan"]])
    means = {
        arm: [found["int8"] for key, found in results.items() if key.startswith(f"{arm}/")]
        for arm in dict.fromkeys(row[0] for row in rows)
    }
    text = ", ".join(
        f"{arm} {percent(fmean(values))} % (spread {percent(max(values) - min(values))})"
        for arm, values in means.items()
    )
    return [
        table(header, rows),
        wrapped(f"Means of TFLite: {text}. Dense: {percent(next(iter(results.values()))['dense'])} %."),
    ]


_COMMANDS = {"zoo-models": "zoo"}  # where the file is not named like the command
_SECTIONS: dict[str, tuple[str, str, Callable[[Document], list[str]]]] = {
    "fit": (
        "ResNet-20 on CIFAR-10 at half its latency",
        "Trained weights, 20,000 training images (2,000 of them for validation), all 10,000 test images. Budget: "
        "half the measured median latency of the dense int8 TFLite file on this machine, one thread. All arms get "
        "the same training and go there at once (`fit.schedule`). `uniform` has one share for all widths, its "
        "channels ranked by our score; `random` has our widths and random channels. Latencies are medians, all files "
        "timed in turns in one process. The noise floor is the largest distance between ten timings of one file.",
        _fit,
    ),
    "host": (
        "Budgets on this machine",
        "Pruned at once (`fit.schedule`). Half the dense int8 latency, judged on the upper bound of the 90th "
        "percentile in a fresh process. Then a RAM limit between what the dense and the pruned file took, which the "
        "dense model breaks. Undershoot is the unused share of the named limit; drop is the loss on the validation "
        "set.",
        _host,
    ),
    "int8": (tables_int8.TITLE, tables_int8.ABOUT, tables_int8.lines_of),
    "loop": (
        "Budgets over the whole range of three nets",
        "Latency budgets evenly spread between what the smallest plan and the dense int8 file take on this machine, "
        "judged like every verdict: the upper bound of the 90th percentile, one run in a fresh process per trained "
        "file. A round trains a plan and measures its final file, three at most; a rehearsal measures an untrained "
        "file, four at most per round. Pruned at once, training is one short epoch: the loop is judged here, not the "
        "accuracy.",
        _loop,
    ),
    "calibration": (
        "A calibrated machine",
        "`edgeprune calibrate`, then networks it never saw: each at random widths, every other one in multiples of "
        "eight, random weights, int8 TFLite, one thread. Medians, all files timed in turns in one process with the "
        "dense one. Errors are those of the planned graph's estimate, as the solver makes it, without any "
        "correction. The noise is the largest distance between ten timings of the dense file.",
        _calibration,
    ),
    "mcu": (
        "Networks as C on microcontrollers",
        "Int8 .tflite files written as C libraries, compiled for the core and executed on an emulated one. "
        "Instructions, bytes and outputs are exact, of two inputs the one that takes more; cycles are an interval. "
        "No plan of the activations can go below the bound of the arena. Flash is code, weights and constants. Wrong: "
        "output values that differ from TensorFlow Lite's reference kernels, over that many random inputs: two run on "
        "the emulated core, all as the same sources compiled for this machine. Files are of others, the other networks "
        "have random weights: `resnet8-pruned` is `resnet8` cut to half of every width. `lstm` is written by "
        "hand: no exporter here writes one in int8.",
        tables_mcu.counts,
    ),
    "mcu-fit": (
        "A fit for a microcontroller: three limits at once",
        "Trained ResNet-20 on CIFAR-10 for a NUCLEO-L4R5ZI (Cortex-M4 at 120 MHz) with limits on latency, RAM and "
        "flash. Latency is the upper end of the interval of the library executed on an emulated core, RAM its arena "
        "and stack, flash its code and weights. Accuracies are of all 10,000 test images; that of the C library is of "
        "its own outputs.",
        tables_mcu.fits,
    ),
    "mcu-model": (
        "Microcontrollers foretold",
        "What the device models of the C library say before anything is exported or executed, beside what the emulated "
        "core then counts. Two networks at random widths, every other one in multiples of eight, random weights; and "
        "whole files, those of the benchmark above. Errors are |estimate / executed - 1| of the latency's central "
        "value, of RAM (arena and stack) and of flash. No step of any of these networks was in the fit. Within the "
        "interval: the execution's own interval lies within the estimate's.",
        tables_mcu.foretold,
    ),
    "emulator": (
        "An emulated Raspberry Pi 4: what is counted, and latencies foretold from it",
        "Published networks as .tflite files of the same operators with random weights, run on one thread by the "
        "board's own LiteRT (aarch64) under QEMU: by XNNPACK, which deploys, and by TFLite's own kernels with ruy, of "
        "which more is published. Instructions are exact, misses those of simulated caches of 32 KiB and 1 MiB. "
        "Prices of both are fitted on latencies published for four threads and judged on networks and on families that "
        "were left out. Beside them the target's device model, on the rows that it was fitted on itself.",
        tables_emulator.counts,
    ),
    "schedule": (
        "At once or in stages",
        "Trained ResNet-20 on CIFAR-10 at a quarter of its MACs with short training: 5,000 images, a tenth of them for "
        "validation, all 10,000 test images. `geometric` has three stages, whose fine-tunes take one epoch together; "
        "`one-shot` trains one epoch more, so all train equally many steps.",
        _schedule,
    ),
    "prune": (
        "Exactness and time of pruning",
        "torchvision networks with random weights; half of the channels of every group go, at random. Error: "
        "largest difference between the pruned and the masked model over the largest output, fp32. Traced again: "
        "whether capturing the pruned model gives the planned graph. Times are medians. Solves: widths in steps "
        "of 8, at least a tenth of each group, to a share of the latency that the rpi4's int8 model gives the "
        "dense network.",
        _prune,
    ),
    "device-models": (
        "Device models on what they have not seen",
        "Errors are |estimate / measured - 1| on published rows. Cross-validated: prices are fitted without the "
        "network, its whole family, or the device that is judged; goals for a group with at least 30 rows are a median "
        "of 5 % and 80 % within 10 % on networks left out, 8 % and 65 % on families. A group is one device, runtime, "
        "version, precision and number of threads. Variants were compared on these same splits (about 60 of the six "
        "prices, 31 for ncnn), so expect slightly worse on other rows.",
        tables_device_models.device_model_tables,
    ),
    "solver": (
        "Time and gap of the budgeted solve",
        "Networks with random weights, channels valued by their L1 norm, widths in steps of 4 (ResNet-8 and -20) or 8, "
        "at least a tenth of each group. Limits: a share of the latency that the rpi4's int8 model gives the dense "
        "network, alone or with the same share of what RAM, size and MACs have between the narrowest and the dense "
        "network. The solver may stop at a gap of 0.1 % or after 20 s; tables s is what building the cost tables "
        "takes. Greedy: its value, above the least, over ours.",
        _solver,
    ),
    "zoo-models": (
        "Public models pruned exactly",
        "Models of torchvision and timm with random weights, each in a process of its own with one thread and 45 s. "
        "Half of all channels go, the smallest by L2 magnitude over all groups. Exact: the pruned model computes what "
        "the original does over what is left, within 1e-9 of the largest output in float64, as an oracle that shares "
        "no code with the pruning rules says, and 0.9 of the share of parameters that the peer removes is gone where "
        "the peer is exact, else 40 %. Error: the largest difference over the largest output. The peer is "
        "torch-pruning 1.6.1 with the help of its own examples, its time without building and first forward. Imports "
        "count for neither.",
        _zoo,
    ),
}


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
