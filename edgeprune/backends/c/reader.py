"""Reads a full-integer .tflite file into a `Model`, or says by name what is damaged or cannot be done.

Nothing of a file is believed: every offset is checked before it is followed, and what later stages rely on is held
here: each tensor is made once and before it is read, constants have their shape's size, shapes are what the operators
make of their inputs, scales are positive, zero points lie in range, weights are symmetric.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from edgeprune.backends.c.flatbuffer import Content, Table, damaged
from edgeprune.backends.c.model import Model, Operator
from edgeprune.backends.c.options import names_of, read_options
from edgeprune.backends.c.shapes import check_shapes
from edgeprune.backends.c.signatures import SIGNATURES, check_signature
from edgeprune.backends.c.tensors import read_tensors
from edgeprune.errors import EdgepruneError, UnsupportedError, UsageError, missing_extra

_IDENTIFIER, _VERSION = b"TFL3", 3
_MOST_BYTES = 2**26  # of a file: many times what fits any microcontroller
_FLOATS = ("FLOAT32", "FLOAT16", "FLOAT64", "BFLOAT16", "COMPLEX64", "COMPLEX128", "FLOAT8_E4M3FN", "FLOAT8_E5M2")
_NO_TENSOR = -1
_OPERAND_WORK = 32  # elements that take as long to read as the checks of one operand
_INT8_HINT = "convert with int8 inputs and outputs, and a calibration set"


def read(path: Path) -> Model:
    """The model in a .tflite file, checked; its constants are read-only.

    Raises:
        MissingExtraError: The schema is not installed.
        UnsupportedError: An operator, tensor, number format or option that is not known here, by name.
        UsageError: There is no such file, or it contradicts the format or itself.
    """
    try:
        from ai_edge_litert import schema_py_generated as schema
    except ImportError as error:
        raise missing_extra("mcu", "reading .tflite files") from error
    try:
        data = _bytes(path)
        model = _model(Content(data), schema)
    except EdgepruneError as error:
        error.where = f"{path}, {error.where}" if error.where else str(path)
        raise
    return replace(model, sha256=hashlib.sha256(data).hexdigest())


def _bytes(path: Path) -> bytes:
    if not path.is_file():
        raise UsageError("there is no such model file")
    try:
        with path.open("rb") as file:
            data = file.read(_MOST_BYTES + 1)
    except OSError as error:
        raise UsageError(f"the model file cannot be read: {error.strerror}") from error
    if len(data) > _MOST_BYTES:
        raise UnsupportedError(f"the model file is larger than {_MOST_BYTES:,} bytes")
    if data[4:8] != _IDENTIFIER:
        raise UsageError("not a TFLite model: its identifier is missing")
    return data


def _model(content: Content, schema: Any) -> Model:
    root = content.root()
    if (version := root.integer(0, "I")) != _VERSION:
        raise UnsupportedError(f"the TFLite model is of version {version}, not {_VERSION}")
    graphs = root.tables(2)
    if len(graphs) != 1:
        raise UnsupportedError(f"the model holds {len(graphs)} subgraphs, not 1: no control flow, one signature")
    graph = graphs[0]
    tables, buffers = graph.tables(0), root.tables(4)
    names = names_of(schema.TensorType)
    types = [_name(names, table.integer(1, "b"), "number format") for table in tables]
    inputs, outputs = graph.integers(1) or (), graph.integers(2) or ()
    operators = _operators(root, graph, schema)
    _check_indices(inputs, outputs, operators, len(tables))
    _refuse_floats(inputs, outputs, operators, types)
    model = Model(tuple(read_tensors(content, tables, types, buffers)), operators, _present(inputs), _present(outputs))
    _check_connections(model)
    for position, operator in enumerate(operators):
        try:
            check_signature(model, operator)
            check_shapes(model, operator)
        except EdgepruneError as error:
            error.where = _where(position, operator.kind)
            raise
    return model


def _where(position: int, kind: str) -> str:
    return f"operator {position} ({kind})"


def _name(names: Any, value: int, what: str) -> str:
    if value not in names:
        raise UnsupportedError(f"the model has a {what} {value} that the schema does not know")
    return str(names[value])


def _operators(root: Table, graph: Table, schema: Any) -> tuple[Operator, ...]:
    codes = [_code(table, names_of(schema.BuiltinOperator)) for table in root.tables(1)]
    tables = graph.tables(3)
    if not tables:
        raise UnsupportedError("the model holds no operators")
    operators: list[Operator] = []
    unknown: list[str] = []
    for position, table in enumerate(tables):
        index = table.integer(0, "I")
        if index >= len(codes):
            raise damaged(f"operator {position} is the one of code {index} of {len(codes)}")
        kind, version = codes[index]
        if kind not in SIGNATURES and kind not in _CONVERSIONS:
            unknown.append(_where(position, kind))
            continue
        try:
            operators.append(_operator(table, kind, version, schema))
        except EdgepruneError as error:
            error.where = _where(position, kind)
            raise
    if unknown:
        raise UnsupportedError(f"the model has operators that are not known here: {_listed(unknown)}")
    return tuple(operators)


_CONVERSIONS = ("DEQUANTIZE",)  # told of only as one of the float operators


def _code(table: Table, names: Any) -> tuple[str, int]:
    """Name and version of a kind of operator."""
    custom = table.text(1)
    # Old files keep the number in the one-byte field only.
    kind = _name(names, max(table.integer(3, "i"), table.integer(0, "b")), "kind of operator")
    return f"custom {custom[:80]!r}" if custom is not None and kind == "CUSTOM" else kind, table.integer(2, "i", 1)


def _operator(table: Table, kind: str, version: int, schema: Any) -> Operator:
    inputs = tuple(None if index == _NO_TENSOR else index for index in table.integers(1) or ())
    outputs, intermediates = table.integers(2) or (), table.integers(8) or ()
    table.content.charge(_OPERAND_WORK * (len(inputs) + len(outputs) + len(intermediates)))
    if kind in _CONVERSIONS:
        return Operator(kind, inputs, outputs)
    signature = SIGNATURES[kind]
    if not 1 <= version <= signature.version:
        raise UnsupportedError(f"its version {version} is newer than {signature.version}, the newest known here")
    if intermediates and kind != "UNIDIRECTIONAL_SEQUENCE_LSTM":
        raise damaged("it has intermediates")
    return Operator(kind, inputs, outputs, read_options(table, signature.table, schema), version, intermediates)


def _present(indices: Sequence[int | None]) -> tuple[int, ...]:
    return tuple(index for index in indices if index is not None)


def _check_indices(inputs: Sequence[int], outputs: Sequence[int], operators: Sequence[Operator], count: int) -> None:
    for name, indices in (("inputs", inputs), ("outputs", outputs)):
        if not indices:
            raise UnsupportedError(f"the model has no {name}")
        if len(set(indices)) < len(indices):
            raise UnsupportedError(f"the model names one of its {name} twice")
        if not all(0 <= index < count for index in indices):
            raise damaged(f"of its {name} {indices[:80]} one is not among {count} tensors")
    for position, operator in enumerate(operators):
        named = (*_present(operator.inputs), *operator.outputs, *operator.intermediates)
        if not all(0 <= index < count for index in named):
            raise damaged(f"{_where(position, operator.kind)} names a tensor that is not among {count}")


def _refuse_floats(
    inputs: Sequence[int], outputs: Sequence[int], operators: Sequence[Operator], types: Sequence[str]
) -> None:
    """Refuse operators that compute in floating point, wholly or with integer weights."""
    found = [
        (position, operator)
        for position, operator in enumerate(operators)
        if operator.kind in _CONVERSIONS
        or any(types[index] in _FLOATS for index in (*_present(operator.inputs), *operator.outputs))
    ]
    ends = {*inputs, *outputs}
    at_ends = [
        operator.kind in ("QUANTIZE", "DEQUANTIZE") and not ends.isdisjoint((*operator.inputs, *operator.outputs))
        for _, operator in found
    ]
    if found and all(at_ends):
        raise UnsupportedError("the model takes or gives floating-point numbers", hint=_INT8_HINT)
    if found:
        listed = _listed([_where(position, operator.kind) for position, operator in found])
        raise UnsupportedError(f"the model computes in floating point: {listed}", hint=_INT8_HINT)
    if any(types[index] in _FLOATS for index in ends):
        raise UnsupportedError("the model takes or gives floating-point numbers", hint=_INT8_HINT)


def _listed(words: Sequence[str]) -> str:
    more = f" and {len(words) - 8} more" if len(words) > 8 else ""
    return ", ".join(words[:8]) + more


def _check_connections(model: Model) -> None:
    """Each tensor is made once, before it is read: constant, an input, a state of one operator, or an output of one."""
    made: set[int] = set()
    for index in model.inputs:
        _make(model, index, made, "an input of the model", "")
    states: set[int] = set()
    for position, operator in enumerate(model.operators):
        where = _where(position, operator.kind)
        for index in _present(operator.inputs):
            tensor = model.tensors[index]
            if tensor.variable:
                if index in states:
                    raise _wrong_tensor(model, index, "is a state of two operators", where)
                states.add(index)
            elif tensor.data is None and index not in made:
                raise _wrong_tensor(model, index, "is read before anything makes it", where)
        for index in operator.outputs:
            _make(model, index, made, "an output", where)
    for index in model.outputs:
        if index not in made or index in model.inputs:
            raise _wrong_tensor(model, index, "is an output of the model that no operator makes")


def _make(model: Model, index: int, made: set[int], role: str, where: str) -> None:
    tensor = model.tensors[index]
    if index in made:
        raise _wrong_tensor(model, index, "is made twice", where)
    if tensor.variable or tensor.data is not None:
        kind = "a state" if tensor.variable else "constant" if tensor.size else "empty"
        raise _wrong_tensor(model, index, f"is {role}, yet {kind}", where)
    made.add(index)


def _wrong_tensor(model: Model, index: int, what: str, where: str = "") -> UsageError:
    error = damaged(f"tensor {index} {model.tensors[index].name[:80]!r} {what}")
    error.where = where
    return error
