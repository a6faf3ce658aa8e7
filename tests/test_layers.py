"""The shape of the house: who may import whom, what stays free of torch, how large things may grow.

Levels, low to high; a module imports its own level or lower ones:
0 values, 1 pure maths, 2 torch side, 3 edges, 4 meeting points, 5 policy, 6 the loop, 7 the faces.
"""

from __future__ import annotations

import ast
import subprocess
import sys
from functools import cache
from graphlib import CycleError, TopologicalSorter
from itertools import pairwise
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "edgeprune"

LEVELS = {
    "edgeprune": 0,  # the package itself: its version, and names loaded when asked for
    "edgeprune.against_document": 0,
    "edgeprune.augmentations": 0,
    "edgeprune.children": 0,
    "edgeprune.cost": 0,
    "edgeprune.data_files": 0,
    "edgeprune.documents": 0,
    "edgeprune.errors": 0,
    "edgeprune.graph": 0,
    "edgeprune.percentiles": 0,
    "edgeprune.plan_document": 0,
    "edgeprune.quantize_document": 0,
    "edgeprune.progress": 0,
    "edgeprune.recipe": 0,
    "edgeprune.spec": 0,
    "edgeprune.target": 0,
    "edgeprune.units": 0,
    "edgeprune.values": 0,
    "edgeprune.device_lock": 0,
    "edgeprune.device": 1,
    "edgeprune.device_facts": 1,
    "edgeprune.pruning": 2,
    "edgeprune.pruning.blocks": 1,
    "edgeprune.pruning.descent": 1,
    "edgeprune.pruning.groups": 1,
    "edgeprune.pruning.labels": 1,
    "edgeprune.pruning.layer_bounds": 1,
    "edgeprune.pruning.plan": 1,
    "edgeprune.pruning.problem": 1,
    "edgeprune.pruning.relaxation": 1,
    "edgeprune.pruning.rewrites": 1,
    "edgeprune.pruning.rules": 1,
    "edgeprune.pruning.sites": 1,
    "edgeprune.pruning.solver": 1,
    "edgeprune.pruning.stability": 1,
    "edgeprune.conversion": 2,
    "edgeprune.quantization": 2,
    "edgeprune.quantization.gates": 4,  # looks into exported files through their backends
    "edgeprune.training": 2,
    "edgeprune.workload": 2,
    "edgeprune.backends": 3,
    "edgeprune.device_shell": 3,
    "edgeprune.flashers": 3,
    "edgeprune.links": 3,
    "edgeprune.runner": 3,
    "edgeprune.emulate": 3,
    "edgeprune.boards": 3,
    "edgeprune.emulated": 4,
    "edgeprune.flashing": 4,
    "edgeprune.emulated_board": 4,
    "edgeprune.benchmark_binary": 4,
    "edgeprune.generated": 4,
    "edgeprune.measured": 4,
    "edgeprune.on_device": 4,
    "edgeprune.profiling": 4,
    "edgeprune.timing": 4,
    "edgeprune.vela": 4,
    "edgeprune.calibration": 5,
    "edgeprune.decide": 5,
    "edgeprune.deploy": 5,
    "edgeprune.front": 6,
    "edgeprune.front.documents": 1,
    "edgeprune.front.folder": 5,
    "edgeprune.front.grid": 1,
    "edgeprune.front.workers": 5,
    "edgeprune.record": 5,
    "edgeprune.report": 5,
    "edgeprune.budget_only": 6,
    "edgeprune.evidence": 6,
    "edgeprune.int8": 6,
    "edgeprune.compared": 6,
    "edgeprune.followers": 6,
    "edgeprune.job": 6,
    "edgeprune.prune_only": 6,
    "edgeprune.ladder": 6,
    "edgeprune.quantized": 6,
    "edgeprune.rounds": 6,
    "edgeprune.schedule": 6,
    "edgeprune.stages": 6,
    "edgeprune.summary": 6,
    "edgeprune.worth": 6,
    "edgeprune.pipeline": 6,
    "edgeprune.api": 7,
    "edgeprune.cli": 7,
    "edgeprune.__main__": 7,
}
# (who, what it must not import, why)
FORBIDDEN = (
    ("edgeprune.pruning", "edgeprune.quantization", "pruning knows nothing of number formats"),
    ("edgeprune.pruning", "edgeprune.workload", "pruning is given tensors, not data sources"),
    ("edgeprune.links", "edgeprune.backends", "a link carries files, whatever they are"),
    ("edgeprune.device_shell", "edgeprune.backends", "a link carries files, whatever they are"),
    ("edgeprune.backends", "edgeprune.links", "a backend does not know where it runs"),
    ("edgeprune.backends", "edgeprune.workload", "a backend is given arrays"),
    ("edgeprune.backends", "edgeprune.training", "a backend exports what it is given"),
    ("edgeprune.runner.bench", "edgeprune", "the runner is copied to devices alone"),
    ("edgeprune.runner.check", "edgeprune", "the runner is copied to devices alone"),
    ("edgeprune.api", "edgeprune.cli", "nothing but the command itself imports the command line"),
)
TORCH_FREE_LEVELS = (0, 1, 3, 4, 5)


