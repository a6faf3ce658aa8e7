"""The frozen base of every value that is read from or written to a file."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict


class Value(BaseModel):
    """A frozen record; unknown keys are errors, JSON in and out by pydantic."""

    model_config = ConfigDict(frozen=True, extra="forbid")
