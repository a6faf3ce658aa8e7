"""Whole random networks: each library answers as the reference does, and does nothing that C leaves undefined."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from tests.backends.c import graphs

FEW, MANY = range(10), range(10, 160)


@pytest.fixture(scope="module")
def objects(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """All kernels, compiled with checks of addresses and of undefined behaviour."""
    if not shutil.which("cc"):
        pytest.skip("needs the tool cc")
    folder = tmp_path_factory.mktemp("kernels")
    probe = ["cc", *graphs.SANITIZED, "-xc", "-", "-o", str(folder / "probe")]
    if subprocess.run(probe, input=b"int main(void) { return 0; }", check=False, capture_output=True).returncode:
        pytest.skip("needs the tool cc with its sanitizers")
    return graphs.kernels(folder, graphs.SANITIZED)


def answers(seed: int, objects: list[str], folder: Path) -> tuple[int, str]:
    return graphs.said(graphs.network(seed), folder, objects, graphs.SANITIZED, ("plain", "dsp")[seed % 2])


@pytest.mark.parametrize("seed", FEW)
def test_a_random_network_is_exact(seed: int, objects: list[str], tmp_path: Path) -> None:
    status, words = answers(seed, objects, tmp_path)
    assert status == 0, words


@pytest.mark.slow
@pytest.mark.parametrize("seed", MANY)
def test_more_random_networks_are_exact(seed: int, objects: list[str], tmp_path: Path) -> None:
    status, words = answers(seed, objects, tmp_path)
    assert status == 0, words


def test_networks_are_of_many_operators() -> None:
    kinds = {operator.kind for seed in (*FEW, *MANY) for operator in graphs.network(seed).operators}
    assert len(kinds) > 40
