"""A budget's plan carried out without training: scored, solved, cut, checked and written."""

from __future__ import annotations

import json
import warnings
from dataclasses import dataclass
from pathlib import Path

import torch

from edgeprune.budget_only import Answer, budget_document, solve_budget
from edgeprune.documents import RankingRow
from edgeprune.errors import QualityError
from edgeprune.plan_document import PrunedDocument
from edgeprune.progress import SILENT, Progress
from edgeprune.pruning.check import checked_prune
from edgeprune.pruning.trace import CapturedModule, two_samples
from edgeprune.record import write_text
from edgeprune.spec import Spec
from edgeprune.training.checkpoint import save_state
from edgeprune.workload import Workload

_CHECKED_ON = 8  # samples at most


@dataclass(frozen=True)
class Cut:
    """What pruning to a budget gave; no module where the budget is out of reach."""

    document: PrunedDocument
    module: CapturedModule | None
    example: torch.Tensor


def prune_to_budget(
    spec: Spec,
    model: torch.nn.Module,
    example: torch.Tensor,
    workload: Workload | None = None,
    *,
    macs_share: float | None = None,
    progress: Progress = SILENT,
) -> Cut:
    """The model cut down to the budget, equal to the model with the removed channels masked; nothing is trained.

    Args:
        example: One input, batch on axis 0; only its shape matters.
        workload: Its data is what channels are scored and the cut is checked on; without, weights and noise.
        macs_share: Limit on multiply-accumulates as a share of the dense model's, beside the job's budget.

    Raises:
        UsageError: Unknown target, runtime or criterion, or one that lacks what it needs; layer bounds that cannot
            hold.
        UnsupportedError: The model cannot be captured.
        QualityError: A weight or a score is not finite, or pruned differs from masked.
    """
    answer = solve_budget(spec, model, example, workload, macs_share=macs_share, progress=progress)
    plan, asked = budget_document(answer), answer.asked
    dense = asked.opened.captured
    if answer.best is None:
        return Cut(PrunedDocument(budget=plan, ranking=_ranking(answer)), None, example)
    progress.note("cutting and checking")
    inputs = tuple(x[:_CHECKED_ON] for x in asked.inputs)
    done = checked_prune(dense, asked.groups, answer.best.plan, inputs)
    if done.excluded:
        name, error = next(iter(done.excluded.items()))
        raise QualityError(
            f"pruned differs from masked by {error:.1e}",
            where=name,
            hint=f"leave the layer whole with --freeze {name}; please report the model",
        )
    document = PrunedDocument(
        budget=plan,
        ranking=_ranking(answer),
        error=done.error,
        checked_on=0 if workload is None else len(inputs[0]),
        parameters=(_parameters(dense.module), _parameters(done.pruned.module)),
    )
    return Cut(document, done.pruned.module, example)


def write_cut(cut: Cut, folder: Path) -> PrunedDocument:
    """Write the model, its weights, the plan and the document into a folder; nothing where there is no module.

    The model is an archive of torch.export with a free batch size, which trains; where torch cannot write one, `notes`
    say so.

    Returns:
        The document with the files that were written.
    """
    if cut.module is None:
        return cut.document
    folder.mkdir(parents=True, exist_ok=True)
    weights, plan, whole = folder / "model.safetensors", folder / "plan.json", folder / "pruned.json"
    files = {"weights": weights, "plan": plan, "document": whole}
    notes: tuple[str, ...] = ()
    try:
        files = {"model": _archive(cut.module, cut.example, folder / "model.pt2"), **files}
    except Exception as err:  # torch.export raises many unrelated types
        notes = (f"no model.pt2: torch cannot write one: {str(err).strip().partition(chr(10))[0]}",)
    document = cut.document.model_copy(update={"files": files, "notes": notes})
    save_state(cut.module, weights)
    write_text(plan, json.dumps(document.budget.plan, indent=1) + "\n")
    write_text(whole, document.to_json())
    return document


def _archive(module: CapturedModule, example: torch.Tensor, path: Path) -> Path:
    temporary = path.with_name(f".{path.name}")
    pair, dynamic = two_samples((example,))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch's exporter warns about itself
        torch.export.save(torch.export.export(module, pair, dynamic_shapes=dynamic, strict=False), temporary)
    temporary.replace(path)
    return path


def _ranking(answer: Answer) -> RankingRow:
    ranking, agreement = answer.asked.ranking, answer.asked.ranking.stability
    found = {} if agreement is None else {"agreement": agreement.mean, "groups": agreement.groups}
    return RankingRow(criterion=ranking.criterion, samples=answer.asked.samples, **found)


def _parameters(module: torch.nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())
