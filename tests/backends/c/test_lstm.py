"""The LSTM: sequences of random networks, every sum a gate can have, every cell scale."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from edgeprune.backends.c.model import Model, Operator, Option, Tensor
from edgeprune.errors import UnsupportedError
from tests.backends.c.steps import assert_exact, check, computed, constant, filled

CELL_SCALES = [2.0**power for power in range(-15, -8)]


def _model(
    weights: list[Tensor],
    biases: list[Tensor],
    source: Tensor,
    state: Tensor,
    cell_scale: float,
    hidden: Tensor | None = None,
    **options: Option,
) -> Model:
    """Input weights of the four gates, then recurrent ones; `state` has shape (batches, cells)."""
    batches, cells = state.shape
    shape = (source.shape[0], batches, cells) if options["time_major"] else (batches, source.shape[1], cells)
    tensors = [source, *weights, *biases, replace(state, variable=True)]
    tensors.append(replace(computed((batches, cells), cell_scale, 0, "int16", "c"), variable=True))
    tensors.append(replace(state, name="y", shape=shape))
    gates = [computed((), 2.0**-12, 0, "int16", f"gate{i}") for i in range(4)]
    tensors += [*gates, replace(hidden or state, name="hidden", shape=())]
    inputs = (*range(9), None, None, None, *range(9, 13), None, None, 13, 14, None, None, None, None)
    options = {"fused_activation_function": "TANH", **options}
    operator = Operator("UNIDIRECTIONAL_SEQUENCE_LSTM", inputs, (15,), options, intermediates=(16, 17, 18, 19, 20))
    return Model(tuple(tensors), (operator,), (0,), (15,))


def random_lstm(seed: int, cell_scale: float = 2.0**-11, **options: Option) -> Model:
    rng = np.random.default_rng(seed)
    inputs, cells, batches, times = (int(rng.integers(1, most)) for most in (9, 9, 6, 7))
    options = {"time_major": bool(seed % 2), **options}
    source_scale, state_scale = (float(np.float32(np.exp(rng.uniform(-5, end)))) for end in (0, -3))
    scales = rng.uniform(0.003, 0.02, 8).astype(np.float32)
    weights = [
        constant(rng.integers(-127, 128, (cells, cells if i > 3 else inputs)), "int8", float(scale))
        for i, scale in enumerate(scales)
    ]
    biases = [constant(rng.integers(-8000, 8000, cells), "int32", source_scale * float(s)) for s in scales[:4]]
    shape = (times, batches, inputs) if options["time_major"] else (batches, times, inputs)
    zero_points = rng.integers(-128, 128, 3)
    state = computed((batches, cells), state_scale, zero_points[1], name="h")
    hidden = computed((), state_scale * 1.3, zero_points[2]) if seed % 3 == 0 else None
    source = computed(shape, source_scale, zero_points[0])
    return _model(weights, biases, source, state, cell_scale, hidden, **options)


@pytest.mark.parametrize("seed", range(12))
def test_random_sequences(seed: int, tmp_path: Path) -> None:
    model = random_lstm(seed, CELL_SCALES[seed % 7])
    assert_exact(model, filled(model, np.random.default_rng(seed)), tmp_path)


@pytest.mark.parametrize("clip", [0.01, 0.7, 100.0])
def test_cells_are_clipped(clip: float, tmp_path: Path) -> None:
    model = random_lstm(5, cell_clip=clip)
    assert_exact(model, filled(model, np.random.default_rng(5)), tmp_path)


@pytest.mark.parametrize(("fixed", "cell_scale"), [(None, 2.0**-12), (0, 2.0**-15), (2, 2.0**-12), (3, 2.0**-15)])
def test_every_sum_of_a_gate(fixed: int | None, cell_scale: float, tmp_path: Path) -> None:
    """One input of 256 values and 256 biases 256 apart make all 65,536; one gate may be held near the middle."""
    column, still = np.ones((256, 1)), np.zeros((256, 1))
    weights = [constant(still if gate == fixed else column, "int8", 2.0**-6) for gate in range(4)]
    weights += [constant(np.zeros((256, 256)), "int8", 2.0**-6)] * 4
    starts = np.arange(256) * 256 - 2**15 + 128
    biases = [constant(np.full(256, 3000) if gate == fixed else starts, "int32", 2.0**-12) for gate in range(4)]
    source, state = computed((256, 1, 1), 2.0**-6), computed((256, 256), 2.0**-7, name="h")
    model = _model(weights, biases, source, state, cell_scale, time_major=False)
    assert_exact(model, [np.arange(-128, 128).astype(np.int8).reshape(256, 1, 1)], tmp_path)


def _changed(model: Model, position: int, tensor: Tensor | None) -> Model:
    """With another tensor for an input, or none."""
    operator = model.operators[0]
    inputs = list(operator.inputs)
    inputs[position] = None if tensor is None else len(model.tensors)
    tensors = model.tensors if tensor is None else (*model.tensors, tensor)
    return replace(model, tensors=tensors, operators=(replace(operator, inputs=tuple(inputs)),))


GOOD = random_lstm(1)
VECTOR = constant([1], "int16", 0.1)

REFUSED = [
    (_changed(GOOD, 9, VECTOR), "it has a peephole"),
    (_changed(GOOD, 16, VECTOR), "it has a projection"),
    (_changed(GOOD, 20, VECTOR), "it has layer normalisation"),
    (_changed(GOOD, 1, None), "its input and forget gates are coupled"),
    (random_lstm(1, fused_activation_function="RELU"), "its activation is RELU, not TANH"),
    (replace(GOOD, operators=(replace(GOOD.operators[0], intermediates=()),)), "it has 0 intermediate tensors"),
    (_changed(GOOD, 0, computed((1, 1, 1), 0.1, 0, "int16")), "x is int16, not int8"),
    (random_lstm(1, 2.0**-8), "its cells have scale 0.003906, not a power of two"),
    (random_lstm(1, 3e-4), "its cells have scale 0.0003, not a power of two"),
    (_changed(GOOD, 0, computed((1, 1, 1), 1e4)), "sums of gate 0 rescaled by 2 \\*\\* "),
]


@pytest.mark.parametrize(("model", "message"), REFUSED)
def test_what_is_no_plain_lstm_is_refused(model: Model, message: str) -> None:
    with pytest.raises(UnsupportedError, match=message):
        check(model)


def test_states_are_no_activations() -> None:
    assert GOOD.activations(GOOD.operators[0]) == (0,)