def module_name(file: Path) -> str:
    parts = file.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


FILES = {module_name(file): file for file in sorted(PACKAGE.rglob("*.py"))}


@cache
def tree(name: str) -> ast.Module:
    return ast.parse(FILES[name].read_text(encoding="utf-8"))


def level(name: str) -> int:
    while name not in LEVELS:
        name = name.rpartition(".")[0]
    return LEVELS[name]


def is_type_checking(node: ast.AST) -> bool:
    return isinstance(node, ast.If) and ast.unparse(node.test) in ("TYPE_CHECKING", "typing.TYPE_CHECKING")


@cache
def imports(name: str, *, at_top: bool = False) -> frozenset[str]:
    """Modules that `name` imports when it runs, at the top or inside functions; those for types only are left out."""
    found: set[str] = set()
    todo: list[ast.AST] = list(tree(name).body) if at_top else [tree(name)]
    while todo:
        node = todo.pop()
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            for alias in node.names:
                inner = f"{node.module}.{alias.name}"
                found.add(inner if inner in FILES else node.module)
        if at_top:
            continue
        if not is_type_checking(node):
            todo += ast.iter_child_nodes(node)
        else:
            todo += node.orelse  # type: ignore[attr-defined]
    return frozenset(found)


def is_script(name: str) -> bool:
    """Whether it is run as a child process, whose stdout is its answer."""
    last = tree(name).body[-1] if tree(name).body else None
    return isinstance(last, ast.If) and ast.unparse(last.test) == "__name__ == '__main__'"


def ours(name: str) -> frozenset[str]:
    return frozenset(other for other in imports(name) if other in FILES and other != name)


def below(name: str, package: str) -> bool:
    return name == package or name.startswith(package + ".")


@pytest.mark.parametrize("name", FILES)
def test_a_module_imports_its_own_level_or_lower_ones(name: str) -> None:
    assert name == "edgeprune" or level(name) > 0 or name in LEVELS, f"say in LEVELS where {name} belongs"
    if name == "edgeprune":
        return  # loads the face when one of its names is asked for
    high = [other for other in ours(name) if level(other) > level(name)]
    assert not high, f"{name} (level {level(name)}) imports {high}"


@pytest.mark.parametrize(("who", "what", "why"), FORBIDDEN)
def test_what_must_not_meet_does_not(who: str, what: str, why: str) -> None:
    meetings = [
        (name, other)
        for name in FILES
        if below(name, who)
        for other in ours(name)
        if below(other, what) and not below(other, who)
    ]
    assert not meetings, why


def test_nothing_imports_the_command_line() -> None:
    users = [n for n in FILES if not below(n, "edgeprune.cli") and any(below(o, "edgeprune.cli") for o in ours(n))]
    assert users == ["edgeprune.__main__"]


@pytest.mark.parametrize("package", ["edgeprune.backends", "edgeprune.links"])
def test_no_backend_imports_another_and_no_link_another(package: str) -> None:
    def owner(name: str) -> str:
        return name.removeprefix(package + ".").split(".")[0]

    pairs = [
        (name, other)
        for name in FILES
        if below(name, package) and name != package
        for other in ours(name)
        if below(other, package) and other != package and owner(other) != owner(name)
    ]
    assert not pairs


def test_a_package_does_not_import_its_own_children() -> None:
    children = [
        (name, other)
        for name, file in FILES.items()
        if file.name == "__init__.py"
        for other in imports(name, at_top=True)
        if other.startswith(name + ".")
    ]
    assert not children


def test_there_is_no_cycle() -> None:
    graph = {name: ours(name) - {"edgeprune"} for name in FILES if name != "edgeprune"}
    try:
        order = list(TopologicalSorter(graph).static_order())
    except CycleError as err:
        pytest.fail(" -> ".join(err.args[1]))
    assert set(order) >= set(graph)


