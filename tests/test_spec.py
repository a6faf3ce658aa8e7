"""The job file: what is accepted, what it resolves to, and what each mistake says."""

from __future__ import annotations

import tempfile
import tomllib
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeprune.errors import UsageError
from edgeprune.spec import FILE_NAME, Spec, anchored, load_spec, parse_setting, resolved_toml


def write(folder: Path, text: str) -> Path:
    file = folder / "job.toml"
    file.write_text(text, encoding="utf-8")
    return file


def test_without_file_and_flags_the_job_is_the_demo_on_the_host(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    spec = load_spec(None, {})
    assert spec.is_demo and spec.target.name == "host"


def test_the_file_in_the_current_folder_is_found_and_flags_win(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / FILE_NAME).write_text('[budget]\nlatency = "30ms"\nram = "1MiB"\n')
    spec = load_spec(None, {"budget.latency": "20ms", "budget.ram": None})
    assert (spec.budget.latency, spec.budget.ram) == ("20ms", "1MiB")


def test_files_named_in_a_job_file_are_relative_to_it_and_those_of_flags_to_the_current_folder(tmp_path: Path) -> None:
    text = '[model]\nentry = "nets.py:make"\nweights = "w.safetensors"\n[data]\nsource = "npz:train.npz"\n'
    spec = load_spec(write(tmp_path, text), {"model.weights": Path("here.safetensors")})
    assert spec.model.entry == f"{tmp_path}/nets.py:make"
    assert spec.model.weights == Path("here.safetensors")
    assert spec.data.source == f"npz:{tmp_path}/train.npz"


@pytest.mark.parametrize("entry", ["timm:resnet10t", "torchvision:resnet18", "/abs/nets.py:make"])
def test_names_that_are_no_relative_files_stay_as_they_are(tmp_path: Path, entry: str) -> None:
    spec = load_spec(write(tmp_path, f'[model]\nentry = "{entry}"\n[data]\nsource = "/abs/d.py:data"\n'), {})
    assert (spec.model.entry, spec.data.source) == (entry, "/abs/d.py:data")


NAMES = st.text(st.characters(exclude_categories=("Cs",), exclude_characters="/\0:"), min_size=1, max_size=12)


@given(
    name=NAMES,
    arg=st.one_of(st.booleans(), st.integers(-(2**40), 2**40), st.floats(allow_nan=False), NAMES),
    epochs=st.integers(0, 99),
    gap=st.floats(0, 1),
    formats=st.lists(NAMES, max_size=3),
    mean=st.none() | st.tuples(st.floats(-1, 1), st.floats(-1, 1)),
)
def test_the_resolved_job_file_repeats_the_job(
    name: str, arg: object, epochs: int, gap: float, formats: list[str], mean: tuple[float, ...] | None
) -> None:
    settings = {
        "model.entry": f"/nets/{name}.py:make",
        "model.args": {name: arg},
        "data.source": f"npz:/data/{name}.npz",
        "data.mean": mean,
        "fit.epochs": epochs,
        "fit.solver_gap": gap,
        "fit.formats": tuple(formats),
    }
    with tempfile.TemporaryDirectory() as folder:
        spec = load_spec(write(Path(folder), ""), settings)
        assert load_spec(write(Path(folder), resolved_toml(spec)), {}) == spec


def test_the_resolved_job_file_holds_every_default() -> None:
    tree = tomllib.loads(resolved_toml(Spec()))
    assert tree["fit"]["epochs"] == Spec().fit.epochs and tree["fit"]["distill"] is True


def test_the_resolved_job_file_works_from_another_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    given = {"model.entry": "nets.py:make", "data.source": "npz:train.npz", "task": "own.py:task"}
    spec = load_spec(None, {**given, "target.name": "my-board.toml", "fit.criterion": "own.py:score"})
    tree = tomllib.loads(resolved_toml(spec))
    assert tree["model"]["entry"] == f"{tmp_path}/nets.py:make"
    assert tree["data"]["source"] == f"npz:{tmp_path}/train.npz"
    assert tree["task"] == f"{tmp_path}/own.py:task" and tree["fit"]["criterion"] == f"{tmp_path}/own.py:score"
    assert tree["target"]["name"] == f"{tmp_path}/my-board.toml"
    assert anchored(spec).model.entry == tree["model"]["entry"] and anchored(spec).out == tmp_path / "runs"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("fit.epochs=2", ("fit.epochs", 2)),
        ("fit.distill=false", ("fit.distill", False)),
        ("budget.latency=20ms", ("budget.latency", "20ms")),
        ('task="a=b"', ("task", "a=b")),
        ('fit.formats=["onnx"]', ("fit.formats", ["onnx"])),
    ],
)
def test_a_setting_is_read_with_its_type(text: str, expected: tuple[str, object]) -> None:
    assert parse_setting(text) == expected


@pytest.mark.parametrize("text", ["epochs", "=3", ""])
def test_a_setting_without_key_or_value_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match="cannot read") as caught:
        parse_setting(text)
    assert caught.value.hint == "write it like fit.epochs=2"


@pytest.mark.parametrize(
    ("overrides", "message", "hint"),
    [
        ({"model.entry": "nets.py:make"}, "a model without data", "add --data"),
        ({"data.source": "npz:x.npz"}, "data without a model", "add --model"),
        ({"model.weights": "w.safetensors"}, "weights without a model", "add --model"),
        ({"budget.latency": "20"}, "'20' has no unit", "write 20ms or 20s"),
        ({"budget.ram": "256K"}, "'256K' has no clear unit", "write 256kB"),
        ({"budget.max_drop": "1"}, "'1' has no clear unit", "write 1pp"),
        ({"fit.epoch": 3}, "unknown key 'fit.epoch'", "did you mean epochs"),
        ({"train.epochs": 3}, "unknown key 'train.epochs'", "epochs is in [fit]"),
        ({"fit.clip": "norm"}, "unknown key 'fit.clip'", "clip is in [train]"),
        ({"train.clip": "all"}, "train.clip: .*'norm'.*got 'all'", ""),
        ({"fits.epochs": 3}, "unknown key 'fits'", "did you mean fit"),
        ({"fit.rounds": 0}, "fit.rounds: .* greater than or equal to 1, got 0", ""),
        ({"target.name": {"x": 3}}, "target.name: .*valid string", ""),
        ({"out": "x", "out.y": 1}, "out is not a section", ""),
    ],
)
def test_each_mistake_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, overrides: dict[str, object], message: str, hint: str
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UsageError, match=message) as caught:
        load_spec(None, overrides)
    assert hint in caught.value.hint


def test_a_missing_or_broken_job_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no such file: .*none.toml"):
        load_spec(tmp_path / "none.toml", {})
    with pytest.raises(UsageError, match="not valid TOML: .*line 1"):
        load_spec(write(tmp_path, "latency = 20ms"), {})
