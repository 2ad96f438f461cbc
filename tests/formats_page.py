"""The page ``engines/formats.md``: every key of every file that srdeploy writes or reads, made from the code.

    python -m tests.formats_page          # writes the page

Types and limits come from the descriptions (sr_deploy/core/schema.py), meanings from the docstrings of their classes.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, Dict, Iterator, List, Tuple

from sr_deploy.bench.options import BenchOptions
from sr_deploy.bench.result import Result
from sr_deploy.bundle.layout import Index, IndexFile
from sr_deploy.bundle.recipe import Recipe, RecipeFile
from sr_deploy.core.deployment.default import Default
from sr_deploy.core.deployment.manifest import Manifest
from sr_deploy.core.deployment.plan import Plan
from sr_deploy.core.quality.metrics import METRICS
from sr_deploy.core.schema import json_schema
from sr_deploy.engine.listing import Listing
from sr_deploy.engine.manifest import EngineManifest
from sr_deploy.fold.result import FoldedBlock, FoldReport, KeptBlock
from sr_deploy.pipeline.load import LoadOptions
from sr_deploy.pipeline.measure.bench import BenchRequest
from sr_deploy.pipeline.measure.matrix import Matrix
from sr_deploy.pipeline.pictures.finished import BegunResult
from sr_deploy.pipeline.verify import ImageQuality
from sr_deploy.pipeline.video.unfinished import UnfinishedState
from sr_deploy.precision.calibrate.picture_set import CalibrationSet
from sr_deploy.precision.calibrate.ranges import RangesFile, TensorStats
from sr_deploy.remote.inventory import Board, Inventory
from sr_deploy.report.budget import Budget, BudgetFile
from sr_deploy.report.gate import GateReport
from sr_deploy.report.precisions import PrecisionTable
from sr_deploy.report.quality_file import QualityFile
from sr_deploy.report.submission import Submission

#: Descriptions that say "the fields of" another class: there the meanings are.
SAME_FIELDS = {
    "LoadRecord": LoadOptions,
    "KeptRecord": KeptBlock,
    "TensorRecord": TensorStats,
    "BoardTable": Board,
    "OptionsRecord": BenchOptions,
    "FoldedRecord": FoldedBlock,
    "FoldRecord": FoldReport,
    "QualityRow": ImageQuality,
    "BudgetFile": Budget,
    "Matrix": BenchRequest,
    "RecipeFile": Recipe,
    "IndexFile": Index,
}

PAGE = Path(__file__).resolve().parents[1] / "engines" / "formats.md"

#: Which file, what it is, its description.
FORMATS: Tuple[Tuple[str, str, Any], ...] = (
    ("DIR/manifest.json", "a deployment", Manifest),
    ("DIR/default.json", "the precision that a deployment runs in", Default),
    ("DIR/engines/ENGINE.json", "an engine", EngineManifest),
    ("DIR/engines/ENGINE.layers.json", "what the builder made of a graph; besides: `engine_sha256`", Listing),
    ("DIR/precision/NAME/plan.json", "a precision plan", Plan),
    ("DIR/precision/calibration/METHOD.json", "ranges of all tensors", RangesFile),
    ("DIR/results/bench_….json, bench --json, bench --out", "times", Result),
    ("DIR/results/precisions_….json", "all precisions side by side: bench --all", PrecisionTable),
    ("DIR/results/verify_….json, verify --json", "quality", QualityFile),
    ("NAME.entry.json, bench --submit", "an entry of a public table", Submission),
    ("OUT/.srdeploy-results.jsonl", "which request made which result of `run`; one a line", BegunResult),
    ("engines/NAME.toml", "a budget for the gate", BudgetFile),
    ("gate --json", "a verdict", GateReport),
    ("MATRIX.toml", "a sweep", Matrix),
    ("boards.toml", "boards", Inventory),
    ("calibration/NAME.toml", "a calibration set", CalibrationSet),
    ("OUT.unfinished/state.json", "a clip that is not finished", UnfinishedState),
    ("recipe.toml in a bundle", "what a board builds", RecipeFile),
    ("bundle.json in a bundle", "its index", IndexFile),
)


def page() -> str:
    """The page's text."""
    parts = ["# Formats", "", *_INTRODUCTION]
    for file, what, kind in FORMATS:
        parts += [
            "",
            f"## {file}",
            "",
            f"{what[:1].upper()}{what[1:]}.",
            "",
            "| key | value | meaning |",
            "|---|---|---|",
        ]
        parts += [f"| `{key}` | {value} | {meaning} |" for key, value, meaning in _rows(kind)]
    return "\n".join(parts) + "\n"


_INTRODUCTION = (
    "Every key of the files that srdeploy writes and reads. Unknown keys, NaN, a key twice and values outside the",
    "limits are errors (exit code 4) that name the key. `…[]` is each entry of a list, `….*` each value of a table",
    "whose keys are names.",
    "",
    "Made from the descriptions in the code by `python -m tests.formats_page`; a test holds the two together.",
)


def _rows(kind: Any) -> Iterator[Tuple[str, str, str]]:
    schema = json_schema(kind)
    yield from _properties(schema, schema.get("$defs", {}), kind, "")


