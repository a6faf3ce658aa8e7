"""`edgeprune fit --budget-only`: the plan and its predicted cost, without training."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import typer

from edgeprune.cli.terminal import only_results_on_stdout, progress
from edgeprune.errors import UsageError

if TYPE_CHECKING:
    from edgeprune.plan_document import BudgetPlan
    from edgeprune.spec import Spec


def show_plan(
    spec: Spec, sizes: tuple[int, ...] | None, file: Path | None, *, json: bool, quiet: bool, debug: bool
) -> int:
    """Solve, print the plan, write it to `file`; returns the exit code.

    Args:
        sizes: Input shape for a job without data.

    Raises:
        UsageError: A model with neither data nor an input shape.
    """
    if spec.data.source is None and not spec.is_demo and sizes is None:
        raise UsageError(
            "neither data nor an input shape", where="--budget-only", hint="add --input 1x3x224x224 or --data SOURCE"
        )
    with only_results_on_stdout(debug=debug):
        document = _planned(spec, sizes, quiet=quiet)
    if file is not None and document.plan is not None:
        import json as text

        from edgeprune.record import write_text

        file.parent.mkdir(parents=True, exist_ok=True)
        write_text(file, text.dumps(document.plan, indent=1) + "\n")
    from edgeprune.report.budget import budget_plan_text

    typer.echo(document.to_json() if json else budget_plan_text(document), nl=False)
    return document.exit_code


def _planned(spec: Spec, sizes: tuple[int, ...] | None, *, quiet: bool) -> BudgetPlan:
    import torch

    from edgeprune import budget_only
    from edgeprune.workload.load import load_workload
    from edgeprune.workload.models import load_model

    shown = progress(quiet=quiet)
    if spec.data.source is None and not spec.is_demo:
        assert sizes is not None
        return budget_only.plan_budget(spec, load_model(spec.model), torch.zeros(sizes), None, shown)
    workload = load_workload(spec)
    return budget_only.plan_budget(spec, workload.model, workload.example, workload, shown)
