"""Wheel, sdist and editable install: what they hold is what is tracked, and each finds its data anywhere."""

from __future__ import annotations

import io
import json
import re
import shutil
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from pathlib import Path

import pytest

from edgeprune import __version__

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))


def tracked() -> list[str]:
    """Files of the checkout that exist and are tracked or would be."""
    listing = ["git", "ls-files", "--cached", "--others", "--exclude-standard"]
    done = subprocess.run(listing, cwd=ROOT, capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip("not a git checkout")
    return [name for name in done.stdout.splitlines() if (ROOT / name).is_file()]


@pytest.fixture(scope="module")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the tracked files, with ignored junk and a secret beside the data."""
    copy = tmp_path_factory.mktemp("checkout")
    for name in tracked():
        (copy / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(ROOT / name, copy / name)
    (copy / "targets" / "secret.tmp").write_text("not for shipping")
    (copy / "edgeprune" / "__pycache__").mkdir(exist_ok=True)
    (copy / "edgeprune" / "__pycache__" / "junk.pyc").write_text("not for shipping")
    return copy


def build(folder: Path, kind: str, out: Path) -> Path:
    call = f"import hatchling.build as b; print(b.build_{kind}({str(out)!r}))"
    done = subprocess.run([sys.executable, "-c", call], cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return out / done.stdout.splitlines()[-1]


def members(wheel: Path) -> set[str]:
    with zipfile.ZipFile(wheel) as archive:
        return {name for name in archive.namelist() if ".dist-info/" not in name}


def shipped() -> set[str]:
    """Where a wheel must put each tracked file."""
    names = {name for name in tracked() if name.startswith("edgeprune/")}
    data = {name for name in tracked() if name.startswith(("targets/", "profiles/"))}
    return names | {f"edgeprune/_data/{name}" for name in data}


@pytest.mark.slow
def test_a_wheel_built_directly_and_one_built_through_the_sdist_hold_the_tracked_files(
    checkout: Path, tmp_path: Path
) -> None:
    direct = build(checkout, "wheel", tmp_path)
    sdist = build(checkout, "sdist", tmp_path)
    with tarfile.open(sdist) as archive:
        archive.extractall(tmp_path, filter="data")
    through = build(tmp_path / f"edgeprune-{__version__}", "wheel", tmp_path / "second")
    assert members(direct) == members(through) == shipped()
    with zipfile.ZipFile(direct) as archive:
        metadata = next(name for name in archive.namelist() if name.endswith("METADATA"))
        licenses = [name for name in archive.namelist() if "/licenses/" in name]
        text = archive.read(metadata).decode()
    assert {Path(name).name for name in licenses} == {"LICENSE", "THIRD_PARTY.md"}
    assert f"Version: {__version__}" in text and "License-Expression: Apache-2.0" in text


@pytest.mark.slow
def test_an_unpacked_wheel_finds_its_targets_and_profiles_far_from_the_checkout(checkout: Path, tmp_path: Path) -> None:
    wheel = build(checkout, "wheel", tmp_path)
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(tmp_path / "site")
    assert names_found(tmp_path / "site", tmp_path) == expected_names()


@pytest.mark.slow
def test_an_editable_install_finds_the_checkouts_own_data(checkout: Path, tmp_path: Path) -> None:
    wheel = build(checkout, "editable", tmp_path)
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(tmp_path / "site")
    assert names_found(tmp_path / "site", tmp_path) == expected_names()
    assert not (tmp_path / "site" / "edgeprune").exists(), "an editable install must not copy a stale snapshot"


def names_found(site: Path, away: Path) -> list[str]:
    """The targets that a fresh interpreter, started elsewhere, finds with this folder on its path."""
    script = (
        f"import site, sys, json; sys.path[:] = [p for p in sys.path if p != {str(ROOT)!r}];"  # an editable install
        f"site.addsitedir({str(site)!r}); import edgeprune;"
        "from edgeprune.target import load_target, target_names;"
        "from edgeprune.data_files import profile_path;"
        "from edgeprune.device.profiles import load_latency_model;"
        f"assert not edgeprune.__file__.startswith({str(ROOT)!r}), edgeprune.__file__;"
        "assert load_latency_model(load_target('rpi4'), 'tflite', 'int8', 4) is not None;"
        "print(json.dumps([load_target(name).name for name in target_names()]))"
    )
    done = subprocess.run([sys.executable, "-I", "-c", script], cwd=away, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return list(json.load(io.StringIO(done.stdout)))


def expected_names() -> list[str]:
    return sorted(path.stem for path in (ROOT / "targets").glob("*.toml"))


def test_torch_is_bounded_in_the_project_and_pinned_by_the_constraints_only() -> None:
    (torch,) = [line for line in PROJECT["project"]["dependencies"] if line.startswith("torch")]
    assert "==" not in torch and "<" in torch
    assert re.search(r"^torch==2\.", (ROOT / "constraints.txt").read_text(encoding="utf-8"), re.MULTILINE)


def test_every_requirement_is_pinned_by_the_constraints() -> None:
    pinned = re.findall(r"^([a-z0-9-]+)==", (ROOT / "constraints.txt").read_text(encoding="utf-8"), re.MULTILINE)
    wanted = list(PROJECT["project"]["dependencies"])
    for requirements in PROJECT["project"]["optional-dependencies"].values():
        wanted += requirements
    names = {re.split(r"[^A-Za-z0-9-]", line)[0] for line in wanted} - {"edgeprune"}
    assert names <= set(pinned)


def test_the_extra_all_is_every_extra_for_users() -> None:
    extras = PROJECT["project"]["optional-dependencies"]
    (line,) = extras["all"]
    assert set(re.findall(r"[a-z]+", line.partition("[")[2])) == set(extras) - {"all", "dev"}


def test_the_version_is_that_of_the_package() -> None:
    assert PROJECT["tool"]["hatch"]["version"]["path"] == "edgeprune/__init__.py"
    assert re.fullmatch(r"\d+\.\d+\.\d+", __version__)


def test_the_make_targets_that_the_readme_and_ci_use_exist() -> None:
    rules = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))
    texts = [(ROOT / name).read_text(encoding="utf-8") for name in ("README.md", ".ci/run", "CHANGELOG.md")]
    used = {name for text in texts for name in re.findall(r"(?<![\w:])make ([a-z][a-z-]+)", text)}
    assert used and used <= rules
