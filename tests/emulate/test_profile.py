import shutil
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from edgeprune.cost import Source
from edgeprune.emulate import qemu
from edgeprune.emulate.cores import core_of
from edgeprune.emulate.cortex_m import Call
from edgeprune.emulate.profile import EmulatedProfile, TargetFacts, profile_library, target_facts
from edgeprune.emulate.toolchain import MemoryMap, Sources, firmware
from edgeprune.errors import BudgetError, DeviceError, MissingExtraError, QualityError, UnsupportedError, UsageError
from edgeprune.target import load_target
from tests.emulate import programs
from tests.emulate.programs import LOOP, LOOP_INSTRUCTIONS, MEMORY, RUN, toolchain

M4 = TargetFacts(core_of("Cortex-M4"), MEMORY, 100_000_000)
MCUS = ("nucleo-g0b1re", "nucleo-l4r5zi", "disco-f746ng", "nucleo-u575zi")


@pytest.fixture(autouse=True)
def _installed() -> None:
    programs.need_emulator()


def profiled(folder: Path, facts: TargetFacts, compiler: str = "gcc", inputs: int = 1) -> EmulatedProfile:
    given = [programs.net_input(seed) for seed in range(1, inputs + 1)]
    sources = programs.write_net(folder)
    tools = toolchain(compiler)
    return profile_library(
        sources, [], "net", programs.NET_ARENA_BYTES, given, programs.NET_OUTPUT_BYTES, facts, toolchain=tools
    )


def one(folder: Path, text: str, facts: TargetFacts, inputs: tuple[bytes, ...] = (bytes(16),)) -> EmulatedProfile:
    (folder / "one.c").write_text(text)
    return profile_library([folder / "one.c"], [], "net", 64, inputs, 16, facts, toolchain=toolchain("gcc"))


@pytest.mark.parametrize(
    ("name", "compiler"), [*((name, "gcc") for name in MCUS), ("nucleo-g0b1re", "zig"), ("nucleo-u575zi", "zig")]
)
def test_a_net_is_right_on_every_core(tmp_path: Path, name: str, compiler: str) -> None:
    facts = target_facts(load_target(name))
    profile = profiled(tmp_path, facts, compiler, inputs=2)
    assert profile.outputs == tuple(programs.expected(programs.net_input(seed)) for seed in (1, 2))
    assert profile.classes is not None and profile.classes.total == max(profile.instructions)
    products = profile.classes.macs + profile.classes.multiplies
    assert (
        programs.NET_MACS / 2 <= products <= programs.NET_MACS * 2
    )  # the compiler may join two, or multiply for an index
    assert [layer.index for layer in profile.layers] == [None, 0, 1]
    assert sum(layer.instructions for layer in profile.layers) == max(profile.instructions)
    assert profile.layers[1].instructions > 20 * profile.layers[2].instructions > 0
    assert sum(profile.layers[1].functions.values()) == profile.layers[1].instructions
    assert 864 <= profile.weights_bytes <= 900 and profile.arena_bytes == 1728
    assert profile.ram_bytes >= 1728 + 1152 + 12 and 16 <= profile.stack_bytes < 300
    assert profile.cycles and profile.latency_s and facts.clock_hz
    assert profile.latency_s[1] == profile.cycles[1] / facts.clock_hz
    assert profile.cycles[0] < profile.cycles[1] and "not run on a board" in profile.notes[0]


def test_a_profile_is_a_cost_that_was_emulated(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "unicorn", raising=False)  # other tests of this process may have loaded it
    profile = profiled(tmp_path, M4)
    cost = profile.cost
    assert cost.source is Source.EMULATED and cost.latency_interval_s == profile.latency_s
    assert profile.latency_s and cost.latency_upper_s == profile.latency_s[1]
    assert cost.ram_bytes == profile.ram_bytes + profile.stack_bytes and cost.size_bytes == profile.flash_bytes
    assert profile.toolchain.startswith(("arm-none-eabi-gcc", "zig")) and profile.toolchain.endswith("-O3")
    assert profile.emulator.startswith("unicorn 2.") and "unicorn" not in sys.modules
    assert profile == profiled(tmp_path, M4)
    assert profiled(tmp_path, replace(M4, clock_hz=None)).latency_s is None


def test_a_stack_without_room_is_refused(tmp_path: Path) -> None:
    small = replace(M4, memory=replace(MEMORY, ram_bytes=3 * 1024))
    with pytest.raises(
        BudgetError, match=r"a stack of 1\d* bytes overflow the 3072 bytes of the chip by \d+|does not fit"
    ):
        profiled(tmp_path, replace(small, memory=replace(MEMORY, ram_bytes=2 * 1024)))
    text = RUN + "{ volatile int8_t held[3000]; held[in[0]] = 1; (void)arena; out[0] = held[0]; return 0; }\n"
    with pytest.raises(BudgetError, match=r"a stack of 30\d\d bytes overflow the 3072 bytes of the chip by \d+"):
        one(tmp_path, text, small)


def test_a_status_that_is_not_0_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(QualityError, match="net_run returned 7 instead of 0") as caught:
        one(tmp_path, RUN + "{ (void)out; (void)arena; return in[0]; }\n", M4, (bytes(16), b"\x07" * 16))
    assert caught.value.where == "input 1"


def test_inputs_are_asked_for(tmp_path: Path) -> None:
    for inputs in ((), (b"ab", b"abc")):
        with pytest.raises(UsageError, match="needs inputs, all of the same size"):
            one(tmp_path, LOOP, M4, inputs)


