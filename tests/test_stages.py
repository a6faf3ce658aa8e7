"""What an accepted model's files become."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from edgeprune.backends import Artifact
from edgeprune.stages import publish
from edgeprune.values import Value


class Found(Value):
    artifact: Artifact


class Made(Value):
    exported: dict[str, Found]


class Run:
    """A run folder that starts without artifacts."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def folder(self, key: str) -> Path | None:
        path = self.root / key
        return path if path.is_dir() else None

    @contextmanager
    def write_folder(self, key: str) -> Iterator[Path]:
        path = self.root / key
        path.mkdir()
        yield path


def test_files_and_folders_of_files_lie_side_by_side_when_they_are_published(tmp_path: Path) -> None:
    files = ["o/model.xml", "o/model.bin", "o/artifact.json", "c/model.tflite", "c/net/net.c.json", "c/net/src/net.c"]
    for name in files:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(name)
    one = Artifact(backend="openvino", path=tmp_path / "o/model.xml", precision="int8", size_bytes=1, sha256="")
    many = one.model_copy(update={"backend": "c", "path": tmp_path / "c/net/net.c.json"})
    made: Any = Made(exported={"openvino": Found(artifact=one), "c": Found(artifact=many)})
    job: Any = SimpleNamespace(run=Run(tmp_path))
    moved = publish(job, made)
    there = tmp_path / "artifacts"
    assert sorted(str(path.relative_to(there)) for path in there.rglob("*") if path.is_file()) == [
        "model.bin", "model.xml", "net/net.c.json", "net/src/net.c"
    ]  # fmt: skip
    assert moved.exported["openvino"].artifact.path == there / "model.xml"
    assert moved.exported["c"].artifact.path == there / "net" / "net.c.json"
    assert publish(job, made) == moved, "a resumed run finds them there"
