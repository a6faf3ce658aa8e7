"""A small problem in files, which any process can open, and the points of a sweep over it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from edgeprune.front.grid import Point, grid
from edgeprune.spec import Spec
from tests.digits import job_files

BOARD = Path(__file__).parents[1] / "golden" / "test-board.toml"


@pytest.fixture(scope="session")
def problem(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """The sections `model` and `data` of a job on handwritten digits."""
    return job_files(tmp_path_factory.mktemp("problem"))


@pytest.fixture(scope="session")
def points(problem: dict[str, Any]) -> Callable[..., tuple[Point, ...]]:
    """`points("250us", "90us", targets=[…])`: jobs that end within seconds, on a made-up board."""

    def make(*latencies: str, targets: tuple[str, ...] = (str(BOARD),), **fit: Any) -> tuple[Point, ...]:
        settings = {
            "schedule": "one-shot",
            "epochs": 1,
            "race_steps": 4,
            "formats": ("onnxruntime",),
            "step": 4,
            "calibration_samples": 32,
            "curves_limit_s": 600.0,
            "solver_limit_s": 600.0,
            **fit,
        }
        return grid(Spec.model_validate({**problem, "fit": settings}), targets, {"latency": latencies})

    return make
