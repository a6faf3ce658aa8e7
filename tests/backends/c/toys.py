"""Lowerings that are easy to follow, so that tests of what surrounds operators need no real one.

Every result depends on every byte that is read, and passes through scratch memory where there is some, so that bytes
that are overwritten too early, or scratch that lies over a tensor, change the answer.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import prod

import numpy as np

from edgeprune.backends import Array
from edgeprune.backends.c.lowering import Constant, Lowered, Step, Variant
from edgeprune.backends.c.model import Model, Operator, Quantization, Tensor
from edgeprune.errors import UnsupportedError

SCALE = Quantization((0.5,), (3,))


class Mixing:
    """CONV_2D: out[j] = j + sum of in[i] * (i % 5 + 1) + k, modulo 256, plus the other summand of an addition."""

    KINDS = ("CONV_2D",)

    def check(self, model: Model, operator: Operator) -> None:
        if operator.options.get("refused"):
            raise UnsupportedError("dilation 9")

    def lower(self, model: Model, step: Step, variant: Variant) -> Lowered:
        if step.added is not None and step.operator.options.get("alone"):
            raise UnsupportedError("it takes no addition along")
        size = model.tensor(model.activations(step.operator)[0]).size
        total = model.tensor(step.output).size
        added = " + (uint8_t){in1}[j]" if step.added is not None else ""
        # The input passes through the scratch memory, which is spoilt afterwards.
        call = f"""uint32_t sum = (uint32_t){{bias}}[0];
for (int32_t i = 0; i < {size}; i++) {{{{ {{scratch}}[i] = {{in0}}[i]; }}}}
for (int32_t i = 0; i < {size}; i++) {{{{ sum += (uint32_t){{scratch}}[i] * (uint32_t)(i % 5 + 1); }}}}
for (int32_t i = 0; i < {size}; i++) {{{{ {{scratch}}[i] = 77; }}}}
for (int32_t j = 0; j < {total}; j++) {{{{ {{out0}}[j] = (int8_t)(uint8_t)(sum + (uint32_t)j{added}); }}}}"""
        bias = Constant("bias", np.array([int(step.operator.options.get("k", 0))], np.int32))
        return Lowered(call, (), (bias,), size, overwrites=(1,) if step.added is not None else ())


class Adding:
    """ADD: modulo 256."""

    KINDS = ("ADD",)

    def check(self, model: Model, operator: Operator) -> None:
        return

    def lower(self, model: Model, step: Step, variant: Variant) -> Lowered:
        total = model.tensor(step.output).size
        call = "toy_add_{step}({in0}, {in1}, {out0});"
        code = (
            "static void toy_add_{step}(const int8_t *a, const int8_t *b, int8_t *c)\n{{\n"
            f"    for (int32_t i = 0; i < {total}; i++) {{{{\n"
            "        c[i] = (int8_t)(uint8_t)((uint32_t)a[i] + (uint32_t)b[i]);\n    }}\n}}"
        )
        return Lowered(call, (), definitions=code, overwrites=(0, 1))


class Splitting:
    """SPLIT: the two halves."""

    KINDS = ("SPLIT",)

    def check(self, model: Model, operator: Operator) -> None:
        return

    def lower(self, model: Model, step: Step, variant: Variant) -> Lowered:
        half = model.tensor(step.output).size
        copies = [f"{{out{k}}}[i] = {{in0}}[i + {k * half}];" for k in range(2)]
        return Lowered(f"for (int32_t i = 0; i < {half}; i++) {{{{ {' '.join(copies)} }}}}", ())


LOWERINGS = {kind: toy for toy in (Mixing(), Adding(), Splitting()) for kind in toy.KINDS}


def conv(tensors: Sequence[int], k: int = 0, **options: bool) -> Operator:
    """From one tensor to another."""
    return Operator("CONV_2D", (tensors[0],), (tensors[1],), {"k": k, **options})


def add(a: int, b: int, to: int) -> Operator:
    return Operator("ADD", (a, b), (to,))


def model(sizes: Sequence[int], operators: Sequence[Operator], outputs: Sequence[int], inputs: int = 1) -> Model:
    """Tensors (1, 1, size, 1) int8, the first of them the inputs."""
    tensors = tuple(Tensor(f"net/t{at}*/", (1, 1, size, 1), "int8", SCALE) for at, size in enumerate(sizes))
    return Model(tensors, tuple(operators), tuple(range(inputs)), tuple(outputs), "ab" * 32)


def apply(operator: Operator, read: list[Array]) -> list[Array]:
    """What an operator answers; arrays of any shape, uint8 inside."""
    flat = [values.ravel().astype(np.int64) for values in read]
    if operator.kind == "ADD":
        return [(flat[0] + flat[1]).astype(np.uint8).view(np.int8)]
    if operator.kind == "SPLIT":
        return [half.astype(np.int8) for half in np.split(flat[0], 2)]
    if operator.kind == "RESHAPE":
        return [flat[0].astype(np.int8)]
    raise AssertionError(operator.kind)


def mixed(operator: Operator, source: Array, size: int) -> Array:
    """What a CONV_2D answers."""
    flat = source.ravel().astype(np.int64)
    total = int(flat @ (np.arange(flat.size) % 5 + 1)) + int(operator.options.get("k", 0))
    return (total + np.arange(size)).astype(np.uint8).view(np.int8)


def answers(net: Model, inputs: Sequence[Array]) -> list[Array]:
    """Outputs of a model in the tensors' shapes."""
    values = dict(zip(net.inputs, inputs, strict=True))
    for operator in net.operators:
        read = [values[index] for index in operator.inputs if index is not None and index in values]
        sizes = [net.tensor(index).size for index in operator.outputs]
        made = [mixed(operator, read[0], sizes[0])] if operator.kind == "CONV_2D" else apply(operator, read)
        for index, result in zip(operator.outputs, made, strict=True):
            values[index] = result.reshape(net.tensor(index).shape)
    return [values[index] for index in net.outputs]


def noise(net: Model, seed: int = 0) -> list[Array]:
    """Inputs over the whole range."""
    random = np.random.default_rng(seed)
    shapes = [net.tensor(index).shape for index in net.inputs]
    return [random.integers(-128, 128, shape).astype(np.int8) for shape in shapes]


def residual(channels: int = 16, stages: int = 2) -> Model:
    """A residual network: a stem, then blocks of two convolutions around which the input passes, then a small head."""
    sizes, operators, at = [prod((4, 4, 3)), 16 * channels], [conv((0, 1))], 1
    for stage in range(stages):
        sizes += [16 * channels] * 3
        operators += [conv((at, at + 1), stage), conv((at + 1, at + 2), 7), add(at + 2, at, at + 3)]
        at += 3
    sizes += [10, 10]
    head = [conv((at, at + 1)), Operator("RESHAPE", (at + 1,), (at + 2,))]
    return model(sizes, [*operators, *head], [at + 2])
