import builtins
from pathlib import Path

import pytest

from edgeprune.emulate.cores import core_of
from edgeprune.emulate.instructions import Classes, check_defined
from edgeprune.errors import MissingExtraError, QualityError
from tests.emulate.programs import RUN, counted, linked, ran


def program(assembly: str) -> str:
    lines = "".join(f'"{line.strip()}\\n"\n' for line in assembly.strip().splitlines())
    head = RUN.replace("int net_run", "__attribute__((naked)) int net_run")
    return f'{head}{{ __asm__(".syntax unified\\n" {lines}); }}\n'


def classes_of(folder: Path, assembly: str, core: str = "Cortex-M4") -> Classes:
    image = linked(folder, program(assembly), core)
    (found,) = counted(image, ran(image, core)).values()
    return found


def test_every_class_is_told(tmp_path: Path) -> None:
    assembly = """
        push {r4, r5, r6, lr}
        ldrd r4, r5, [r0]
        ldr r6, [r0]
        ldrsb r6, [r0, #1]
        strd r4, r5, [r1]
        strb r6, [r1]
        mul r2, r4, r5
        mla r2, r4, r5, r2
        smlad r2, r4, r5, r2
        smull r4, r5, r2, r6
        smmulr r4, r5, r2
        mov r6, #3
        udiv r2, r2, r6
        sxtb16 r2, r2
        pkhbt r2, r2, r4
        vmov s0, r2
        bl 1f
        cbnz r6, 2f
        nop
        2: cmp r6, #4
        beq 2b
        mov r0, #0
        pop {r4, r5, r6, pc}
        1: bx lr
    """
    found = classes_of(tmp_path, assembly)
    assert found == Classes(
        loads=4, stores=3, macs=2, multiplies=1, long_multiplies=2, divides=1, simd=2, alu=4,
        branches_taken=3, branches_not_taken=1,
    )  # fmt: skip
    assert found.total == 23


def test_what_a_condition_skips_counts(tmp_path: Path) -> None:
    """One of three in an IT block is skipped, and the return that is not taken is a branch that is not taken."""
    assembly = """
        movs r3, #1
        cmp r3, #1
        itte eq
        addeq r3, r3, #1
        addeq r3, r3, #1
        addne r3, r3, #1
        it ne
        bxne lr
        movs r0, #0
        bx lr
    """
    found = classes_of(tmp_path, assembly)
    assert (found.total, found.alu, found.branches_taken, found.branches_not_taken) == (10, 8, 1, 1)


def test_overlapping_blocks_share_their_last_branch(tmp_path: Path) -> None:
    """The loop's head is jumped to and fallen into, so that two blocks end at one branch."""
    assembly = """
        movs r3, #4
        movs r2, #0
        1: adds r2, r2, #1
        subs r3, r3, #1
        bne 1b
        movs r0, #0
        bx lr
    """
    found = classes_of(tmp_path, assembly, "Cortex-M0")
    assert (found.total, found.alu, found.branches_taken, found.branches_not_taken) == (16, 11, 4, 1)


@pytest.mark.parametrize(
    ("core", "assembly"), [("Cortex-M3", "smlad r2, r0, r0, r0"), ("Cortex-M0+", "cbz r0, 1f\nnop\n1: nop")]
)
def test_what_the_emulator_lets_pass_is_refused(tmp_path: Path, core: str, assembly: str) -> None:
    text = program(f"{assembly}\nmovs r0, #0\nbx lr")
    image = linked(tmp_path, text, "Cortex-M4")
    (blocks,) = ran(image, core).layers.values()
    check_defined(image, core_of("Cortex-M4"), blocks)
    with pytest.raises(
        QualityError, match=f"net_run executes {assembly[:3]}.*, which a {core.replace('+', '.')} does not"
    ):
        check_defined(image, core_of(core), blocks)


def test_without_the_disassembler_the_install_line_is_shown(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    image = linked(tmp_path, program("movs r0, #0\nbx lr"), "Cortex-M4")
    run = ran(image, "Cortex-M4")
    known = builtins.__import__

    def without(name: str, *rest: object) -> object:
        if name in ("capstone", "elftools.elf.elffile"):
            raise ImportError(name)
        return known(name, *rest)  # type: ignore[arg-type]

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(MissingExtraError, match="counting instructions by class needs the extra 'mcu'"):
        counted(image, run)
    with pytest.raises(MissingExtraError, match="reading an ELF file needs the extra 'mcu'"):
        linked(tmp_path, program("bx lr"), "Cortex-M4")
