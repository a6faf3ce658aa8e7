"""What executed blocks consist of: instructions by class, and by what their cycles depend on.

Counted is what the core issues. Conditional instructions in an IT block count whether or not their condition holds, and
so does the IT itself; a core spends a cycle on them too (on an IT at most).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, fields
from enum import StrEnum
from functools import cache
from typing import NamedTuple

from edgeprune.emulate.cores import Core
from edgeprune.emulate.cortex_m import BlockCount
from edgeprune.emulate.elf import Image
from edgeprune.errors import QualityError, missing_extra


class Kind(StrEnum):
    """The class of an instruction."""

    LOAD = "loads"
    STORE = "stores"
    MAC = "macs"  # multiply and accumulate in 32 bits, one or two products
    MULTIPLY = "multiplies"  # without an addition, result of 32 bits
    LONG_MULTIPLY = "long_multiplies"  # products of 64 bits, or their upper half
    DIVIDE = "divides"
    SIMD = "simd"  # unpacking, packing, saturating, parallel
    BRANCH = "branches"
    ALU = "alu"  # everything else


_KINDS = {
    Kind.LOAD: "ldr ldrb ldrh ldrsb ldrsh ldrt ldrd ldm ldmdb pop vldr vldmia vldmdb vpop ldrex ldrexb ldrexh tbb tbh",
    Kind.STORE: "str strb strh strt strd stm stmdb push vstr vstmia vstmdb vpush strex strexb strexh",
    Kind.MAC: "mla mls smlabb smlabt smlatb smlatt smlawb smlawt smlad smladx smlsd smlsdx",
    Kind.MULTIPLY: "mul smulbb smulbt smultb smultt smulwb smulwt smuad smuadx smusd smusdx",
    Kind.LONG_MULTIPLY: "smull umull smlal umlal umaal smlalbb smlalbt smlaltb smlaltt smlald smlaldx smlsld smlsldx "
    "smmul smmulr smmla smmlar smmls smmlsr",
    Kind.DIVIDE: "sdiv udiv",
    Kind.SIMD: "sxtb sxth uxtb uxth sxtb16 uxtb16 sxtab sxtah uxtab uxtah sxtab16 uxtab16 pkhbt pkhtb sel ssat usat "
    "ssat16 usat16 qadd qsub qdadd qdsub usad8 usada8 sadd8 sadd16 ssub8 ssub16 uadd8 uadd16 usub8 usub16 qadd8 qadd16 "
    "qsub8 qsub16 uqadd8 uqadd16 uqsub8 uqsub16 shadd8 shadd16 shsub8 shsub16 uhadd8 uhadd16 uhsub8 uhsub16 sasx ssax "
    "qasx qsax shasx shsax uasx usax uhasx uhsax uqasx uqsax",
    Kind.BRANCH: "b bl bx blx cbz cbnz bxns blxns",
}
_KIND_OF = {name: kind for kind, names in _KINDS.items() for name in names.split()}


# What the DSP extension adds. Unicorn executes some of it on every core, and CBZ and IT on an M0.
_WITHOUT_DSP = "sxtb sxth uxtb uxth ssat usat mla mls mul smull umull smlal umlal".split()
_DSP_KINDS = (Kind.SIMD, Kind.MAC, Kind.MULTIPLY, Kind.LONG_MULTIPLY)
_DSP = frozenset(name for name, kind in _KIND_OF.items() if kind in _DSP_KINDS) - frozenset(_WITHOUT_DSP)
_NOT_ARMV6M = _DSP | {"cbz", "cbnz", "it", "sdiv", "udiv", "mla", "mls", "smull", "umull", "smlal", "umlal"}


class Instruction(NamedTuple):
    """What classes and cycles are decided by.

    Attributes:
        registers: Loaded or stored; 1 for everything else.
        follows: A single load right after another, which pipelines with it.
        jumps: It may change the program counter.
        calls: It is a BL, BLX or a table branch, which take longer than others on some cores.
        name: Its mnemonic without condition.
    """

    kind: Kind
    registers: int = 1
    follows: bool = False
    jumps: bool = False
    calls: bool = False
    name: str = ""


class Timed(NamedTuple):
    """An instruction, and whether it branched."""

    instruction: Instruction
    taken: bool


Census = Counter[Timed]


@dataclass(frozen=True)
class Classes:
    """Executed instructions by class; they add up to `total`.

    Attributes:
        branches_taken: Branches that went elsewhere. Loads into the program counter, such as returns, are loads.
    """

    loads: int = 0
    stores: int = 0
    macs: int = 0
    multiplies: int = 0
    long_multiplies: int = 0
    divides: int = 0
    simd: int = 0
    alu: int = 0
    branches_taken: int = 0
    branches_not_taken: int = 0

    @property
    def total(self) -> int:
        """All instructions."""
        return sum(getattr(self, field.name) for field in fields(self))


def classes(census: Mapping[Timed, int]) -> Classes:
    """A census by class."""
    found: Counter[str] = Counter()
    for (instruction, taken), count in census.items():
        name = str(instruction.kind)
        if instruction.kind is Kind.BRANCH:
            name = "branches_taken" if taken else "branches_not_taken"
        found[name] += count
    return Classes(**found)


def check_defined(image: Image, core: Core, blocks: Iterable[BlockCount]) -> None:
    """Refuses executed instructions that the core does not have; the emulator lets some of them pass.

    Raises:
        QualityError: There are such; names the function and the instruction.
    """
    if core.dsp:
        return
    refused = _NOT_ARMV6M if core.unicorn == "M0" else _DSP
    decode = _decoder(image)
    for block in blocks:
        for instruction in decode(block.address, block.size):
            if instruction.name in refused:
                function = image.function_at(block.address)
                raise QualityError(f"{function} executes {instruction.name}, which a {core.name} does not have")


def census_by_function(image: Image, blocks: Iterable[BlockCount]) -> dict[str, Census]:
    """What was executed in each function, by its name."""
    found: dict[str, Census] = {}
    ends: Counter[int] = Counter()  # executions of the jump that ends at an address
    entered: Counter[int] = Counter()  # entries at an address from the instruction before it
    last: dict[int, tuple[str, Instruction]] = {}
    decode = _decoder(image)
    for block in blocks:
        function = image.function_at(block.address)
        census = found.setdefault(function, Counter())
        *inner, final = decode(block.address, block.size)
        for instruction in inner:
            census[Timed(instruction, False)] += block.executed
        entered[block.address] += block.sequential
        if not final.jumps:
            census[Timed(final, False)] += block.executed
            continue
        end = block.address + block.size
        ends[end] += block.executed
        last[end] = (function, final)
    for end, executed in ends.items():
        function, final = last[end]
        through = min(entered[end], executed)
        found[function][Timed(final, True)] += executed - through
        found[function][Timed(final, False)] += through
    return {name: Counter({key: n for key, n in census.items() if n}) for name, census in found.items()}


def _decoder(image: Image) -> Callable[[int, int], tuple[Instruction, ...]]:
    """A function from (address, size) to the instructions there."""
    try:
        import capstone
    except ImportError as error:
        raise missing_extra("mcu", "counting instructions by class") from error
    engine = capstone.Cs(capstone.CS_ARCH_ARM, capstone.CS_MODE_THUMB | capstone.CS_MODE_MCLASS | capstone.CS_MODE_V8)

    @cache
    def decode(address: int, size: int) -> tuple[Instruction, ...]:
        code = image.bytes_at(address, size)
        found: list[Instruction] = []
        at = 0
        while at < size:
            entry = next(engine.disasm(code[at:], address + at, count=1), None)
            if entry is None:  # an instruction newer than the disassembler: its length is in its first bits
                found.append(Instruction(Kind.ALU))
                at += 4 if code[at + 1] >> 3 in (0b11101, 0b11110, 0b11111) else 2
                continue
            found.append(_read(engine.insn_name(entry.id), entry.op_str, found[-1] if found else None))
            at += entry.size
        return tuple(found)

    return decode


def _read(name: str, operands: str, before: Instruction | None) -> Instruction:
    kind = _KIND_OF.get(name, Kind.ALU)
    destination = operands.split(",")[0]
    registers = 1
    if kind in (Kind.LOAD, Kind.STORE):
        registers = _registers(operands) if "{" in operands else 2 if name in ("ldrd", "strd") else 1
    to_pc = "pc" in operands.partition("{")[2] if "{" in operands else destination == "pc" and name != "cmp"
    jumps = kind is Kind.BRANCH or name in ("tbb", "tbh") or (to_pc and kind is not Kind.STORE)
    single = kind is Kind.LOAD and registers == 1
    follows = single and before is not None and before.kind is Kind.LOAD and before.registers == 1
    return Instruction(kind, registers, follows, jumps, name in ("bl", "blx", "tbb", "tbh"), name)


def _registers(operands: str) -> int:
    """Registers in a list such as `{r4, r5, lr}` or `{s16-s19}`."""
    count = 0
    for part in operands.partition("{")[2].rstrip("}").split(","):
        first, _, last = part.strip().partition("-")
        count += int(last[1:]) - int(first[1:]) + 1 if last else 1
    return count
