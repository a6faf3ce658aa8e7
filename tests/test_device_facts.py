"""What devices print, and whether they look like the target."""

from __future__ import annotations

import pytest

from edgeprune.device_facts import Facts, read_facts, unlike
from edgeprune.target import load_target

PI = """Linux garbage without a tab
machine\taarch64
kernel\tLinux 6.6.31+rpt-rpi-v8
model\tRaspberry Pi 4 Model B Rev 1.4
system\tDebian GNU/Linux 12 (bookworm)
part\t0x41:0xd08
part\t0x41:0xd08
part\t0x41:0xd08
part\t0x41:0xd08
memory_kib\t3884268
available_kib\t3400000
online\t0-3
max_khz\t1800000
max_khz\t1800000
max_khz\t1800000
max_khz\t1800000
governor\tondemand
governor\tondemand
millidegrees\t48199
free_kib\t20000000
python\t3.11.2
package\tnumpy 1.26.4
package\tai-edge-litert 2.3.0
"""
PHONE = """machine\taarch64
model\tGoogle Pixel 4
system\tAndroid 13
part\t0x51:0x805
part\t0x51:0x804
online\t0-3,4-7
max_khz\t1785600
max_khz\t1785600
max_khz\t1785600
max_khz\t1785600
max_khz\t2419200
max_khz\t2419200
max_khz\t2419200
max_khz\t2841600
millidegrees\t-40000
millidegrees\tnone
"""


def test_a_board_is_read() -> None:
    facts = read_facts(PI)
    assert facts == Facts(
        model="Raspberry Pi 4 Model B Rev 1.4",
        machine="aarch64",
        system="Debian GNU/Linux 12 (bookworm)",
        kernel="Linux 6.6.31+rpt-rpi-v8",
        parts=("0x41:0xd08",),
        cores=4,
        fast_cores=4,
        clock_hz=1_800_000_000,
        governor="ondemand",
        temperature_c=48.199,
        memory_bytes=3884268 * 1024,
        available_bytes=3400000 * 1024,
        free_bytes=20000000 * 1024,
        python="3.11.2",
        packages={"numpy": "1.26.4", "ai-edge-litert": "2.3.0"},
    )
    assert facts.core_names == ("Cortex-A72",) and facts.runs_python


def test_a_phone_is_read() -> None:
    facts = read_facts(PHONE)
    assert (facts.cores, facts.fast_cores, facts.core_names) == (8, 1, ("Cortex-A55", "Cortex-A76"))
    assert (facts.clock_hz, facts.temperature_c, facts.python) == (2_841_600_000, -40.0, "")
    assert not facts.runs_python and facts.packages == {}


def test_what_is_not_told_is_not_made_up() -> None:
    facts = read_facts("machine\tarmv7l\nonline\tall\npart\t0x41:0xfff\n")
    assert facts == Facts(machine="armv7l", parts=("0x41:0xfff",)) and facts.core_names == ()
    assert read_facts("cpu\tA\ncpu\tA\nonline\t0-x").cores == 2


@pytest.mark.parametrize(("version", "enough"), [("3.8.10", False), ("3.9.2", True), ("3.13.0", True), ("", False)])
def test_the_runner_needs_a_python_of_its_time(version: str, enough: bool) -> None:
    assert Facts(python=version).runs_python == enough


@pytest.mark.parametrize(
    ("target", "text", "said"),
    [
        ("rpi4", PI, ""),
        ("rpi5", PI, "its cores are Cortex-A72, those of rpi5 Cortex-A76"),
        ("host", PI, ""),
        ("pixel4", PHONE, ""),
        ("rpi4", "machine\tx86_64\n", "its CPU is x86_64, that of rpi4 is armv8.0-a"),
        ("celeron-n5105", PI, "its CPU is aarch64, that of celeron-n5105 is x86-64+sse4.2"),
        ("rpi4", "machine\taarch64\nonline\t0-1\n", "it has 2 CPUs, rpi4 4"),
        ("rpi4", "", ""),
    ],
)
def test_another_device_than_the_target_is_noticed(target: str, text: str, said: str) -> None:
    assert unlike(read_facts(text), load_target(target)) == said
