"""Energy of an inference: the power a device draws while it computes, as published, times the latency.

A core that computes draws nearly the same whatever the network: over the published results of one board, power differs
by 10 to 40 % while energy differs by a factor of 50. So a limit on energy is one on latency.
"""

from __future__ import annotations

from edgeprune.cost import Budget, Cost
from edgeprune.errors import UsageError
from edgeprune.target import Target, load_target, target_names
from edgeprune.units import format_energy, format_time


def within_energy(budget: Budget, target: Target) -> tuple[Budget, str]:
    """The budget with the latency at which its energy is spent, and what to say of it; as it is without such a limit.

    The upper end of the published power counts, so that the upper end of an estimate's energy holds the limit.

    Raises:
        UsageError: Nothing is published of the target's power.
    """
    if budget.energy_j is None:
        return budget, ""
    power = target.power
    if power is None:
        known = [name for name in target_names() if load_target(name).power is not None]
        raise UsageError(
            f"nothing is known of the power of {target.name}", where="--energy", hint=f"known of: {', '.join(known)}"
        )
    limit_s = budget.energy_j / power.high_w
    latency_s = limit_s if budget.latency_s is None else min(limit_s, budget.latency_s)
    note = (
        f"energy: {format_energy(budget.energy_j)} at up to {power.high_w * 1e3:.3g} mW is spent in "
        f"{format_time(limit_s)} (power of {power.results} published results of the board)"
    )
    return budget.model_copy(update={"latency_s": latency_s}), note


def energy_text(cost: Cost, target: Target) -> str:
    """`energy: 3.9 mJ (3.1 to 5.2 mJ) per inference, estimated ...`; empty where power or latency is unknown."""
    if target.power is None or cost.latency_s is None:
        return ""
    low_s, high_s = cost.latency_interval_s or (cost.latency_s, cost.latency_s)
    middle = format_energy(cost.latency_s * target.power.typical_w)
    ends = (low_s * target.power.low_w, high_s * target.power.high_w)
    return (
        f"energy: {middle} ({format_energy(ends[0])} to {format_energy(ends[1])}) per inference, estimated: latency "
        f"times {target.power.low_w * 1e3:.3g} to {target.power.high_w * 1e3:.3g} mW"
    )
