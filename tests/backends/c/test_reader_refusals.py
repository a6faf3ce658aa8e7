"""Files that are refused, each by its own words: damaged, contradictory, or holding what is not known here."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import flatbuffers
import numpy as np
import pytest
from ai_edge_litert import schema_py_generated as schema

from edgeprune.backends.c import reader
from edgeprune.backends.c.model import Model, Operator, Quantization, Tensor
from edgeprune.backends.c.reader import read
from edgeprune.errors import EdgepruneError, UnsupportedError, UsageError
from tests.backends.c.examples import example, network
from tests.backends.c.files import write

Edit = Callable[[Any], None]


def random() -> np.random.Generator:
    return np.random.default_rng(1)


def edited(model: Model, path: Path, edit: Edit, behind: bytes = b"") -> Path:
    """The model's file after an edit of the schema's own objects, with bytes behind the flatbuffer."""
    root = schema.ModelT.InitFromPackedBuf(write(model, path).read_bytes(), 0)
    edit(root)
    builder = flatbuffers.Builder(1 << 12)
    builder.Finish(root.Pack(builder), b"TFL3")
    path.write_bytes(bytes(builder.Output()) + behind)
    return path


def refused(path: Path, kind: type[EdgepruneError], message: str, where: str = "") -> None:
    with pytest.raises(EdgepruneError, match=message) as caught:
        read(path)
    assert type(caught.value) is kind
    assert caught.value.where.startswith(str(path)) and where in caught.value.where


def with_tensor(model: Model, index: int, **changes: Any) -> Model:
    tensors = list(model.tensors)
    tensors[index] = replace(tensors[index], **changes)
    return replace(model, tensors=tuple(tensors))


def with_operator(model: Model, position: int = 0, **changes: Any) -> Model:
    operators = list(model.operators)
    operators[position] = replace(operators[position], **changes)
    return replace(model, operators=tuple(operators))


# The file.


def test_a_file_that_is_none_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "model.tflite"
    path.write_bytes(b"")
    refused(path, UsageError, "its identifier is missing")
    path.write_bytes(b"\x1c\x00\x00\x00TFL2" + bytes(64))
    refused(path, UsageError, "its identifier is missing")
    refused(tmp_path, UsageError, "no such model file")
    monkeypatch.setattr(reader, "_MOST_BYTES", 70)
    refused(path, UnsupportedError, "larger than 70 bytes")

    def denied(*arguments: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "open", denied)
    refused(path, UsageError, "cannot be read: Permission denied")


def test_every_cut_of_a_file_is_refused(tmp_path: Path) -> None:
    path = write(network(random(), 3), tmp_path / "model.tflite")
    data = path.read_bytes()
    # The outermost table is written last and so lies first: where little is cut off, data of the last tensor is.
    for length in range(0, len(data), 3):
        path.write_bytes(data[:length])
        with pytest.raises(UsageError):
            read(path)


def _several(root: Any) -> None:
    root.subgraphs.append(root.subgraphs[0])


def _custom(root: Any) -> None:
    root.operatorCodes[0].builtinCode, root.operatorCodes[0].customCode = schema.BuiltinOperator.CUSTOM, "Flex\nMine"


def _code(number: int) -> Edit:
    def edit(root: Any) -> None:
        root.operatorCodes[0].builtinCode = number

    return edit


def _set(path: str, value: Any) -> Edit:
    """Sets something like `subgraphs.0.tensors.1.shape`."""

    def edit(root: Any) -> None:
        *names, last = path.split(".")
        for name in names:
            root = root[int(name)] if name.isdigit() else getattr(root, name)
        setattr(root, last, value)

    return edit


GRAPH = "subgraphs.0."
TENSOR = "subgraphs.0.tensors.0."
SPARSE, QUANTIZATION = schema.SparsityParametersT(), schema.QuantizationParametersT()
QUANTIZATION.detailsType, QUANTIZATION.details = 1, schema.CustomQuantizationT()


@pytest.mark.parametrize(
    ("edit", "kind", "message"),
    [
        (_set("version", 4), UnsupportedError, "of version 4, not 3"),
        (_several, UnsupportedError, "holds 2 subgraphs, not 1"),
        (_set("subgraphs", []), UnsupportedError, "holds 0 subgraphs"),
        (_set(GRAPH + "operators", []), UnsupportedError, "holds no operators"),
        (_set(GRAPH + "operators", None), UnsupportedError, "holds no operators"),
        (_set("operatorCodes", []), UsageError, "operator 0 is the one of code 0 of 0"),
        (_set(GRAPH + "operators.0.opcodeIndex", 2**32 - 1), UsageError, "of code 4294967295 of 1"),
        (_custom, UnsupportedError, re.escape(r"not known here: operator 0 (custom 'Flex\nMine')")),
        (_code(schema.BuiltinOperator.WHILE), UnsupportedError, re.escape("operator 0 (WHILE)")),
        (_code(9999), UnsupportedError, "kind of operator 9999 that the schema does not know"),
        (_set("operatorCodes.0.version", 0), UnsupportedError, "version 0 is newer"),
        (_set(GRAPH + "inputs", []), UnsupportedError, "the model has no inputs"),
        (_set(GRAPH + "outputs", None), UnsupportedError, "the model has no outputs"),
        (_set(GRAPH + "inputs", [0, 0]), UnsupportedError, "one of its inputs twice"),
        (_set(GRAPH + "inputs", [-1]), UsageError, "is not among 2 tensors"),
        (_set(GRAPH + "outputs", [2]), UsageError, "is not among 2 tensors"),
        (_set(GRAPH + "operators.0.inputs", [2]), UsageError, "names a tensor that is not among 2"),
        (_set(GRAPH + "operators.0.inputs", [-2]), UsageError, "names a tensor that is not among 2"),
        (_set(GRAPH + "operators.0.outputs", [-1]), UsageError, "names a tensor that is not among 2"),
        (_set(GRAPH + "operators.0.intermediates", [1]), UsageError, "it has intermediates"),
        (_set(GRAPH + "operators.0.builtinOptions2Type", 3), UnsupportedError, "options are of a newer kind"),
        (_set(TENSOR + "type", schema.TensorType.STRING), UnsupportedError, "its number format STRING is not known"),
        (_set(TENSOR + "type", 99), UnsupportedError, "number format 99 that the schema does not know"),
        (_set(TENSOR + "buffer", 77), UsageError, "it lies in buffer 77 of 1"),
        (_set("buffers", []), UsageError, "it lies in buffer 0 of 0"),
        (_set(TENSOR + "sparsity", SPARSE), UnsupportedError, "stored sparse"),
        (_set(TENSOR + "variantTensors", []), UnsupportedError, "holds a variant"),
        (_set(TENSOR + "externalBuffer", 1), UnsupportedError, "lies in another file"),
        (_set(TENSOR + "quantization", QUANTIZATION), UnsupportedError, "quantisation is of a kind of its own"),
        (_set(TENSOR + "shape", [1] * 9), UnsupportedError, "it has 9 axes"),
        (_set(TENSOR + "shape", [2, -1]), UsageError, "is negative"),
        (_set(TENSOR + "shape", [2**31 - 1, 2**31 - 1]), UnsupportedError, "it takes more than 268,435,456 bytes"),
        (_set(TENSOR + "shape", [0] + [2**31 - 1] * 7), UnsupportedError, "it takes more than 268,435,456 bytes"),
        (_set(TENSOR + "isVariable", True), UsageError, "is an input of the model, yet a state"),
    ],
)
def test_what_a_file_claims_is_held_against_it(
    edit: Edit, kind: type[EdgepruneError], message: str, tmp_path: Path
) -> None:
    refused(edited(example("TANH", random()), tmp_path / "model.tflite", edit), kind, message)


def test_more_than_a_small_model_holds_is_refused_at_once(tmp_path: Path) -> None:
    model, path = example("CONCATENATION", random()), tmp_path / "model.tflite"
    many = with_operator(model, inputs=(0,) * 150_000)
    refused(write(many, path), UnsupportedError, "lists more than 4,194,304 elements", "operator 0 (CONCATENATION)")

    def add_tensors(root: Any) -> None:
        root.subgraphs[0].tensors += [schema.TensorT()] * 20_000

    refused(edited(model, path, add_tensors), UnsupportedError, "lists more than 4,194,304 elements")


# Shapes.


def test_a_batch_of_one_may_be_open_and_nothing_else(tmp_path: Path) -> None:
    model = example("AVERAGE_POOL_2D", random())
    shape = list(model.tensors[0].shape)
    path = tmp_path / "model.tflite"
    read(edited(model, path, _set(TENSOR + "shapeSignature", [-1, *shape[1:]])))
    read(edited(model, path, _set(TENSOR + "shapeSignature", shape)))
    for signature in ([1, -1, *shape[2:]], [-1, -1, *shape[2:]], [-1], [-2, *shape[1:]]):
        edit = _set(TENSOR + "shapeSignature", signature)
        refused(edited(model, path, edit), UnsupportedError, "its shape is open", where="tensor 0 'data 0'")


def test_a_scalar_is_known_by_its_rank(tmp_path: Path) -> None:
    model = example("TANH", random())
    scalar = with_tensor(with_tensor(model, 0, shape=()), 1, shape=())
    assert read(write(scalar, tmp_path / "model.tflite")).tensors[0].shape == ()
    edit = _set(TENSOR + "hasRank", False)
    refused(edited(scalar, tmp_path / "model.tflite", edit), UnsupportedError, "its rank is not known")


def test_an_empty_constant_needs_no_bytes(tmp_path: Path) -> None:
    model = example("RESHAPE", random())
    data, asked = model.operators[0].inputs
    assert data is not None and asked is not None
    model = with_tensor(with_tensor(model, data, shape=(1, 1, 1)), model.outputs[0], shape=())
    model = with_tensor(model, asked, data=np.zeros(0, np.int32), shape=(0,))
    found = read(write(model, tmp_path / "model.tflite")).tensors[asked]
    assert found.data is not None and found.data.shape == (0,)


# Data.


def test_data_of_another_size_than_the_shape_is_refused(tmp_path: Path) -> None:
    model = _convolution()
    for size in (3, 5, 1000, 0):
        wrong = with_tensor(model, 1, shape=(size, 3, 3, 2), quantization=None)
        refused(write(wrong, tmp_path / "model.tflite"), UsageError, "72 bytes are stored for", "tensor 1 'weights'")


def test_data_behind_the_flatbuffer_is_read(tmp_path: Path) -> None:
    model, path = example("CONV_2D", random()), tmp_path / "model.tflite"
    weights = model.tensors[1].data
    assert weights is not None
    size = write(model, path).stat().st_size * 2  # beyond the flatbuffer without its weights, whatever its padding

    def move(root: Any, offset: int = size, count: int = weights.size, inside: Any = None) -> None:
        buffer = root.buffers[root.subgraphs[0].tensors[1].buffer]
        buffer.data, buffer.offset, buffer.size = inside, offset, count

    def padded(offset: int) -> bytes:
        length = edited(model, path, lambda root: move(root, offset)).stat().st_size
        return bytes(offset - length) + weights.tobytes()

    found = read(edited(model, path, move, padded(size)))
    np.testing.assert_array_equal(found.tensors[1].data, weights)
    refused(edited(model, path, move, padded(size)[:-1]), UsageError, "do not lie in its")
    refused(edited(model, path, lambda root: move(root, count=3), padded(size)), UsageError, "3 bytes are stored for")
    refused(edited(model, path, lambda root: move(root, offset=2**64 - 1)), UsageError, "do not lie in its")
    both = edited(model, path, lambda root: move(root, inside=np.zeros(3, np.uint8)), padded(size))
    refused(both, UsageError, "lies both in the flatbuffer and behind it")


def test_the_buffer_that_stands_for_none_is_empty(tmp_path: Path) -> None:
    edit = _set("buffers.0.data", np.zeros(4, np.uint8))
    refused(edited(example("TANH", random()), tmp_path / "model.tflite", edit), UsageError, "buffer 0, which stands")


def test_constants_that_many_tensors_share_are_limited(tmp_path: Path) -> None:
    def share(root: Any) -> None:
        buffer = schema.BufferT()
        buffer.data = np.zeros(2**20, np.uint8)
        root.buffers.append(buffer)
        for _ in range(257):
            tensor = schema.TensorT()
            tensor.type, tensor.shape, tensor.buffer, tensor.name = schema.TensorType.INT8, [2**20], 1, "shared"
            root.subgraphs[0].tensors.append(tensor)

    path = edited(example("TANH", random()), tmp_path / "model.tflite", share)
    refused(path, UnsupportedError, "constants up to here take more than", "tensor 258 'shared'")


def test_weights_of_four_bits_are_unpacked(tmp_path: Path) -> None:
    model = example("FULLY_CONNECTED", random())
    weights = np.arange(-8, 7, dtype=np.int8).reshape(5, 3)
    data, made = replace(model.tensors[0], shape=(2, 3)), replace(model.tensors[3], shape=(2, 5))
    sums = Quantization((float(np.float32(model.tensors[0].scale * model.tensors[1].scale)),), (0,))
    bias = Tensor("bias", (5,), "int32", sums, np.zeros(5, np.int32))
    narrow = replace(model.tensors[1], shape=(5, 3), data=weights)
    model = replace(model, tensors=(data, narrow, bias, made))

    def pack(root: Any) -> None:
        root.subgraphs[0].tensors[1].type = schema.TensorType.INT4
        halves = np.append(weights.ravel(), 0).astype(np.uint8) & 15
        root.buffers[root.subgraphs[0].tensors[1].buffer].data = (halves[::2] | halves[1::2] << 4).astype(np.uint8)

    path = edited(model, tmp_path / "model.tflite", pack)
    np.testing.assert_array_equal(read(path).tensors[1].data, weights)
    truth = [detail for detail in _interpreter(path).get_tensor_details() if detail["index"] == 3]
    assert tuple(truth[0]["shape"]) == (2, 5)


def _interpreter(path: Path) -> Any:
    from edgeprune.backends.tflite import interpreter

    return interpreter(path, 1, reference=True)


def test_truth_values_are_read(tmp_path: Path) -> None:
    model = example("CONCATENATION", np.random.default_rng(3))
    data = np.array([True, False, True])
    first, second, made = (
        Tensor("a", (3,), "bool"),
        Tensor("b", (3,), "bool", None, data),
        Tensor("c", (6,), "bool"),
    )
    operator = replace(
        model.operators[0], inputs=(0, 1), outputs=(2,), options=model.operators[0].options | {"axis": 0}
    )
    model = Model((first, second, made), (operator,), (0,), (2,))
    np.testing.assert_array_equal(read(write(model, tmp_path / "model.tflite")).tensors[1].data, data)


# Quantisation.


@pytest.mark.parametrize(
    ("quantization", "message"),
    [
        (Quantization((0.0,), (0,)), "its scale 0.0 is not positive and finite"),
        (Quantization((-0.5,), (0,)), "its scale -0.5 is not positive"),
        (Quantization((float("nan"),), (0,)), "its scale nan is not positive"),
        (Quantization((float("inf"),), (0,)), "its scale inf is not positive"),
        (Quantization((0.5,), (128,)), "zero point 128 is not in .-128, 127."),
        (Quantization((0.5,), (-(2**40),)), "zero point -1099511627776 is not in"),
        (Quantization((0.5,), ()), "it has 1 scales but 0 zero points"),
        (Quantization((0.5, 0.5), (0, 0)), "it has 2 scales along axis 0"),
        (Quantization((0.5, 0.5), (0, 0), 7), "it has 2 scales along axis 7"),
        (Quantization((0.5, 0.5), (0, 0), -1), "it has 2 scales along axis -1"),
    ],
)
def test_scales_and_zero_points_are_held_to_their_ranges(
    quantization: Quantization, message: str, tmp_path: Path
) -> None:
    model = with_tensor(with_tensor(example("TANH", random()), 0, shape=(3, 3)), 1, shape=(3, 3))
    wrong = with_tensor(model, 0, quantization=quantization)
    refused(write(wrong, tmp_path / "model.tflite"), UsageError, message, "tensor 0 'data 0'")


@pytest.mark.parametrize("scale", [1e-20, 1e20])
def test_activations_at_scales_of_nothing_real_are_refused(scale: float, tmp_path: Path) -> None:
    for index in (0, 1):
        wrong = with_tensor(example("TANH", random()), index, quantization=Quantization((scale,), (0,)))
        refused(write(wrong, tmp_path / "model.tflite"), UnsupportedError, "which no values are computed at")


def test_zero_points_of_sums_are_zero(tmp_path: Path) -> None:
    model = example("FULLY_CONNECTED", random())
    wrong = with_tensor(model, 2, quantization=Quantization(model.tensors[2].quantization.scales, (1,)))  # type: ignore[union-attr]
    refused(write(wrong, tmp_path / "model.tflite"), UsageError, r"zero point 1 is not in \[0, 0\]")


@pytest.mark.parametrize(
    ("index", "changes", "kind", "message"),
    [
        (0, {"quantization": None}, UsageError, "input 0 is int8 without a scale"),
        (3, {"quantization": None}, UsageError, "output 0 is int8 without a scale"),
        (1, {"quantization": None}, UsageError, r"input 1 \(weights\) has no scale"),
        (1, {"quantization": Quantization((0.1,), (3,))}, UnsupportedError, "is not symmetric"),
        (1, {"data": None}, UnsupportedError, r"input 1 \(weights\) is computed, not constant"),
        (2, {"data": None}, UnsupportedError, r"input 2 \(bias\) is computed, not constant"),
        (1, {"dtype": "uint8"}, UnsupportedError, r"input 1 \(weights\) is uint8, not int8"),
        (0, {"dtype": "int16"}, UnsupportedError, r"input 0 \(data\) is int16, not int8"),
        (3, {"dtype": "int16"}, UsageError, "output 0 is int16, its input int8"),
        (2, {"quantization": Quantization((0.7,), (0,))}, UsageError, "bias scale is off by .* % from"),
        (0, {"variable": True}, UnsupportedError, r"input 0 \(data\) is variable"),
    ],
)
def test_what_a_convolution_takes_is_checked(
    index: int, changes: dict[str, Any], kind: type[EdgepruneError], message: str, tmp_path: Path
) -> None:
    model = _convolution()
    if changes.get("dtype") == "int16":
        changes = {**changes, "quantization": Quantization((0.5,), (0,))}
    if changes.get("dtype") == "uint8":
        changes = {**changes, "data": np.zeros(model.tensors[index].shape, np.uint8)}
    wrong = with_tensor(model, index, **changes)
    if "data" in changes and changes["data"] is None:
        wrong = replace(wrong, inputs=(0, index))
    if "variable" in changes:  # not an input then, so that the signature is what refuses
        wrong = replace(wrong, inputs=(3,), operators=(replace(wrong.operators[0], outputs=(4,)),), outputs=(4,))
        wrong = replace(wrong, tensors=(*wrong.tensors, wrong.tensors[3]))
    refused(write(wrong, tmp_path / "model.tflite"), kind, message, "operator 0 (CONV_2D)")


def _convolution() -> Model:
    """Input (1, 6, 6, 2), four weights of 3 x 3, bias, output."""
    x, y = Quantization((0.5,), (3,)), Quantization((0.25,), (-4,))
    scales = (0.125, 0.25, 0.5, 1.0)
    weights = Quantization(scales, (0,) * 4)
    sums = Quantization(tuple(0.5 * scale for scale in scales), (0,) * 4)
    tensors = (
        Tensor("x", (1, 6, 6, 2), "int8", x),
        Tensor("weights", (4, 3, 3, 2), "int8", weights, random().integers(-127, 128, (4, 3, 3, 2), np.int8)),
        Tensor("bias", (4,), "int32", sums, np.arange(4, dtype=np.int32)),
        Tensor("y", (1, 6, 6, 4), "int8", y),
    )
    made = example("CONV_2D", random()).operators[0]
    ones = dict.fromkeys(("stride_h", "stride_w", "dilation_h_factor", "dilation_w_factor"), 1)
    operator = replace(made, inputs=(0, 1, 2), outputs=(3,), options={**made.options, "padding": "SAME", **ones})
    return Model(tensors, (operator,), (0,), (3,))


def test_the_convolution_itself_is_read(tmp_path: Path) -> None:
    assert read(write(_convolution(), tmp_path / "model.tflite")).operators[0].kind == "CONV_2D"


def test_scales_along_another_axis_than_the_channels_are_refused(tmp_path: Path) -> None:
    model = with_tensor(_convolution(), 1, quantization=Quantization((0.5, 0.5, 0.5), (0, 0, 0), 1))
    refused(write(model, tmp_path / "model.tflite"), UnsupportedError, "has scales along axis 1, not 0")
    model = with_tensor(_convolution(), 0, quantization=Quantization((0.5, 0.5), (0, 0), 3))
    refused(write(model, tmp_path / "model.tflite"), UnsupportedError, "its input 0 has a scale per channel")


def test_a_bias_has_a_value_per_channel(tmp_path: Path) -> None:
    model = with_tensor(_convolution(), 2, shape=(3,), data=np.zeros(3, np.int32), quantization=None)
    refused(write(model, tmp_path / "model.tflite"), UsageError, r"its bias has shape \(3,\) for 4 channels")
    model = with_tensor(_convolution(), 2, shape=(4, 1), data=np.zeros((4, 1), np.int32), quantization=None)
    refused(write(model, tmp_path / "model.tflite"), UnsupportedError, r"shape \(4, 1\), not 1 to 1 axes")
    read(write(with_tensor(_convolution(), 2, quantization=None), tmp_path / "model.tflite"))


# Connections.


def test_operators_are_in_order_and_make_each_tensor_once(tmp_path: Path) -> None:
    model, path = network(random(), 3), tmp_path / "model.tflite"
    refused(
        write(replace(model, operators=model.operators[::-1]), path), UsageError, "is read before anything makes it"
    )
    again = (*model.operators, model.operators[-1])
    refused(write(replace(model, operators=again), path), UsageError, "is made twice", "operator 3")
    refused(write(replace(model, operators=model.operators[:-1]), path), UsageError, "that no operator makes")
    refused(write(replace(model, outputs=model.inputs), path), UsageError, "that no operator makes")
    cyclic = with_operator(model, 0, inputs=(model.outputs[0], *model.operators[0].inputs[1:]))
    refused(write(cyclic, path), UsageError, "is read before anything makes it", "operator 0")


def test_a_constant_is_not_an_input_and_not_made(tmp_path: Path) -> None:
    model, path = _convolution(), tmp_path / "model.tflite"
    refused(write(replace(model, inputs=(0, 1)), path), UsageError, "is an input of the model, yet constant")
    refused(write(with_operator(model, outputs=(1,)), path), UsageError, "is an output, yet constant")
    refused(write(with_operator(model, outputs=(0,)), path), UsageError, "is made twice")
    refused(write(with_tensor(model, 3, shape=(0,)), path), UsageError, "is an output, yet empty")


def test_an_empty_input_is_refused(tmp_path: Path) -> None:
    model = with_tensor(example("TANH", random()), 0, shape=(0, 2))
    refused(write(model, tmp_path / "model.tflite"), UsageError, "is an input of the model, yet empty")
    model = example("GATHER", random())
    index = model.operators[0].inputs[1]
    assert index is not None
    empty = with_tensor(model, index, shape=(0,), data=np.zeros(0, np.int32))
    refused(write(empty, tmp_path / "model.tflite"), UnsupportedError, "input 1 has no elements")


def test_a_state_belongs_to_one_lstm(tmp_path: Path) -> None:
    model, path = example("UNIDIRECTIONAL_SEQUENCE_LSTM", random()), tmp_path / "model.tflite"
    operator = model.operators[0]
    made = model.tensors[operator.outputs[0]]
    twice = replace(
        model,
        tensors=(*model.tensors, made),
        operators=(operator, replace(operator, outputs=(len(model.tensors),))),
    )
    refused(write(twice, path), UsageError, "is a state of two operators", "operator 1")
    state = operator.inputs[18]
    assert state is not None
    plain = with_tensor(model, state, variable=False)
    refused(write(replace(plain, inputs=(*plain.inputs, state)), path), UnsupportedError, r"\(state\) is not variable")
    full = with_tensor(model, state, data=np.zeros(model.tensors[state].shape, np.int8))
    refused(write(full, path), UsageError, "both constant and variable")


# Operators.


def test_floating_point_is_named(tmp_path: Path) -> None:
    path = tmp_path / "model.tflite"
    model = network(random(), 12)
    tensors = [
        replace(t, dtype="float32", quantization=None, data=None if t.data is None else t.data.astype(np.float32))
        for t in model.tensors
    ]
    floating = replace(model, tensors=tuple(tensors))
    refused(write(floating, path), UnsupportedError, r"in floating point: operator 0 \(\w+\), .* and 4 more")
    hybrid = with_tensor(with_tensor(_convolution(), 0, dtype="float32"), 3, dtype="float32")
    refused(write(hybrid, path), UnsupportedError, re.escape("in floating point: operator 0 (CONV_2D)"))


def test_floating_point_ends_are_named_with_their_remedy(tmp_path: Path) -> None:
    model = example("QUANTIZE", random())
    path = write(with_tensor(model, 0, dtype="float32", quantization=None), tmp_path / "model.tflite")
    with pytest.raises(UnsupportedError, match="takes or gives floating-point") as caught:
        read(path)
    assert "int8 inputs and outputs" in caught.value.hint
    last = with_operator(with_tensor(model, 1, dtype="float32", quantization=None), kind="DEQUANTIZE")
    refused(write(last, path), UnsupportedError, "takes or gives floating-point")
    idle = replace(example("TANH", random()), inputs=(0, 2))
    idle = replace(idle, tensors=(*idle.tensors, Tensor("unread", (1,), "float32")))
    refused(write(idle, path), UnsupportedError, "takes or gives floating-point")


@pytest.mark.parametrize(
    ("kind", "changes", "error", "message"),
    [
        ("ADD", {"inputs": (0,)}, UsageError, "it has 1 inputs, not 2"),
        ("ADD", {"inputs": (0, 1, 1)}, UsageError, "it has 3 inputs, not 2"),
        ("CONV_2D", {"inputs": (0, 1, 2, 2)}, UsageError, "it has 4 inputs, not 2 to 3"),
        ("CONCATENATION", {"inputs": ()}, UsageError, "it has 0 inputs, not 1"),
        ("ADD", {"inputs": (0, None)}, UsageError, "its input 1 is left out"),
        ("ADD", {"outputs": ()}, UsageError, "it has 0 outputs, not 1"),
        ("CONV_2D", {"options": {"fused_activation_function": "SIGN_BIT"}}, UnsupportedError, "SIGN_BIT is not known"),
        ("FULLY_CONNECTED", {"options": {"weights_format": "SHUFFLED4x16INT8"}}, UnsupportedError, "weights_format"),
        ("SOFTMAX", {"options": {"beta": float("nan")}}, UsageError, "its beta is not finite"),
        ("CONV_2D", {"options": {"stride_h": 0}}, UsageError, "its stride_h 0 is not in"),
        ("CONV_2D", {"options": {"stride_w": -1}}, UsageError, "its stride_w -1 is not in"),
        ("CONV_2D", {"options": {"dilation_w_factor": 2**31 - 1}}, UsageError, "its dilation_w_factor 2147483647"),
        ("MAX_POOL_2D", {"options": {"filter_height": 2**15}}, UsageError, "its filter_height 32768 is not in"),
        ("STRIDED_SLICE", {"options": {"ellipsis_mask": 1}}, UnsupportedError, "ellipsis_mask is not known"),
        ("STRIDED_SLICE", {"options": {"new_axis_mask": 1}}, UnsupportedError, "new_axis_mask is not known"),
        ("RESIZE_BILINEAR", {"options": {"align_corners": True, "half_pixel_centers": True}}, UsageError, "at once"),
        ("SPLIT", {"options": {"num_splits": -1}}, UsageError, "outputs, not -1"),
        ("DEPTHWISE_CONV_2D", {"options": {"depth_multiplier": 7}}, UsageError, "a multiplier of 7"),
        ("PACK", {"options": {"values_count": 9}}, UsageError, "it packs"),
        ("PACK", {"options": {"axis": 4}}, UsageError, "its axis 4 is not one of 4"),
        ("GATHER", {"options": {"batch_dims": 3}}, UsageError, "3 batch axes do not fit"),
    ],
)
def test_operators_are_held_to_their_kind(
    kind: str, changes: dict[str, Any], error: type[EdgepruneError], message: str, tmp_path: Path
) -> None:
    model = _convolution() if kind == "CONV_2D" else example(kind, random())
    if "options" in changes:
        changes = {"options": {**model.operators[0].options, **changes["options"]}}
    wrong = with_operator(model, **changes)
    # Where it has no outputs the model's would be missed first.
    kept = wrong if wrong.operators[0].outputs else _with_another(wrong)
    refused(write(kept, tmp_path / "model.tflite"), error, message, f"operator 0 ({kind})")


def _with_another(model: Model) -> Model:
    tanh = example("TANH", random()).operators[0]
    return replace(model, operators=(*model.operators, replace(tanh, inputs=(0,), outputs=model.outputs)))


def _options_of(kind: int, table: Any) -> Edit:
    def edit(root: Any) -> None:
        operator = root.subgraphs[0].operators[0]
        operator.builtinOptionsType, operator.builtinOptions = kind, table

    return edit


def test_options_of_another_kind_are_refused(tmp_path: Path) -> None:
    model, path = example("ADD", random()), tmp_path / "model.tflite"
    other = _options_of(schema.BuiltinOptions.MulOptions, schema.MulOptionsT())
    refused(edited(model, path, other), UsageError, "options are of kind 21, not 11")
    refused(edited(model, path, _options_of(11, None)), UsageError, "options are of kind 11, not 11")
    activation = _set(GRAPH + "operators.0.builtinOptions.fusedActivationFunction", 77)
    refused(edited(model, path, activation), UsageError, "fused_activation_function is 77, which is not in NONE, RELU")
    newer = schema.Conv2DOptionsT()
    newer.strideH = 3
    refused(edited(model, path, _options_of(11, newer)), UnsupportedError, "a field that is newer than 2 known ones")


def test_an_operator_of_constants_alone_is_refused(tmp_path: Path) -> None:
    model = example("ADD", random())
    tensors = [replace(t, data=np.zeros(t.shape, np.int8)) for t in model.tensors[:2]]
    other = Tensor("other", (1,), "int8")
    model = replace(model, tensors=(*tensors, model.tensors[2], other), inputs=(3,))
    refused(write(model, tmp_path / "model.tflite"), UnsupportedError, "all its inputs are constant")


def test_number_formats_of_a_kind_are_held_together(tmp_path: Path) -> None:
    path, short = tmp_path / "model.tflite", Quantization((0.5,), (0,))
    model = example("CONCATENATION", np.random.default_rng(2))
    assert len(model.inputs) > 1
    mixed = with_tensor(model, model.inputs[1], dtype="int16", quantization=short)
    refused(write(mixed, path), UsageError, "its inputs have different number formats")
    wide = with_tensor(example("QUANTIZE", random()), 1, dtype="int64", quantization=None)
    refused(write(wide, path), UnsupportedError, "its output 0 is int64, not int8 or")
    value = with_tensor(example("PADV2", random()), 2, dtype="int16", data=np.zeros(1, np.int16), quantization=short)
    refused(write(value, path), UsageError, "padding value has another number format")


def test_peepholes_and_the_like_are_named(tmp_path: Path) -> None:
    model = example("UNIDIRECTIONAL_SEQUENCE_LSTM", random())
    inputs = list(model.operators[0].inputs)
    inputs[9] = inputs[1]
    refused(
        write(with_operator(model, inputs=tuple(inputs)), tmp_path / "model.tflite"),
        UnsupportedError,
        "input 9 is given: peepholes",
    )


# Shapes that operators make.

VALUES: dict[str, tuple[int, list[Any], str]] = {
    "MEAN": (1, [4], "its axis 4 is not one of 4"),
    "PAD": (1, [[-1, 0]] * 4, "its paddings .* do not fit shape"),
    "MIRROR_PAD": (1, [[99, 99]] * 4, "its paddings .* reach beyond what shape"),
    "REVERSE_V2": (1, [0, 0], "it reverses axes that do not lie side by side"),
    "TILE": (1, [0] * 4, "its repetitions .* do not fit shape"),
    "BROADCAST_TO": (1, [], "does not broadcast to"),
    "SPACE_TO_BATCH_ND": (1, [0], "its blocks .* do not fit shape"),
    "BATCH_TO_SPACE_ND": (1, [1] * 3, "its blocks .* do not fit shape"),
    "EXPAND_DIMS": (1, [1, 1], "its input 1 holds 2 numbers, not one"),
    "RESHAPE": (1, [3, 3, 3], "it is to make"),
    "SLICE": (1, [9, 9, 9], "does not lie in shape"),
    "TRANSPOSE": (1, [0] * 8, "does not order the axes"),
    "RESIZE_NEAREST_NEIGHBOR": (1, [0, 3], "it resizes to"),
    "GATHER": (1, [77], "its indices do not lie in an axis"),
    "SPLIT_V": (1, [77], "does not split into"),
    "STRIDED_SLICE": (3, [0, 0, 0], "its slice .* does not fit shape"),
    "TRANSPOSE_CONV": (0, [1, 99, 99, 1], "it makes"),
    "SUM": (1, [0] * 257, "its input 1 lists 257 sizes"),
}


@pytest.mark.parametrize("kind", sorted(VALUES))
def test_sizes_and_axes_that_fit_nothing_are_refused(kind: str, tmp_path: Path) -> None:
    position, values, message = VALUES[kind]
    model = example(kind, np.random.default_rng(5))
    if kind == "TRANSPOSE":
        values = [0] * (len(model.tensors[0].shape) + 1)
    if kind in ("PAD", "MIRROR_PAD"):
        values = values[: len(model.tensors[0].shape)]
    index = model.operators[0].inputs[position]
    assert index is not None
    data = np.array(values, model.tensors[index].dtype)
    wrong = with_tensor(model, index, data=data, shape=data.shape)
    refused(write(wrong, tmp_path / "model.tflite"), UsageError, message, f"operator 0 ({kind})")


SHAPES: dict[str, tuple[int, tuple[int, ...], str]] = {
    "FULLY_CONNECTED": (0, (1, 7919), "does not fit weights of shape"),
    "BATCH_MATMUL": (0, (7, 7919), "do not multiply"),
    "ADD": (0, (7919,), "do not broadcast"),
    "SPLIT": (1, (229, 229, 229), "does not split into"),
    "UNPACK": (0, (7919, 1, 1), "it unpacks"),
    "PACK": (0, (7919, 1, 1), "of 2 different shapes"),
    "CONCATENATION": (0, (229, 229, 7), "do not join along axis"),
    "SQUEEZE": (0, (7919,), "cannot become"),
    "RESHAPE": (0, (7919,), "cannot become"),
    "TANH": (0, (7919,), r"its output 0 has shape .* in the file, its inputs make \(7919,\)"),
    "SLICE": (0, (3,), "has not the axes of shape"),
    "CONV_2D": (0, (1, 6, 6, 7), "7 channels do not divide among weights"),
    "MAX_POOL_2D": (0, (1, 1, 1, 3), "its window of 2 does not fit into 1 positions"),
    "UNIDIRECTIONAL_SEQUENCE_LSTM": (0, (1, 1, 7919), "its input 1 has shape"),
}


@pytest.mark.parametrize("kind", sorted(SHAPES))
def test_shapes_that_do_not_go_together_are_refused(kind: str, tmp_path: Path) -> None:
    position, shape, message = SHAPES[kind]
    model = _convolution() if kind == "CONV_2D" else example(kind, np.random.default_rng(6))
    if kind == "MAX_POOL_2D":
        sizes = {"filter_height": 2, "padding": "VALID"}
        model = with_operator(model, options={**model.operators[0].options, **sizes})
    index = model.operators[0].inputs[position]
    assert index is not None
    wrong = with_tensor(model, index, shape=shape)
    refused(write(wrong, tmp_path / "model.tflite"), UsageError, message, f"operator 0 ({kind})")


def test_blocks_divide_what_they_are_made_of(tmp_path: Path) -> None:
    path = tmp_path / "model.tflite"

    def moved(kind: str, shape: tuple[int, ...], *listed: Any, **options: Any) -> Path:
        like = Quantization((0.5,), (0,))
        values = [np.array(each, np.int32) for each in listed]
        constants = [Tensor("values", each.shape, "int32", None, each) for each in values]
        tensors = (Tensor("x", shape, "int8", like), *constants, Tensor("y", (1,), "int8", like))
        last = len(tensors) - 1
        return write(Model(tensors, (Operator(kind, tuple(range(last)), (last,), options),), (0,), (last,)), path)

    refused(
        moved("SPACE_TO_DEPTH", (1, 3, 4, 1), block_size=2), UsageError, "3 x 4 positions do not divide into blocks"
    )
    refused(
        moved("DEPTH_TO_SPACE", (1, 3, 4, 6), block_size=2), UsageError, "6 channels do not divide into blocks of 2"
    )
    refused(moved("DEPTH_TO_SPACE", (1, 3, 4, 6), block_size=0), UsageError, "its block_size is 0")
    none, two = [[0, 0], [0, 0]], [2, 2]
    refused(moved("SPACE_TO_BATCH_ND", (1, 3, 4, 1), two, none), UsageError, "do not divide into blocks of")
    refused(moved("BATCH_TO_SPACE_ND", (3, 3, 4, 1), two, none), UsageError, "3 batches of .* do not make blocks of")
    refused(moved("BATCH_TO_SPACE_ND", (4, 1, 1, 1), two, [[1, 1], [0, 0]]), UsageError, "do not make blocks of")


def test_a_transposed_convolution_makes_four_positive_sizes(tmp_path: Path) -> None:
    model = example("TRANSPOSE_CONV", random())
    index = model.operators[0].inputs[0]
    assert index is not None
    for sizes in ([1, 5, 5], [1, 0, 5, 1]):
        wrong = with_tensor(model, index, shape=(len(sizes),), data=np.array(sizes, np.int32))
        refused(write(wrong, tmp_path / "model.tflite"), UsageError, r"it makes \(.*\) with weights of shape")


@pytest.mark.parametrize("axes", [[], [0, 2], [-1, 0]])
def test_axes_that_the_reference_does_not_reverse_are_refused(axes: list[int], tmp_path: Path) -> None:
    like, listed = Quantization((0.5,), (0,)), np.array(axes, np.int32)
    x, y = (Tensor(name, (2, 3, 4), "int8", like) for name in "xy")
    tensors = (x, Tensor("axes", listed.shape, "int32", None, listed), y)
    model = Model(tensors, (Operator("REVERSE_V2", (0, 1), (2,)),), (0,), (2,))
    refused(write(model, tmp_path / "model.tflite"), UsageError, "it reverses axes that do not lie side by side")


def test_a_single_index_lies_in_its_axis(tmp_path: Path) -> None:
    model = example("STRIDED_SLICE", random())
    wrong = with_operator(model, options={**model.operators[0].options, "shrink_axis_mask": 7, "begin_mask": 0})
    index = model.operators[0].inputs[1]
    assert index is not None
    wrong = with_tensor(wrong, index, data=np.array([77, 0, 0], np.int32))
    refused(write(wrong, tmp_path / "model.tflite"), UsageError, "takes index 77 of an axis of")


def test_empty_weights_are_refused(tmp_path: Path) -> None:
    empty = {"shape": (4, 0, 3, 2), "data": np.zeros((4, 0, 3, 2), np.int8)}
    refused(
        write(with_tensor(_convolution(), 1, **empty), tmp_path / "model.tflite"), UsageError, "its weights have shape"
    )


def test_an_lstm_is_whole(tmp_path: Path) -> None:
    model, path = example("UNIDIRECTIONAL_SEQUENCE_LSTM", random()), tmp_path / "model.tflite"
    inputs = list(model.operators[0].inputs)
    coupled = [None if position in (1, 5, 12) else index for position, index in enumerate(inputs)]
    assert read(write(with_operator(model, inputs=tuple(coupled)), path)).operators[0].inputs[1] is None
    inputs[1] = None
    refused(write(with_operator(model, inputs=tuple(inputs)), path), UsageError, "of its input gate a part is left out")
    refused(write(with_operator(model, intermediates=(0,)), path), UsageError, "it has 1 intermediates, not 5")
    assert read(write(with_operator(model, intermediates=(0,) * 5), path)).operators[0].intermediates == (0,) * 5