def test_a_target_says_what_it_lacks(tmp_path: Path) -> None:
    target = load_target("nucleo-l4r5zi")
    facts = target_facts(target)
    assert facts.memory == MemoryMap(0x0800_0000, 2 << 20, 0x2000_0000, 640 << 10) and facts.clock_hz == 120_000_000
    assert facts.flash and facts.flash.per_byte == 5 / 8
    assert target_facts(load_target("stm32h743")).memory.ram_bytes == 512 << 10
    bare = target.model_copy(update={"memory": target.memory.model_copy(update={"flash_address": None})})
    with pytest.raises(UsageError, match="target nucleo-l4r5zi does not say its flash_address"):
        target_facts(bare)
    with pytest.raises(UnsupportedError, match="no library can be compiled for Cortex-A72"):
        target_facts(load_target("rpi4"))


needs_qemu = pytest.mark.skipif(not shutil.which("qemu-system-arm"), reason="needs qemu-system-arm")


@needs_qemu
def test_a_net_is_right_and_counted_on_a_helium_core(tmp_path: Path) -> None:
    facts = target_facts(load_target("mps3-an547"))
    profile = profiled(tmp_path, facts, inputs=2)
    assert profile.outputs == tuple(programs.expected(programs.net_input(seed)) for seed in (1, 2))
    assert min(profile.instructions) > 50_000 and profile == profiled(tmp_path, facts, inputs=2)
    assert (
        profile.classes is None and profile.layers == () and profile.cycles is None and profile.cost.latency_s is None
    )
    assert profile.emulator.startswith("qemu-system-arm ") and profile.notes[1].startswith("cycles: none")


@needs_qemu
def test_qemu_counts_a_loop_to_the_instruction(tmp_path: Path) -> None:
    """The same loop, whose instructions are counted by hand; Unicorn's count of it is tested on the other cores."""
    facts = target_facts(load_target("mps3-an547"))
    assert one(tmp_path, LOOP, facts).instructions == (LOOP_INSTRUCTIONS,)
    longer = LOOP.replace("1000 times", "").replace("lsls r3, r3, #3", "lsls r3, r3, #14")
    assert one(tmp_path, longer, facts).instructions == (2 + 125 * 2**14 * 10 + 2,)  # the fine clock wraps twice


@needs_qemu
def test_both_emulators_count_the_same_on_an_m4(tmp_path: Path) -> None:
    given = (programs.net_input(1), programs.net_input(2))
    around = firmware(len(given[0]), programs.NET_OUTPUT_BYTES, programs.NET_ARENA_BYTES)
    library = Sources((*programs.write_net(tmp_path), *around.files), (), around.defines)
    wanted = Call("net_run", given, programs.NET_OUTPUT_BYTES, programs.NET_ARENA_BYTES, {})
    tools, board = toolchain("gcc"), qemu.CORTEX_M4
    _, answers = qemu.call(tools, core_of("Cortex-M4"), library, wanted, "-O3", board)
    profile = profiled(tmp_path, replace(M4, memory=board.memory), inputs=2)
    assert tuple(answer.instructions for answer in answers) == profile.instructions
    assert tuple(answer.output for answer in answers) == profile.outputs
    assert all(0 <= answer.stack_bytes - profile.stack_bytes <= 64 for answer in answers)


@needs_qemu
def test_faults_on_a_helium_core_are_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    facts = target_facts(load_target("mps3-an547"))
    with pytest.raises(QualityError, match="net_run ends in a fault on mps3-an547"):
        one(tmp_path, RUN + '{ (void)in; (void)out; (void)arena; __asm__("udf 1"); return 0; }\n', facts)
    with pytest.raises(QualityError, match="net_run returned 3 instead of 0"):
        one(tmp_path, RUN + "{ (void)in; (void)out; (void)arena; return 3; }\n", facts)
    monkeypatch.setattr(qemu, "_SHIFTS", (99, 6))
    with pytest.raises(DeviceError, match="qemu-system-arm failed with status"):
        one(tmp_path, LOOP, facts)


@needs_qemu
def test_a_helium_core_that_does_not_return_is_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    facts = target_facts(load_target("mps3-an547"))
    text = RUN + "{ (void)in; (void)arena; for (;;) { *(volatile int8_t *)out = 1; } }\n"
    own = qemu.Call
    monkeypatch.setattr("edgeprune.emulate.profile.Call", lambda *given: own(*given, limit_s=1))
    with pytest.raises(QualityError, match="net_run has not returned after 1 s of CPU time"):
        one(tmp_path, text, facts)


@needs_qemu
def test_an_emulator_that_does_not_answer_is_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(qemu, "_PATIENCE", 0)
    with pytest.raises(DeviceError, match="qemu-system-arm did not answer within 0 s"):
        one(tmp_path, LOOP, target_facts(load_target("mps3-an547")))


def test_a_count_beyond_the_slow_clock_is_refused() -> None:
    head = (0, 5, 2, 0, 1)
    with pytest.raises(QualityError, match="net_run executes more than 524288000 instructions"):
        qemu._combined((head, b""), (head, b""), "net_run", 31.25)


def test_without_qemu_the_install_line_is_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    qemu.version.cache_clear()
    monkeypatch.setattr(qemu.shutil, "which", lambda _: None)
    with pytest.raises(MissingExtraError, match="a Cortex-M55 needs qemu-system-arm"):
        qemu.version()
