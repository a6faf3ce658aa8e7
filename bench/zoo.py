"""How many public models are pruned exactly: half of all channels by L2 magnitude, judged by an oracle of its own.

Each model of the list is pruned in a process of its own, with one thread and a time limit, and so it is by the peer
(torch-pruning, in an environment of its own). A model is `exact` when it computes what the original one does over what
is left (bench/oracle), and enough went: 0.9 of the share that the peer removes where the peer is exact, else 40 %.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from bench import command
from bench.cells import RESULTS, ROOT, Result, Sheet, read_document, write_document
from bench.children import staged
from bench.public_models import VARIABLE, Listed, read_list
from edgeprune.errors import UsageError, did_you_mean
from edgeprune.progress import Progress

PEER = ROOT / ".venv-peer" / "bin" / "python"
BUILD_LIMIT_S, ORACLE_LIMIT_S = 300.0, 600.0
ENOUGH, OF_THE_PEER = 0.4, 0.9  # shares of parameters that must go
STATUSES = ("exact", "refused", "wrong", "timeout", "unjudged")


def main(arguments: Sequence[str]) -> int:
    """The command; returns the exit status."""
    parser = command.parser("zoo", (__doc__ or "").splitlines()[0])
    parser.add_argument("--list", type=Path, required=True, help="CSV with the columns library, model, family, input")
    parser.add_argument("--models", dest="nets", default="", help="only these of the list, separated by commas")
    parser.add_argument("--peer", type=int, default=1, choices=(0, 1), help="0 leaves the peer out")
    parser.add_argument("--limit", type=float, default=45.0, help="seconds to capture, group and prune a model")
    options = parser.parse_args(arguments)
    if not options.smoke and options.results is None:
        options.results = RESULTS / f"zoo-{options.list.stem}.json"
    return command.run("zoo", options, arguments, _benchmark)


def _benchmark(sheet: Sheet, options: argparse.Namespace, folder: Path, progress: Progress) -> None:
    listed = read_list(options.list)
    asked = chosen(listed, options.nets, smoke=options.smoke)
    if options.peer and not PEER.is_file():
        raise UsageError(
            "the peer has no environment", where=str(PEER), hint="make bench-zoo makes it, --peer 0 leaves it out"
        )
    for entry in asked:
        found = sheet.cell(key(entry), partial(_ours, entry, options.limit))
        peer = sheet.cell(f"peer/{key(entry)}", partial(_peer, entry, options.limit)) if options.peer else None
        said = verdict(entry, found, peer)
        progress.note(f"{key(entry)}: {said['status']} {said['reason']}".rstrip())
        models = _put_together(sheet, listed)
    progress.note(json.dumps(summary(models)))


def _put_together(sheet: Sheet, listed: Sequence[Listed]) -> list[Result]:
    """Write the lines of all models that are done, and what they amount to, beside their cells."""
    document = read_document(sheet.path)
    cells = {name: cell["result"] for name, cell in document["cells"].items()}
    done = [entry for entry in listed if key(entry) in cells]
    models = [verdict(entry, cells[key(entry)], cells.get(f"peer/{key(entry)}")) for entry in done]
    write_document(sheet.path, {**document, "summary": summary(models), "models": models})
    return models


def key(entry: Listed) -> str:
    """The name of a model's cell; both libraries have a resnet18."""
    return f"{entry.library}/{entry.name}"


def chosen(listed: Sequence[Listed], names: str, *, smoke: bool = False) -> list[Listed]:
    """The models asked for; all when none is named, the first one in a smoke run.

    Raises:
        UsageError: A name is not on the list.
    """
    if not names:
        return list(listed[:1] if smoke else listed)
    known = {entry.name for entry in listed}
    for name in names.split(","):
        if name not in known:
            raise UsageError(f"no model {name!r} on the list", where="--models", hint=did_you_mean(name, known))
    return [entry for entry in listed if entry.name in names.split(",")]


def _ours(entry: Listed, limit_s: float) -> Result:
    return _child(sys.executable, "bench.zoo_model", entry, limit_s)


