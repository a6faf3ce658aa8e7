"""What an ELF file takes of a chip: bytes in flash by kind, bytes in RAM, and its symbols."""

from __future__ import annotations

from bisect import bisect_right
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from edgeprune.errors import QualityError, missing_extra

_EXECUTABLE, _ALLOCATED, _WRITABLE = 0x4, 0x2, 0x1  # section flags of the ELF specification


@dataclass(frozen=True)
class Symbol:
    """A function or an array; `address` is without the Thumb bit."""

    name: str
    address: int
    size: int
    is_function: bool


@dataclass(frozen=True)
class Segment:
    """Bytes to be loaded at `address`, and `size` bytes there altogether; what is not in `data` starts as zero.

    `stored_at` is where they lie before start-up code has copied them: in flash.
    """

    address: int
    data: bytes
    size: int
    stored_at: int


@dataclass(frozen=True)
class Image:
    """A linked library.

    Attributes:
        code: First address of the instructions, and the one past the last.
        code_bytes: Instructions and the constants between them.
        weights_bytes: Constant arrays.
        other_bytes: The rest of what is stored in flash: initial values of variables, padding.
        ram_bytes: Variables, with and without initial values.
        symbols: In order of their addresses.
    """

    segments: tuple[Segment, ...]
    code: tuple[int, int]
    code_bytes: int
    weights_bytes: int
    other_bytes: int
    ram_bytes: int
    symbols: tuple[Symbol, ...]

    @property
    def flash_bytes(self) -> int:
        """All that is stored in flash."""
        return self.code_bytes + self.weights_bytes + self.other_bytes

    def symbol(self, name: str) -> Symbol:
        """The symbol of a name.

        Raises:
            QualityError: The file has none.
        """
        for symbol in self.symbols:
            if symbol.name == name:
                return symbol
        raise QualityError(f"the library has no {name}", hint="is it static, or not reached from the entry?")

    @cached_property
    def _functions(self) -> tuple[list[int], list[Symbol]]:
        functions = [symbol for symbol in self.symbols if symbol.is_function]
        return [symbol.address for symbol in functions], functions

    def function_at(self, address: int) -> str:
        """The name of the function that an address lies in; empty when it lies in none."""
        starts, functions = self._functions
        position = bisect_right(starts, address & ~1) - 1
        if position < 0 or not self.code[0] <= address < self.code[1]:
            return ""
        return functions[position].name

    def bytes_at(self, address: int, size: int) -> bytes:
        """Stored bytes; they must lie in one segment."""
        (found,) = (s for s in self.segments if s.address <= address and address + size <= s.address + len(s.data))
        return found.data[address - found.address : address - found.address + size]


def read_image(path: Path) -> Image:
    """The image in an ELF file.

    Raises:
        MissingExtraError: pyelftools is not installed.
        QualityError: It has no code.
    """
    try:
        from elftools.elf.elffile import ELFFile
    except ImportError as error:
        raise missing_extra("mcu", "reading an ELF file") from error
    with path.open("rb") as stream:
        elf = ELFFile(stream)
        segments = [s for s in elf.iter_segments() if s["p_type"] == "PT_LOAD" and s["p_memsz"]]
        loads = tuple(Segment(s["p_vaddr"], s.data(), s["p_memsz"], s["p_paddr"]) for s in segments)
        sections = [s for s in elf.iter_sections() if s["sh_flags"] & _ALLOCATED and s["sh_size"]]
        code = [s for s in sections if s["sh_flags"] & _EXECUTABLE]
        symbols = _symbols(elf)
    if not code:
        raise QualityError("the library has no code", where=str(path))
    code_bytes = sum(s["sh_size"] for s in code)
    constant = [s for s in sections if not s["sh_flags"] & (_EXECUTABLE | _WRITABLE)]
    weights_bytes = sum(s["sh_size"] for s in constant)
    return Image(
        segments=loads,
        code=(min(s["sh_addr"] for s in code), max(s["sh_addr"] + s["sh_size"] for s in code)),
        code_bytes=code_bytes,
        weights_bytes=weights_bytes,
        other_bytes=sum(len(load.data) for load in loads) - code_bytes - weights_bytes,
        ram_bytes=sum(s["sh_size"] for s in sections if s["sh_flags"] & _WRITABLE),
        symbols=symbols,
    )


def _symbols(elf: Any) -> tuple[Symbol, ...]:
    table = elf.get_section_by_name(".symtab")
    found = []
    for entry in table.iter_symbols() if table else ():
        kind = entry["st_info"]["type"]
        if kind in ("STT_FUNC", "STT_OBJECT") and entry.name:
            is_function = kind == "STT_FUNC"
            found.append(Symbol(entry.name, entry["st_value"] & ~1 if is_function else entry["st_value"],
                                entry["st_size"], is_function))  # fmt: skip
    return tuple(sorted(found, key=lambda symbol: (symbol.address, symbol.name)))
