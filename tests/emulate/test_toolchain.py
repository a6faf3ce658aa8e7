import subprocess
from pathlib import Path

import pytest

from edgeprune.emulate import toolchain as toolchains
from edgeprune.emulate.cores import CORES, core_of
from edgeprune.emulate.toolchain import MemoryMap, Sources, build, find_toolchain, firmware
from edgeprune.errors import BudgetError, MissingExtraError, QualityError, UnsupportedError, UsageError
from tests.emulate.programs import MEMORY, RUN, linked, toolchain

NAMES = ("gcc", "zig")
SIMPLE = RUN + "{ (void)arena; out[0] = in[0]; return 0; }\n"


@pytest.fixture
def no_cache() -> object:
    find_toolchain.cache_clear()
    yield
    find_toolchain.cache_clear()


@pytest.mark.parametrize(
    ("core", "name"),
    [*((core, "gcc") for core in CORES), ("Cortex-M3", "zig"), ("Cortex-M7", "zig"), ("Cortex-M55", "zig")],
)
def test_every_core_gets_code(tmp_path: Path, core: str, name: str) -> None:
    image = linked(tmp_path, SIMPLE, core, name)
    assert 4 <= image.code_bytes <= 32 and image.flash_bytes == image.code_bytes
    assert image.ram_bytes == 16 + 16 + 1024 and image.code[0] == MEMORY.flash_address


@pytest.mark.parametrize("name", NAMES)
def test_what_a_core_has_no_instruction_for_is_linked(tmp_path: Path, name: str) -> None:
    text = RUN + "{ int64_t a = *(const int64_t *)in; *(int64_t *)out = a / in[8] + a * a; return 0; }\n"
    assert linked(tmp_path, text, "Cortex-M0+", name).code_bytes > 100


@pytest.mark.parametrize("name", NAMES)
def test_a_version_is_recorded(name: str) -> None:
    found = toolchain(name)
    assert found.version.startswith(("arm-none-eabi-gcc 1", "zig cc 0."))


@pytest.mark.parametrize("name", NAMES)
def test_what_does_not_fit_says_by_how_many_bytes(tmp_path: Path, name: str) -> None:
    text = "#include <stdint.h>\nconst int8_t weights[6000] = {1};\n" + SIMPLE.replace("in[0]", "weights[in[0]]")
    small = MemoryMap(0x0800_0000, 4096, 0x2000_0000, 1024)
    fits = linked(tmp_path, text, "Cortex-M4", name)
    with pytest.raises(BudgetError, match="the library does not fit: it overflows") as caught:
        linked(tmp_path, text, "Cortex-M4", name, small)
    assert f"RAM by {fits.ram_bytes - 1024} bytes (has 1.0 KiB)" in str(caught.value)
    assert f"flash by {fits.flash_bytes - 4096} bytes (has 4.0 KiB)" in str(caught.value)


@pytest.mark.parametrize("name", NAMES)
def test_what_does_not_compile_is_named(tmp_path: Path, name: str) -> None:
    with pytest.raises(QualityError, match="does not compile for Cortex-M3: .*undeclared"):
        linked(tmp_path, RUN + "{ return nowhere; }\n", "Cortex-M3", name)
    with pytest.raises(QualityError, match="undefined"):
        linked(tmp_path, "int missing(void);\n" + RUN + "{ return missing(); }\n", "Cortex-M3", name)


def test_defines_and_include_folders_reach_the_compiler(tmp_path: Path) -> None:
    (tmp_path / "include").mkdir()
    (tmp_path / "include" / "own.h").write_text("#define FROM_HEADER 1\n")
    file = tmp_path / "program.c"
    file.write_text('#include "own.h"\n#if FROM_HEADER + GIVEN != 3 || !defined BARE\n#error no\n#endif\n' + SIMPLE)
    sources = Sources((file,), (tmp_path / "include",), {"GIVEN": "2", "BARE": ""})
    path = build(toolchain("gcc"), core_of("Cortex-M4"), sources, "net_run", MEMORY, tmp_path / "a.elf")
    assert path.read_bytes()[:4] == b"\x7fELF"


def test_a_missing_source_is_named(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no such source file: gone.c"):
        build(toolchain("gcc"), core_of("Cortex-M4"), Sources((Path("gone.c"),)), "net_run", MEMORY, tmp_path / "a.elf")


def test_without_a_compiler_the_install_line_is_shown(monkeypatch: pytest.MonkeyPatch, no_cache: object) -> None:
    monkeypatch.setattr(toolchains.shutil, "which", lambda _: None)
    assert find_toolchain().name == "zig"
    monkeypatch.setattr(toolchains.importlib.util, "find_spec", lambda _: None)
    find_toolchain.cache_clear()
    with pytest.raises(MissingExtraError, match="a compiler for Cortex-M is not installed") as caught:
        find_toolchain()
    assert 'pip install "edgeprune[mcu]"' in caught.value.hint
    with pytest.raises(MissingExtraError, match="arm-none-eabi-gcc is not installed"):
        find_toolchain("gcc")


def test_gcc_is_preferred(no_cache: object) -> None:
    assert toolchain("gcc") == find_toolchain()


def test_a_core_that_is_not_known_names_near_ones() -> None:
    with pytest.raises(UnsupportedError, match="no library can be compiled for Cortex-M5") as caught:
        core_of("Cortex-M5")
    assert "Cortex-M55" in caught.value.hint


def test_the_functions_compilers_call_are_right(tmp_path: Path) -> None:
    """Every alignment and overlap, beside the host's own functions."""
    (file,) = firmware(1, 1, 1).files
    library = tmp_path / "own.so"
    renamed = [f"-D{name}=own_{name}" for name in ("memcpy", "memmove", "memset", "memcmp")]
    sizes = ["-DINPUT_BYTES=1", "-DOUTPUT_BYTES=1", "-DARENA_BYTES=1"]
    flags = ["-std=gnu99", "-O2", "-Wall", "-Wextra", "-Werror", "-Wconversion", "-shared", "-fPIC", "-fno-builtin"]
    subprocess.run(["cc", *flags, *renamed, *sizes, str(file), "-o", str(library)], check=True)
    import ctypes

    own = ctypes.CDLL(str(library))
    start = bytes(range(100, 164))
    for size in (0, 1, 3, 4, 15, 16, 17, 36):
        for to in (0, 1, 4, 9):
            for source in (0, 2, 5, 8):
                held, apart = ctypes.create_string_buffer(start, 64), ctypes.create_string_buffer(start, 64)
                base = ctypes.addressof(held)
                own.own_memmove(ctypes.c_void_p(base + to), ctypes.c_void_p(base + source), ctypes.c_size_t(size))
                want = bytearray(start)
                want[to : to + size] = start[source : source + size]
                assert held.raw == bytes(want), (size, to, source)
                own.own_memset(ctypes.c_void_p(base + to), -3, ctypes.c_size_t(size))
                want[to : to + size] = b"\xfd" * size
                assert held.raw == bytes(want)
                pair = ctypes.c_void_p(base + to), ctypes.c_void_p(ctypes.addressof(apart) + to)
                assert (own.own_memcmp(*pair, ctypes.c_size_t(size)) > 0) == (size > 0)
                assert own.own_memcmp(pair[0], pair[0], ctypes.c_size_t(size)) == 0
                if size:
                    assert own.own_memcmp(pair[1], pair[0], ctypes.c_size_t(size)) < 0
