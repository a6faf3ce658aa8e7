import re
from pathlib import Path

import pytest

from edgeprune import data_files
from edgeprune.device.estimate import estimate
from edgeprune.device.ops import Op
from edgeprune.device.profiles import load_latency_model, read_profile
from edgeprune.errors import UsageError
from edgeprune.target import Target, load_target, target_names

OWN = """
schema = "edgeprune.target/1"
name = "{name}"
aliases = ["mine"]
class = "board"
description = "a board of one's own"
default_runtime = "tflite"
[cpu]
core = "Cortex-A55"
cores = 2
isa = "armv8.2-a"
[memory]
ram_bytes = 1000000
[runtimes.tflite]
backend = "tflite"
"""
TINY = (
    Op("a", "conv", ("x",), "a", 3, 16, in_positions=1024, out_positions=256, kernel=9, stride=4),
    Op("b", "depthwise", ("a",), "b", 16, 16, in_positions=256, out_positions=256, kernel=9, groups=16),
    Op("c", "mean", ("b",), "c", 16, 16, in_positions=256),
    Op("d", "dense", ("c",), "d", 16, 10),
)


@pytest.fixture(params=target_names())
def target(request: pytest.FixtureRequest) -> Target:
    return load_target(request.param)


def cited(target: Target, field: str) -> bool:
    patterns = [pattern for source in target.source for pattern in source.fields]
    return any(re.fullmatch(re.escape(p).replace(r"\*", "[^.]+"), field) for p in patterns)


def test_the_promised_targets_are_there() -> None:
    boards = {"rpi3b-plus", "rpi4", "rpi5", "rpi-zero2w", "odroid-n2plus", "rk3399", "rk3588", "jetson-nano"}
    phones = {"pixel1", "pixel2", "pixel3", "pixel4", "snapdragon-855", "snapdragon-865", "kirin-970", "kirin-990"}
    cortex_m = {"nucleo-l4r5zi", "nucleo-h7a3zi", "nucleo-u575zi", "nrf5340dk", "disco-f746ng", "stm32h743"}
    cortex_m |= {"nucleo-g0b1re", "mps3-an547"}
    others = {"host", "celeron-n5105", "stm32h747", "esp32-s3", "ek-ra8d1"}
    assert boards | phones | cortex_m | others <= set(target_names())
    assert load_target("stm32f746").name == "disco-f746ng"
    assert load_target("rpi3b+").name == "rpi3b-plus" and load_target("odroid-n2+").name == "odroid-n2plus"


def test_names_and_aliases_lead_to_one_target_each() -> None:
    found = [name for target in map(load_target, target_names()) for name in (target.name, *target.aliases)]
    assert sorted(found) == sorted(set(found))


def test_facts_of_a_device_are_cited(target: Target) -> None:
    if target.class_ == "host":
        return
    facts = [f"cpu.{key}" for key, value in target.cpu if value is not None]
    facts += [f"memory.{key}" for key, value in target.memory if value is not None]
    assert [fact for fact in facts if not cited(target, fact)] == []
    assert all(source.document for source in target.source)


def test_a_cortex_m_says_where_its_memories_begin(target: Target) -> None:
    if "Cortex-M" not in target.cpu.core:
        return
    memory = target.memory
    assert memory.flash_address is not None and memory.ram_address is not None
    assert 0x2000_0000 <= memory.ram_address < 0x4000_0000
    assert memory.ram_block_bytes is None or memory.ram_block_bytes < (memory.ram_bytes or 0)
    assert (target.cpu.flash_wait_states is None) == (target.cpu.flash_line_bytes is None)


def test_runtimes_of_a_target_have_sane_threads_and_steps(target: Target) -> None:
    for runtime in target.runtimes.values():
        assert 1 <= runtime.threads <= target.cpu.cores
        assert runtime.channel_step in (1, 2, 4, 8, 16, 32)
    assert target.runtime() == target.runtimes[target.default_runtime]


def modelled(target: Target, runtime: str) -> list[str]:
    """The precisions there is a latency model of, at the target's threads."""
    offered = target.runtimes[runtime]
    return [p for p in offered.precisions if load_latency_model(target, runtime, p, offered.threads) is not None]


def test_profiles_of_a_target_load_and_belong_to_it(target: Target) -> None:
    for name, runtime in target.runtimes.items():
        if not runtime.profile:
            assert load_latency_model(target, name, "int8", runtime.threads) is None
            continue
        profile = read_profile(data_files.profile_path(runtime.profile))
        of = ("", target.cpu.core) if runtime.emulated else (target.name, "")  # what is executed is modelled by core
        assert (profile.target, profile.core, profile.runtime) == (*of, name)
        assert {model.runtime for model in profile.models} == {name}
        assert modelled(target, name)
        assert load_latency_model(target, name, "int8", 63) is None


