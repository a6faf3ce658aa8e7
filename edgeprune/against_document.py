"""What `edgeprune inspect FILE --against MODEL` prints: how far a file's activations are from the float model's."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import ConfigDict, Field

from edgeprune.values import Value


class TensorRow(Value):
    """One activation of the file beside the model's; ratios in dB, None where the two are equal.

    Attributes:
        layer: The layer that computes it; where it has no weights, the node of the captured program.
        scaled_snr_db: With every channel scaled to come closest: what equalised channels leave.
        lost_db: How much lower the ratio is than that of the worst input; None without a known input.
    """

    layer: str
    node: str
    kind: str
    tensor: str
    snr_db: float | None
    scaled_snr_db: float | None
    lost_db: float | None


class AgainstRecord(Value):
    """A file against the float model: the document `edgeprune.against/1`."""

    model_config = ConfigDict(populate_by_name=True)

    schema_: Literal["edgeprune.against/1"] = Field("edgeprune.against/1", alias="schema")
    artifact: Path
    runtime: str
    samples: int
    tensors: tuple[TensorRow, ...]  # the worst first
    unmatched: tuple[str, ...]  # nodes of the model that the file holds nowhere, such as what it fuses or keeps inside

    def to_json(self) -> str:
        """The document, with two-space indent and a last newline."""
        return self.model_dump_json(by_alias=True, indent=2) + "\n"