def _properties(
    schema: Dict[str, Any], shared: Dict[str, Any], kind: Any, before: str
) -> Iterator[Tuple[str, str, str]]:
    meanings = _meanings(kind)
    required = set(schema.get("required", ()))
    for name, found in schema.get("properties", {}).items():
        value = _value(found, shared) + ("" if name in required else ", may be left out")
        yield f"{before}{name}", value, meanings.get(name, "").replace("|", "\\|")
        for path, inner in _inner(found, shared):
            yield from _properties(inner, shared, _class_of(inner), f"{before}{name}{path}.")


def _inner(found: Dict[str, Any], shared: Dict[str, Any]) -> Iterator[Tuple[str, Dict[str, Any]]]:
    """The descriptions inside a value: (how its path goes on, its schema)."""
    if "$ref" in found:
        yield "", shared[found["$ref"].rsplit("/", 1)[-1]]
    for choice in found.get("anyOf", ()):
        yield from _inner(choice, shared)
    for part, path in ((found.get("items"), "[]"), (found.get("additionalProperties"), ".*")):
        if isinstance(part, dict):
            yield from ((path + rest, inner) for rest, inner in _inner(part, shared))


def _value(found: Dict[str, Any], shared: Dict[str, Any]) -> str:
    """A schema in a few words."""
    if "$ref" in found:
        return "table"
    if "anyOf" in found:
        return " or ".join(dict.fromkeys(_value(choice, shared) for choice in found["anyOf"]))
    if "const" in found or "enum" in found:
        return ", ".join(f"`{value}`" for value in found.get("enum", [found.get("const")]))
    kind = found.get("type", "anything")
    if kind == "array":
        fixed = [_value(part, shared) for part in found.get("prefixItems", ())]
        return f"[{', '.join(fixed)}]" if fixed else f"list of {_value(found.get('items', {}), shared)}"
    if kind == "object":
        part = found.get("additionalProperties")
        return f"table of {_value(part, shared)}" if isinstance(part, dict) and part else "table"
    words = {"string": "text", "integer": "whole number", "boolean": "true or false"}
    return words.get(kind, kind) + _limits(found)


def _limits(found: Dict[str, Any]) -> str:
    low, high = found.get("minimum", found.get("exclusiveMinimum")), found.get("maximum")
    shown = [f"≥ {low:g}" if low is not None else "", f"≤ {high:g}" if high is not None and high < 2**62 else ""]
    limits = ", ".join(one for one in shown if one)
    return f" {limits}" if limits else ""


def _class_of(schema: Dict[str, Any]) -> Any:
    """The class that a schema was made from, by its title: of several of that name the one that is a description."""
    named = [one for one in _all_classes() if one.__name__ == schema.get("title", "")]
    return next((one for one in named if hasattr(one, "__pydantic_config__")), named[0] if named else None)


def _all_classes() -> List[Any]:
    import sys

    # What a board says is no file; some of its descriptions share a name with a file's.
    modules = [name for name in sys.modules if name.startswith("sr_deploy") and not name.endswith(".replies")]
    found = (vars(sys.modules[name]).values() for name in modules)
    classes = [value for values in found for value in list(values) if isinstance(value, type)]
    # torch.Tensor, which some modules import, is no Tensor of a listing.
    return [one for one in classes if one.__module__.startswith("sr_deploy")]


def _meanings(kind: Any) -> Dict[str, str]:
    """Field → meaning, from the "Attributes" of a docstring; of a class that adds to another one, of both."""
    meanings: Dict[str, str] = {}
    for metric in METRICS:
        meanings[metric.key] = f"{metric.title}, see core/quality/metrics.py."
        meanings[metric.torch_key] = f"{metric.title} of the PyTorch network."
        meanings[metric.bound_key] = f"bound on the mean {metric.title} against the originals."
        meanings[metric.loss_key] = f"bound on the mean {metric.title} lost against the PyTorch network."
        meanings[metric.worst_loss_key] = (
            f"bound on what any picture loses of {metric.title} against the PyTorch network."
        )
    same = SAME_FIELDS.get(getattr(kind, "__name__", ""))
    for one in (*((same,) if same else ()), *reversed(_bases(kind))):
        section = re.search(r"\n\s*Attributes:\n(.*?)(?:\n\s*\n|\Z)", one.__doc__ or "", re.DOTALL)
        lines = section.group(1).split("\n") if section else []
        depth = len(lines[0]) - len(lines[0].lstrip()) if lines else 0
        names: List[str] = []
        for line in lines:
            begins = re.match(rf" {{{depth}}}(\w+(?:, \w+)*): (.*)", line)
            if begins:
                names = begins.group(1).split(", ")
                meanings.update(dict.fromkeys(names, begins.group(2)))
            else:
                meanings.update({name: f"{meanings[name]} {line.strip()}" for name in names})
    return {name: text.replace("``", "`").strip() for name, text in meanings.items()}


def _bases(kind: Any) -> Tuple[Any, ...]:
    """A class and what it adds to; a TypedDict hides the latter from ``__mro__``."""
    bases = getattr(kind, "__orig_bases__", ()) if isinstance(kind, type) and issubclass(kind, dict) else ()
    return (*getattr(kind, "__mro__", ()), *(one for one in bases if isinstance(one, type)))


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
    print(PAGE)
