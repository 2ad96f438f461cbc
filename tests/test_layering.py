"""The house rule as a test: data flows one way, and a board needs neither torch nor onnx."""

from __future__ import annotations

import ast
from pathlib import Path

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


TREES = {path: ast.parse(path.read_text(encoding="utf-8")) for path in FILES}


def test_imports_go_to_the_left():
    wrong = []
    for path, tree in TREES.items():
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


def test_heavy_imports_are_inside_functions():
    wrong = [
        f"{path}:{node.lineno} imports {module} at the top"
        for path, tree in TREES.items()
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


def test_no_grab_bags():
    assert not [p for p in FILES if p.stem in ("utils", "helpers", "misc", "common")]


def test_no_files_import_each_other_in_a_circle():
    """Imports inside functions count; those for type checkers alone do not."""
    modules = {".".join(path.with_suffix("").relative_to(PACKAGE.parent).parts): path for path in FILES}
    modules = {name.replace(".__init__", ""): path for name, path in modules.items()}
    graph = {name: needed_by(TREES[path], name, modules) for name, path in modules.items()}
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
