"""The plug-in that counts, without QEMU: its classes against a disassembler, its caches against an oracle."""

from __future__ import annotations

import ctypes
import json
import re
import shutil
import subprocess
from collections import OrderedDict
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgeprune.boards.plugin import CLASSES, SOURCE, read_tallies
from edgeprune.errors import QualityError
from edgeprune.runner.marked import MARK

HARNESS = Path(__file__).with_name("harness.c")
GETPRIORITY = 141
# Assembled by hand from the encodings in the architecture's manual.
WORDS = {
    0x91000400: "integer",  # add x0, x0, #1
    0x8B010000: "integer",  # add x0, x0, x1
    0x9B017C00: "integer",  # mul x0, x0, x1
    0x14000000: "branch",  # b .
    0xD65F03C0: "branch",  # ret
    0xB4000040: "branch",  # cbz x0, .+8
    0xD503201F: "system",  # nop
    0xF9400000: "load",  # ldr x0, [x0]
    0x39800000: "load",  # ldrsb x0, [x0]
    0x58000000: "load",  # ldr x0, .
    0xA9400400: "load",  # ldp x0, x1, [x0]
    0xC85FFC00: "load",  # ldaxr x0, [x0]
    0xF8210000: "load",  # ldadd x1, x0, [x0]
    0xC8A17C00: "load",  # cas x1, x0, [x0]
    0xF9000000: "store",  # str x0, [x0]
    0xA9000400: "store",  # stp x0, x1, [x0]
    0x889FFC00: "store",  # stlr w0, [x0]
    0x3DC00000: "vector_load",  # ldr q0, [x0]
    0xAD400400: "vector_load",  # ldp q0, q1, [x0]
    0x4C407000: "vector_load",  # ld1 {v0.16b}, [x0]
    0x1C000000: "vector_load",  # ldr s0, .
    0x3D800000: "vector_store",  # str q0, [x0]
    0xAD000400: "vector_store",  # stp q0, q1, [x0]
    0x4C007000: "vector_store",  # st1 {v0.16b}, [x0]
    0x4E218400: "vector",  # add v0.16b, v0.16b, v1.16b
    0x4E20CC00: "multiply_add",  # fmla v0.4s, v0.4s, v0.4s
    0x4F811000: "multiply_add",  # fmla v0.4s, v0.4s, v1.s[0]
    0x1F000000: "multiply_add",  # fmadd s0, s0, s0, s0
    0x4E829420: "dot",  # sdot v0.4s, v1.16b, v2.16b
    0x4F82E020: "dot",  # sdot v0.4s, v1.16b, v2.4b[0]
    0x6E829420: "dot",  # udot v0.4s, v1.16b, v2.16b
    0x0E228020: "long_multiply",  # smlal v0.8h, v1.8b, v2.8b
    0x4E62C020: "long_multiply",  # smull2 v0.4s, v1.8h, v2.8h
    0x0F422020: "long_multiply",  # smlal v0.4s, v1.4h, v2.h[0]
    0x4E82A420: "matrix",  # smmla v0.4s, v1.16b, v2.16b
    0x04200000: "sve",  # add z0.b, z0.b, z0.b
}
_MULTIPLY_ADD = {"fmla", "fmls", "fmadd", "fmsub", "fnmadd", "fnmsub"}
_LONG = {f"{sign}{kind}{half}" for sign in "su" for kind in ("mlal", "mlsl", "mull") for half in ("", "2")}


