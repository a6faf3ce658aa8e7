"""The frozen base of every value that is read from or written to a file."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict


class Value(BaseModel):
    """A frozen record; unknown keys are errors, JSON in and out by pydantic."""

    # Infinities (a limit on an unknown cost) must survive JSON, which has no literal for them.
    model_config = ConfigDict(frozen=True, extra="forbid", ser_json_inf_nan="strings")
