"""Writes `profiles/` and the table in `docs/device-models.md` from the published measurements.

    python -m tools.fit_profiles --measurements ../shared/measurements

The same measurements give the same bytes. The package never reads the measurements; it ships what is written here:
one file per target and runtime, and in `published/` one per engine with the models of every device that has rows.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from edgeprune.device.profiles import PROFILE_SCHEMA
from tools.board_recipes import BOARD_RECIPES
from tools.mcu_published import write_microcontrollers
from tools.mcu_recipes import MCU_RECIPES
from tools.profile_text import document
from tools.published import rounded, write_published
from tools.recipes import RECIPES, Fitted

ALL_RECIPES = RECIPES | BOARD_RECIPES | MCU_RECIPES


def model_tree(fitted: Fitted) -> dict[str, Any]:
    """One latency model as the profile file holds it."""
    names = (
        "conv_s_per_mac",
        "first_conv_s_per_mac",
        "depthwise_s_per_mac",
        "element_s",
        "weight_s",
        "per_op_s",
    )
    return {
        "runtime": fitted.runtime,
        "precision": fitted.precision,
        "threads": fitted.threads,
        **{name: rounded(price) for name, price in zip(names, fitted.prices_s, strict=True)},
        "first_conv_extra_channels": fitted.extra_channels,
        "gathers_patches": fitted.runtime in ("tflm", "x-cube-ai"),
        "band": {"low": rounded(fitted.band[0]), "high": rounded(fitted.band[1])},
        "source": fitted.source,
    }


def profile_tree(target: str, runtime: str, models: list[Fitted]) -> dict[str, Any]:
    return {
        "schema": PROFILE_SCHEMA,
        "target": target,
        "runtime": runtime,
        "models": [model_tree(model) for model in models],
        "provenance": {
            "written_by": "python -m tools.fit_profiles",
            "method": "six prices, log-space maximum a posteriori with prior ratios, soft-L1 on rows",
            **{model.precision: _rounded_tree(model.provenance) for model in models},
        },
    }


def _rounded_tree(value: Any) -> Any:
    if isinstance(value, float):
        return rounded(value)
    if isinstance(value, dict):
        return {key: _rounded_tree(entry) for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return [_rounded_tree(entry) for entry in value]
    return value


def write_all(measurements: Path, profiles: Path, page: Path | None) -> list[Path]:
    """Fits every recipe and writes its file; returns the files written."""
    profiles.mkdir(parents=True, exist_ok=True)
    written, everything = [], []
    for (target, runtime), recipe in ALL_RECIPES.items():
        models = recipe(measurements)
        everything.append((target, runtime, models))
        path = profiles / f"{target}.{runtime}.json"
        tree = profile_tree(target, runtime, models)
        path.write_text(json.dumps(tree, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
        written.append(path)
    written += write_published(measurements, profiles / "published")
    written.append(write_microcontrollers(measurements, profiles))
    if page is not None:
        before = page.read_text(encoding="utf-8") if page.is_file() else ""
        page.write_text(document(everything, before), encoding="utf-8")
        written.append(page)
    return written


def main() -> None:
    root = Path(__file__).resolve().parent.parent
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--measurements", type=Path, default=root.parent / "shared" / "measurements")
    parser.add_argument("--profiles", type=Path, default=root / "profiles")
    parser.add_argument("--page", type=Path, default=root / "docs" / "device-models.md")
    arguments = parser.parse_args()
    if not arguments.measurements.is_dir():
        parser.error(f"no measurements at {arguments.measurements}; give --measurements DIR")
    arguments.page.parent.mkdir(parents=True, exist_ok=True)
    for path in write_all(arguments.measurements, arguments.profiles, arguments.page):
        print(path)


if __name__ == "__main__":
    main()
