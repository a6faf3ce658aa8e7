"""Calls a function on an emulated Cortex-M and counts its blocks. Stands alone: run as a process of its own.

    python unicorn_child.py < request.json > answer.json

Unicorn's engine is under the GPL-2. It is loaded here and nowhere else, so that it is never part of the process that
asks. The request and the answer are described at `emulate`. Exit status 7: Unicorn is not installed.

A block is a stretch of instructions that the engine translates and runs as one; it ends at a branch or a page. As a
Python function, what it calls at the start of each takes a microsecond, and a model runs millions; where the host is an
x86-64, it is 47 bytes of machine code that count in an array (`_MACHINE_CODE`).
"""

from __future__ import annotations

import base64
import ctypes
import json
import mmap
import platform
import resource
import sys
from typing import Any

MISSING = 7
_PAGE = 4096
_RETURN = 0x1FFF_F000  # where the called function returns to; execution ends there
_BUFFERS = 0x3A00_0000  # buffers lie apart, each at the end of its pages, so that what runs over it faults
_APART = 0x0080_0000
_PAINT = 0xA5

# Called as counter(engine, address, size, state) at the start of a block, state being `_State`: of the slot of 8 bytes
# that belongs to the address, count one up in the first table, in the second one if the block before ended here, and
# note the size in the third. When the bytes left run out, end by uc_emu_stop(engine).
_MACHINE_CODE = bytes.fromhex(
    "4c8b01"  # mov  r8, [rcx]           biased: the table less four times the first address
    "4d8d04b0"  # lea  r8, [r8+rsi*4]      instructions lie at even addresses
    "4c8b4908"  # mov  r9, [rcx+8]         bytes of a table
    "49ff00"  # inc  qword ptr [r8]
    "89d2"  # mov  edx, edx            the size has 32 bits
    "4b891448"  # mov  [r8+r9*2], rdx
    "483b7110"  # cmp  rsi, [rcx+16]
    "7504"  # jne  over
    "4bff0408"  # inc  qword ptr [r8+r9]
    "4801d6"  # over: add rsi, rdx
    "48897110"  # mov  [rcx+16], rsi       where the block ends
    "48295118"  # sub  [rcx+24], rdx
    "7801"  # js   stop
    "c3"  # ret
    "ff6120"  # stop: jmp [rcx+32]       the engine is still the first argument
)


class _State(ctypes.Structure):
    _fields_ = (
        ("biased", ctypes.c_uint64),
        ("table_bytes", ctypes.c_uint64),
        ("end", ctypes.c_uint64),
        ("bytes_left", ctypes.c_int64),
        ("stop", ctypes.c_void_p),
    )


class Counter:
    """Counts blocks between two addresses: executions, entries from the block before, size."""

    def __init__(self, uc: Any, first: int, last: int, native: bool) -> None:
        from unicorn import UC_HOOK_BLOCK
        from unicorn.unicorn_py3.unicorn import uclib

        self.first = first
        # One list a table: executions, entries from the block before, sizes
        slots = (last - first) // 2 + 1
        self.tables = (ctypes.c_int64 * slots * 3)()
        self.executed, self.sequential, self.sizes = self.tables
        self.state = _State(
            ctypes.addressof(self.tables) - 4 * first & (1 << 64) - 1,
            ctypes.sizeof(self.executed),
            0,
            0,
            ctypes.cast(uclib.uc_emu_stop, ctypes.c_void_p),
        )
        if not native:
            uc.hook_add(UC_HOOK_BLOCK, self._count, begin=first, end=last - 1)
            return
        self.page = mmap.mmap(-1, _PAGE, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC)
        self.page.write(_MACHINE_CODE)
        self.entry = ctypes.addressof(ctypes.c_char.from_buffer(self.page))
        hook = ctypes.c_size_t()
        bounds = ctypes.c_uint64(first), ctypes.c_uint64(last - 1)
        entry, state = ctypes.c_void_p(self.entry), ctypes.byref(self.state)
        status = uclib.uc_hook_add(uc._uch, ctypes.byref(hook), UC_HOOK_BLOCK, entry, state, *bounds)
        if status:
            raise RuntimeError(f"uc_hook_add: {status}")

    def _count(self, uc: Any, address: int, size: int, _: Any) -> None:
        slot = (address - self.first) >> 1
        self.executed[slot] += 1
        self.sequential[slot] += address == self.state.end
        self.sizes[slot] = size
        self.state.end = address + size
        self.state.bytes_left -= size
        if self.state.bytes_left < 0:
            uc.emu_stop()

    def start(self, limit_bytes: int) -> None:
        ctypes.memset(self.tables, 0, ctypes.sizeof(self.tables))
        self.state.end, self.state.bytes_left = 0, limit_bytes

    def taken(self) -> list[list[int]]:
        """[address, size, executions, entries from the block before] of what ran since the last call."""
        slots = [slot for slot, count in enumerate(memoryview(self.executed).cast("B").cast("q")) if count]
        rows = [[self.first + 2 * s, self.sizes[s], self.executed[s], self.sequential[s]] for s in slots]
        ctypes.memset(self.tables, 0, 2 * ctypes.sizeof(self.executed))
        return rows


