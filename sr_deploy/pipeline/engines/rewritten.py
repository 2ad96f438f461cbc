"""A graph rewritten for the builder of an engine: proved equal, and kept where the builder's listing improves.

What is fast on a CPU is not on a GPU, so a builder whose row in engine/runtimes.py names passes is given two graphs:
the deployment's own, and that one after the passes. Deployment, plans and their hashes stay those of the one graph;
what is made of it here lives as long as the build, and the engine's settings tell of it. A machine without onnx builds
the graph as it is.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Callable, Dict, Optional, Tuple

import numpy as np

from sr_deploy.core.contract import IOContract, Size, SizeRules, format_size
from sr_deploy.core.errors import CheckFailed, SrDeployError
from sr_deploy.core.media.sample import sample_for
from sr_deploy.core.temporary import temporary_folder
from sr_deploy.core.tolerance import GRAPH_FP32, HALF, rms_difference
from sr_deploy.run.parity import difference_of

if TYPE_CHECKING:
    import onnx

    from sr_deploy.engine.built import BuiltEngine

#: Where a rewritten graph is proved: (height, width), raised to what the network takes; even, odd.
PROOF_SIZES: Tuple[Size, ...] = ((40, 24), (45, 27))
#: What a rewritten graph may need of the activation memory of the graph as it is.
MEMORY_SHARE = 1.05
#: Builds an engine of a graph; the types of its nodes, or None for those that were planned.
Build = Callable[[Path, Optional[Dict[str, str]]], "BuiltEngine"]


@dataclass(frozen=True)
class Request:
    """What is rewritten, and for whom.

    Attributes:
        backend: a name of engine/runtimes.py.
        passes: what to run, as for ``--rewrite``.
        graph: the deployment's.
        fixed: the size that it is fixed to; None: any.
        size: the one that the engine is for, to which the rewritten graph is fixed; None: a range.
        plan_folder: of a plan for float16; None: float32.
        contract, rules: of the graph.
    """

    backend: str
    passes: str
    graph: Path
    fixed: Optional[Size]
    size: Optional[Size]
    plan_folder: Optional[Path]
    contract: IOContract
    rules: SizeRules


@dataclass(frozen=True)
class Rewritten:
    """A graph that differs from the deployment's in form only.

    Attributes:
        model: in the types it shall be computed in.
        planned: node → type, for float16; None: all float32.
        places: pass → how many places it rewrote.
        difference: from the deployment's graph, in 8-bit steps, both in float32.
    """

    model: onnx.ModelProto
    planned: Optional[Dict[str, str]]
    places: Dict[str, int]
    difference: float

    @property
    def settings(self) -> Dict[str, str]:
        """For the engine's manifest."""
        places = ", ".join(f"{name} {count}" for name, count in self.places.items())
        return {"rewrite": places, "rewrite_difference": f"{self.difference:.1e} of 255"}


def better_engine(request: Request, build: Build, plain: BuiltEngine, say: Callable[[str], None]) -> BuiltEngine:
    """The engine of the rewritten graph where its listing is better, else ``plain``.

    Args:
        request: see there.
        build: with the targets and limits of ``plain``.
        plain: of the graph as it is.
        say: told what was compared.

    Returns:
        An engine whose settings hold ``rewrite`` and what it changed; with a warning where nothing could be compared.
    """
    try:
        found = rewritten(request)
        if found is None:
            return plain
        with temporary_folder() as folder:
            other = build(_saved(found.model, folder), found.planned)
    except ImportError as error:
        return _warned(plain, f"the graph was not rewritten for {request.backend}: {error.name} is not installed")
    except SrDeployError as error:
        return _warned(plain, f"the graph is not rewritten for {request.backend}: {' '.join(error.found.split())}")
    text = comparison(plain, other)
    if other.refusal is not None or not is_better(plain, other):
        settings = {**plain.settings, "rewrite": f"none: {text}"}
        return dataclasses.replace(plain, settings=settings)
    say(f"rewritten for {request.backend}: {text}")
    return dataclasses.replace(other, settings={**other.settings, **found.settings, "rewrite_listing": text})


def is_better(plain: BuiltEngine, other: BuiltEngine) -> bool:
    """Whether the listing of ``other`` moves fewer bytes, or as many in fewer kernels; in a range, has fewer kernels.

    Memory is the second judge: an engine that needs more than MEMORY_SHARE of the other's activations is not taken.
    """
    if plain.listing is None or other.listing is None:
        return False
    if plain.activation_bytes and (other.activation_bytes or 0) > MEMORY_SHARE * plain.activation_bytes:
        return False
    before, after = plain.listing.bytes_moved, other.listing.bytes_moved
    if before is None or after is None:
        return other.listing.kernels < plain.listing.kernels
    return (after, other.listing.kernels) < (before, plain.listing.kernels)


def comparison(plain: BuiltEngine, other: BuiltEngine) -> str:
    """Kernels and bytes of both in words."""
    if plain.listing is None or other.listing is None:
        return "the builder lists no layers"
    text = f"{plain.listing.kernels} → {other.listing.kernels} kernels"
    if plain.activation_bytes and other.activation_bytes:
        text += f", activations {plain.activation_bytes / 1e6:.1f} → {other.activation_bytes / 1e6:.1f} MB"
    before, after = plain.listing.bytes_moved, other.listing.bytes_moved
    return text if before is None or after is None else f"{text}, {before / 1e6:.1f} → {after / 1e6:.1f} MB"


