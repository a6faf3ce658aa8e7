"""What a Linux board or an Android phone says of itself, and whether it looks like the target that it is taken for."""

from __future__ import annotations

from collections.abc import Iterable

from edgeprune.target import Target
from edgeprune.values import Value

# Constant; $1 is the folder whose free space counts, $2 the Python to ask. Lines of `key<TAB>value`; what the system
# does not tell is left out.
SCRIPT = r"""
say() { [ -n "$2" ] && printf '%s\t%s\n' "$1" "$2"; }
first() { head -n 1 "$1" 2>/dev/null | tr -d '\000'; }
say machine "$(uname -m)"
say kernel "$(uname -sr)"
android=$(getprop ro.build.version.release 2>/dev/null)
if [ -n "$android" ]; then
  say model "$(getprop ro.product.manufacturer) $(getprop ro.product.model)"
  say system "Android $android"
else
  model=$(first /proc/device-tree/model)
  [ -n "$model" ] || model=$(first /sys/class/dmi/id/product_name)
  say model "$model"
  say system "$(. /etc/os-release 2>/dev/null && echo "$PRETTY_NAME")"
fi
while read -r line; do
  case $line in
    "model name"*) say cpu "${line#*: }" ;;
    "CPU implementer"*) maker=${line#*: } ;;
    "CPU part"*) say part "$maker:${line#*: }" ;;
  esac
done </proc/cpuinfo
while read -r key value _; do
  case $key in
    MemTotal:) say memory_kib "$value" ;;
    MemAvailable:) say available_kib "$value" ;;
  esac
done </proc/meminfo
cpus=/sys/devices/system/cpu
say online "$(first $cpus/online)"
for cpu in $cpus/cpu[0-9]*; do say max_khz "$(first "$cpu/cpufreq/cpuinfo_max_freq")"; done
for cpu in $cpus/cpu[0-9]*; do say governor "$(first "$cpu/cpufreq/scaling_governor")"; done
for zone in /sys/class/thermal/thermal_zone*; do say millidegrees "$(first "$zone/temp")"; done
df -Pk "$1" 2>/dev/null | { read -r _; read -r _ _ _ free _; say free_kib "$free"; }
say python "$("$2" -c 'import platform; print(platform.python_version())' 2>/dev/null)"
"$2" -c 'from importlib import metadata
for name in ("numpy", "ai-edge-litert", "tflite-runtime", "onnxruntime", "openvino"):
    try:
        print("package\t" + name + " " + metadata.version(name))
    except metadata.PackageNotFoundError:
        pass' 2>/dev/null
exit 0
"""

# By the ids in /proc/cpuinfo: who designed the core, and its part number.
CORES = {
    "0x41:0xd03": "Cortex-A53",
    "0x41:0xd04": "Cortex-A35",
    "0x41:0xd05": "Cortex-A55",
    "0x41:0xd07": "Cortex-A57",
    "0x41:0xd08": "Cortex-A72",
    "0x41:0xd09": "Cortex-A73",
    "0x41:0xd0a": "Cortex-A75",
    "0x41:0xd0b": "Cortex-A76",
    "0x41:0xd0d": "Cortex-A77",
    "0x41:0xd40": "Neoverse-V1",
    "0x41:0xd41": "Cortex-A78",
    "0x41:0xd44": "Cortex-X1",
    "0x41:0xd46": "Cortex-A510",
    "0x41:0xd47": "Cortex-A710",
    "0x41:0xd48": "Cortex-X2",
    "0x41:0xd4d": "Cortex-A715",
    "0x41:0xd4e": "Cortex-X3",
    "0x41:0xc07": "Cortex-A7",
    "0x41:0xc08": "Cortex-A8",
    "0x41:0xc09": "Cortex-A9",
    "0x41:0xc0f": "Cortex-A15",
    "0x51:0x800": "Cortex-A73",  # Qualcomm's Kryo 2xx to 4xx are these cores under other ids
    "0x51:0x801": "Cortex-A53",
    "0x51:0x802": "Cortex-A75",
    "0x51:0x803": "Cortex-A55",
    "0x51:0x804": "Cortex-A76",
    "0x51:0x805": "Cortex-A55",
    "0x51:0x201": "Kryo",
    "0x51:0x205": "Kryo",
    "0x51:0x211": "Kryo",
}
_PYTHON_NEEDED = (3, 9)


