"""What a board's kernel says of its cores, as files under the emulated root.

Runtimes read these to choose their kernels. Without them the files of this machine show through, on which some crash:
they tell of another architecture.
"""

from __future__ import annotations

from collections.abc import Mapping

from edgeprune.errors import UnsupportedError
from edgeprune.target import Emulation, Target

_ARM = 0x41  # who designed the core
_ARCHITECTURE = 0xF  # "see the feature registers"
_SLOWEST_KHZ = 600_000
_CPUS = "sys/devices/system/cpu"


def emulation_of(target: Target) -> Emulation:
    """How the target's cores are emulated.

    Raises:
        UnsupportedError: Nothing emulates them.
    """
    if target.emulation is None:
        raise UnsupportedError(
            f"{target.name} cannot be emulated: there is no emulator here of {target.cpu.core}",
            where="--device emulator",
            hint="edgeprune emulate status lists the boards that can be",
        )
    return target.emulation


def files(target: Target) -> Mapping[str, str]:
    """Texts of the files of /proc and /sys by their paths, without the leading slash.

    Raises:
        UnsupportedError: Nothing emulates the target.
    """
    emulated = emulation_of(target)
    count, clock_khz = emulated.cores, (target.cpu.clock_hz or 0) // 1000
    every = f"0-{count - 1}" if count > 1 else "0"
    found = {
        "proc/cpuinfo": "".join(_cpuinfo(emulated, index) for index in range(count))
        + f"Model\t\t: {target.description}\n"
    }
    found |= {f"{_CPUS}/{name}": f"{every}\n" for name in ("possible", "present", "online")}
    found[f"{_CPUS}/kernel_max"] = "255\n"
    for index in range(count):
        each = {
            "topology/physical_package_id": "0",
            "topology/core_id": f"{index}",
            "topology/core_siblings_list": every,
            "topology/core_siblings": f"{(1 << count) - 1:x}",
            "topology/package_cpus_list": every,
            "topology/cluster_cpus_list": every,
            "regs/identification/midr_el1": f"0x{midr(emulated):016x}",
        }
        if clock_khz:
            each |= {
                "cpufreq/cpuinfo_max_freq": f"{clock_khz}",
                "cpufreq/cpuinfo_min_freq": f"{min(_SLOWEST_KHZ, clock_khz)}",
            }
        found |= {f"{_CPUS}/cpu{index}/{name}": f"{text}\n" for name, text in each.items()}
    return found


def midr(emulated: Emulation) -> int:
    """The core's main identification register."""
    fields = (_ARM << 24, emulated.variant << 20, _ARCHITECTURE << 16, int(emulated.part, 16) << 4, emulated.revision)
    return sum(fields)


def _cpuinfo(emulated: Emulation, index: int) -> str:
    lines = {
        "processor\t": index,
        "BogoMIPS\t": "108.00",
        "Features\t": " ".join(emulated.features),
        "CPU implementer\t": f"0x{_ARM:x}",
        "CPU architecture": 8,
        "CPU variant\t": f"0x{emulated.variant:x}",
        "CPU part\t": emulated.part,
        "CPU revision\t": emulated.revision,
    }
    return "".join(f"{key}: {value}\n" for key, value in lines.items()) + "\n"
