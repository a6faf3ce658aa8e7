"""The files in `profiles/`: latency models of a target and runtime, or of kernels of ours on a core."""

from __future__ import annotations

import json
from pathlib import Path

from pydantic import Field, ValidationError, model_validator

from edgeprune.data_files import profile_path
from edgeprune.device.counted import CoreModel
from edgeprune.device.latency import DeviceModel, LatencyModel
from edgeprune.errors import UsageError
from edgeprune.target import Target
from edgeprune.values import Value

PROFILE_SCHEMA = "edgeprune.device-profile/1"


class Profile(Value):
    """A file in `profiles/`: the latency models of one runtime, with where they come from.

    Attributes:
        target: What they hold for; empty where that is every target with `core`.
        core: As in `[cpu] core` of a target; empty where they hold for one target.
    """

    schema_: str = Field(PROFILE_SCHEMA, alias="schema", pattern=r"^edgeprune\.device-profile/1$")
    target: str = ""
    core: str = ""
    runtime: str
    models: tuple[LatencyModel | CoreModel, ...]
    provenance: dict[str, object] = {}

    @model_validator(mode="after")
    def _of_one(self) -> Profile:
        if bool(self.target) == bool(self.core):
            raise ValueError("a profile is of a target or of a core")
        return self


def read_profile(path: Path) -> Profile:
    """The profile in a file.

    Raises:
        UsageError: Missing, not JSON, or not a profile of this version.
    """
    try:
        return Profile.model_validate(json.loads(path.read_text(encoding="utf-8")))
    except FileNotFoundError:
        raise UsageError(f"no such profile: {path.name}", where=str(path)) from None
    except (ValueError, ValidationError) as err:
        raise UsageError(
            f"not a device profile: {str(err).splitlines()[0]}", where=str(path), hint="write it again: make profiles"
        ) from None


def models_of(profile: Profile, target: Target) -> tuple[DeviceModel, ...]:
    """The models of a profile as they hold for a target: those of a core at its clock and with its flash.

    Raises:
        UsageError: The profile is of another core, or the target does not say its clock.
    """
    found: list[DeviceModel] = []
    for model in profile.models:
        if not isinstance(model, CoreModel):
            found.append(model)
        elif model.core != target.cpu.core:
            raise UsageError(f"the profile is of a {model.core}, target {target.name} has a {target.cpu.core}")
        else:
            found.append(model.at(target.cpu))
    return tuple(found)


def load_latency_model(target: Target, runtime: str, precision: str, threads: int) -> DeviceModel | None:
    """The model for exactly this runtime, precision and thread count; None when the target ships none.

    Raises:
        UsageError: The target names a profile that cannot be read, or of another core.
    """
    table = target.runtimes.get(runtime)
    if table is None or not table.profile:
        return None
    profile = read_profile(profile_path(table.profile, beside=target.path))
    pairs = zip(profile.models, models_of(profile, target), strict=True)
    return next((model for kept, model in pairs if (kept.precision, kept.threads) == (precision, threads)), None)
