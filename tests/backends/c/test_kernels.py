"""The kernels together: no name of one family is taken by another, and each header needs only what it includes."""

from __future__ import annotations

import re
import shutil
import subprocess
from graphlib import TopologicalSorter

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
    command = [compiler, *flags, *WARNINGS, "-O2", "-fsyntax-only", f"-I{CSRC}", "-include", "ep_kernels.h", *FILES]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_every_kernel_and_header_compiles_alone() -> None:
    if not shutil.which("cc"):
        pytest.skip("needs the tool cc")
    headers = [f'#include "{path.name}"' for path in sorted(CSRC.glob("*.h"))]
    base = [
        "cc",
        *(flag for flag in WARNINGS if flag != "-Wshadow"),
        "-Wno-unused-function",
        "-fsyntax-only",
        f"-I{CSRC}",
    ]
    assert subprocess.run([*base, *FILES], check=False).returncode == 0
    for header in headers:
        done = subprocess.run([*base, "-xc", "-"], input=header + "\n", text=True, check=False)
        assert done.returncode == 0, header


def test_headers_include_each_other_in_one_direction() -> None:
    includes = {path.name: re.findall(r'^#include "(\w+\.h)"', path.read_text(), re.M) for path in CSRC.glob("*.h")}
    order = list(TopologicalSorter(includes).static_order())
    assert order[0] == "ep_base.h" and not any("ep_kernels.h" in included for included in includes.values())
