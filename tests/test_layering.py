"""The house rule as a test: data flows one way, and a board needs neither torch nor onnx."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parents[1] / "sr_deploy"

#: The words of the line, left to right. A folder imports from itself, from core, and from folders to its left.
ORDER = (
    "core",
    "checkpoint",
    "models",
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


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_imports_go_to_the_left(path):
    room = room_of(path)
    if room == "__init__":
        return
    assert room in ORDER, f"{room} is not a room of the house"
    for _, module in imported_modules(ast.parse(path.read_text())):
        parts = module.split(".")
        if parts[0] != "sr_deploy" or len(parts) < 2 or parts[1] == "__version__":
            continue
        other = parts[1]
        if room in BOARD:
            assert other in BOARD, f"{path.name} runs on a board and imports {module}"
        assert ORDER.index(other) <= ORDER.index(room), f"{path.name} ({room}) imports {module}, which is to its right"


@pytest.mark.parametrize(
    "path",
    [p for p in FILES if room_of(p) in (*BOARD, "pipeline", "cli", "__init__")],
    ids=lambda p: str(p.relative_to(PACKAGE)),
)
def test_heavy_imports_are_inside_functions(path):
    for node in ast.parse(path.read_text()).body:
        for _, module in imported_modules(node) if isinstance(node, (ast.Import, ast.ImportFrom)) else ():
            assert module.split(".")[0] not in HEAVY, f"{path.name} imports {module} at the top"


def test_only_one_file_calls_torch_onnx():
    callers = [p.name for p in FILES if "torch.onnx.export(" in p.read_text()]
    assert callers == ["export.py"]


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_files_stay_small(path):
    assert len(path.read_text().splitlines()) <= 400, f"{path} has grown too large: split it by what changes together"


def test_no_grab_bags():
    assert not [p for p in FILES if p.stem in ("utils", "helpers", "misc", "common")]