def test_only_the_command_line_uses_typer_and_rich_prints_and_exits() -> None:
    wrong = []
    for name in FILES:
        if below(name, "edgeprune.cli") or is_script(name):
            continue
        wrong += [f"{name} imports {other}" for other in imports(name) if other.split(".")[0] in ("typer", "rich")]
        for node in ast.walk(tree(name)):
            called = ast.unparse(node.func) if isinstance(node, ast.Call) else ""
            if called in ("print", "sys.exit", "exit", "quit", "os._exit", "breakpoint"):
                wrong.append(f"{name}:{node.lineno} calls {called}")  # type: ignore[attr-defined]
    assert not wrong


def test_no_pickle_and_no_unsafe_load_anywhere() -> None:
    wrong = []
    for name in FILES:
        wrong += [
            f"{name} imports {other}" for other in imports(name) if other in ("pickle", "dill", "joblib", "shelve")
        ]
        if name == "edgeprune.front.workers":  # joblib carries calls to processes; its files are refused here too
            wrong.remove(f"{name} imports joblib")
            text = FILES[name].read_text(encoding="utf-8")
            wrong += [word for word in ("joblib.load", "joblib.dump", "Memory", "import load") if word in text]
        for node in ast.walk(tree(name)):
            if isinstance(node, ast.Call) and ast.unparse(node.func) in ("torch.load", "np.load", "numpy.load"):
                options = {key.arg: ast.unparse(key.value) for key in node.keywords}
                if options.get("weights_only") != "True" and options.get("allow_pickle") != "False":
                    wrong.append(f"{name}:{node.lineno}")
    assert not wrong


def test_what_is_torch_free_loads_without_torch() -> None:
    names = [name for name in FILES if level(name) in TORCH_FREE_LEVELS or below(name, "edgeprune.cli")]
    heavy = {"torch", "tensorflow", "litert_torch", "ai_edge_quantizer", "ai_edge_litert", "onnxruntime", "openvino"}
    script = f"""
import importlib, sys
for name in {names!r}:
    importlib.import_module(name)
    loaded = {heavy!r} & set(sys.modules)
    if loaded:
        sys.exit(f"{{name}} loads {{loaded}}")
"""
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def functions(name: str) -> list[tuple[str, int]]:
    kinds = (ast.FunctionDef, ast.AsyncFunctionDef)
    nodes = [node for node in ast.walk(tree(name)) if isinstance(node, kinds)]
    return [(f"{name}:{node.name}", (node.end_lineno or 0) - node.lineno + 1) for node in nodes]


def test_no_function_is_longer_than_80_lines_and_no_module_than_500() -> None:
    long = [(where, lines) for name in FILES for where, lines in functions(name) if lines > 80]
    large = [(name, n) for name in FILES if (n := FILES[name].read_text(encoding="utf-8").count("\n")) > 500]
    assert not long and not large


def test_no_file_is_a_drawer() -> None:
    drawers = ("utils", "util", "common", "helpers", "helper", "manager", "misc", "base")
    assert not [name for name in FILES if any(part in drawers for part in name.split("."))]


def test_levels_are_in_use() -> None:
    used = {level(name) for name in FILES}
    assert all(b - a == 1 for a, b in pairwise(sorted(used | {6})))


TESTS = sorted((ROOT / "tests").rglob("*.py"))


def asserting(body: ast.AST, helpers: dict[str, ast.AST], seen: frozenset[str] = frozenset()) -> bool:
    for node in ast.walk(body):
        if isinstance(node, ast.Assert):
            return True
        if isinstance(node, ast.Call):
            called = ast.unparse(node.func).split(".")[-1]
            if called in ("raises", "warns", "fail", "assert_allclose", "assert_array_equal", "assert_close"):
                return True
            if called in helpers and called not in seen and asserting(helpers[called], helpers, seen | {called}):
                return True
    return False


def test_every_test_asserts_something() -> None:
    trees = {file: ast.parse(file.read_text(encoding="utf-8")) for file in TESTS}
    helpers = {
        node.name: node
        for parsed in trees.values()
        for node in ast.walk(parsed)
        if isinstance(node, ast.FunctionDef) and not node.name.startswith("test_")
    }
    idle = [
        f"{file.relative_to(ROOT)}:{node.lineno} {node.name}"
        for file, parsed in trees.items()
        for node in ast.walk(parsed)
        if isinstance(node, ast.FunctionDef) and node.name.startswith("test_") and not asserting(node, helpers)
    ]
    assert not idle
