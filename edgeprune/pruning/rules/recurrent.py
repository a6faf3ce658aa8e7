"""Recurrent layers: every gate keeps the same hidden channels.

All layers and directions of one operator share the tensors of initial and final states, so they keep the same hidden
channels too.
"""

from __future__ import annotations

import numpy as np

from edgeprune.graph import Node, Ref
from edgeprune.pruning.labels import Axes, Labelling, Labels, frozen_by, rule

_GATES = {
    "lstm": 4,
    "gru": 3,
    "rnn_tanh": 1,
    "rnn_relu": 1,
    "lstm_cell": 4,
    "gru_cell": 3,
    "rnn_tanh_cell": 1,
    "rnn_relu_cell": 1,
}
_CELLS = ("lstm_cell", "gru_cell", "rnn_tanh_cell", "rnn_relu_cell")


@rule("lstm", "gru", "rnn_tanh", "rnn_relu")
def _recurrent(run: Labelling, node: Node) -> tuple[Axes, ...]:
    """(input, initial state(s), parameters, has_biases, layers, dropout, train, bidirectional, batch_first)."""
    name = node.base
    states, parameters, has_biases, layers, bidirectional = (node.args[i] for i in (1, 2, 3, 4, 7))
    if not isinstance(parameters, tuple) or not isinstance(layers, int) or not node.op.endswith(".input"):
        return frozen_by(run, node, f"no rule for {node.op} ({node.name})")
    directions = 2 if bidirectional else 1
    per_cell = len(parameters) // (layers * directions)
    hidden = run.shape(parameters[1])[0] // _GATES[name]
    h = run.fresh(hidden)
    projected = per_cell > (4 if has_biases else 2)
    out = run.fresh(run.shape(parameters[-1])[0]) if projected else h
    x = run.of(node.args[0])
    below = x[-1]
    for layer in range(layers):
        for direction in range(directions):
            start = (layer * directions + direction) * per_cell
            tie_cell(run, parameters[start : start + per_cell], below, h, out, _GATES[name], bool(has_biases))
        below = np.concatenate([out] * directions)
    batch = None if len(x) < 3 else 0 if node.args[8] else 1
    samples = None if batch is None else x[batch]
    given = states if isinstance(states, tuple) else (states,)
    for state, labels in zip(given, (out, h)):
        axes = run.of(state)
        run.freeze(axes[0], f"state of {node.name}")
        if batch is not None and (axes[1] is not None or samples is not None):
            samples = run.tie(axes[1], samples, f"initial state of {node.name}")
        run.tie(axes[-1], labels, f"initial state of {node.name} cannot shrink")
    run.freeze_all([labels for i, labels in enumerate(x[:-1]) if i != batch], f"steps of {node.name}")
    lead = [samples if i == batch else None for i in range(len(x) - 1)]
    final = (None, *(samples,) * (batch is not None))
    return ((*lead, below), (*final, out), (*final, h))[: len(node.shapes)]


def tie_cell(
    run: Labelling,
    parameters: tuple[object, ...],
    x: Labels | None,
    h: Labels,
    out: Labels,
    gates: int,
    has_biases: bool,
) -> None:
    """One cell: w_ih (gates * h, x), w_hh (gates * h, out), the biases (gates * h), and a projection (out, h)."""
    stacked = np.tile(h, gates)
    w_ih, w_hh = run.of(parameters[0]), run.of(parameters[1])
    run.tie(w_ih[0], stacked, "gates")
    run.tie(w_hh[0], stacked, "gates")
    run.tie(w_ih[1], x, "model input")
    run.tie(w_hh[1], out, "state")
    for bias in parameters[2:4] if has_biases else ():
        if isinstance(bias, Ref):
            run.tie(run.of(bias)[0], stacked, "gates")
    if len(parameters) > (4 if has_biases else 2):
        projection = run.of(parameters[-1])
        run.tie(projection[0], out, "projection")
        run.tie(projection[1], h, "projection")


@rule(*_CELLS)
def _cell(run: Labelling, node: Node) -> tuple[Axes, ...]:
    """(input, state(s), w_ih, w_hh, b_ih, b_hh), one step."""
    name = node.base
    states = node.args[1] if isinstance(node.args[1], tuple) else (node.args[1],)
    h = run.fresh(node.shapes[0][-1])
    x = run.of(node.args[0])
    tie_cell(run, node.args[2:6], x[-1], h, h, _GATES.get(name, 1), has_biases=True)
    lead = list(x[:-1])
    for state in states:
        axes = run.of(state)
        for i, labels in enumerate(axes[:-1]):
            if labels is not None or lead[i] is not None:
                lead[i] = run.tie(labels, lead[i], f"initial state of {node.name}")
        run.tie(axes[-1], h, f"initial state of {node.name} cannot shrink")
    return ((*lead, h),) * len(node.shapes)