class Facts(Value):
    """A device as it describes itself; empty or None where it does not tell.

    Attributes:
        model: Such as `Raspberry Pi 4 Model B Rev 1.4`.
        machine: The architecture, such as aarch64.
        cpu: The name that the system gives it, which Arm boards rarely have.
        parts: Designer and part number of each kind of core, as `0x41:0xd08`.
        cores: CPUs that are on.
        fast_cores: Of these, those with the highest clock; all where it is not known.
        clock_hz: The highest clock.
        governor: What decides the clock.
        memory_bytes, available_bytes: RAM, and what of it could be used.
        free_bytes: Room where files are put.
        python: Version of the Python that was asked; empty when there is none.
        packages: Versions of numpy and of the runtimes that this Python has.
    """

    model: str = ""
    machine: str = ""
    system: str = ""
    kernel: str = ""
    cpu: str = ""
    parts: tuple[str, ...] = ()
    cores: int = 1
    fast_cores: int = 1
    clock_hz: int | None = None
    governor: str = ""
    temperature_c: float | None = None
    memory_bytes: int | None = None
    available_bytes: int | None = None
    free_bytes: int | None = None
    python: str = ""
    packages: dict[str, str] = {}

    @property
    def core_names(self) -> tuple[str, ...]:
        """Names of the kinds of cores, those that are known by their ids."""
        return tuple(dict.fromkeys(CORES[part] for part in self.parts if part in CORES))

    @property
    def runs_python(self) -> bool:
        """Whether its Python is new enough for the runner."""
        numbers = tuple(int(text) for text in self.python.split(".")[:2] if text.isdigit())
        return numbers >= _PYTHON_NEEDED


def read_facts(text: str) -> Facts:
    """The facts in what `SCRIPT` printed; lines that it did not print are passed over."""
    said: dict[str, list[str]] = {}
    for line in text.splitlines():
        key, tab, value = line.partition("\t")
        if tab:
            said.setdefault(key, []).append(value.strip())

    def one(key: str) -> str:
        return said.get(key, [""])[0]

    clocks = _numbers(said.get("max_khz", []))
    cores = _online(one("online")) or len(said.get("part", said.get("cpu", []))) or 1
    return Facts(
        **{key: one(key) for key in ("model", "machine", "system", "kernel", "cpu", "python")},
        parts=tuple(dict.fromkeys(said.get("part", []))),
        cores=cores,
        fast_cores=min(cores, sum(clock == max(clocks) for clock in clocks)) if clocks else cores,
        clock_hz=max(clocks) * 1000 if clocks else None,
        governor=",".join(sorted(set(said.get("governor", [])))),
        temperature_c=max((value / 1000 for value in _numbers(said.get("millidegrees", []))), default=None),
        **{f"{key}_bytes": _bytes(one(f"{key}_kib")) for key in ("memory", "available", "free")},
        packages=dict(entry.split(" ", 1) for entry in said.get("package", []) if " " in entry),
    )


def unlike(facts: Facts, target: Target) -> str:
    """How the device differs from the target that it is taken for; empty where nothing speaks against it."""
    arm_target = target.cpu.isa.startswith("arm")
    arm_device = facts.machine.startswith(("arm", "aarch"))
    if target.class_ == "host" or not facts.machine:
        return ""
    if arm_target != arm_device:
        return f"its CPU is {facts.machine}, that of {target.name} is {target.cpu.isa}"
    if facts.core_names and not any(name in target.cpu.core for name in facts.core_names):
        return f"its cores are {' and '.join(facts.core_names)}, those of {target.name} {target.cpu.core}"
    if facts.cores < target.cpu.cores:
        return f"it has {facts.cores} CPUs, {target.name} {target.cpu.cores}"
    return ""


def _numbers(texts: Iterable[str]) -> list[int]:
    return [int(text) for text in texts if text.lstrip("-").isdigit()]


def _bytes(kib: str) -> int | None:
    return int(kib) * 1024 if kib.isdigit() else None


def _online(ranges: str) -> int:
    """How many CPUs `0-3,6` are; 0 for what is not such a list."""
    count = 0
    for part in filter(None, ranges.split(",")):
        low, _, high = part.partition("-")
        if not low.isdigit() or (high and not high.isdigit()):
            return 0
        count += int(high or low) - int(low) + 1
    return count
