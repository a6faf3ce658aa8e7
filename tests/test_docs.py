"""The pages of the documentation are true: their Python runs in order, their links lead somewhere."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

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
