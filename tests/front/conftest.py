"""A small problem in files, which any process can open, and the points of a sweep over it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.torch import save_file

from edgeprune.front.grid import Point, grid
from edgeprune.spec import Spec
from tests.digits import digits, trained

BOARD = Path(__file__).parents[1] / "golden" / "test-board.toml"


@pytest.fixture(scope="session")
def problem(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """The sections `model` and `data` of a job on handwritten digits."""
    folder = tmp_path_factory.mktemp("problem")
    save_file(trained(), folder / "digits.safetensors")
    sets = {
        f"{axis}{suffix}": getattr(digits()[role], axis).numpy()
        for role, suffix in (("train", ""), ("validation", "_val"), ("test", "_test"))
        for axis in "xy"
    }
    np.savez(folder / "digits.npz", **sets)
    entry = Path(__file__).parents[1] / "digits.py"
    return {
        "model": {"entry": f"{entry}:Net", "weights": folder / "digits.safetensors"},
        "data": {"source": f"npz:{folder / 'digits.npz'}"},
    }


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