def native_counting() -> bool:
    """Whether the counter runs as machine code on this host."""
    if platform.machine() not in ("x86_64", "AMD64") or sys.platform not in ("linux", "darwin"):
        return False
    try:
        mmap.mmap(-1, _PAGE, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC).close()
    except OSError:  # a hardened system
        return False
    return True


class Machine:
    """An emulated core with a program in its memory."""

    def __init__(self, request: dict[str, Any]) -> None:
        import unicorn
        from unicorn import arm_const

        self.request, self.registers = request, arm_const
        self.error, self.undefined = unicorn.UcError, unicorn.UC_ERR_INSN_INVALID
        # UC_MODE_MCLASS would make every core a Cortex-M33
        model = getattr(arm_const, f"UC_CPU_ARM_CORTEX_{request['core']}")
        self.uc = unicorn.Uc(unicorn.UC_ARCH_ARM, unicorn.UC_MODE_THUMB, model)
        self.fault: dict[str, Any] = {}
        for address, size, kind in request["memory"]:
            start = address & -_PAGE
            allowed = {"flash": unicorn.UC_PROT_READ | unicorn.UC_PROT_EXEC}
            allowed["ram"] = unicorn.UC_PROT_READ | unicorn.UC_PROT_WRITE
            self.uc.mem_map(start, -(start - address - size) + _PAGE - 1 & -_PAGE, allowed[kind])
        for address, data in request["segments"]:
            self.uc.mem_write(address, base64.b64decode(data))
        self.uc.mem_map(_RETURN, _PAGE)
        self.segments: list[tuple[int | None, list[list[int]]]] = []
        self.layer: int | None = None
        self._hook(unicorn)

    def buffer(self, position: int, size: int) -> int:
        """The address of a buffer that ends where memory ends, 16 bytes aligned."""
        pages = max(size + _PAGE - 1 & -_PAGE, _PAGE)
        start = _BUFFERS + position * _APART
        self.uc.mem_map(start, pages, 3)
        return start + pages - (size + 15 & -16)

    def _hook(self, unicorn: Any) -> None:
        request = self.request
        first, last = request["code"]
        # These come before the counter, so that it has not yet counted the block that begins here.
        self.uc.hook_add(unicorn.UC_HOOK_BLOCK, self._outside, begin=request["entry"][0], end=request["entry"][1] - 1)
        for address, layer in request["layers"]:
            self.uc.hook_add(unicorn.UC_HOOK_BLOCK, self._inside, user_data=layer, begin=address, end=address)
        native = native_counting() and not request.get("portable")
        self.counter = Counter(self.uc, first, last, native)
        self.uc.hook_add(unicorn.UC_HOOK_MEM_INVALID, self._invalid)
        self.uc.hook_add(unicorn.UC_HOOK_INTR, self._exception)

    def _outside(self, *_: Any) -> None:
        self._switch(None)

    def _inside(self, uc: Any, address: int, size: int, layer: int) -> None:
        self._switch(layer)

    def _switch(self, layer: int | None) -> None:
        if layer != self.layer:
            self.segments.append((self.layer, self.counter.taken()))
            self.layer = layer

    def _invalid(self, uc: Any, access: int, address: int, size: int, *_: Any) -> bool:
        import unicorn

        reads = (unicorn.UC_MEM_READ_UNMAPPED, unicorn.UC_MEM_READ_PROT)
        writes = (unicorn.UC_MEM_WRITE_UNMAPPED, unicorn.UC_MEM_WRITE_PROT)
        kind = "reads" if access in reads else "writes" if access in writes else "executes"
        self.fault = {"kind": kind, "address": address, "size": size}
        return False

    def _exception(self, uc: Any, number: int, _: Any) -> None:
        self.fault = self.fault or {"kind": "exception", "number": number}
        uc.emu_stop()

    def run(self, addresses: dict[str, int], given: bytes) -> dict[str, Any]:
        """One call; the answer of `emulate` for one input."""
        request, uc = self.request, self.uc
        arena, output, stack = request["arena_bytes"], request["output_bytes"], request["stack_bytes"]
        uc.mem_write(addresses["input"], given)
        paint = {
            name: bytes([_PAINT]) * size for name, size in (("arena", arena), ("output", output), ("stack", stack))
        }
        for name, data in paint.items():
            uc.mem_write(addresses[name], data + bytes([_PAINT]) * (-len(data) % 16))
        top = addresses["stack"] + stack
        values = {"R0": addresses["input"], "R1": addresses["output"], "R2": addresses["arena"]}
        values |= {"SP": top, "LR": _RETURN | 1}
        for name, value in values.items():
            uc.reg_write(getattr(self.registers, f"UC_ARM_REG_{name}"), value)
        self.segments, self.layer, self.fault = [], None, {}
        self.counter.start(request["limit_bytes"])
        message = ""
        try:
            uc.emu_start(request["entry"][0] | 1, _RETURN)
        except self.error as error:
            message = str(error)
            if error.errno == self.undefined:
                self.fault = {"kind": "exception", "number": 1}
        self.segments.append((self.layer, self.counter.taken()))
        at = uc.reg_read(self.registers.UC_ARM_REG_PC)
        if message and not self.fault:
            self.fault = {"kind": "other", "message": message}
        if not self.fault and self.counter.state.bytes_left < 0:
            self.fault = {"kind": "limit"}
        past = {n: uc.mem_read(addresses[n] + s, -s % 16) for n, s in (("arena", arena), ("output", output))}
        over = next((name for name, slack in past.items() if any(byte != _PAINT for byte in slack)), "")
        if over and not self.fault:
            self.fault = {"kind": "past", "buffer": over}
        used = bytes(uc.mem_read(addresses["stack"], stack)).lstrip(bytes([_PAINT]))
        return {
            "output": base64.b64encode(bytes(uc.mem_read(addresses["output"], output))).decode(),
            "returned": uc.reg_read(self.registers.UC_ARM_REG_R0),
            "stack_bytes": len(used),
            "segments": self.segments,
            "fault": {**self.fault, "at": at} if self.fault else None,
        }


