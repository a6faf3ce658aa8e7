"""The budgeted solve: choose one width per group, most value within all limits.

First the linear relaxation, which bounds what any choice can be worth, and choices near it. Where the best of them is
within the gap, that is the proof. Otherwise levels that cannot be part of anything better are left out, and what
remains is searched exactly.
"""

from __future__ import annotations

import time
from dataclasses import replace

from edgeprune.pruning.descent import greedy, improved
from edgeprune.pruning.problem import Problem, Solution
from edgeprune.pruning.relaxation import Program, Relaxed, Searched, program, relaxed, searched

_MARGIN = 1e-6  # share of each bound kept free where HiGHS's tolerance let a choice through that breaks a limit
_NEAR = 0.25  # share of the time limit for choices near the relaxation


def solve(problem: Problem, gap: float = 1e-3, time_limit_s: float = 20.0) -> Solution | None:
    """The best choice that holds every limit, or None when none exists or none was found in time.

    The answer never violates a limit: what the solver returns is checked against the exact tables.

    Args:
        gap: Distance to the optimum at which the search may stop, relative to what the optimum is worth above every
            group at its least valuable level.
        time_limit_s: Then the best choice so far is returned with its gap.
    """
    start = time.monotonic()
    if problem.held(problem.widest):
        return Solution(problem.widest, problem.value(problem.widest), 0.0, time.monotonic() - start, "dense")
    found = program(problem)
    bound = relaxed(found, time_limit_s)
    if bound is not None and bound.upper == float("-inf"):
        return None
    best = _near(problem, found, bound, gap, start + _NEAR * time_limit_s)
    upper = None if bound is None else bound.upper
    if best is None or upper is None or _gap(found, upper, best.value) > gap:
        exact = _exact(problem, found, bound, best, gap, start + time_limit_s)
        if exact.infeasible and best is None:
            return None
        if exact.choice is not None and (best is None or problem.value(exact.choice) > best.value):
            best = Solution(exact.choice, problem.value(exact.choice), None, 0.0, "milp")
        known = [x for x in (upper, exact.upper) if x is not None]
        upper = min(known) if known else None
    if best is None:
        return None
    proven = None if upper is None else _gap(found, upper, best.value)
    return replace(best, gap=proven, seconds=time.monotonic() - start)


def _gap(found: Program, upper: float, value: float) -> float:
    return max(0.0, upper - value) / max(upper - found.least, 1e-300)


def _near(problem: Problem, found: Program, bound: Relaxed | None, gap: float, until_s: float) -> Solution | None:
    """The best choice found without a search: from the relaxation's heaviest levels, else from the widest."""
    best = None
    if bound is not None:
        choice = improved(problem, found.rounded(bound.x), until_s)
        if choice is not None:
            best = Solution(choice, problem.value(choice), None, 0.0, "relaxed")
            if _gap(found, bound.upper, best.value) <= gap:
                return best
    other = greedy(problem)
    return max((s for s in (best, other) if s is not None), key=lambda s: s.value, default=None)


def _exact(
    problem: Problem, found: Program, bound: Relaxed | None, best: Solution | None, gap: float, until_s: float
) -> Searched:
    """The search, without levels that the relaxation proves to be worth no more than the best choice known."""
    gone = None if bound is None or best is None else bound.upper - bound.losses < best.value
    exact = searched(found, gap, until_s - time.monotonic(), gone)
    if exact.choice is not None and not problem.held(exact.choice):
        exact = searched(program(problem, _MARGIN), gap, until_s - time.monotonic(), gone)
    if exact.choice is not None and not problem.held(exact.choice):
        exact = replace(exact, choice=None)
    if gone is None or best is None:
        return exact
    # nothing that was left out is worth more than the best choice known
    upper = best.value if exact.infeasible else exact.upper
    return replace(exact, infeasible=False, upper=None if upper is None else max(upper, best.value))
