"""The points of a sweep: every target with every combination of limits, each an ordinary job."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from itertools import product

from edgeprune.device.profiles import load_latency_model
from edgeprune.errors import UsageError
from edgeprune.spec import NO_DEVICE, BudgetSpec, Spec, anchored
from edgeprune.target import Target, load_target
from edgeprune.units import parse_size, parse_time
from edgeprune.values import Value

_PARSERS: Mapping[str, Callable[[str, str], float]] = {"latency": parse_time, "ram": parse_size, "size": parse_size}


class Point(Value):
    """One target with one budget.

    Attributes:
        name: Of its folder; no two points of a sweep share it.
        target: The target's own name; `spec.target.name` may be a path.
        measured: Whether the target's costs are measured on this machine.
    """

    name: str
    target: str
    measured: bool
    spec: Spec


def limits(text: str, what: str) -> tuple[str, ...]:
    """The limits of `5ms:40ms:6` or `5ms,10ms,20ms`, each with its unit.

    `first:last:count` is a geometric series: each limit is the same factor away from the one before, because what a
    budget costs in accuracy goes by how many times smaller the model must be. Its inner limits have three significant
    digits. Limits that are equal are given once.

    Args:
        what: `latency`, `ram` or `size`.

    Raises:
        UsageError: A limit without a clear unit, or a count that is not a whole number of at least 2.
    """
    parse = _PARSERS[what]
    if ":" in text:
        written = _series(text, what, parse)
    else:
        written = [part.strip() for part in text.split(",")]
    different: dict[float, str] = {}
    for limit in written:
        different.setdefault(parse(limit, what), limit)
    return tuple(different.values())


def _series(text: str, what: str, parse: Callable[[str, str], float]) -> list[str]:
    first, last, count = (*text.split(":"), "", "")[:3]
    if text.count(":") != 2 or not count.strip().isdecimal() or int(count) < 2:
        raise UsageError(
            f"{what}: cannot read {text!r}",
            hint="write first:last:count such as 5ms:40ms:6 (count at least 2), or a list such as 5ms,10ms",
        )
    start, end, steps = parse(first, what), parse(last, what), int(count) - 1
    unit = re.findall(r"[A-Za-zµ]+", first)[-1]
    scale = parse(f"1{unit}", what)
    inner = [start * (end / start) ** (step / steps) / scale for step in range(1, steps)]
    return [first.strip(), *(f"{float(f'{value:.3g}'):.12g}{unit}" for value in inner), last.strip()]


def grid(spec: Spec, targets: Sequence[str], swept: Mapping[str, Sequence[str]]) -> tuple[Point, ...]:
    """The points in order: targets outermost, then latency, RAM and size. File names in their jobs are absolute.

    Args:
        spec: The job of all points; its limits hold where none are swept.
        targets: Names or files; none: the job's own.
        swept: `latency`, `ram` and `size` to their limits.

    Raises:
        UsageError: No limit at all, a linked device, an unknown target, two targets of one name, a runtime that a
            target does not have, or a latency limit on a target without a latency model.
    """
    budgets = _budgets(spec.budget, swept)
    if all(b.latency is None and b.ram is None and b.size is None for b in budgets):
        raise UsageError(
            "no budget: nothing says how small or fast the models must be",
            where="sweep",
            hint="add --latency 5ms:40ms:6, --ram 64KiB,128KiB or --size 1MB",
        )
    if spec.target.device not in (None, NO_DEVICE):
        raise UsageError("a sweep measures on no linked device", where="target.device", hint="fit one budget at a time")
    points: list[Point] = []
    seen: dict[str, str] = {}
    for text in targets or (spec.target.name,):
        target = load_target(text)
        if target.name in seen:
            raise UsageError(f"two targets are called {target.name}: {seen[target.name]} and {text}", where="--target")
        seen[target.name] = text
        aimed = anchored(spec.model_copy(update={"target": spec.target.model_copy(update={"name": text})}))
        _check_runtime(aimed, target, latency=any(budget.latency for budget in budgets))
        for budget in budgets:
            name = "-".join([target.name, *(slug(v) for v in (budget.latency, budget.ram, budget.size) if v)])
            one = aimed.model_copy(update={"budget": budget})
            points.append(Point(name=name, target=target.name, measured=target.latency == "measured", spec=one))
    return tuple(points)


def slug(text: str) -> str:
    """The text as part of a folder's name."""
    return re.sub(r"[^A-Za-z0-9._]+", "-", text.replace("µ", "u")).strip("-.") or "x"


def _budgets(budget: BudgetSpec, swept: Mapping[str, Sequence[str]]) -> list[BudgetSpec]:
    axes = [tuple(swept.get(what, ())) or (getattr(budget, what),) for what in _PARSERS]
    return [budget.model_copy(update=dict(zip(_PARSERS, chosen, strict=True))) for chosen in product(*axes)]


def _check_runtime(spec: Spec, target: Target, *, latency: bool) -> None:
    runtime = spec.target.runtime or target.default_runtime
    threads = spec.target.threads or target.runtime(runtime).threads
    if latency and load_latency_model(target, runtime, "int8", threads) is None:
        raise UsageError(
            f"no latency model for {target.name}, {runtime}, int8, {threads} thread(s)",
            where="--latency",
            hint=f"edgeprune targets show {target.name} lists what it has; --ram and --size need no model",
        )