@pytest.fixture(scope="module")
def plugin(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """The plug-in around which the test plays QEMU; a fresh one for each module."""
    if shutil.which("cc") is None:
        pytest.skip("needs the tool cc")
    path = tmp_path_factory.mktemp("count") / "count.so"
    flags = ["-shared", "-fPIC", "-O1", "-DPLUGIN_API=1", f'-DCOUNT_C="{SOURCE}"', "-Wall", "-Wextra", "-Werror"]
    subprocess.run(["cc", *flags, "-Wno-unused-parameter", "-o", path, HARNESS], check=True)
    return ctypes.CDLL(str(path))


def test_words_assembled_by_hand(plugin: Any) -> None:
    assert {word: CLASSES[plugin.test_class(word)] for word in WORDS} == WORDS


def test_random_words_are_what_a_disassembler_says(plugin: Any) -> None:
    capstone = pytest.importorskip("capstone", reason="needs the extra mcu")
    disassembler = capstone.Cs(capstone.CS_ARCH_ARM64, capstone.CS_MODE_ARM)
    random = np.random.default_rng(0)
    words = random.integers(0, 1 << 32, 60_000, dtype=np.uint64)
    vectors = random.integers(0, 1 << 24, 60_000, dtype=np.uint64) | random.choice(
        [0x0E, 0x4E, 0x2E, 0x6E, 0x0F, 0x4F, 0x2F, 0x6F], 60_000
    ).astype(np.uint64) << np.uint64(24)
    seen, wrong = set(), {}
    for word in map(int, np.concatenate([words, vectors])):
        for _, _, mnemonic, operands in disassembler.disasm_lite(word.to_bytes(4, "little"), 0):
            expected = _expected(mnemonic, operands, word)
            if expected is not None:
                seen.add(expected)
                if CLASSES[plugin.test_class(word)] != expected:
                    wrong[f"{word:08x} {mnemonic} {operands}"] = CLASSES[plugin.test_class(word)]
    assert not wrong, dict(list(wrong.items())[:30])
    assert seen >= {"load", "store", "vector_load", "vector_store", "multiply_add", "dot", "long_multiply", "vector"}


def _expected(mnemonic: str, operands: str, word: int) -> str | None:
    """The class by an instruction's name; None for what the name does not decide."""
    vector = re.match(r"\{? ?[vqdshb]\d", operands) is not None
    if operands.startswith(("z", "p", "{ z", "{z")) or word >> 25 & 15 == 2:
        return None
    if mnemonic.startswith(("ld", "st")):
        both = mnemonic.startswith(
            ("ldadd", "ldclr", "ldeor", "ldset", "ldsmax", "ldsmin", "ldumax", "ldumin", "stadd")
        )
        both |= mnemonic.startswith(("stclr", "steor", "stset", "stsmax", "stsmin", "stumax", "stumin"))
        if both:
            return "load"
        if mnemonic.startswith(("stxr", "stlxr", "stxp", "stlxp")):
            return "store"
        if mnemonic in ("stg", "st2g", "stzg", "stz2g", "stgm", "stzgm", "ldg", "ldgm", "stgp", "ldraa", "ldrab"):
            return None  # of memory tags and signed addresses, which no core here has
        return ("vector_" if vector else "") + ("load" if mnemonic.startswith("ld") else "store")
    if mnemonic in _MULTIPLY_ADD and vector:
        if re.search(r"\.\d?h|^h\d", operands):
            return None  # of half precision, which no runtime here computes in
        return "multiply_add"
    if mnemonic in ("sdot", "udot"):
        return "dot"
    if mnemonic in _LONG:
        return "long_multiply" if vector else "integer"
    if mnemonic in ("b", "bl", "br", "blr", "ret", "cbz", "cbnz", "tbz", "tbnz"):
        return "branch"
    if vector and mnemonic in ("add", "sub", "mul", "mla", "tbl", "zip1", "uzp2", "sqrdmulh", "sadalp", "fmul", "fadd"):
        return "vector"
    if not vector and mnemonic in ("add", "sub", "madd", "and", "orr", "ubfm", "lsl", "csel", "movz", "adrp"):
        return "integer"
    return None


class Oracle:
    """Sets of lines, each forgetting the one that was used longest ago."""

    def __init__(self, size: int, ways: int) -> None:
        self.sets, self.ways, self.misses = size // 64 // ways, ways, 0
        self.lines: list[OrderedDict[int, None]] = [OrderedDict() for _ in range(self.sets)]

    def touch(self, line: int) -> bool:
        held = self.lines[line % self.sets]
        if line in held:
            held.move_to_end(line)
            return True
        self.misses += 1
        held[line] = None
        if len(held) > self.ways:
            held.popitem(last=False)
        return False


def test_a_whole_run_is_counted(plugin: Any, tmp_path: Path) -> None:
    """Blocks, accesses over line ends, marks; the caches as an oracle of the same sizes has them."""
    out = tmp_path / "counts"
    sizes = (1024, 2), (8192, 4)
    words = [0x91000400, 0x4E20CC00, 0x3DC00000, 0x14000000]
    options = [f"out={out}", *(f"l{level}={size}:{ways}" for level, (size, ways) in enumerate(sizes, 1))]
    assert plugin.test_install(b"aarch64", 1, *(option.encode() for option in options)) == 0
    block = plugin.test_translate((ctypes.c_uint32 * 4)(*words), 4)
    first, second = (Oracle(*size) for size in sizes)
    random, expected = np.random.default_rng(1), []
    plugin.test_access(ctypes.c_uint64(64), 3, 0)  # before the first mark: of no interest
    plugin.test_execute(block)
    for mark in range(6):
        plugin.test_call(GETPRIORITY, MARK, mark)
        plugin.test_call(GETPRIORITY, 0, 0)  # somebody else's
        if mark % 2 == 0 and mark:
            before = first.misses, second.misses
            for address in random.integers(0, 20_000, 4000):
                plugin.test_access(ctypes.c_uint64(int(address)), 4, int(address) % 2)
                for line in range(int(address) // 64 + 1, (int(address) + 15) // 64 + 2):
                    if not first.touch(line):
                        second.touch(line)
            for _ in range(mark):
                plugin.test_execute(block)
            expected.append((first.misses - before[0], second.misses - before[1]))
    tallies = read_tallies(out.read_text())
    assert [(tally.l1_misses, tally.l2_misses) for tally in tallies] == expected
    assert [tally.instructions for tally in tallies] == [8, 16]
    assert [tally.classes["multiply_add"] for tally in tallies] == [2, 4]
    assert {name for name, count in tallies[0].classes.items() if count} == {
        "integer",
        "multiply_add",
        "vector_load",
        "branch",
    }
    assert all(tally.read_bytes + tally.written_bytes == 4000 * 16 for tally in tallies)


@pytest.mark.parametrize(
    ("target", "api", "sizes"),
    [
        (b"arm", 1, (b"l1=1024:2", b"l2=8192:4")),
        (b"aarch64", 4, (b"l1=1024:2", b"l2=8192:4")),
        (b"aarch64", 1, (b"l1=1000:2", b"l2=8192:4")),
        (b"aarch64", 1, (b"l1=1024:32", b"l2=8192:4")),
        (b"aarch64", 1, (b"l3=1024:2", b"l2=8192:4")),
    ],
)
def test_what_it_cannot_count_it_refuses(
    plugin: Any, tmp_path: Path, target: bytes, api: int, sizes: tuple[bytes, bytes]
) -> None:
    out = tmp_path / "said"
    assert plugin.test_install(target, api, f"out={out}".encode(), *sizes) == 1
    assert json.loads(out.read_text()) == {"api": api}


@pytest.mark.parametrize("api", [0, 1, 2, 3, 6, 7])
def test_it_compiles_for_every_interface(api: int, tmp_path: Path) -> None:
    if shutil.which("cc") is None:
        pytest.skip("needs the tool cc")
    flags = ["-shared", "-fPIC", f"-DPLUGIN_API={api}", "-Wall", "-Wextra", "-Werror", "-Wno-unused-parameter"]
    done = subprocess.run(["cc", *flags, "-o", tmp_path / "count.so", SOURCE], capture_output=True, check=False)
    assert done.returncode == 0, done.stderr.decode()


@pytest.mark.parametrize("text", ["", '{"api":1}\n', '{"api":1}\n{"mark":0}\n', '{"api":1}\nnothing\n'])
def test_what_is_no_run_is_refused(text: str) -> None:
    with pytest.raises(QualityError, match="the emulator"):
        read_tallies(text)
