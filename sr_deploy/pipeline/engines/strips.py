"""An engine within a memory budget: the graph is streamed as the builder asks for, after a proof of the seams."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Callable, Dict, Optional, Sequence

from sr_deploy.core.artifact import sha256_of
from sr_deploy.core.contract import IOContract, Size, SizeRules, format_size
from sr_deploy.core.deployment.plan import open_plan
from sr_deploy.core.errors import CheckFailed, UsageError
from sr_deploy.core.temporary import temporary_folder
from sr_deploy.core.tolerance import GRAPH_FP32
from sr_deploy.engine.built import BuiltEngine
from sr_deploy.engine.options import EngineOptions
from sr_deploy.engine.tensorrt import engine_from_graph

if TYPE_CHECKING:
    import onnx

#: Where streaming is proved before it is used: (height, width), raised to what the network takes; even, odd.
PROOF_SIZES: Sequence[Size] = ((40, 24), (45, 27))
PROOF_STRIPS = 12


def engine_within_budget(
    backend: str,
    graph: Path,
    size: Size,
    budget: int,
    contract: IOContract,
    rules: SizeRules,
    compute_capabilities: Sequence[str] = (),
    workspace_bytes: Optional[int] = None,
    say: Callable[[str], None] = lambda _: None,
    plan_folder: Optional[Path] = None,
    timing_cache: Optional[Path] = None,
) -> BuiltEngine:
    """An engine for ``size`` whose activations stay within ``budget`` bytes, by the builder's own figure.

    Args:
        backend: "tensorrt" or "tensorrt-rtx".
        graph: for any size: the seams are proved at small sizes, where the unstreamed graph can run.
        size: (height, width).
        budget: bytes.
        contract, rules: of the graph.
        compute_capabilities, workspace_bytes, timing_cache: see ``engine_from_graph``.
        say: told each answer.
        plan_folder: of an "fp16" plan for the graph; None: float32. The graph is made float16 first, casts and all, so
            that what is cast is cast in strips: a picture never lies there in both types.

    Returns:
        The engine; its settings hold the budget, the strip count and what the builder said of each count.

    Raises:
        UsageError: the graph is fixed to one size.
        CheckFailed: no strip count stays within the budget, or a seam shows.
    """
    from sr_deploy.graph.census import graph_signature
    from sr_deploy.graph.specialise import static_graph

    if graph_signature(graph).fixed_size is not None:
        raise UsageError(
            f"{graph} is fixed to one size, and streaming is proved at small ones",
            "a graph for any size with --memory-budget",
            "export it with --dynamic",
        )
    precision = "fp32" if plan_folder is None else "fp16"
    asked = EngineOptions(precision, workspace_bytes, timing_cache, one_stream=True)

    def build(path: Path) -> BuiltEngine:
        return engine_from_graph(backend, path, None, compute_capabilities, asked)

    difference = prove_seams(graph, contract, rules)
    say(f"streaming proved: largest difference {difference:.1e} of 255 in float64")
    static = static_graph(graph, size) if plan_folder is None else typed_for_half(graph, plan_folder, size)
    built = streamed_engine(static, size, budget, build, say)
    proved = {"streaming_difference": f"{difference:.1e} of 255, in float64"}
    return dataclasses.replace(built, settings={**built.settings, **proved})


def streamed_engine(
    model: onnx.ModelProto, size: Size, budget: int, build: Callable[[Path], BuiltEngine], say: Callable[[str], None]
) -> BuiltEngine:
    """The engine of a graph in the fewest strips that keep its activations within a budget.

    Args:
        model: of a fixed size, in the types that it is built in; a proof of its seams is the caller's.
        size: (height, width).
        budget: bytes.
        build: builds an ONNX file, one layer after the other.
        say: told each answer.

    Raises:
        CheckFailed: no strip count stays within the budget.
    """
    import onnx

    from sr_deploy.graph.memory import stream_within
    from sr_deploy.graph.rewrite.base import RewriteOptions

    engines: Dict[str, BuiltEngine] = {}

    def ask(path: Path) -> int:
        # Of few rows, or where no part works on less than the widest, several counts and shares give the same graph.
        content = sha256_of(path)
        if content not in engines:
            engines[content] = build(path)
        return int(engines[content].activation_bytes or 0)

    streamed = stream_within(model, RewriteOptions(size=size, memory_budget=budget), ask, say)
    with temporary_folder() as folder:
        path = folder / "model.onnx"
        onnx.save(streamed.model, str(path))
        built = engines[sha256_of(path)]
    settings = {
        "memory_budget_bytes": str(budget),
        "strips": str(streamed.strips),
        "strips_share": f"{streamed.share:g}",
        "activation_bytes_by_strips": ", ".join(f"{strips}: {found}" for strips, found in streamed.asked.items()),
    }
    return dataclasses.replace(built, settings={**built.settings, **settings})


def typed_for_half(graph: Path, plan_folder: Path, size: Size) -> onnx.ModelProto:
    """The graph of one size in the types of a float16 plan; see ``marked_for_half``."""
    import onnx

    from sr_deploy.graph.specialise import static_graph
    from sr_deploy.precision.lower.typed_graph import half_graph

    with temporary_folder() as folder:
        onnx.save(marked_for_half(graph, plan_folder), str(folder / graph.name))
        return half_graph(static_graph(folder / graph.name, size))


def marked_for_half(graph: Path, plan_folder: Path) -> onnx.ModelProto:
    """The float32 graph with a float16 plan in it: its weights, and its float32 nodes marked as pinned, no others.

    Args:
        graph: the graph that the plan names.
        plan_folder: holds ``plan.json``.

    Raises:
        BadDeployment: the plan cannot be read, or does not fit the graph.
        UsageError: it is not for float16 alone.
    """
    from sr_deploy.graph.rewrite.editor import is_pinned
    from sr_deploy.graph.specialise import load_graph
    from sr_deploy.precision.calibrate.scan import pinned
    from sr_deploy.precision.lower.quantize import quantized_graph

    plan, weights = open_plan(plan_folder)
    if plan.quantised or plan.rest != "float16":
        raise UsageError(f"{plan_folder} is not a plan for float16 alone", "--precision fp16 with --memory-budget")
    model = quantized_graph(load_graph(graph), plan, weights)
    for node in model.graph.node:
        if is_pinned(node) and plan.nodes.get(node.name) == "float16":
            node.doc_string = ""
    return pinned(model, {name: plan.reasons.get(name, "set by hand") for name in plan.nodes_of("float32")})


def prove_seams(graph: Path, contract: IOContract, rules: SizeRules) -> float:
    """Run the graph streamed and unstreamed in float64 at small sizes; the largest difference, in 8-bit steps.

    Raises:
        CheckFailed: it exceeds GRAPH_FP32.
    """
    contract.check_rgb("--memory-budget")
    from sr_deploy.core.media.sample import sample_for
    from sr_deploy.graph.exact import difference_in_float64
    from sr_deploy.graph.rewrite.base import RewriteOptions
    from sr_deploy.graph.rewrite.streaming import apply_streaming
    from sr_deploy.graph.specialise import static_graph

    worst = 0.0
    for wanted in PROOF_SIZES:
        height, width = (rules.fit(side) for side in wanted)
        model = static_graph(graph, (height, width))
        result = apply_streaming(model, RewriteOptions(size=(height, width), strips=PROOF_STRIPS))
        lr = sample_for(contract, (height, width))
        difference = difference_in_float64(result.model, model, lr) * 255 / contract.value_range
        worst = max(worst, difference)
        if not difference <= GRAPH_FP32.steps:
            raise CheckFailed(
                f"in strips, {graph.name} differs by {difference:.3f} of 255 at {format_size((height, width))}",
                f"at most {GRAPH_FP32.steps}",
                "build without --memory-budget and report this network",
            )
    return worst
