"""Measuring over a link: what is checked first, what is sent and run, and that nothing stays on the device."""

from __future__ import annotations

import json
import shlex
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgeprune import backends, on_device, profiling
from edgeprune.children import Ended
from edgeprune.cost import Source
from edgeprune.device_facts import Facts
from edgeprune.errors import DeviceError, EdgepruneError, MeasurementError, MissingExtraError, NoRoomError, UsageError
from edgeprune.links import Link, connect
from edgeprune.on_device import There, as_target, cool, held, needs_runtime, place_of
from edgeprune.profiling import profile
from edgeprune.progress import SILENT
from edgeprune.target import load_target
from edgeprune.timing import Reference, Turns
from tests.test_profiling import FALLING, STEADY, document

PI = Facts(
    model="Raspberry Pi 4 Model B Rev 1.4",
    machine="aarch64",
    parts=("0x41:0xd08",),
    cores=4,
    fast_cores=4,
    clock_hz=1_800_000_000,
    temperature_c=50.0,
    python="3.11.2",
    packages={"numpy": "1.26.4", "ai-edge-litert": "2.3.0"},
)


@dataclass
class Board:
    """A link that answers from memory: a folder is made, files arrive, programs end as told."""

    facts: Facts = PI
    ends: list[Ended] = field(default_factory=list)
    python: str = "python3"
    name: str = "board"
    folder: bytes = b"/tmp/edgeprune.abc123"
    removable: bool = True
    pushed: list[str] = field(default_factory=list)
    ran: list[tuple[str, ...]] = field(default_factory=list)

    def describe(self, folder: str = "/", *, timeout_s: float = 0) -> Facts:
        return self.facts

    def run(self, script: str, *arguments: str, timeout_s: float = 0) -> Ended:
        self.ran.append(arguments)
        if "mktemp" in script:
            return Ended(0 if self.folder else 1, self.folder, b"")
        if "rm -rf" in script:
            if not self.removable:
                raise DeviceError("gone")
            return Ended(0, b"", b"")
        return self.ends.pop(0)

    def push(self, file: Path, to: str, *, timeout_s: float | None = None) -> None:
        self.pushed.append(to)

    def pull(self, file: str, to: Path, *, timeout_s: float | None = None) -> None:
        raise NotImplementedError


@dataclass
class Notes:
    """Progress that is kept."""

    said: list[str] = field(default_factory=list)

    def note(self, text: str) -> None:
        self.said.append(text)

    def track(self, items: Any, label: str, total: int | None = None) -> Any:
        return iter(items)


def answered(latencies_s: Any, **changes: Any) -> Ended:
    """How the runner ends that measured these."""
    found = {"schema": "edgeprune.bench/1", **document(latencies_s), **changes}
    return Ended(0, json.dumps(found).encode(), b"")


@pytest.fixture
def made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[], list[Path]]:
    """What lies in the folder in which all devices make theirs, since all of them are this machine."""
    place = tmp_path / "of the device"
    place.mkdir()
    monkeypatch.setattr(on_device, "_MAKE_FOLDER", f"TMPDIR={shlex.quote(str(place))}\n{on_device._MAKE_FOLDER}")
    return lambda: list(place.iterdir())


@pytest.mark.parametrize("name", ["local", "ssh", "adb"])
def test_a_file_is_measured_where_the_link_leads(
    name: str,
    address: Callable[[str], str],
    small_tflite: Path,
    made: Callable[[], list[Path]],
    any_machine: None,
) -> None:
    link = connect(address(name), sys.executable)
    inputs = np.zeros((2, 16, 16, 16), np.float32)
    result = profile(small_tflite, as_target(link), device=link, threads=1, inputs=inputs, runs=50)
    cost = result.cost
    assert (
        cost.source is Source.MEASURED and cost.ram_kind == "process" and cost.size_bytes == small_tflite.stat().st_size
    )
    assert result.runs >= 50 and result.p50_s is not None and result.precision == "int8"
    assert cost.latency_interval_s is not None and cost.latency_s == cost.latency_interval_s[1]
    assert "ai-edge-litert" in result.runtime_version and result.environment["device"] == link.name
    assert "operators are not timed on a linked device" in result.notes and result.ops == ()
    assert not made()


@pytest.mark.slow
def test_a_reference_is_timed_beside_it(small_tflite: Path, any_machine: None) -> None:
    link = connect("local")
    result = profile(small_tflite, as_target(link), device=link, threads=1, reference=Reference(small_tflite))
    assert result.to_reference is not None and 0.2 < result.to_reference < 5 and result.reference_s is not None


