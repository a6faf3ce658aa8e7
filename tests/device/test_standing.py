import json
from pathlib import Path

import pytest

from edgeprune.device.profiles import load_latency_model
from edgeprune.device.standing import standings, without_model_hint
from edgeprune.errors import UsageError
from edgeprune.target import Target, load_target, target_names


@pytest.fixture(params=target_names())
def target(request: pytest.FixtureRequest) -> Target:
    return load_target(request.param)


def test_every_shipped_model_states_how_it_was_judged(target: Target) -> None:
    for name, runtime in target.runtimes.items():
        models = standings(target, name)
        assert bool(models) == bool(runtime.profile)
        for model in models:
            shipped = load_latency_model(target, name, model.precision, model.threads)
            assert shipped is not None and (shipped.band, shipped.source) == (model.band, model.source)
            assert model.results > 0 and model.judged and model.source
            assert model.error is not None and 0 <= model.error < 1


def test_a_step_that_was_borrowed_is_judged_on_the_boards_that_lent_it() -> None:
    (model, *_) = standings(load_target("odroid-n2plus"), "tflite")
    assert "other boards" in model.judged and model.band.high > 1.2


def test_a_model_of_ones_own_without_provenance_is_not_judged(tmp_path: Path) -> None:
    target = load_target("rpi4")
    shipped = json.loads((Path(__file__).parents[2] / "profiles" / "rpi4.tflite.json").read_text(encoding="utf-8"))
    (tmp_path / "mine.tflite.json").write_text(json.dumps({**shipped, "target": "mine", "provenance": {}}))
    text = target.path.read_text(encoding="utf-8") if target.path else ""
    text = text.replace('name = "rpi4"', 'name = "mine"').replace('"rpi4.tflite"', '"mine.tflite"')
    (tmp_path / "mine.toml").write_text(text)
    first, *_ = standings(load_target(str(tmp_path / "mine.toml")), "tflite")
    assert (first.error, first.judged, first.results) == (None, "", 0)


def test_a_runtime_that_is_not_run_is_refused() -> None:
    with pytest.raises(UsageError, match="does not run 'tensorrt'"):
        standings(load_target("rpi4"), "tensorrt")


def test_the_next_step_names_what_works() -> None:
    here = without_model_hint(load_target("rpi4"), "int8")
    assert "--ram, --size and --macs" in here and "--runtime tflite --threads 4" in here
    elsewhere = without_model_hint(load_target("jetson-nano"), "int8")
    assert "rk3588, rpi-zero2w have one" in elsewhere and "--target host" in elsewhere
    phone = load_target("snapdragon-410")
    assert "pixel4" in without_model_hint(phone, "int8") and "pixel1" not in without_model_hint(phone, "int8")
    assert "pixel1" in without_model_hint(phone, "fp32")
    assert "rpi4" not in without_model_hint(load_target("snapdragon-410"), "int8")
