"""The folder of a library: it compiles without a warning, answers exactly, keeps to its arena, builds and boots."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgeprune import flashing
from edgeprune.backends.c.host import LibrarySession
from edgeprune.backends.c.library import read_report, write_library
from edgeprune.backends.c.lowering import Constant, Lowered
from edgeprune.backends.c.model import Model, Operator
from edgeprune.backends.c.schedule import Program, schedule
from edgeprune.errors import MissingExtraError, QualityError, UsageError
from edgeprune.flashers import Probe
from edgeprune.target import Memory, Target, load_target
from tests.backends.c import toys
from tests.backends.c.harness import WARNINGS

COMPILERS = [name for name in ("gcc", "clang") if shutil.which(name)]
ARM = "arm-none-eabi-gcc"
EMULATOR = "needs the tool unicorn with pyelftools"

pytestmark = pytest.mark.usefixtures("toy_lowerings")


def needs(tool: str) -> None:
    if not shutil.which(tool):
        pytest.skip(f"needs the tool {tool}")


def run(*command: str | Path, folder: Path) -> subprocess.CompletedProcess[str]:
    """The finished command. A make around the tests would hand its own flags on and print the folders it enters."""
    outside = {name: value for name, value in os.environ.items() if name not in ("MAKEFLAGS", "MAKELEVEL", "MFLAGS")}
    words = [str(part) for part in command]
    return subprocess.run(words, cwd=folder, env=outside, capture_output=True, text=True, check=False)


def written(folder: Path, net: Model | None = None, name: str = "net", target: Target | None = None) -> Path:
    net = net or toys.residual()
    vectors = [(toys.noise(net, seed), toys.answers(net, toys.noise(net, seed))) for seed in range(2)]
    return write_library(schedule(net), folder, name, vectors, target=target)


def several() -> Model:
    """Two inputs, three outputs, one of them an input itself; a split; names that C could not take."""
    operators = [toys.conv((0, 2)), toys.add(2, 1, 3), Operator("SPLIT", (3,), (4, 5)), toys.conv((4, 6), 300)]
    return toys.model([24, 32, 32, 32, 16, 16, 8], operators, [6, 0, 3], inputs=2)


@pytest.mark.parametrize("net", [toys.residual(), several()], ids=["residual", "several"])
def test_a_library_answers_what_the_model_does(net: Model, tmp_path: Path) -> None:
    session = LibrarySession(written(tmp_path, net))
    for seed in range(5):
        inputs = toys.noise(net, seed)
        for found, expected in zip(session.run_stored(inputs), toys.answers(net, inputs), strict=True):
            assert np.array_equal(found, expected)


@pytest.mark.parametrize("compiler", COMPILERS)
@pytest.mark.parametrize("net", [toys.residual(), several()], ids=["residual", "several"])
def test_every_file_compiles_without_a_warning(compiler: str, net: Model, tmp_path: Path) -> None:
    written(tmp_path, net)
    flags = [*WARNINGS, "-O2", "-Iinclude", "-Isrc", "-Itest", "-fsyntax-only"]
    done = run(compiler, *flags, *tmp_path.glob("src/*.c"), *tmp_path.glob("test/*.c"), folder=tmp_path)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("net", [toys.residual(), several()], ids=["residual", "several"])
def test_the_header_is_one_for_cpp_and_says_what_the_model_is(net: Model, tmp_path: Path) -> None:
    needs("g++")
    written(tmp_path, net)
    first = "INPUT" if len(net.inputs) == 1 else "INPUT0"
    program = f"""#include "net.h"
