"""The public names: documented, typed, and there without torch."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import edgeprune
from tests.test_layers import FILES, ROOT, is_script, tree


def test_the_package_loads_without_torch_and_knows_its_version() -> None:
    script = "import sys, edgeprune; print(edgeprune.__version__, 'torch' in sys.modules, 'pydantic' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.split() == [edgeprune.__version__, "False", "False"]


def test_every_public_name_is_there_when_asked_for() -> None:
    assert all(getattr(edgeprune, name) is not None for name in edgeprune.__all__)


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="module 'edgeprune' has no attribute 'prun'"):
        _ = edgeprune.prun


def test_types_are_announced() -> None:
    assert (Path(edgeprune.__file__).parent / "py.typed").is_file()


@pytest.mark.parametrize("name", FILES)
def test_modules_classes_and_functions_that_are_public_are_documented(name: str) -> None:
    module = tree(name)
    if FILES[name].name == "__init__.py" and not module.body:
        return
    assert ast.get_docstring(module) or name == "edgeprune.__main__", f"{name} has no docstring"
    if is_script(name):
        return  # its functions are nobody else's
    bare = [
        node.name
        for node in module.body
        if isinstance(node, ast.FunctionDef | ast.ClassDef)
        and not node.name.startswith("_")
        and not ast.get_docstring(node)
        and not any(ast.unparse(mark) == "overload" for mark in node.decorator_list)
    ]
    assert not bare, f"{name}: no docstring on {bare}"
