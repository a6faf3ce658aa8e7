import subprocess
import sys
from pathlib import Path

import pytest

from edgeprune import backends
from edgeprune.errors import QualityError, UsageError


def test_backends_are_found_by_their_files() -> None:
    assert {"c", "onnxruntime", "openvino", "tflite"} <= set(backends.names())
    for name in ("c", "onnxruntime", "openvino", "tflite"):
        assert backends.get(name).NAME == name


@pytest.mark.parametrize(
    ("file", "name"), [("a.onnx", "onnxruntime"), ("b.TFLITE", "tflite"), ("c.xml", "openvino"), ("d.c.json", "c")]
)
def test_a_file_goes_to_the_backend_of_its_ending(file: str, name: str) -> None:
    assert backends.for_file(Path(file)).NAME == name


def test_unknown_names_and_endings_are_refused_with_the_known_ones() -> None:
    with pytest.raises(UsageError, match="unknown backend 'openvin'") as caught:
        backends.get("openvin")
    assert "openvino" in caught.value.hint
    with pytest.raises(UsageError, match=r"no backend runs 'm\.h5'"):
        backends.for_file(Path("m.h5"))


def test_a_file_that_the_converter_did_not_write_is_noticed(tmp_path: Path) -> None:
    (tmp_path / "model.xml").write_text("<net/>")
    with pytest.raises(QualityError, match=r"without writing model\.bin"):
        backends.describe("openvino", tmp_path / "model.xml", "int8")


def test_files_of_another_artifact_in_the_folder_do_not_count(tmp_path: Path) -> None:
    (tmp_path / "model.onnx").write_bytes(b"12345")
    (tmp_path / "model.bin").write_bytes(b"of the .xml")
    assert backends.describe("onnxruntime", tmp_path / "model.onnx", "int8").size_bytes == 5


def test_backends_load_no_runtime_and_no_torch_at_import() -> None:
    program = (
        "import sys; from edgeprune import backends; [backends.get(n) for n in backends.names()];"
        "import edgeprune.profiling, edgeprune.quantization.gates;"
        "heavy = {'torch', 'onnx', 'onnxruntime', 'openvino', 'ai_edge_litert', 'litert_torch'} & set(sys.modules);"
        "assert not heavy, heavy"
    )
    root = str(Path(backends.__file__).parents[2])
    done = subprocess.run([sys.executable, "-c", program], check=False, timeout=60, env={"PYTHONPATH": root})
    assert done.returncode == 0


def test_an_artifact_keeps_its_place_within_the_folder_of_its_export() -> None:
    one = backends.Artifact(backend="tflite", path=Path("/a/b/m.tflite"), precision="int8", size_bytes=1, sha256="")
    many = one.model_copy(update={"backend": "c", "path": Path("/a/b/net/net.c.json")})
    assert backends.place(one) == Path("m.tflite") and backends.place(many) == Path("net/net.c.json")


def test_libraries_are_exported_only_where_they_are_asked_for_or_deployed(monkeypatch: pytest.MonkeyPatch) -> None:
    from edgeprune import job

    for name in backends.names():
        monkeypatch.setattr(backends.get(name), "missing", lambda: "")
    assert [name for name in backends.names() if backends.get(name).ON_REQUEST] == ["c"]
    assert job._formats((), "tflite") == ("onnxruntime", "openvino", "tflite")
    assert job._formats((), "c") == ("c", "onnxruntime", "openvino", "tflite")
    assert job._formats(("c",), "tflite") == ("c", "tflite")
    assert job._formats(("onnx",), "tflite") == job._formats(("onnxruntime",), "tflite") == ("onnxruntime", "tflite")
    with pytest.raises(UsageError, match="unknown format 'onx'") as caught:
        job._formats(("onx",), "tflite")
    assert "onnx" in caught.value.hint
    monkeypatch.setattr(backends.get("c"), "missing", lambda: "no compiler")
    assert job._not_exported(()) == ()
