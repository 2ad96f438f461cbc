"""The house rule as a test: data flows one way, and a board needs neither torch nor onnx."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

from sr_deploy.core import errors

PACKAGE = Path(__file__).resolve().parents[1] / "sr_deploy"

#: The words of the line, left to right. A folder imports from itself, from core, and from folders to its left.
ORDER = (
    "core",
    "checkpoint",
    "models",
    "train",
    "fold",
    "graph",
    "precision",
    "compress",
    "engine",
    "run",
    "bench",
    "report",
    "bundle",
    "remote",
    "pipeline",
    "demo",
    "api",
    "cli",
)
#: What runs on a board: these folders import only each other and core, and no heavy library at the top of a file.
BOARD = ("core", "engine", "run", "bench", "report", "bundle")
HEAVY = {
    "av",
    "torch",
    "onnx",
    "onnxruntime",
    "onnx_graphsurgeon",
    "polygraphy",
    "tensorrt",
    "tensorrt_rtx",
    "pycuda",
    "matplotlib",
}

FILES = sorted(path for path in PACKAGE.rglob("*.py"))


def room_of(path: Path) -> str:
    parts = path.relative_to(PACKAGE).parts
    return parts[0] if len(parts) > 1 else path.stem


def imported_modules(tree: ast.AST):
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for name in node.names:
                yield node, name.name
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "relative imports hide where a name comes from"
            if node.module == "sr_deploy":
                for name in node.names:
                    yield node, f"sr_deploy.{name.name}"
            else:
                yield node, node.module


@pytest.fixture(scope="module")
def trees():
    """The syntax of every file; no worker but the one that runs these tests need parse them."""
    return {path: ast.parse(path.read_text(encoding="utf-8")) for path in FILES}


def test_imports_go_to_the_left(trees):
    wrong = []
    for path, tree in trees.items():
        room = room_of(path)
        if room == "__init__":
            continue
        if room not in ORDER:
            wrong.append(f"{path}: {room} is not a room of the house")
            continue
        for node, module in imported_modules(tree):
            parts = module.split(".")
            if parts[0] != "sr_deploy" or len(parts) < 2 or parts[1] == "__version__":
                continue
            other = parts[1]
            if room in BOARD and other not in BOARD:
                wrong.append(f"{path}:{node.lineno} runs on a board and imports {module}")
            elif ORDER.index(other) > ORDER.index(room):
                wrong.append(f"{path}:{node.lineno} ({room}) imports {module}, which is to its right")
    assert not wrong


def test_heavy_imports_are_inside_functions(trees):
    wrong = [
        f"{path}:{node.lineno} imports {module} at the top"
        for path, tree in trees.items()
        if room_of(path) in (*BOARD, "pipeline", "cli", "__init__")
        for node in tree.body
        if isinstance(node, (ast.Import, ast.ImportFrom))
        for _, module in imported_modules(node)
        if module.split(".")[0] in HEAVY
    ]
    assert not wrong


def test_only_one_file_calls_torch_onnx():
    callers = [p.name for p in FILES if "torch.onnx.export(" in p.read_text()]
    assert callers == ["export.py"]


def test_files_stay_small():
    """A file of more than 400 lines is to be split by what changes together."""
    assert not [path for path in FILES if len(path.read_text(encoding="utf-8").splitlines()) > 400]


#: Functions longer than 60 lines, and why.
LONG = {
    "bench/measure.py::measure": "one measurement from warm-up to record, in the order it happens",
    "cli/board.py::pack": "declares its options",
    "cli/deploy.py::build": "declares its options",
    "cli/gate.py::gate": "declares its options",
    "cli/measure.py::bench": "declares its options",
    "engine/onnxruntime.py::engine_from_graph": "open: the manifest is made where the engine is",
    "engine/tensorrt.py::engine_from_graph": "open: builder, network and configuration live as long as the build",
    "graph/export.py::graph_from_model": "half of it is the docstring",
    "pipeline/export.py::export_deployment": "the line of an export, a step after the other",
    "remote/connect.py::_open": "one connection with every way in which it fails",
}
#: Functions with more than 7 parameters outside cli/, and why. In api.py options are keywords, for people.
MANY_PARAMETERS = {
    "bench/interleave.py::interleave": "clock and watch are for tests and for machines that can be watched",
    "bench/sweep.py::sweep": "clock and watch are for tests and for machines that can be watched",
    "bench/sweep.py::_sweep_alone": "those of sweep",
    "engine/onnxruntime.py::engine_from_graph": "open: what the manifest says of the graph",
    "graph/rewrite/convolution.py::conv_node": "a Conv has so many attributes",
    "pipeline/engines/strips.py::engine_within_budget": "open: those of the engine, with a budget",
    "pipeline/export.py::_graph": "open: what one graph is made from",
    "pipeline/precision/deployed_plan.py::precision_options": "the options of build, as keywords",
}


def functions(trees):
    """Every function of the package: (its name as "folder/file.py::function", its node)."""
    for path, tree in trees.items():
        for node in ast.walk(tree):
            if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
                yield f"{path.relative_to(PACKAGE).as_posix()}::{node.name}", node


#: Errors that say what was found, what was wanted and what to do next; the command line adds the command's help to a
#: UsageError that leaves the last to what was wanted.
ERRORS = {
    name for name, kind in vars(errors).items()
    if isinstance(kind, type) and issubclass(kind, errors.SrDeployError) and not issubclass(kind, errors.UsageError)
}  # fmt: skip
#: Files whose errors are for who writes a program, and no user's to mend.
FOR_PROGRAMS = {"run/fake.py", "run/inputs.py"}


def test_errors_say_what_to_do_next(trees):
    silent = [
        f"{path.relative_to(PACKAGE).as_posix()}:{node.lineno}"
        for path, tree in trees.items()
        for node in ast.walk(tree)
        if isinstance(node, ast.Call) and getattr(node.func, "id", getattr(node.func, "attr", "")) in ERRORS
        if len(node.args) + len(node.keywords) < 3 and not any(isinstance(one, ast.Starred) for one in node.args)
    ]
    assert not [place for place in silent if place.split(":")[0] not in FOR_PROGRAMS]


def parameters_of(node):
    """How many, without self and cls."""
    asked = node.args
    names = [one.arg for one in (*asked.posonlyargs, *asked.args, *asked.kwonlyargs, asked.vararg, asked.kwarg) if one]
    return len(names) - (names[:1] in (["self"], ["cls"]))


def test_functions_are_short(trees):
    long = {name for name, node in functions(trees) if node.end_lineno - node.lineno + 1 > 60}
    assert long == set(LONG), "shorten it, or give the reason; and an exception that is none any more goes"


def test_functions_take_few_parameters(trees):
    many = {
        name for name, node in functions(trees) if not name.startswith(("cli/", "api.py")) and parameters_of(node) > 7
    }
    assert many == set(MANY_PARAMETERS), "make a frozen value of them; an exception that is none any more goes"


def test_no_grab_bags():
    assert not [p for p in FILES if p.stem in ("utils", "helpers", "misc", "common")]


def test_no_files_import_each_other_in_a_circle(trees):
    """Imports inside functions count; those for type checkers alone do not."""
    modules = {".".join(path.with_suffix("").relative_to(PACKAGE.parent).parts): path for path in FILES}
    modules = {name.replace(".__init__", ""): path for name, path in modules.items()}
    graph = {name: needed_by(trees[path], name, modules) for name, path in modules.items()}
    while True:
        leaves = [name for name, needed in graph.items() if not needed]
        if not leaves:
            break
        graph = {name: needed - set(leaves) for name, needed in graph.items() if name not in leaves}
    in_circles = {name for name in graph if any(name in needed for needed in graph.values())}
    assert not in_circles


def needed_by(tree, name, modules):
    """The modules of the package that one imports, the packages they lie in left out."""
    skipped = {
        id(node)
        for block in ast.walk(tree)
        if isinstance(block, ast.If) and getattr(block.test, "id", "") == "TYPE_CHECKING"
        for node in ast.walk(block)
    }
    found = set()
    for node in ast.walk(tree):
        if id(node) in skipped or not isinstance(node, (ast.Import, ast.ImportFrom)):
            continue
        for word in node.names:
            module = word.name if isinstance(node, ast.Import) else node.module
            inner = f"{module}.{word.name}"
            found.add(inner if isinstance(node, ast.ImportFrom) and inner in modules else module)
    return {one for one in found if one in modules and one != name}
