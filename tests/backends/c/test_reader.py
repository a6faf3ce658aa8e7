"""Reading .tflite files: what is in them comes back, and what cannot be relied on is refused by name."""

from __future__ import annotations

import os
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest
from ai_edge_litert import interpreter as litert
from ai_edge_litert import schema_py_generated as schema

from edgeprune.backends.c.lowering import Variant
from edgeprune.backends.c.model import Tensor
from edgeprune.backends.c.options import TABLES
from edgeprune.backends.c.reader import read
from edgeprune.backends.c.schedule import schedule
from edgeprune.backends.c.signatures import SIGNATURES
from edgeprune.backends.tflite import interpreter
from edgeprune.errors import EdgepruneError, MissingExtraError, UnsupportedError, UsageError
from tests.backends.c.examples import defaults, example, network, same_model
from tests.backends.c.files import write

SHARED = Path(os.environ.get("EDGEPRUNE_SHARED", Path(__file__).parents[3] / "../shared")) / "data/mlperf_tiny_models"
KINDS = sorted(SIGNATURES)
# LiteRT's integer LSTM wants intermediates and gate scales that no random model has.
RUN_BY_LITERT = [kind for kind in KINDS if kind != "UNIDIRECTIONAL_SEQUENCE_LSTM"]


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_written_is_read(kind: str, tmp_path: Path) -> None:
    for seed in range(12):
        model = example(kind, np.random.default_rng(seed))
        found = read(write(model, tmp_path / "model.tflite"))
        assert same_model(found, model), f"seed {seed}"
        assert len(found.sha256) == 64


def test_networks_are_read_as_written(tmp_path: Path) -> None:
    for seed in range(20):
        model = network(np.random.default_rng(seed), length=1 + seed)
        assert same_model(read(write(model, tmp_path / "model.tflite")), model)


@pytest.mark.parametrize("kind", RUN_BY_LITERT)
def test_shapes_are_those_that_litert_makes(kind: str, tmp_path: Path) -> None:
    for seed in range(6):
        model = example(kind, np.random.default_rng(100 + seed))
        loaded = interpreter(write(model, tmp_path / "model.tflite"), 1, reference=True)
        loaded.invoke()
        for index, detail in zip(read(tmp_path / "model.tflite").outputs, loaded.get_output_details(), strict=True):
            assert loaded.get_tensor(detail["index"]).shape == model.tensors[index].shape, f"seed {seed}"


@pytest.mark.parametrize("kind", KINDS)
def test_the_newest_known_version_is_that_of_the_reference_kernels(kind: str, tmp_path: Path) -> None:
    model = example(kind, np.random.default_rng(0))

    def opens(version: int) -> bool:
        operators = (replace(model.operators[0], version=version),)
        path = write(replace(model, operators=operators), tmp_path / "model.tflite")
        try:
            resolver = litert.OpResolverType.BUILTIN_REF
            litert.Interpreter(model_path=str(path), num_threads=1, experimental_op_resolver_type=resolver)
        except (RuntimeError, ValueError) as error:
            assert "Didn't find op" in str(error)
            return False
        return True

    known = SIGNATURES[kind].version
    assert opens(known) and not opens(known + 1)
    operators = (replace(model.operators[0], version=known + 1),)
    with pytest.raises(UnsupportedError, match=f"version {known + 1} is newer than {known}") as caught:
        read(write(replace(model, operators=operators), tmp_path / "model.tflite"))
    assert f"operator 0 ({kind})" in caught.value.where


@pytest.mark.parametrize("table", sorted(TABLES))
def test_options_are_those_of_the_schema(table: str) -> None:
    """Names, order and defaults; that positions are right shows in what is written and read."""
    stored = vars(getattr(schema, f"{table}OptionsT")())
    fields = [field for field in TABLES[table] if field.name]
    # Named by no other kind of quantisation than those refused.
    names = [name for name in stored if name != "quantSpec"]
    assert names == ["".join(w.title() if i else w for i, w in enumerate(f.name.split("_"))) for f in fields]
    for name, field in zip(names, fields):
        if field.form is not None:
            assert stored[name] == field.default and type(stored[name]) is type(field.default), name