#include "net.h"
static_assert(NET_{first}_SIZE == {net.tensor(0).size} && NET_{first}_ZERO_POINT == 3, "ends");
static_assert(NET_{first}_SCALE == 0.5f && sizeof NET_MODEL_SHA256 == 65, "facts");
static const int shape[NET_{first}_RANK] = NET_{first}_SHAPE;
NET_STATIC_ARENA(memory);
int main() {{ return shape[0] != 1 || net_{first.lower()}(memory) == nullptr; }}
"""
    (tmp_path / "main.cpp").write_text(program)
    done = run(
        "g++", "-std=c++11", "-Wall", "-Wextra", "-Werror", "-pedantic", "-Iinclude", "main.cpp", folder=tmp_path
    )
    assert done.returncode == 0, done.stderr
    assert run("./a.out", folder=tmp_path).returncode == 0


def test_two_libraries_link_into_one_program(tmp_path: Path) -> None:
    needs("gcc")
    written(tmp_path / "a", toys.residual(), "first net")
    written(tmp_path / "b", several(), "second")
    (tmp_path / "main.c").write_text(
        '#include "first_net.h"\n#include "second.h"\nFIRST_NET_STATIC_ARENA(a);\nSECOND_STATIC_ARENA(b);\n'
        "int main(void)\n{\n    return first_net_run(NULL, NULL, a) + second_run(NULL, NULL, NULL, NULL, NULL, b);\n}\n"
    )
    parts = [*tmp_path.glob("?/src/*.c")]
    for at, part in enumerate(parts):
        flags = [f"-I{part.parent}", f"-I{part.parents[1] / 'include'}", "-c", part, "-o", f"{at}.o"]
        assert run("gcc", *flags, folder=tmp_path).returncode == 0
    objects = [f"{at}.o" for at in range(len(parts))]
    done = run("gcc", "-Ia/include", "-Ib/include", "main.c", *objects, folder=tmp_path)
    assert done.returncode == 0, done.stderr
    assert run("./a.out", folder=tmp_path).returncode == 0


def test_inputs_and_outputs_may_stay_in_the_arena_and_a_bad_arena_is_refused(tmp_path: Path) -> None:
    needs("gcc")
    written(tmp_path)
    (tmp_path / "main.c").write_text("""#include "net.h"
