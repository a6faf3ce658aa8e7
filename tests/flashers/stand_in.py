"""Stands in for the programs that write flash: their command lines and exit statuses, with a folder as the chip.

The folder that CHIP names holds `flash.bin`, from FLASH on, `ram.bin`, from RAM on, and `calls`, one letter for every
call. What the chip does after a reset depends on what is in its flash, as it does on a real one: `behaviour` reads it.
FAULT is `kind@n`: what goes wrong in the nth call. The programs' own options are taken and nothing else is, so that a
wrong command line fails.
"""

from __future__ import annotations

import argparse
import os
import re
import struct
import sys
import time
from pathlib import Path

FLASH, RAM = 0x0800_0000, 0x2000_0000
FLASH_BYTES, RAM_BYTES, SECTOR = 0x4000, 0x100, 0x1000
MAGIC = b"EPFW"
HEAD = struct.Struct("<4sIiIII")  # magic, boots, wrong, cycles, checksum of the rest, its bytes


def firmware(rest: bytes = b"", *, boots: int = 1, wrong: int = 0, cycles: int = 4321) -> bytes:
    """An image that behaves so, as long as none of its bytes is damaged."""
    return HEAD.pack(MAGIC, boots, wrong, cycles, sum(rest), len(rest)) + rest


class Chip:
    def __init__(self, folder: Path) -> None:
        self.flash, self.ram = folder / "flash.bin", folder / "ram.bin"
        calls = folder / "calls"
        calls.write_bytes((calls.read_bytes() if calls.exists() else b"") + b".")
        kind, _, at = os.environ.get("FAULT", "").partition("@")
        self.fault = kind if at and calls.stat().st_size == int(at) else ""
        if self.fault == "dies":
            raise SystemExit("error: no probe was found")
        if self.fault == "hangs":
            time.sleep(600)

    def read(self, address: int, size: int, to: str) -> None:
        file, base = (self.flash, FLASH) if address < RAM else (self.ram, RAM)
        data = file.read_bytes()[address - base :][:size]
        Path(to).write_bytes(data[: size // 2] if self.fault == "half" else data)

    def write(self, address: int, data: bytes) -> None:
        if self.fault == "lies":
            return
        flash, start = bytearray(self.flash.read_bytes()), address - FLASH
        first, last = start // SECTOR * SECTOR, -(-(start + len(data)) // SECTOR) * SECTOR
        flash[first:last] = b"\xff" * (last - first)
        if self.fault == "half":
            data = data[: len(data) // 2]
        if self.fault == "flips":
            data = bytes([data[0] ^ 1]) + data[1:]
        flash[start : start + len(data)] = data
        self.flash.write_bytes(flash[:FLASH_BYTES])
        if self.fault == "half":
            raise SystemExit("error: the connection was lost while writing")

    def poke(self, address: int, value: int) -> None:
        ram = bytearray(self.ram.read_bytes())
        ram[address - RAM : address - RAM + 4] = struct.pack("<I", value & 0xFFFF_FFFF)
        self.ram.write_bytes(ram)

    def reset(self) -> None:
        """The first image in flash runs, if it is whole; RAM is as it was, but for what the image writes."""
        flash = self.flash.read_bytes()
        magic, boots, wrong, cycles, checksum, size = HEAD.unpack_from(flash)
        if magic == MAGIC and boots and sum(flash[HEAD.size : HEAD.size + size]) == checksum:
            self.poke(RAM, wrong)
            self.poke(RAM + 4, cycles)


def pyocd(words: list[str]) -> None:
    parser = argparse.ArgumentParser("pyocd")
    parser.add_argument("verb", choices=["commander"])
    for option in ("-t", "-u", "-j", "-M"):
        parser.add_argument(option)
    parser.add_argument("-W", action="store_true", required=True)
    parser.add_argument("--no-config", action="store_true", required=True)
    parser.add_argument("-c", action="append", required=True)
    options = parser.parse_args(words)
    chip = Chip(Path(os.environ["CHIP"]))
    for command in options.c:
        match command.split():
            case ["savemem", address, size, to]:
                chip.read(int(address, 0), int(size, 0), to)
            case ["load", file, address] if options.M == "halt":
                chip.write(int(address, 0), Path(file).read_bytes())
            case ["write32", address, value]:
                chip.poke(int(address, 0), int(value, 0))
            case ["reset"]:
                chip.reset()
            case _:
                print(f"Error: invalid command {command!r}")
                raise SystemExit(1)


def openocd(words: list[str]) -> None:
    parser = argparse.ArgumentParser("openocd")
    parser.add_argument("-f", required=True)
    parser.add_argument("-c", action="append", required=True)
    commands = parser.parse_args(words).c
    chip = Chip(Path(os.environ["CHIP"]))
    assert commands.index("init") < len(commands) - 1 and commands[-1] == "shutdown"
    for command in commands:
        match command.split():
            case ["gdb_port" | "tcl_port" | "telnet_port", "disabled"] | ["init" | "shutdown" | "halt"]:
                pass
            case ["adapter", "serial", _] | ["reset", "init"]:
                pass
            case ["reset", "run"]:
                chip.reset()
            case ["dump_image", to, address, size]:
                chip.read(int(address, 0), int(size, 0), to)
            case ["flash", "write_image", "erase", file, address, "bin"]:
                chip.write(int(address, 0), Path(file).read_bytes())
            case ["mww", address, value]:
                chip.poke(int(address, 0), int(value, 0))
            case _:
                raise SystemExit(f'invalid command name "{command}"')


def probe_rs(words: list[str]) -> None:
    parser = argparse.ArgumentParser("probe-rs")
    verbs = parser.add_subparsers(dest="verb", required=True)
    for verb in ("read", "write", "download", "reset"):
        sub = verbs.add_parser(verb)
        sub.add_argument("--chip", required=True)
        sub.add_argument("--probe", type=re.compile(r"[0-9a-f]{4}:[0-9a-f]{4}(:.+)?").fullmatch)
        sub.add_argument("--non-interactive", action="store_true", required=True)
        if verb in ("read", "write"):
            sub.add_argument("width", choices=["b8", "b32"])
            sub.add_argument("address", type=lambda text: int(text, 0))
        if verb == "read":
            sub.add_argument("words", type=int)
            sub.add_argument("--output", required=True)
            sub.add_argument("--format", choices=["binary"], required=True)
        if verb == "write":
            sub.add_argument("values", nargs="+", type=lambda text: int(text, 0))
        if verb == "download":
            sub.add_argument("--binary-format", choices=["bin"], required=True)
            sub.add_argument("--base-address", type=lambda text: int(text, 0), required=True)
            sub.add_argument("--disable-progressbars", action="store_true")
            sub.add_argument("path")
    options = parser.parse_args(words)
    chip = Chip(Path(os.environ["CHIP"]))
    if options.verb == "read":
        chip.read(options.address, options.words * (int(options.width[1:]) // 8), options.output)
    elif options.verb == "write":
        chip.poke(options.address, *options.values)
    elif options.verb == "download":
        chip.write(options.base_address, Path(options.path).read_bytes())
    else:
        chip.reset()


def esptool(words: list[str]) -> None:
    parser = argparse.ArgumentParser("esptool")
    parser.add_argument("--port", required=True)
    verbs = parser.add_subparsers(dest="verb", required=True)
    for verb, arguments in (("read-flash", ("address", "size", "to")), ("write-flash", ("address", "file"))):
        sub = verbs.add_parser(verb)
        sub.add_argument("--no-progress", action="store_true")
        for argument in arguments:
            sub.add_argument(argument, type=str if argument in ("to", "file") else lambda text: int(text, 0))
    verbs.add_parser("run")
    options = parser.parse_args(words)
    chip = Chip(Path(os.environ["CHIP"]))
    if options.verb == "read-flash":
        chip.read(FLASH + options.address, options.size, options.to)
    elif options.verb == "write-flash":
        chip.write(FLASH + options.address, Path(options.file).read_bytes())
    else:
        chip.reset()


if __name__ == "__main__":
    {"pyocd": pyocd, "openocd": openocd, "probe-rs": probe_rs, "esptool": esptool}[sys.argv[1]](sys.argv[2:])
