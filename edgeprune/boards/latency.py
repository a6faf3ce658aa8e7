"""Latency of a board from what its runtime executed on one thread: few prices, fitted on published results.

    cycles = sum(price of the class * instructions of it) + l1_miss * misses of level 1 + l2_miss * of level 2

Seconds are cycles at the target's clock, on as many threads as the published results used: that they share the work
is part of the prices. The interval is what the fit missed networks of a family by that it had not seen.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

from pydantic import Field, ValidationError

from edgeprune.boards.plugin import CLASSES, Tally
from edgeprune.data_files import profile_path
from edgeprune.device.latency import Band
from edgeprune.errors import UsageError
from edgeprune.target import Target
from edgeprune.values import Value

SCHEMA = "edgeprune.counted-profile/1"
# Classes by what they cost alike; more prices than these are not to be had from so few networks.
GROUPS: Mapping[str, tuple[str, ...]] = {
    "scalar": ("integer", "branch", "load", "store", "system"),
    "vector": ("vector_load", "vector_store", "vector", "sve"),
    "multiply_add": ("multiply_add",),
    "long_multiply": ("long_multiply", "dot", "matrix"),
}
TERMS = (*GROUPS, "l1_miss", "l2_miss")


class CountedModel(Value):
    """Prices for one runtime and precision on a target.

    Attributes:
        cycles: At the target's clock, by `TERMS`.
        band: Published over estimated time, of networks of families that were left out.
        source: Where the numbers come from, in a sentence.
    """

    runtime: str
    precision: str
    threads: int = Field(ge=1)
    cycles: dict[str, float]
    band: Band
    source: str

    def cycles_of(self, tally: Tally) -> float:
        """Of one inference: the central value."""
        return sum(self.cycles[term] * amount for term, amount in amounts(tally).items())


class CountedProfile(Value):
    """A file in `profiles/`: what an emulated board's counts cost."""

    schema_: str = Field(SCHEMA, alias="schema", pattern=r"^edgeprune\.counted-profile/1$")
    target: str
    models: tuple[CountedModel, ...]
    provenance: dict[str, object] = {}


def amounts(tally: Tally) -> dict[str, int]:
    """What is priced, by `TERMS`."""
    assert {name for names in GROUPS.values() for name in names} == set(CLASSES)
    found = {group: sum(tally.classes[name] for name in names) for group, names in GROUPS.items()}
    return found | {"l1_miss": tally.l1_misses, "l2_miss": tally.l2_misses}


def load_counted_model(target: Target, runtime: str, precision: str, threads: int) -> CountedModel | None:
    """The prices for exactly this runtime, precision and thread count; None where the target ships none.

    Raises:
        UsageError: The target names a profile that cannot be read.
    """
    if target.emulation is None or not target.emulation.profile:
        return None
    models = read_counted_profile(profile_path(target.emulation.profile, beside=target.path)).models
    return next((m for m in models if (m.runtime, m.precision, m.threads) == (runtime, precision, threads)), None)


def read_counted_profile(path: Path) -> CountedProfile:
    """The profile in a file.

    Raises:
        UsageError: Missing, not JSON, or not a profile of this version.
    """
    try:
        return CountedProfile.model_validate(json.loads(path.read_text(encoding="utf-8")))
    except FileNotFoundError:
        raise UsageError(f"no such profile: {path.name}", where=str(path)) from None
    except (ValueError, ValidationError) as err:
        raise UsageError(
            f"not a profile of an emulated board: {str(err).splitlines()[0]}",
            where=str(path),
            hint="write it again: make bench-emulator",
        ) from None