NET_STATIC_ARENA(memory);
int main(void)
{
    static int8_t given[NET_INPUT_SIZE], taken[NET_OUTPUT_SIZE];
    for (int i = 0; i < NET_INPUT_SIZE; i++) { given[i] = (int8_t)(i * 7); }
    if (net_run(given, taken, memory) != 0) { return 1; }
    for (int i = 0; i < NET_INPUT_SIZE; i++) { net_input(memory)[i] = given[i]; }
    if (net_run(NULL, NULL, memory) != 0) { return 2; }
    for (int i = 0; i < NET_OUTPUT_SIZE; i++) { if (net_output(memory)[i] != taken[i]) { return 3; } }
    for (int i = 0; i < NET_INPUT_SIZE; i++) { net_input(memory)[i] = given[i]; }
    if (net_run(net_input(memory), taken, memory) != 0) { return 4; }
    for (int i = 0; i < NET_OUTPUT_SIZE; i++) { if (net_output(memory)[i] != taken[i]) { return 5; } }
    return net_run(given, taken, NULL) == 1 && net_run(given, taken, memory + 4) == 1 ? 0 : 6;
}
""")
    assert run("gcc", "-Iinclude", "-Isrc", "main.c", *tmp_path.glob("src/*.c"), folder=tmp_path).returncode == 0
    assert run("./a.out", folder=tmp_path).returncode == 0


def test_make_builds_the_library_and_its_self_test(tmp_path: Path) -> None:
    needs("make")
    written(tmp_path)
    done = run("make", "test", "CFLAGS=-O1 " + " ".join(WARNINGS[1:]), folder=tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "PASS net: 2 vectors, every value as the reference gives it"
    assert (tmp_path / "build" / "libnet.a").is_file()


@pytest.mark.parametrize("core", ["cortex-m0plus", "cortex-m3", "cortex-m4", "cortex-m7", "cortex-m33", "cortex-m55"])
def test_make_builds_the_library_for_a_core(core: str, tmp_path: Path) -> None:
    needs(ARM)
    written(tmp_path)
    done = run("make", f"CORE={core}", "CFLAGS=-O1 -Werror -Wall -Wextra -Wconversion -pedantic", folder=tmp_path)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "build" / core / "libnet.a").is_file()


def test_cmake_builds_the_library_and_its_self_test(tmp_path: Path) -> None:
    needs("cmake")
    written(tmp_path, several())
    assert run("cmake", "-S", ".", "-B", "out", folder=tmp_path).returncode == 0
    done = run("cmake", "--build", "out", folder=tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    assert run("ctest", "--test-dir", "out", folder=tmp_path).returncode == 0


@pytest.mark.parametrize(
    ("spoilt", "message"),
    [
        (lambda lowered: {"call": lowered.call + " {out0}[0] ^= 1;"}, "FAIL net: 2 output values differ"),
        (
            lambda lowered: {"call": lowered.call + " {out0}[4000] = 0;"},
            "FAIL net: memory beside the arena was written",
        ),
    ],
)
def test_the_self_test_notices_wrong_values_and_wrong_places(spoilt: Any, message: str, tmp_path: Path) -> None:
    needs("make")
    net = toys.residual()
    whole = schedule(net)
    last = whole.calls[-1]
    room = whole.arena_bytes - whole.offset(last.writes[0])
    changes = {key: text.replace("4000", str(room)) for key, text in spoilt(last.lowered).items()}
    bad = replace(last, lowered=replace(last.lowered, **changes))
    program = replace(whole, calls=(*whole.calls[:-1], bad))
    vectors = [(toys.noise(net, seed), toys.answers(net, toys.noise(net, seed))) for seed in range(2)]
    report = write_library(program, tmp_path, "net", vectors)
    done = run("make", "test", "CFLAGS=-O0", folder=tmp_path)
    assert done.returncode != 0 and message in done.stdout
    if "beside" in message:
        with pytest.raises(QualityError, match="wrote memory beside its arena"):
            LibrarySession(report).run_stored(toys.noise(net))


def test_the_same_model_gives_the_same_bytes_and_the_report_lists_them(tmp_path: Path) -> None:
    target = load_target("nucleo-l4r5zi")
    first, second = written(tmp_path / "a", target=target), written(tmp_path / "b", target=target)
    report = read_report(first)
    there = {str(path.relative_to(first.parent)) for path in first.parent.rglob("*") if path.is_file()}
    assert there == {*report["files"], "net.c.json"}
    assert all((first.parent / file).read_bytes() == (second.parent / file).read_bytes() for file in there)
    assert report["arena_bytes"] == schedule(toys.residual()).arena_bytes
    assert [layer["symbol"] for layer in report["layers"]] == [f"net_layer_{at}" for at in range(6)]
    assert report["layers"][2]["title"] == "CONV_2D + ADD to net/t4_/: int8 1x1x256x1, int8 1x1x256x1 -> int8 1x1x256x1"
    assert report["inputs"][0] == {
        "label": "input", "name": "net/t0*/", "type": "int8", "shape": [1, 1, 48, 1],
        "scale": 0.5, "zero_point": 3, "offset": report["inputs"][0]["offset"],
    }  # fmt: skip


def test_equal_constants_lie_in_flash_once(tmp_path: Path) -> None:
    report = read_report(written(tmp_path))
    assert sum(layer["weights_bytes"] for layer in report["layers"]) == 6 * 4
    assert report["weights_bytes"] == 3 * 4, "the biases are 0, 1 and 7"
    text = (tmp_path / "src" / "net_weights.c").read_text()
    assert text.count("EP_WEIGHTS const") == 3


def test_weights_can_be_placed(tmp_path: Path) -> None:
    needs("gcc")
    written(tmp_path)
    place = '-DEP_WEIGHTS=__attribute__((section(".elsewhere")))'
    assert run("gcc", "-c", place, "-Iinclude", "src/net_weights.c", "-o", "w.o", folder=tmp_path).returncode == 0
    assert b".elsewhere" in (tmp_path / "w.o").read_bytes()


def test_every_number_format_of_a_constant_reads_back(tmp_path: Path) -> None:
    """Kernels see the very values, the extremes among them."""
    needs("gcc")
    net = toys.model([16, 16], [toys.conv((0, 1))], [1])
    values = [
        np.array([-128, 127], np.int8), np.array([0, 255], np.uint8), np.array([-32768, 32767], np.int16),
        np.array([65535], np.uint16), np.array([-(2**31), 2**31 - 1], np.int32), np.array([2**32 - 1], np.uint32),
        np.array([-(2**63), 2**63 - 1], np.int64), np.array([True, False]), np.array([1.0, 1e-30, 1 / 3], np.float32),
    ]  # fmt: skip
    constants = tuple(Constant(f"k{at}", array, 16) for at, array in enumerate(values))
    sums = [
        "{k0}[0] == INT8_MIN", "{k1}[1] == UINT8_MAX", "{k2}[0] == INT16_MIN", "{k3}[0] == UINT16_MAX",
        "{k4}[0] == INT32_MIN", "{k5}[0] == UINT32_MAX", "{k6}[0] == INT64_MIN", "{k7}[0] && !{k7}[1]",
        "{k8}[2] * 3.0f == 1.0f", "(uintptr_t){k0} % 16 == 0",
    ]  # fmt: skip
    whole = schedule(net)
    call = f"for (int i = 0; i < 16; i++) {{{{ {{out0}}[i] = (int8_t)({' && '.join(sums)} ? {{in0}}[i] : 99); }}}}"
    program = replace(whole, calls=(replace(whole.calls[0], lowered=Lowered(call, (), constants)),))
    given = toys.noise(net)
    report = write_library(program, tmp_path, "net", [(given, given)])
    flags = [*WARNINGS, "-Iinclude", "-fsyntax-only"]
    assert run("gcc", *flags, *tmp_path.glob("src/net_weights.c"), folder=tmp_path).returncode == 0
    assert np.array_equal(LibrarySession(report).run_stored(given)[0], given[0])


def test_a_library_that_cannot_test_itself_is_not_written(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="needs at least one vector"):
        write_library(schedule(toys.residual()), tmp_path, "net", [])
    assert not list(tmp_path.iterdir())


def board(ram_bytes: int, flash_bytes: int) -> Target:
    whole = load_target("nucleo-l4r5zi")
    memory = Memory(
        ram_bytes=ram_bytes, flash_bytes=flash_bytes, ram_address=0x2000_0000, flash_address=0x0800_0000
    )  # fmt: skip
    return whole.model_copy(update={"memory": memory})


@pytest.mark.parametrize(
    "name", ["nucleo-l4r5zi", "nucleo-h7a3zi", "nucleo-u575zi", "nrf5340dk", "disco-f746ng", "stm32h743"]
)
def test_the_example_project_of_a_board_links(name: str, tmp_path: Path) -> None:
    needs(ARM)
    target = load_target(name)
    written(tmp_path, target=target)
    done = run("make", "CFLAGS=-O1 -Werror -Wall -Wextra", folder=tmp_path / "port" / name)
    assert done.returncode == 0, done.stderr
    symbols = run("arm-none-eabi-nm", tmp_path / "port" / name / "build" / f"net-{name}.elf", folder=tmp_path).stdout
    assert all(f" t net_layer_{at}\n" in symbols for at in range(6))
    assert (
        f"{target.memory.flash_address:08x} r vectors" in symbols or f"{target.memory.flash_address:08x} R" in symbols
    )


@pytest.mark.parametrize("name", ["nucleo-l4r5zi", "disco-f746ng", "nrf5340dk", "nucleo-g0b1re"])
def test_the_example_project_boots_and_passes_its_self_test(name: str, tmp_path: Path) -> None:
    needs(ARM)
    unicorn, arm = pytest.importorskip("unicorn", reason=EMULATOR), pytest.importorskip("unicorn.arm_const")
    elffile = pytest.importorskip("elftools.elf.elffile", reason=EMULATOR)
    target = load_target(name)
    written(tmp_path, several(), target=target)
    assert run("make", folder=tmp_path / "port" / name).returncode == 0
    with (tmp_path / "port" / name / "build" / f"net-{name}.elf").open("rb") as file:
        elf = elffile.ELFFile(file)
        loaded = [(part["p_paddr"], part.data()) for part in elf.iter_segments() if part["p_filesz"]]
        symbols = {symbol.name: symbol["st_value"] for symbol in elf.get_section_by_name(".symtab").iter_symbols()}
    models = {"Cortex-M4": arm.UC_CPU_ARM_CORTEX_M4, "Cortex-M7": arm.UC_CPU_ARM_CORTEX_M7}
    models["Cortex-M0+"] = arm.UC_CPU_ARM_CORTEX_M0
    core = unicorn.Uc(unicorn.UC_ARCH_ARM, unicorn.UC_MODE_THUMB | unicorn.UC_MODE_MCLASS)
    core.ctl_set_cpu_model(models.get(target.cpu.core, arm.UC_CPU_ARM_CORTEX_M33))
    memory = target.memory
    core.mem_map(memory.flash_address, memory.flash_bytes)
    core.mem_map(memory.ram_address, memory.ram_bytes)
    core.mem_map(0xE000_0000, 0x10_0000)  # the core's own registers
    for address, data in loaded:
        core.mem_write(address, data)
    stack, entry = (int.from_bytes(core.mem_read(memory.flash_address + at, 4), "little") for at in (0, 4))
    core.reg_write(arm.UC_ARM_REG_SP, stack)
    core.emu_start(entry, symbols["stop"] & ~1, count=3_000_000)
    assert int.from_bytes(core.mem_read(symbols["selftest_wrong"], 4), "little") == 0


@pytest.mark.parametrize(("ram", "flash", "region"), [(4096 + 1500, 2**20, "RAM"), (2**20, 1024, "FLASH")])
def test_what_does_not_fit_a_board_is_refused_by_the_linker_with_the_bytes(
    ram: int, flash: int, region: str, tmp_path: Path
) -> None:
    needs(ARM)
    written(tmp_path, target=board(ram, flash))
    done = run("make", "CFLAGS=-O1", folder=tmp_path / "port" / "nucleo-l4r5zi")
    assert done.returncode != 0
    (line,) = [line for line in done.stderr.splitlines() if "overflowed by" in line]
    assert f"region `{region}' overflowed by" in line


def test_the_linker_says_exactly_how_much_is_missing(tmp_path: Path) -> None:
    needs(ARM)
    for name, ram in (("fits", 65536), ("over", 4096)):
        written(tmp_path / name, target=board(ram, 2**20))
    project = Path("port") / "nucleo-l4r5zi"
    assert run("make", folder=tmp_path / "fits" / project).returncode == 0
    symbols = run("arm-none-eabi-nm", *(tmp_path / "fits").rglob("*.elf"), folder=tmp_path).stdout
    (top,) = [int(line.split()[0], 16) for line in symbols.splitlines() if line.endswith(" _stack_top")]
    used = top - 0x2000_0000
    done = run("make", folder=tmp_path / "over" / project)
    assert f"`RAM' overflowed by {used - 4096} bytes" in done.stderr


def test_a_board_project_is_written_only_where_the_target_says_enough(tmp_path: Path) -> None:
    written(tmp_path / "esp", target=load_target("esp32-s3"))
    written(tmp_path / "pi", target=load_target("rpi4"))
    unknown = board(1, 1).model_copy(update={"memory": Memory(ram_address=0, flash_address=0)})
    written(tmp_path / "unknown", target=unknown)
    assert not list(tmp_path.rglob("port"))


@pytest.mark.parametrize("text", ["", "[]", "{}", "not json", json.dumps({"schema": "edgeprune.c-library/9"})])
def test_a_damaged_report_is_refused(text: str, tmp_path: Path) -> None:
    (tmp_path / "net.c.json").write_text(text)
    with pytest.raises(UsageError, match="cannot load it"):
        read_report(tmp_path / "net.c.json")


def test_programs_are_values(tmp_path: Path) -> None:
    program: Program = schedule(toys.residual())
    with pytest.raises(AttributeError):
        program.arena_bytes = 0  # type: ignore[misc]


def test_the_example_of_a_board_is_an_image_for_its_flash(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    needs(ARM)
    needs("make")
    pytest.importorskip("elftools", reason="needs the extra mcu")
    board = load_target("nucleo-l4r5zi")
    library = written(tmp_path, target=board).parent
    firmware = flashing.self_test_firmware(library, board)
    assert flashing.region_of(board, firmware, Probe("openocd", "board/st_nucleo_l4.cfg")).holds(firmware)
    assert firmware.address == board.memory.flash_address
    stack = int.from_bytes(firmware.data[:4], "little")
    assert firmware.wrong is not None and firmware.cycles is not None
    for place in (stack - 1, firmware.wrong, firmware.cycles):
        assert 0x2000_0000 <= place < 0x2000_0000 + 655_360
    assert flashing.RUNNING.to_bytes(4, "little", signed=True) in firmware.data  # .data as it lies in flash
    assert not (library / "port" / board.name / "build").exists()
    with pytest.raises(UsageError, match="no example for nucleo-h7a3zi"):
        flashing.self_test_firmware(library, load_target("nucleo-h7a3zi"))
    (library / "port" / board.name / "main.c").write_text("int main(void) { return nothing; }", encoding="utf-8")
    with pytest.raises(QualityError, match="does not compile"):
        flashing.self_test_firmware(library, board)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(MissingExtraError, match="the program make is not installed"):
        flashing.self_test_firmware(library, board)