def test_a_tiny_net_gets_an_estimate(target: Target) -> None:
    for name, runtime in target.runtimes.items():
        result = estimate(TINY, target, name, "int8")
        assert result.cost.size_bytes is not None and result.cost.size_bytes > 736
        assert result.cost.ram_bytes is not None
        weights = 2 * result.cost.size_bytes if result.cost.ram_kind == "process" else 0
        least = min(2 * 256 * 16, 3 * 1024 + 256 * 16)
        scratch = 1500 if runtime.emulated else 1024  # and the stack; or an activation that is not written over
        assert least <= result.cost.ram_bytes - weights <= least + scratch
        assert len(result.ops) == len(TINY) and result.notes
        if runtime.profile:
            result = estimate(TINY, target, name, modelled(target, name)[0])
            assert result.cost.latency_s is not None and result.cost.latency_interval_s is not None
            low, high = result.cost.latency_interval_s
            assert 0 < low < result.cost.latency_s < high < 0.1
            inside = sum(row.latency_s or 0.0 for row in result.ops)
            assert inside == pytest.approx(result.cost.latency_s, rel=0.02 if runtime.emulated else 1e-6)
        else:
            assert result.cost.latency_s is None and result.cost.latency_interval_s is None
            assert "no latency model" in result.notes[0]


def test_the_target_that_the_page_shows_is_one(tmp_path: Path) -> None:
    page = (Path(__file__).parents[1] / "docs" / "targets.md").read_text(encoding="utf-8")
    (block,) = re.findall(r"^```toml\n(.*?)^```", page, re.MULTILINE | re.DOTALL)
    (tmp_path / "my-board.toml").write_text(block)
    shown = load_target(str(tmp_path / "my-board.toml"))
    assert all(cited(shown, f"cpu.{key}") for key, value in shown.cpu if value is not None)
    assert cited(shown, "memory.ram_bytes")
    assert shown.runtime().threads == shown.cpu.cores


def test_an_unknown_target_names_near_ones() -> None:
    with pytest.raises(UsageError, match="unknown target 'rpi44'") as caught:
        load_target("rpi44")
    assert "rpi4" in caught.value.hint


def test_an_unknown_runtime_is_refused() -> None:
    with pytest.raises(UsageError, match="target rpi4 does not run 'tensorrt'"):
        load_target("rpi4").runtime("tensorrt")


def test_a_target_of_ones_own_goes_by_path_and_by_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "shelf.toml").write_text(OWN.format(name="shelf"))
    assert load_target(str(tmp_path / "shelf.toml")).cpu.cores == 2
    monkeypatch.setenv("EDGEPRUNE_TARGETS", str(tmp_path))
    assert "shelf" in target_names() and "rpi4" in target_names()
    assert load_target("mine").name == "shelf"
    monkeypatch.setenv("EDGEPRUNE_TARGETS", str(tmp_path / "nowhere"))
    with pytest.raises(UsageError, match="no such folder"):
        target_names()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("name = ", "not valid TOML"),
        (OWN.format(name="shelf") + "speed = 3\n", "runtimes.tflite.speed"),
        (OWN.format(name="other"), "target 'other' lies in shelf.toml"),
        (OWN.format(name="shelf").replace('runtime = "tflite"', 'runtime = "ort"'), "default_runtime 'ort' is not one"),
        (OWN.format(name="shelf").replace("target/1", "target/9"), "schema"),
    ],
)
def test_a_broken_target_file_is_named(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "shelf.toml").write_text(text)
    with pytest.raises(UsageError, match=re.escape(message)) as caught:
        load_target(str(tmp_path / "shelf.toml"))
    assert "shelf.toml" in caught.value.where


def test_a_missing_target_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no such target file"):
        load_target(str(tmp_path / "gone.toml"))


def test_missing_data_names_every_place(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(data_files, "_PACKAGE", tmp_path / "edgeprune")
    with pytest.raises(UsageError, match="the shipped targets are missing") as caught:
        data_files.data_folder("targets")
    assert str(tmp_path / "edgeprune" / "_data" / "targets") in caught.value.where
    assert str(tmp_path / "targets") in caught.value.where


def test_a_profile_beside_a_target_of_ones_own_comes_first(tmp_path: Path) -> None:
    (tmp_path / "rpi4.tflite.json").write_text("{}")
    assert data_files.profile_path("rpi4.tflite", beside=tmp_path / "shelf.toml") == tmp_path / "rpi4.tflite.json"
    assert data_files.profile_path("rpi5.tflite", beside=tmp_path / "shelf.toml").parent != tmp_path
