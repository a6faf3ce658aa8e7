"""What is looked at before a deployment, and the test by TFLite's benchmark program."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgeprune.deploy import flow, trial
from edgeprune.deploy.bundle import make_bundle
from edgeprune.deploy.origin import from_file
from edgeprune.deploy.trial import compared, preflight
from edgeprune.device_facts import Facts
from edgeprune.errors import DeviceError, MissingExtraError, QualityError, UsageError
from edgeprune.links import connect
from edgeprune.progress import SILENT
from edgeprune.target import load_target
from tests.deploy.board import Board, bundle
from tests.links.devices import executable
from tests.test_on_device import PI
from tests.test_on_device import Board as FromMemory

# The benchmark program as it would answer, with the Python runtime inside; `wrong` in its folder spoils the outputs.
BENCHMARK_MODEL = """
import sys
import numpy as np
from pathlib import Path
from ai_edge_litert.interpreter import Interpreter
given = dict(word[2:].split("=", 1) for word in sys.argv[1:])
model = Interpreter(model_path=given["graph"], num_threads=int(given["num_threads"]))
model.allocate_tensors()
source = model.get_input_details()[0]
if "input_layer_value_files" in given:
    name, file = given["input_layer_value_files"].split(":")
    shape = [int(size) for size in given["input_layer_shape"].split(",")]
    assert name == given["input_layer"] and shape == list(source["shape"])
    model.set_tensor(source["index"], np.fromfile(file, source["dtype"]).reshape(shape))
model.invoke()
print("count=5 first=9 curr=9 min=8 max=10 avg=9 std=1")
outputs = [model.get_tensor(sink["index"]) for sink in model.get_output_details()]
if "output_filepath" in given and "OUTPUTS":
    Path(given["output_filepath"]).write_bytes(b"".join((output ^ SPOILED).tobytes() for output in outputs))
"""


def benchmark_model(folder: Path, **changes: str) -> Path:
    text = BENCHMARK_MODEL.replace("SPOILED", changes.get("spoiled", "0"))
    executable(
        folder / "benchmark_model", f"#!{sys.executable}\n" + text.replace("OUTPUTS", changes.get("outputs", "y"))
    )
    return folder / "benchmark_model"


@pytest.mark.slow
def test_a_phone_without_python_tests_by_the_benchmark_program(small_tflite: Path, phone: str, tmp_path: Path) -> None:
    samples = np.random.default_rng(0).standard_normal((8, 16, 16, 16)).astype(np.float32)
    (tmp_path / "release").mkdir()
    release = make_bundle(from_file(small_tflite, None, None, samples, "app"), tmp_path / "release")
    link, options = connect(phone, "/none"), flow.Options(root=str(tmp_path / "root"))
    binary = str(benchmark_model(tmp_path))
    facts, test, notes = preflight(link, release.manifest, None, binary, False, SILENT)
    assert facts.python == "" and notes == ()
    record = flow.deploy(link, release, test, trial.timed_by_binary(binary, 10_000), options)
    assert record.outcome == "deployed" and record.self_test and record.self_test.exact
    assert record.latency and (record.latency.latency_ns, record.latency.statistic) == (9000, "mean")
    benchmark_model(tmp_path, spoiled="64")
    with pytest.raises(QualityError, match="the answer to real input 0 is off by 64, 2 is allowed"):
        flow.verify(link, "app", test, options)
    benchmark_model(tmp_path, outputs="")
    with pytest.raises(QualityError, match="--output_filepath is not known to it"):
        flow.verify(link, "app", test, options)


def test_an_untested_release_says_so(tmp_path: Path) -> None:
    board = Board(tmp_path / "board")
    release, options = bundle(tmp_path / "r", "one"), flow.Options(root=str(board.root))
    record = flow.deploy(board.link, release, trial.not_at_all, trial.not_timed, options)
    assert record.self_test is None and "the release was not tested on the device" in record.notes
    assert '"tested":false' in (board.app / "state.json").read_text()
    assert flow.verify(board.link, "app", trial.not_at_all, options).notes == ("the current release was not tested",)


def asked(facts: Facts, target: str | None = None, **ways: Any) -> Any:
    chosen = load_target(target) if target else None
    manifest = bundle_manifest()
    binary, untested = ways.get("binary"), ways.get("untested", False)
    return preflight(FromMemory(facts), manifest, chosen, binary, untested, SILENT)


def bundle_manifest() -> Any:
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        return bundle(Path(folder, "r"), "one").manifest


def test_a_device_is_held_against_the_target() -> None:
    assert asked(PI, "rpi4")[1:] == (trial.by_python, ())
    _, _, notes = asked(PI, "rpi5")
    assert notes == ("board does not look like rpi5: its cores are Cortex-A72, those of rpi5 Cortex-A76",)
    with pytest.raises(UsageError, match="board is x86_64, the release is for rpi4, which is arm"):
        asked(PI.model_copy(update={"machine": "x86_64"}), "rpi4")
    with pytest.raises(DeviceError, match="board does not say what it is"):
        asked(Facts())


def test_a_device_that_can_run_nothing_needs_a_word() -> None:
    bare = PI.model_copy(update={"python": "", "packages": {}})
    with pytest.raises(MissingExtraError, match="board has no Python to test a release with") as caught:
        asked(bare)
    assert "--untested" in caught.value.hint
    assert asked(bare, untested=True)[1] is trial.not_at_all
    with pytest.raises(MissingExtraError, match="has no ai-edge-litert"):
        asked(PI.model_copy(update={"packages": {"numpy": "2"}}), untested=True)


def test_raw_outputs_are_taken_apart_in_order() -> None:
    kept = [np.array([[1, 9], [5, 2]], np.int8), np.array([[0.5], [1.5]], np.float32)]
    raw = b"".join(kept[output][number].tobytes() for number in (0, 1) for output in (0, 1))
    found = compared(raw, kept, "here")
    assert found["errors"] == [[0.0, 0.0], [0.0, 0.0]] and found["margins"] == [[8.0, 0.0], [3.0, 0.0]]
    changed = compared(bytes([9, 1]) + raw[2:], kept, "here")
    assert changed["errors"][0] == [8.0, 0.0] and changed["same"] == [[False, True], [True, True]]
    with pytest.raises(QualityError, match="the outputs are 11 bytes, those kept 12"):
        compared(raw[:-1], kept, "here")
