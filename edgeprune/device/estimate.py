"""What fused operators cost on a target: latency as an interval, activation memory, file size, op by op."""

from __future__ import annotations

from collections.abc import Iterable

from edgeprune.cost import Cost, Measurement, OpCost, Source
from edgeprune.device.corrected import Corrected
from edgeprune.device.counted import MOST_OVER_GUESS, CountedModel
from edgeprune.device.fusion import absorb_padding
from edgeprune.device.latency import DeviceModel
from edgeprune.device.memory import WEIGHT_COPIES, fused_sums, memory_plan, overwrites
from edgeprune.device.ops import Op
from edgeprune.device.order import ordered
from edgeprune.device.profiles import load_latency_model
from edgeprune.target import Target

ELEMENT_BYTES = {"int8": 1, "fp32": 4}
# What a file holds besides weights: per output channel a 32-bit bias and, in int8, scale and zero point of weights
# and bias; per operator its tensors, shapes and options; once the header and the operator codes.
CHANNEL_BYTES = {"int8": 28, "fp32": 4}
OP_BYTES = 400
FILE_BYTES = 3000
_PADS_APART = ("tflm",)  # runtimes that execute a pad before a convolution as an operator of its own
_ADDS_INSIDE = ("edgeprune-c",)  # runtimes whose convolutions take a residual sum along, in the order that needs least


def size_bytes(ops: Iterable[Op], precision: str, model: DeviceModel | None = None) -> int:
    """Estimated size of what is deployed: the exported file, or the flash that its C library takes.

    Args:
        model: The device model of the runtime: that of a C library knows its flash.
    """
    sequence = tuple(ops)
    return fixed_bytes(sequence, model) + sum(op_bytes(op, precision, model) for op in sequence)


def op_bytes(op: Op, precision: str, model: DeviceModel | None = None) -> int:
    """What one operator adds to it: weights, biases, and a stated overhead per op and channel."""
    if (counted := _counted(model)) is not None:
        return counted.op_bytes(op)
    channels = op.out_channels * CHANNEL_BYTES[precision] if op.weights else 0
    return OP_BYTES + op.weights * ELEMENT_BYTES[precision] + channels


def fixed_bytes(ops: Iterable[Op], model: DeviceModel | None = None) -> int:
    """What there is of it besides the operators, whatever their widths: a file's head, or the code they share."""
    counted = _counted(model)
    return FILE_BYTES if counted is None else counted.kernel_bytes(ops)


def ram_bytes(ops: Iterable[Op], runtime: str, precision: str, model: DeviceModel | None = None) -> int:
    """Memory for activations of operators as they run; with the model of a C library its scratch and stack too."""
    sequence, counted = tuple(ops), _counted(model)
    scratch = {op.name: counted.scratch_bytes(op) for op in sequence} if counted is not None else {}
    plan = memory_plan(sequence, ELEMENT_BYTES[precision], overwrites(runtime), scratch_bytes=scratch)
    return plan.total_bytes + (0 if counted is None else counted.core.stack_bytes)


def _counted(model: DeviceModel | None) -> CountedModel | None:
    """The model of a C library; None where the runtime takes files."""
    plain = model.model if isinstance(model, Corrected) else model
    return plain if isinstance(plain, CountedModel) else None


def as_run(ops: Iterable[Op], runtime: str) -> tuple[Op, ...]:
    """Fused operators as a runtime runs them: most pad inside their convolutions, the C library adds inside them."""
    sequence = tuple(ops) if runtime in _PADS_APART else absorb_padding(tuple(ops))
    return ordered(fused_sums(sequence)) if runtime in _ADDS_INSIDE else sequence


def counts_process(target: Target) -> bool:
    """Whether RAM on a target is that of a whole process, as it is measured where files are run, weights included."""
    return target.latency == "measured"


def estimate(
    ops: Iterable[Op],
    target: Target,
    runtime: str | None = None,
    precision: str = "int8",
    threads: int | None = None,
    latency: DeviceModel | None = None,
) -> Measurement:
    """The estimated cost of fused operators, of a planned model or of an exported file alike.

    Args:
        runtime, threads: The target's default when None.
        latency: A calibrated or corrected model to use instead of the shipped one.

    Raises:
        UsageError: The target does not run that runtime.
    """
    runtime = runtime or target.default_runtime
    sequence = as_run(ops, runtime)
    offered = target.runtime(runtime)
    threads = threads or offered.threads
    model = load_latency_model(target, runtime, precision, threads) if latency is None else latency
    notes: tuple[str, ...] = (model.source,) if model and model.source else ()
    if model is None:
        missing = f"no latency model for {target.name}, {runtime}, {precision}, {threads} thread(s)"
        notes = (f"{missing}: memory and size only",)
    if (library := _counted(model)) is not None and (guessed := library.guessed(sequence)):
        nearest = f"not counted, so priced by what comes nearest and up to {MOST_OVER_GUESS:g} times as much"
        notes += (f"{nearest}: {', '.join(guessed)}",)
    size = size_bytes(sequence, precision, model)
    ram = ram_bytes(sequence, runtime, precision, model)
    counted = counts_process(target)
    cost = Cost(
        source=Source.ESTIMATED,
        latency_s=model.total_s(sequence) if model else None,
        latency_interval_s=model.interval_s(sequence) if model else None,
        ram_bytes=ram + WEIGHT_COPIES * size if counted else ram,
        ram_kind="process" if counted else "activations",
        size_bytes=size,
        macs=sum(op.macs for op in sequence),
    )
    rows = tuple(
        OpCost(name=op.name, kind=op.kind, latency_s=model.op_s(op) if model else None, macs=op.macs) for op in sequence
    )
    return Measurement(
        cost=cost,
        target=target.name,
        runtime=runtime,
        runtime_version="",
        threads=threads,
        precision=precision,
        ops=rows,
        notes=notes,
    )
