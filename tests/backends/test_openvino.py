import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from edgeprune import backends
from edgeprune.errors import MissingExtraError, UsageError

openvino = backends.get("openvino")


def test_loading_openvino_reports_nothing_to_its_vendor(exported: Any) -> None:
    """OpenVINO sends an event when it is imported and when it converts; the package that sends must stay out."""
    exported("openvino", "residual")
    program = (
        "import sys; from pathlib import Path; from edgeprune.backends import openvino;"
        f"openvino.load(Path({str(exported('openvino', 'residual').path)!r}));"
        "assert 'openvino' in sys.modules and sys.modules['openvino_telemetry'] is None;"
        "assert 'openvino.tools.ovc.telemetry_stub' in sys.modules"
    )
    root = str(Path(backends.__file__).parents[2])
    done = subprocess.run([sys.executable, "-c", program], check=False, timeout=120, env={"PYTHONPATH": root})
    assert done.returncode == 0


def test_an_xml_without_its_weights_is_refused(exported: Any, tmp_path: Path) -> None:
    path = tmp_path / "model.xml"
    path.write_bytes(exported("openvino", "residual").path.read_bytes())
    with pytest.raises(UsageError, match="no such model file") as caught:
        openvino.load(path)
    assert caught.value.where.endswith("model.bin")


def test_the_precision_hint_is_pinned_and_recorded(exported: Any) -> None:
    artifact = exported("openvino", "residual", "fp32")
    compiled = openvino.compile_file(artifact.path, 1)
    assert compiled.get_property("INFERENCE_PRECISION_HINT").to_string() == "f32"
    assert openvino.load(artifact.path).precision == "fp32"
    assert artifact.notes == ("run with the precision hint f32",)


def test_a_missing_package_names_its_extra(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setitem(sys.modules, "openvino", None)
    with pytest.raises(MissingExtraError, match="OpenVINO files needs the extra 'openvino'"):
        openvino.load(tmp_path / "model.xml")
    monkeypatch.setattr(openvino, "find_spec", lambda name: None)
    assert openvino.missing() == "the package openvino is not installed"