def emulate(request: dict[str, Any]) -> dict[str, Any]:
    """Calls `entry` once for every input, as `int entry(const int8_t *input, int8_t *output, void *arena)`.

    Request: `core` (Unicorn's suffix); `memory` [[address, bytes, "flash" or "ram"]]; `segments` [[address, base64]];
    `code` and `entry` [first address, end]; `layers` [[address, index]], functions that mark where a layer begins;
    `inputs` [base64]; `output_bytes`, `arena_bytes`, `stack_bytes`; `limit_bytes`, of executed instructions;
    `portable`, to count without machine code.

    Answer: `version`, and `runs`, of each input: `output` (base64), `returned`, `stack_bytes` (the deepest), `segments`
    [[layer or null, [[address, size, executions, of these from the block before]]]] and `fault`: null or what went
    wrong, with `kind` and the program counter `at`. After a fault there are no further runs.
    """
    import unicorn

    machine = Machine(request)
    inputs = [base64.b64decode(data) for data in request["inputs"]]
    sizes = {"input": max(map(len, inputs), default=1), "output": request["output_bytes"]}
    sizes |= {"arena": request["arena_bytes"], "stack": request["stack_bytes"]}
    addresses = {name: machine.buffer(i, size) for i, (name, size) in enumerate(sizes.items())}
    runs = []
    for given in inputs:
        runs.append(machine.run(addresses, given))
        if runs[-1]["fault"]:
            break
    return {"version": unicorn.__version__, "runs": runs}


def main() -> int:
    request = json.load(sys.stdin)
    seconds = int(request.get("limit_s", 120))
    resource.setrlimit(resource.RLIMIT_CPU, (seconds, seconds + 5))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    try:
        import unicorn  # noqa: F401
    except ImportError:
        return MISSING
    json.dump(emulate(request), sys.stdout)
    return 0


if __name__ == "__main__":
    sys.exit(main())
