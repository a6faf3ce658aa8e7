"""Run folders of benchmarks: what was interrupted goes on, also with live models and data."""

from __future__ import annotations

from pathlib import Path

from edgeprune import pipeline, record
from edgeprune.documents import FitRecord
from edgeprune.progress import Progress
from edgeprune.spec import Spec
from edgeprune.workload import Workload


def fit(spec: Spec, workload: Workload, progress: Progress, *, anew: bool = False) -> FitRecord:
    """Fit in `spec.out`, or continue the newest run of the same job there. `anew` starts over whatever is there."""
    found = None if anew else _unfinished(spec)
    if found is not None:
        progress.note(f"continuing {found.name}")
        return pipeline.resume(found, progress, workload)
    return pipeline.fit(spec, progress, workload)


def open_run(spec: Spec, name: str, *, anew: bool = False) -> record.Run:
    """The newest run of the same job in `spec.out`, or a new one."""
    found = None if anew else _unfinished(spec)
    return record.create(spec, name) if found is None else record.reopen(found)


def _unfinished(spec: Spec) -> Path | None:
    for path in sorted(spec.out.glob("*Z-*"), reverse=True):
        with record.reopen(path) as run:
            if run.spec == spec:
                return path
    return None
