"""The tables of the benchmarks of microcontrollers."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping
from typing import Any

from bench.markdown import Document, cells_of, item, percent, scaled, table, wrapped
from bench.mcu import PEERS, REFUSED, TARGETS

_PEERS_ABOUT = (
    "Beside others on the M4: instructions of CMSIS-NN after v7.0.0, gcc 12 -Ofast, counted in QEMU earlier; arenas of "
    "TensorFlow Lite Micro, which hold its own structures, too. The autoencoder has the sizes of the network that was "
    "counted, not its weights."
)


def counts(document: Document) -> list[str]:
    results = cells_of(document)
    refused = results.pop(REFUSED)
    header = ["network", "core", "compiler", "M instructions", "per MAC", "M cycles", "arena B", "bound B", "stack B"]
    header += ["flash B", "code B", "weights B", "wrong", "inputs"]
    parts = [table(header, [_mcu_row(key, found) for key, found in results.items()])]
    if beside := [row for key, found in results.items() if (row := _peer_row(key, found))]:
        header = ["network", "compiler", "M instructions", "CMSIS-NN", "ratio", "arena B", "TFLM", "ratio "]
        parts += [wrapped(_PEERS_ABOUT), table(header, beside)]
    made = sorted({found[part] for found in results.values() for part in ("toolchain", "emulator")})
    lines = [f"made with: {', '.join(made)}"]
    lines += dict.fromkeys(f"{found['core']}, {note}" for found in results.values() for note in found["notes"][1:])
    lines += [
        f"{name} is refused: {textwrap.shorten(reason, 100, placeholder=' ...')}" for name, reason in refused.items()
    ]
    return [*parts, "\n".join(item(f"- {line}") for line in lines)]


def _mcu_row(key: str, found: Mapping[str, Any]) -> list[str]:
    name, _, toolchain = key.split("/")
    cycles = "" if found["cycles"] is None else " to ".join(scaled(end, 1e6, 2) for end in found["cycles"])
    row = [name, found["core"].removeprefix("Cortex-"), toolchain, scaled(found["instructions"], 1e6, 3)]
    row += [scaled(found["instructions"], found["macs"], 2), cycles]
    sizes = ("arena_bytes", "arena_bound_bytes", "stack_bytes", "flash_bytes", "code_bytes", "weights_bytes")
    return [*row, *(f"{found[size]:,}" for size in sizes), str(found["mismatches"]), str(found["compared"])]


def _peer_row(key: str, found: Mapping[str, Any]) -> list[str] | None:
    name, target, toolchain = key.split("/")
    peer = PEERS.get(name)
    if peer is None or target != TARGETS[0] or found["macs"] != peer.macs:
        return None
    row = [name, toolchain, scaled(found["instructions"], 1e6, 3), scaled(peer.instructions, 1e6, 3)]
    row += [scaled(found["instructions"], peer.instructions, 2)]
    return [
        *row,
        f"{found['arena_bytes']:,}",
        f"{peer.arena_bytes:,}",
        scaled(found["arena_bytes"], peer.arena_bytes, 2),
    ]


def fits(document: Document) -> list[str]:
    limits = (("latency", "latency_ns", 1e6), ("RAM", "ram_bytes", 1024), ("flash", "size_bytes", 1024))
    header = ["seed", "verdict", "latency ms", "RAM KiB", "flash KiB", "rounds", "rehearsals"]
    header += ["dense fp32 %", "pruned fp32 %", "C library %", "parameters", "M MACs"]
    rows, lines = [], []
    for key, found in cells_of(document).items():
        low_ns, high_ns = found["latency_interval_ns"]
        needs = {**found, "latency_ns": high_ns}
        spent = [f"{scaled(needs[n], unit, 1)} of {scaled(found['budget'][n], unit, 1)}" for _, n, unit in limits]
        accuracy = [percent(found["dense"]), percent(found["fp32"]), percent(found["int8"]["c"])]
        sizes = [f"{found['parameters'][role]:,}" for role in ("dense", "pruned")]
        macs = [scaled(found["macs"][role], 1e6, 1) for role in ("dense", "pruned")]
        counts = [str(found["rounds"]), str(found["rehearsals"])]
        row = [key.removeprefix("fit/seed"), found["verdict"], *spent, *counts, *accuracy]
        rows.append([*row, " to ".join(sizes), " to ".join(macs)])
        blocked = ", ".join(f"{found['blocked'][n][0]} that on {limit}" for limit, n, _ in limits)
        lines.append(
            f"Seed {row[0]}: latency between {low_ns / 1e6:.0f} and {high_ns / 1e6:.0f} ms ({found['source']}); of "
            f"{found['blocked']['latency_ns'][1]} narrowed groups of channels, so many break a limit when one step "
            f"wider: {blocked}."
        )
    return [table(header, rows), wrapped(" ".join(lines))]


def foretold(document: Document) -> list[str]:
    header = ["network", "target", "files", "median %", "p90 %", "largest %", "rank", "within the interval %"]
    header += ["RAM: median %", "largest % ", "flash: median %", "largest %  "]
    rows = []
    for key, found in cells_of(document).items():
        name, target = key.split("/")
        row = [name, target, str(len(found["executed_ns"]))]
        row += [percent(found["latency"][what]) for what in ("median", "p90", "largest")]
        row += [f"{found['latency']['rank_correlation']:.3f}", scaled(found["latency"]["interval_inside"], 0.01, 0)]
        row += [percent(found[memory][what]) for memory in ("ram", "flash") for what in ("median", "largest")]
        rows.append(row)
    return [table(header, rows)]
