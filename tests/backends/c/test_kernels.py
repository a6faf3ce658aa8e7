"""The kernels together: all headers are seen by every file, so that no name of one family may be taken by another."""

from __future__ import annotations

import shutil
import subprocess

import pytest

from tests.backends.c.harness import CSRC, WARNINGS

FILES = sorted(str(path) for path in CSRC.glob("*.c"))
CORES = {
    "cortex-m0plus": ("-mthumb",),
    "cortex-m4": ("-mthumb", "-mfpu=fpv4-sp-d16", "-mfloat-abi=hard"),
    "cortex-m33": ("-mthumb", "-mfpu=fpv5-sp-d16", "-mfloat-abi=hard"),
    "cortex-m55": ("-mthumb", "-mfloat-abi=hard"),
}
COMPILERS = [("gcc", ()), ("clang", ())]
COMPILERS += [("arm-none-eabi-gcc", (f"-mcpu={core}", *flags)) for core, flags in CORES.items()]


@pytest.mark.parametrize(("compiler", "flags"), COMPILERS, ids=lambda value: "".join(value[:1]) if value else "host")
def test_every_kernel_compiles_beside_all_headers(compiler: str, flags: tuple[str, ...]) -> None:
    if not shutil.which(compiler):
        pytest.skip(f"needs the tool {compiler}")
    command = [compiler, *flags, *WARNINGS, "-O2", "-fsyntax-only", f"-I{CSRC}", *FILES]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