def test_another_device_than_the_target_is_noted(small_tflite: Path) -> None:
    board = Board(ends=[answered(STEADY)])
    result = profile(small_tflite, load_target("rpi5"), device=board)
    assert any("board does not look like rpi5: its cores are Cortex-A72" in note for note in result.notes)
    assert (result.target, result.environment["model"]) == ("rpi5", PI.model)
    assert result.environment["cores"] == "4 (Cortex-A72)"
    script, *options = board.ran[1][3:]
    assert script == "file-0.py" and options[options.index("--model") + 1] == "file-1.tflite"
    assert not any(
        "does not look" in n
        for n in profile(small_tflite, load_target("rpi4"), device=Board(ends=[answered(STEADY)])).notes
    )


def test_a_disturbed_run_is_repeated_once_after_cooling(small_tflite: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cooled: list[str] = []
    monkeypatch.setattr(on_device, "cool", lambda there: cooled.append(there.link.name))
    board = Board(ends=[answered(FALLING), answered(STEADY)])
    assert profile(small_tflite, load_target("rpi4"), device=board).cost.latency_s == pytest.approx(1e-3, rel=0.1)
    assert cooled == ["board"] and board.pushed.count("/tmp/edgeprune.abc123/file-1.tflite") == 1
    throttled = answered(STEADY, before={"throttled": "throttled=0x50005"}, after={"throttled": "throttled=0x50005"})
    with pytest.raises(MeasurementError, match="during the run and its repetition") as caught:
        profile(small_tflite, load_target("rpi4"), device=Board(ends=[throttled, throttled]))
    assert caught.value.exit_code == 6
    earlier = answered(STEADY, before={"throttled": "throttled=0x50000"}, after={"throttled": "throttled=0x50000"})
    assert profile(small_tflite, load_target("rpi4"), device=Board(ends=[earlier])).runs == len(STEADY)


def test_cooling_ends_when_it_is_as_cool_as_before(monkeypatch: pytest.MonkeyPatch) -> None:
    slept: list[float] = []
    monkeypatch.setattr(on_device.time, "sleep", slept.append)
    board = Board()
    there = There(board, "/f", PI, SILENT)
    degrees = iter([70.0, 60.0, 51.5])
    board.describe = lambda *a, **k: PI.model_copy(update={"temperature_c": next(degrees)})  # type: ignore[method-assign]
    cool(there)
    assert slept == [5.0] * 3
    cool(There(Board(), "/f", Facts(), SILENT))
    assert slept == [5.0] * 7
    cool(There(Board(PI.model_copy(update={"temperature_c": 90.0})), "/f", PI, SILENT))
    assert slept == [5.0] * 31


def test_what_goes_wrong_on_the_device_leaves_nothing_there(small_tflite: Path, made: Callable[[], list[Path]]) -> None:
    link = connect("local", "/bin/false")
    for _ in range(2):
        with pytest.raises(MissingExtraError):
            profile(small_tflite, load_target("rpi4"), device=link)
    with pytest.raises(KeyboardInterrupt), held(link, [], SILENT) as there:
        assert [Path(there.folder)] == made() and Path(there.folder).stat().st_mode & 0o777 == 0o700
        raise KeyboardInterrupt
    assert not made()


def test_a_folder_that_cannot_be_removed_is_told() -> None:
    notes = Notes()
    with held(Board(removable=False), [], notes):
        pass
    assert notes.said[-1] == "/tmp/edgeprune.abc123 on board could not be removed"


def test_only_such_a_folder_is_ever_removed(tmp_path: Path) -> None:
    (tmp_path / "kept").mkdir()
    assert connect("local").run(on_device._REMOVE_FOLDER, str(tmp_path / "kept")).status == 1
    assert (tmp_path / "kept").is_dir()
    with pytest.raises(DeviceError, match="has no folder that can be written"), held(Board(folder=b""), [], SILENT):
        pass
    with pytest.raises(DeviceError, match="has no folder that can be written"), held(Board(folder=b"/"), [], SILENT):
        pass


def test_a_full_device_is_told_before_anything_is_sent(small_tflite: Path) -> None:
    board = Board(PI.model_copy(update={"free_bytes": 10**6}))
    with pytest.raises(NoRoomError, match=r"board has 976.6 KiB free, 16\.\d MiB are needed") as caught:
        profile(small_tflite, load_target("rpi4"), device=board)
    assert caught.value.exit_code == 11 and board.pushed == []


@pytest.mark.parametrize(
    ("changes", "backend", "message", "hint"),
    [
        ({"python": ""}, "tflite", "board has no Python", "--benchmark-binary"),
        ({"python": ""}, "openvino", "board has no Python", "pip install numpy openvino"),
        ({"python": "3.7.3"}, "tflite", "board has Python 3.7.3, 3.9 or later is needed", "--python"),
        ({"packages": {}}, "tflite", "no numpy and no ai-edge-litert or tflite-runtime in its Python 3.11.2", "pip"),
        ({}, "onnxruntime", "board has no onnxruntime in", "python3 -m pip install numpy onnxruntime"),
        ({"packages": {"tflite-runtime": "2.14"}}, "tflite", "board has no numpy in", "pip install numpy"),
    ],
)
def test_what_the_device_lacks_is_named(changes: dict[str, Any], backend: str, message: str, hint: str) -> None:
    with pytest.raises(MissingExtraError) as caught:
        needs_runtime(There(Board(), "/f", PI.model_copy(update=changes), SILENT), backend)
    assert message in caught.value.message and hint in caught.value.hint and caught.value.exit_code == 7


@pytest.mark.parametrize("packages", [{"ai-edge-litert": "2.3.0"}, {"tflite-runtime": "2.14.0"}])
def test_either_tflite_runtime_will_do(packages: dict[str, str]) -> None:
    facts = PI.model_copy(update={"packages": {"numpy": "1.26", **packages}})
    needs_runtime(There(Board(), "/f", facts, SILENT), "tflite")
    assert set(on_device.RUNTIMES) >= {name for name in backends.names() if name != "c"}


@pytest.mark.parametrize(
    ("ended", "kind", "message"),
    [
        (Ended(7, b"", b"no module"), MissingExtraError, "tflite cannot be loaded on board: no module"),
        (Ended(127, b"", b"python3: not found"), DeviceError, "board cannot start python3: python3: not found"),
        (Ended(137, b"", b""), UsageError, "tflite on board was ended by signal 9"),
        (Ended(132, b"", b""), UsageError, "tflite on board was ended by signal 4"),
        (Ended(1, b"", b"x\nValueError: bad"), UsageError, "cannot run it (status 1): ValueError: bad"),
        (Ended(0, b"nonsense", b""), DeviceError, "no document of the runner's"),
        (Ended(0, b'{"schema": "other"}', b""), DeviceError, "no document of the runner's"),
        (Ended(0, b"[]", b""), DeviceError, "no document of the runner's"),
    ],
)
def test_how_the_runner_ends_is_told(
    ended: Ended, kind: type[EdgepruneError], message: str, small_tflite: Path
) -> None:
    with pytest.raises(kind) as caught:
        place_of(There(Board(ends=[ended]), "/f", PI, SILENT)).bench(Turns((small_tflite,), "tflite", 1, 10))
    assert message in caught.value.message


def test_a_link_that_dies_is_named(phone: str, small_tflite: Path) -> None:
    link: Link = connect("adb:dying-1", sys.executable)
    with pytest.raises(DeviceError, match="the link to adb:dying-1 broke") as caught:
        profile(small_tflite, load_target("rpi4"), device=link)
    assert caught.value.exit_code == 5


def test_a_device_without_a_target_is_one_of_its_own() -> None:
    target = as_target(Board())
    assert (target.name, target.class_, target.latency) == ("raspberry-pi-4-model-b-rev-1-4", "board", "measured")
    assert (target.cpu.core, target.cpu.cores, target.cpu.isa) == ("Cortex-A72", 4, "aarch64")
    assert {name: offered.threads for name, offered in target.runtimes.items()} == dict.fromkeys(on_device.RUNTIMES, 4)
    phone = as_target(Board(Facts(system="Android 13"), name="adb:1"))
    assert (phone.name, phone.class_, phone.cpu.core) == ("adb-1", "phone", "unknown")


@pytest.mark.parametrize("runtime", [None, "tflm"])
def test_a_microcontroller_has_no_link(small_tflite: Path, runtime: str | None) -> None:
    with pytest.raises(UsageError, match=f"{runtime or 'edgeprune-c'} is no runtime that board can run") as caught:
        profile(small_tflite, load_target("nucleo-l4r5zi"), device=Board(), runtime=runtime)
    assert "is a mcu" in caught.value.hint


def test_both_files_of_a_model_lie_side_by_side(tmp_path: Path) -> None:
    for name in ("m.xml", "m.bin"):
        (tmp_path / name).write_text("x")
    board = Board(ends=[answered(STEADY)])
    place_of(There(board, "/f", PI, SILENT)).bench(Turns((tmp_path / "m.xml",), "openvino", 1, 10))
    assert board.pushed == ["/f/file-0.py", "/f/file-1.xml", "/f/file-1.bin"]
    assert profiling.RUNS == 200