def _peer(entry: Listed, limit_s: float) -> Result:
    return _child(str(PEER), "bench.peer", entry, limit_s)


def _child(python: str, module: str, entry: Listed, limit_s: float) -> Result:
    """What the stages of one model gave, and where it ended when not all did."""
    limits = {"built": BUILD_LIMIT_S, "pruned": limit_s, "judged": ORACLE_LIMIT_S}
    variables = {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    if VARIABLE in os.environ:
        variables[VARIABLE] = str(Path(os.environ[VARIABLE]).absolute())
    ended = staged([python, "-m", module, json.dumps(asdict(entry))], limits, variables, ROOT)
    result = {name: value for stage in ended.stages.values() for name, value in stage.items()}
    if ended.failed:
        result |= {"failed": ended.failed, "reason": ended.reason, "late": ended.late}
    return result


def verdict(entry: Listed, ours: Result, peer: Result | None) -> Result:
    """One line of the result: the status with its reason, the figures, and the peer's."""
    beside = {} if peer is None else _peers(peer)
    peer_exact = beside.get("exact")
    if peer_exact is None:
        peer_exact = entry.peer_exact
    needed = ENOUGH
    if peer_exact and "removed" in beside:
        needed = OF_THE_PEER * beside["removed"]
    status, reason = _status(ours, needed)
    figures = {name: ours.get(name) for name in ("parameters", "removed", "error", "trace_s", "prune_s", "frozen")}
    seconds = round(ours["trace_s"] + ours["prune_s"], 3) if "prune_s" in ours else None
    return {
        "model": entry.name,
        "library": entry.library,
        "status": status,
        "reason": reason,
        "seconds": seconds,
        **figures,
        "needed": round(needed, 4),
        **({"peer": beside} if beside else {}),
    }


def _status(ours: Result, needed: float) -> tuple[str, str]:
    failed, reason = ours.get("failed", ""), ours.get("reason", "")
    if failed == "pruned":
        return ("timeout" if ours["late"] else "refused"), reason
    if failed == "built":
        return "refused", f"not built: {reason}"
    if failed or "unjudged" in ours:
        return "unjudged", ours.get("unjudged", reason)
    if not ours["exact"]:
        return "wrong", reason or f"differs by {ours['error']:.1e} of the largest output"
    if ours["removed"] < needed:
        why = "; ".join(f"{entry['reason']} ({entry['channels']} channels)" for entry in ours["frozen"])
        return "refused", f"{ours['removed']:.1%} of the parameters removed, {needed:.1%} needed: {why}"
    return "exact", ""


def _peers(peer: Result) -> Result:
    """What counts of the peer; `exact` is None where nobody judged."""
    done = "removed" in peer
    exact = peer.get("exact") if done and not peer.get("failed") and "unjudged" not in peer else None
    return {
        "exact": exact if done else False,
        **({"removed": peer["removed"], "seconds": peer["prune_s"]} if done else {}),
        "reason": peer.get("reason") or peer.get("unjudged") or "",
    }


def summary(models: Sequence[Mapping[str, Any]]) -> Result:
    """Counts, and the median, 90th percentile and maximum of the times, in seconds, of the models that were pruned."""
    counts = Counter(model["status"] for model in models)
    peers = [model["peer"] for model in models if "peer" in model]
    return {
        "models": len(models),
        **{status: counts[status] for status in STATUSES},
        "seconds": _spread([model["seconds"] for model in models if model["seconds"] is not None]),
        "prune_s": _spread([model["prune_s"] for model in models if model["prune_s"] is not None]),
        **({"peer_exact": sum(bool(peer["exact"]) for peer in peers)} if peers else {}),
        **({"peer_s": _spread([peer["seconds"] for peer in peers if "seconds" in peer])} if peers else {}),
    }


def _spread(seconds: Sequence[float]) -> Result | None:
    if not seconds:
        return None
    median, high, largest = np.quantile(seconds, [0.5, 0.9, 1.0]).tolist()
    return {"p50": round(median, 3), "p90": round(high, 3), "max": round(largest, 3)}


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
