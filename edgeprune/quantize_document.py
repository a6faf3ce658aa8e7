"""What `edgeprune quantize` prints: the steps that were tried, and the files; units as in `documents`."""

from __future__ import annotations

from typing import Literal

from pydantic import ConfigDict, Field

from edgeprune.documents import ArtifactRow, QuantizeRow
from edgeprune.units import Drop
from edgeprune.values import Value


class QuantizedRow(ArtifactRow):
    """One int8 file that `quantize` wrote: the primary metric of the file in its own runtime."""

    validation: float
    test: float
    validation_drop: float  # against the float model
    test_drop: float


class QuantizeRecord(Value):
    """What was done so that int8 holds, and the files: the document `edgeprune.quantize/1`."""

    model_config = ConfigDict(populate_by_name=True)

    schema_: Literal["edgeprune.quantize/1"] = Field("edgeprune.quantize/1", alias="schema")
    metric: str
    higher_is_better: bool
    max_drop: Drop
    holds: bool  # whether no file's drop on validation is above the limit
    validation: float  # of the float model
    test: float
    samples: dict[str, int]
    steps: tuple[QuantizeRow, ...]
    artifacts: tuple[QuantizedRow, ...]
    notes: tuple[str, ...] = ()

    @property
    def exit_code(self) -> int:
        """0 when int8 holds, else 4."""
        return 0 if self.holds else 4

    def to_json(self) -> str:
        """The document, with two-space indent and a last newline."""
        return self.model_dump_json(by_alias=True, indent=2) + "\n"
