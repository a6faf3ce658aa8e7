"""The pages of the documentation are true: their examples work, their lists are whole, their links lead somewhere."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any, get_args

import pytest
import torch

import edgeprune
from edgeprune.augmentations import Augmentation
from edgeprune.backends.c.lowering import lowerings
from edgeprune.backends.c.signatures import SIGNATURES
from edgeprune.pruning.importance import CRITERIA
from edgeprune.recipe import TrainSpec

ROOT = Path(__file__).parents[1]


@pytest.mark.filterwarnings("ignore")  # torch's exporters warn about themselves
def test_the_examples_on_pruning_run_in_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    text = (ROOT / "docs" / "pruning.md").read_text(encoding="utf-8")
    blocks = re.findall(r"^```python\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    assert len(blocks) >= 8
    names: dict[str, object] = {"__name__": "pruning"}
    for block in blocks:
        exec(compile(block, "docs/pruning.md", "exec"), names)
    assert {file.name for file in tmp_path.iterdir()} >= {"plan.json", "small.safetensors", "small.onnx"}


@pytest.mark.parametrize("page", sorted(file.name for file in (ROOT / "docs").glob("*.md")))
def test_links_lead_somewhere(page: str) -> None:
    text = (ROOT / "docs" / page).read_text(encoding="utf-8")
    links = re.findall(r"\]\(([^)#:]+)\)", text)
    assert all((ROOT / "docs" / link).exists() for link in links), links


def test_every_setting_of_training_is_described_with_its_default() -> None:
    text = (ROOT / "docs" / "training.md").read_text(encoding="utf-8")
    for name, field in TrainSpec.model_fields.items():
        assert f"`{name}`" in text or f"`train.{name}`" in text, name
        if isinstance(field.default, int | float) and not isinstance(field.default, bool):
            assert re.search(rf"\b{name}` (?:\| |= |seconds \(){field.default:g}\b", text), (
                f"{name} = {field.default:g}"
            )
        for choice in get_args(field.annotation):
            assert not isinstance(choice, str) or choice in text, f"{name} = {choice}"
    for kind in get_args(get_args(Augmentation)[0]):
        (row,) = re.findall(rf"^\| `{kind().name}` .*$", text, re.MULTILINE)
        for name, value in kind():
            assert name == "name" or f"`{name}` = {value:g}" in row, (kind().name, name)


def section(page: str, heading: str) -> str:
    text = (ROOT / "docs" / page).read_text(encoding="utf-8")
    return text.partition(f"## {heading}\n")[2].partition("\n## ")[0]


def test_the_operators_listed_are_those_that_can_be_written_as_c() -> None:
    listed = section("microcontrollers.md", "What can be written").split("\n\n")[0]
    assert set(re.findall(r"`(\w+)`", listed)) == set(lowerings()) & set(SIGNATURES)


def test_the_criteria_listed_are_all_there_are() -> None:
    rows = re.findall(r"^\| `(\w+)` \|.*? \| (weights|inputs|targets) \|", section("criteria.md", "All of them"), re.M)
    assert len(rows) == len(CRITERIA) and dict(rows) == {name: one.needs for name, one in CRITERIA.items()}


def test_the_criterion_shown_scores_channels() -> None:
    (shown,) = re.findall(r"^```python\n(.*?)^```", section("criteria.md", "Your own"), re.MULTILINE | re.DOTALL)
    names: dict[str, Any] = {}
    exec(compile(shown, "docs/criteria.md", "exec"), names)
    model = torch.nn.Sequential(torch.nn.Conv2d(3, 8, 3), torch.nn.ReLU(), torch.nn.Conv2d(8, 4, 3))
    small = edgeprune.prune(model, torch.zeros(1, 3, 8, 8), keep=0.5, criterion=names["score"])
    spread = model[0].weight.detach().flatten(1).std(1)
    assert set(small.plan.keep["0"]) == set(spread.argsort(descending=True)[:4].tolist())


def test_the_c_shown_compiles_against_a_library(exported: Callable[..., Any], tmp_path: Path) -> None:
    compiler = shutil.which("cc")
    if compiler is None:
        pytest.skip("needs the tool cc")
    report = exported("c", "residual").path
    (shown,) = re.findall(r"^```c\n(.*?)^```", section("microcontrollers.md", "The library"), re.MULTILINE | re.DOTALL)
    (tmp_path / "app.c").write_text(f"{shown}\nint main(void) {{ return classify(0) < 0; }}\n")
    sources = [*(report.parent / "src").glob("*.c"), tmp_path / "app.c"]
    flags = ["-std=c99", "-Wall", "-Wextra", "-Werror", f"-I{report.parent / 'include'}", "-o", str(tmp_path / "app")]
    done = subprocess.run([compiler, *flags, *map(str, sources)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert subprocess.run([str(tmp_path / "app")], check=False).returncode == 0


def test_the_files_listed_are_those_of_a_library(exported: Callable[..., Any]) -> None:
    folder = exported("c", "residual").path.parent
    listed = re.findall(r"^\| (`.*?) \|", section("microcontrollers.md", "The library"), re.MULTILINE)
    names = {name for cell in listed for name in re.findall(r"`([^`]+)`", cell)} - {"port/<board>/"}
    assert len(names) >= 6 and all((folder / name).exists() for name in names)
    assert {file.name for file in folder.iterdir()} - {name.split("/")[0] for name in names} == {"LICENSE"}
