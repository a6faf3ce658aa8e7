from pathlib import Path

import pytest

from edgeprune.emulate.elf import read_image
from edgeprune.errors import QualityError
from tests.emulate.programs import RUN, linked

TEXT = (
    "#include <stdint.h>\n#include <stddef.h>\n"
    "static const int8_t net_weights[1000] = {1, 2, 3};\n"
    '__attribute__((section(".weights"))) const int8_t apart[500] = {4};\n'
    "int32_t started[25] = {7};\nint32_t empty[50];\n"
    "__attribute__((noinline)) int net_helper(int x) { return started[x] + empty[x]; }\n"
    f"{RUN}{{ out[0] = (int8_t)(net_weights[in[0]] + apart[in[1]]); return net_helper(in[2]) - 7; }}\n"
)


@pytest.mark.parametrize("name", ["gcc", "zig"])
def test_bytes_are_told_apart(tmp_path: Path, name: str) -> None:
    image = linked(tmp_path, TEXT, "Cortex-M4", name)
    assert 1500 <= image.weights_bytes <= 1504
    assert 100 <= image.other_bytes <= 108  # initial values, padding
    assert image.flash_bytes == image.code_bytes + image.weights_bytes + image.other_bytes
    assert 100 + 200 + 16 + 16 + 1024 <= image.ram_bytes <= 100 + 200 + 16 + 16 + 1024 + 16
    assert image.symbol("empty").size == 200 and image.symbol("empty").address >= 0x2000_0000
    helper = image.symbol("net_helper")
    assert image.function_at(helper.address | 1) == image.function_at(helper.address + 2) == "net_helper"
    assert image.function_at(0x2000_0000) == image.function_at(0) == ""
    assert image.bytes_at(image.symbol("apart").address, 2) == b"\x04\x00"


def test_a_symbol_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(QualityError, match="the library has no net_nowhere"):
        linked(tmp_path, TEXT, "Cortex-M4").symbol("net_nowhere")


def test_a_file_without_code_is_refused(tmp_path: Path) -> None:
    from elftools.elf.elffile import ELFFile

    linked(tmp_path, TEXT + "\n", "Cortex-M4")
    path = tmp_path / "gcc.elf"
    data = bytearray(path.read_bytes())
    with path.open("rb") as stream:
        elf = ELFFile(stream)
        at, step, count = elf["e_shoff"], elf["e_shentsize"], elf["e_shnum"]
    for i in range(count):
        data[at + i * step + 8] &= ~0x4 & 0xFF
    path.write_bytes(data)
    with pytest.raises(QualityError, match="the library has no code"):
        read_image(path)