def rewritten(request: Request) -> Optional[Rewritten]:
    """The graph after the passes of its backend, proved; None where they change nothing.

    Raises:
        CheckFailed: it differs from the graph by more than GRAPH_FP32, or in float16 by more than HALF.
        ImportError: onnx or ONNX Runtime is not here.
    """
    from sr_deploy.precision.lower.typed_graph import half_graph

    own = _own(request)
    if request.size is None:
        pairs = {size: (own, *_passed(request, own)) for size in _proof_sizes(request)}
        model, places = next(iter(pairs.values()))[1:]
    else:
        # A builder that is told a size beside a graph for any keeps kernels that only compute with shapes.
        model, places = _passed(request, _fixed(own, request.size))
        pairs = {}
        for size in _proof_sizes(request) if places else ():
            small = _fixed(own, size)
            pairs[size] = (small, *_passed(request, small))
    if not places:
        return None
    difference = _prove(request, pairs, places)
    if request.plan_folder is None:
        return Rewritten(model, None, places, difference)
    return Rewritten(half_graph(model), _types(model), places, difference)


def _passed(request: Request, model: onnx.ModelProto) -> Tuple[onnx.ModelProto, Dict[str, int]]:
    """The graph after the passes, and how many places each rewrote, those that every graph has had left out."""
    from sr_deploy.graph.rewrite import passes_named, rewrite
    from sr_deploy.graph.rewrite.base import RewriteOptions

    model, steps = rewrite(model, passes_named(request.passes, folding=False), RewriteOptions(size=request.size))
    return model, {one.name: result.changed for one, result in steps if result.changed and not one.default}


def _fixed(model: onnx.ModelProto, size: Size) -> onnx.ModelProto:
    """The graph for one size."""
    from sr_deploy.graph.specialise import static_graph

    with temporary_folder() as folder:
        return static_graph(_saved(model, folder), size)


def _proof_sizes(request: Request) -> Tuple[Size, ...]:
    """Where the graph is proved: as it is, or small and as odd or even as the size that it is for."""
    if request.fixed is not None:
        return (request.fixed,)
    fit = request.rules.fit
    if request.size is None:
        return tuple(dict.fromkeys((fit(height), fit(width)) for height, width in PROOF_SIZES))
    height, width = request.size
    return ((fit(PROOF_SIZES[0][0] + height % 2), fit(PROOF_SIZES[0][1] + width % 2)),)


def _own(request: Request) -> onnx.ModelProto:
    """The deployment's graph, in float32, with what a plan keeps in float32 marked; without a plan nothing is."""
    from sr_deploy.graph.specialise import load_graph
    from sr_deploy.pipeline.engines.strips import marked_for_half

    if request.plan_folder is not None:
        return marked_for_half(request.graph, request.plan_folder)
    model = load_graph(request.graph)
    for node in model.graph.node:
        node.doc_string = ""
    return model


def _types(model: onnx.ModelProto) -> Dict[str, str]:
    """Node → type in which ``half_graph`` computes it."""
    from sr_deploy.graph.rewrite.editor import is_pinned
    from sr_deploy.precision.tensors import floating_nodes

    computing = set(floating_nodes(model))
    return {
        node.name: "float32" if is_pinned(node) else "float16" for node in model.graph.node if node.name in computing
    }


def _prove(
    request: Request,
    pairs: Dict[Size, Tuple[onnx.ModelProto, onnx.ModelProto, Dict[str, int]]],
    places: Dict[str, int],
) -> float:
    """Hold rewritten graphs against what they were, in float32 and for a plan in float16 too.

    Args:
        request: what was asked for.
        pairs: size → the graph, the rewritten one, and what was rewritten.
        places: what was rewritten for the size that the engine is for; it must be the same.

    Returns:
        The largest difference in float32, in 8-bit steps.
    """
    from sr_deploy.precision.evaluate import computing
    from sr_deploy.precision.lower.typed_graph import half_graph
    from sr_deploy.run.parity import check_parity

    found: Dict[Size, float] = {}
    white = request.contract.value_range
    for size, (own, model, counted) in pairs.items():
        if counted != places:
            raise CheckFailed(
                f"at {format_size(size)} other places are rewritten: {counted}",
                f"{places}",
                "build with a graph of fixed sizes: srdeploy export … --size HxW; and report the network",
            )
        lr = sample_for(request.contract, size)
        expected = _session(own)(lr)
        found[size] = difference_of(_session(model)(lr), expected, white)
        if request.plan_folder is not None:
            lost = rms_difference(computing(half_graph(model))(lr), expected, white)
            if not lost <= HALF.rms_steps:
                text = f"rewritten, it differs in float16 from float32 by {lost:.2f} of 255 at {format_size(size)}"
                raise CheckFailed(
                    text,
                    f"at most {HALF.rms_steps} ({HALF.name})",
                    "build it without tuning: srdeploy export again; and report the network",
                )
    return check_parity(found, GRAPH_FP32, f"the graph rewritten for {request.backend}")


def _session(model: onnx.ModelProto) -> Callable[[np.ndarray], np.ndarray]:
    """A float32 graph as a function, in ONNX Runtime on the CPU."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    session: Any = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name
    return lambda lr: session.run(None, {name: lr})[0]


def _saved(model: onnx.ModelProto, folder: Path) -> Path:
    import onnx

    onnx.save(model, str(folder / "model.onnx"))
    return folder / "model.onnx"


def _warned(built: BuiltEngine, text: str) -> BuiltEngine:
    return dataclasses.replace(built, warnings=(*built.warnings, text))
