"""What the commands of all benchmarks share: options, progress on stderr, errors without tracebacks."""

from __future__ import annotations

import argparse
import shlex
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from bench.cells import RESULTS, ROOT, Sheet, open_sheet
from edgeprune.cli.terminal import only_results_on_stdout, progress
from edgeprune.errors import EdgepruneError
from edgeprune.progress import Progress

Body = Callable[[Sheet, argparse.Namespace, Path, Progress], None]
# They say which cells there are, not what a cell holds.
_NOT_SETTINGS = (
    "results",
    "fresh",
    "quiet",
    "smoke",
    "seeds",
    "arms",
    "nets",
    "sizes",
    "list",
    "peer",
    "measurements",
    "profiles",
    "models",
    "targets",
    "toolchains",
)


def parser(name: str, summary: str) -> argparse.ArgumentParser:
    """A parser with the options that every benchmark has."""
    made = argparse.ArgumentParser(prog=f"python -m bench.{name.replace('-', '_')}", description=summary)
    made.add_argument("--results", type=Path, help=f"where the figures go (bench/results/{name}.json)")
    made.add_argument("--fresh", action="store_true", help="drop the figures that are there")
    made.add_argument("--quiet", action="store_true", help="no progress on stderr")
    made.add_argument("--smoke", action="store_true", help="tiny settings, figures of no worth, in runs/bench")
    return made


def run(name: str, options: argparse.Namespace, arguments: Sequence[str], body: Body) -> int:
    """Compute the missing cells; the exit status says how it ended."""
    folder = ROOT / "runs" / "bench" / (f"{name}-smoke" if options.smoke else name)
    results = options.results or (folder / "results.json" if options.smoke else RESULTS / f"{name}.json")
    settings = {key: value for key, value in vars(options).items() if key not in _NOT_SETTINGS}
    module = f"bench.{name.replace('-', '_')}"
    command = shlex.join(["python", "-m", module, *(word for word in arguments if word != "--fresh")])
    try:
        sheet = open_sheet(name, settings, command, results, fresh=options.fresh)
        with only_results_on_stdout(debug=False):
            body(sheet, options, folder, progress(quiet=options.quiet))
    except EdgepruneError as err:
        lines = [f"error: {err.message}", *([f"where: {err.where}"] if err.where else [])]
        print("\n".join([*lines, *([f"hint: {err.hint}"] if err.hint else [])]), file=sys.stderr)
        return err.exit_code
    print(f"all cells are in {results}", file=sys.stderr)
    return 0
