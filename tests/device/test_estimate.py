from pathlib import Path

import pytest

from edgeprune.cost import Correction, Source
from edgeprune.device.corrected import Corrected
from edgeprune.device.estimate import ELEMENT_BYTES, estimate, size_bytes
from edgeprune.device.ops import Op
from edgeprune.device.profiles import load_latency_model
from edgeprune.errors import UsageError
from edgeprune.target import load_target

PADDED = (
    Op("p", "pad", ("x",), "p", 8, 8, in_positions=100, out_positions=144),
    Op("y", "conv", ("p",), "y", 8, 16, in_positions=144, out_positions=25, kernel=9, stride=4),
)


def test_an_estimate_says_what_it_is() -> None:
    result = estimate(PADDED, load_target("rpi4"))
    assert result.cost.source is Source.ESTIMATED and result.cost.ram_kind == "activations"
    assert (result.target, result.runtime, result.threads, result.precision) == ("rpi4", "tflite", 4, "int8")
    assert result.cost.latency_upper_s == result.cost.latency_interval_s[1]  # type: ignore[index]


def test_memory_scales_with_the_element_and_size_with_the_weights() -> None:
    target = load_target("rpi4")
    small, large = (estimate(PADDED, target, precision=p).cost for p in ("int8", "fp32"))
    assert small.ram_bytes == 800 + 400 and large.ram_bytes == 4 * 1200
    assert size_bytes(PADDED, "fp32") - size_bytes(PADDED, "int8") == 3 * 8 * 16 * 9 - 24 * 16
    assert ELEMENT_BYTES == {"int8": 1, "fp32": 4}


def test_a_pad_costs_only_where_the_runtime_runs_it() -> None:
    assert [row.kind for row in estimate(PADDED, load_target("rpi4")).ops] == ["conv"]
    assert [row.kind for row in estimate(PADDED, load_target("disco-f746ng"), "tflm").ops] == ["pad", "conv"]


def test_a_corrected_model_is_used_as_given() -> None:
    target = load_target("rpi4")
    shipped = load_latency_model(target, "tflite", "int8", 4)
    assert shipped is not None
    plain, doubled = (
        estimate(PADDED, target),
        estimate(PADDED, target, latency=Corrected(shipped, Correction(latency=2.0))),
    )
    assert doubled.cost.latency_s == pytest.approx(2 * plain.cost.latency_s)  # type: ignore[operator]


def test_without_a_model_memory_and_size_are_still_there() -> None:
    result = estimate(PADDED, load_target("rpi4"), threads=1)
    assert result.cost.latency_s is None and result.cost.ram_bytes and result.cost.size_bytes
    assert "no latency model for rpi4, tflite, int8, 1 thread(s)" in result.notes[0]
    assert all(row.latency_s is None for row in result.ops)


def test_a_runtime_the_target_lacks_is_refused() -> None:
    with pytest.raises(UsageError, match="does not run 'tflm'"):
        estimate(PADDED, load_target("rpi4"), "tflm", threads=1)


def test_a_target_whose_profile_is_gone_is_named(tmp_path: Path) -> None:
    text = (Path(__file__).parents[2] / "targets" / "rpi4.toml").read_text()
    (tmp_path / "rpi4.toml").write_text(text.replace("rpi4.tflite", "nowhere"))
    with pytest.raises(UsageError, match="no such profile: nowhere.json"):
        estimate(PADDED, load_target(str(tmp_path / "rpi4.toml")))
