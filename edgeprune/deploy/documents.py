"""What `deploy` and `verify` have to say: one frozen value per document."""

from __future__ import annotations

from typing import Literal

from pydantic import ConfigDict, Field

from edgeprune.deploy.self_test import LatencyRow, TestRow
from edgeprune.values import Value

Outcome = Literal["deployed", "already current", "rolled back", "failed", "left out"]


class DeployRecord(Value):
    """What happened to one device: the document `edgeprune.deploy/1`.

    Attributes:
        release, previous: Names of folders in `releases/`; empty where there is none.
        self_test: None where the release was not tested, which `notes` then says.
        exit_code, error: Of a device of a fleet that failed.
    """

    model_config = ConfigDict(populate_by_name=True)

    schema_: Literal["edgeprune.deploy/1"] = Field("edgeprune.deploy/1", alias="schema")
    device: str
    app: str
    outcome: Outcome
    folder: str = ""
    release: str = ""
    previous: str = ""
    signed_by: str = ""
    sent_bytes: int = 0
    self_test: TestRow | None = None
    latency: LatencyRow | None = None
    model: str = ""  # of the device
    exit_code: int = 0
    error: str = ""
    notes: tuple[str, ...] = ()


class ReleaseRow(Value):
    """One release on a device, all of whose files were hashed there."""

    name: str
    app_model: str
    edgeprune: str
    bytes: int
    signed_by: str = ""  # the key that was checked


class VerifyRecord(Value):
    """What a device has and that it is whole: the document `edgeprune.verify/1`.

    Attributes:
        current: The release that is current, whose self-test passed.
        settled: Whether the last deployment was brought to its end.
    """

    model_config = ConfigDict(populate_by_name=True)

    schema_: Literal["edgeprune.verify/1"] = Field("edgeprune.verify/1", alias="schema")
    device: str
    app: str
    folder: str
    current: str
    previous: str
    settled: bool
    releases: tuple[ReleaseRow, ...]
    self_test: TestRow | None = None
    notes: tuple[str, ...] = ()