def test_options_that_are_left_out_have_their_defaults(tmp_path: Path) -> None:
    model = example("ADD", np.random.default_rng(0))
    bare = replace(model, operators=(replace(model.operators[0], options={}),))
    assert read(write(bare, tmp_path / "model.tflite")).operators[0].options == defaults("ADD")


@pytest.mark.parametrize(
    ("file", "operators", "kinds"),
    [
        ("kws_ref_model.tflite", 13, {"CONV_2D", "DEPTHWISE_CONV_2D", "AVERAGE_POOL_2D", "RESHAPE", "SOFTMAX"}),
        ("pretrainedResnet_quant.tflite", 16, {"CONV_2D", "ADD", "AVERAGE_POOL_2D", "RESHAPE", "SOFTMAX"}),
        ("vww_96_int8.tflite", 31, {"CONV_2D", "DEPTHWISE_CONV_2D", "AVERAGE_POOL_2D", "RESHAPE", "SOFTMAX"}),
    ],
)
def test_published_files_are_read(file: str, operators: int, kinds: set[str], tmp_path: Path) -> None:
    path = SHARED / file
    if not path.is_file():
        pytest.skip(f"needs the shared data: {file}")
    model = read(path)
    assert len(model.operators) == operators
    assert {operator.kind for operator in model.operators} == kinds | {"FULLY_CONNECTED"}
    loaded = interpreter(path, 1)
    for detail in loaded.get_tensor_details():
        if detail["index"] >= len(model.tensors):
            continue  # the runtime's own scratch
        tensor = model.tensors[detail["index"]]
        assert (tensor.name, tensor.shape, np.dtype(tensor.dtype)) == (
            detail["name"],
            tuple(detail["shape"]),
            detail["dtype"],
        )
        if tensor.quantization is not None:
            # The runtime repeats the only scale of dense weights for every channel.
            assert set(tensor.quantization.scales) == set(map(float, detail["quantization_parameters"]["scales"]))
        if tensor.data is not None:
            np.testing.assert_array_equal(tensor.data, loaded.get_tensor(detail["index"]))
    assert same_model(read(write(model, tmp_path / "again.tflite")), model)


@pytest.mark.parametrize("net", ["residual", "depthwise", "excite"])
def test_exported_files_are_read(net: str, exported: Any) -> None:
    model = read(exported("tflite", net).path)
    assert model.tensor(model.inputs[0]).dtype == model.tensor(model.outputs[0]).dtype == "int8"


def test_without_the_schema_the_extra_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setitem(sys.modules, "ai_edge_litert", None)
    with pytest.raises(MissingExtraError, match="extra 'mcu'"):
        read(tmp_path / "model.tflite")


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no such model file") as caught:
        read(tmp_path / "model.tflite")
    assert caught.value.where == str(tmp_path / "model.tflite")


@pytest.mark.parametrize("kind", KINDS)
def test_scales_however_far_off_are_computed_with_or_refused(kind: str, tmp_path: Path) -> None:
    """Of weights any that the format holds, of activations those that are read: no number overflows."""
    for seed in range(6):
        model, random = example(kind, np.random.default_rng(seed)), np.random.default_rng(100 + seed)
        tensors = [_far_off(tensor, random) for tensor in model.tensors]
        path = write(replace(model, tensors=tuple(tensors)), tmp_path / "model.tflite")
        for variant in get_args(Variant):
            try:
                schedule(read(path), variant)
            except EdgepruneError as error:
                assert type(error) in (UnsupportedError, UsageError)


def _far_off(tensor: Tensor, random: np.random.Generator) -> Tensor:
    """The tensor, or the tensor at other scales."""
    if tensor.quantization is None or random.random() < 0.6:
        return tensor
    least, most = (-44, 38) if tensor.data is not None else (-12, 12)
    scales = [float(np.float32(10.0 ** random.uniform(least, most))) for _ in tensor.quantization.scales]
    return replace(tensor, quantization=replace(tensor.quantization, scales=tuple(scales)))
