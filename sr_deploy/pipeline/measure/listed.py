"""What TensorRT-RTX makes of a deployment's graph in float16 for one size, on a machine without a GPU."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Callable

from sr_deploy.core.contract import Size
from sr_deploy.core.deployment.manifest import Deployment, GraphFile
from sr_deploy.core.errors import CheckFailed
from sr_deploy.core.number_formats import AUTO
from sr_deploy.core.temporary import temporary_folder
from sr_deploy.engine.built import BuiltEngine
from sr_deploy.engine.listing import Listing
from sr_deploy.engine.runtimes import RUNTIMES

if TYPE_CHECKING:
    import onnx

#: The builder that lists layers without a GPU.
LISTING_RUNTIME = "tensorrt-rtx"


def has_listings() -> bool:
    """Whether that builder is installed."""
    return RUNTIMES[LISTING_RUNTIME].version_here() is not None


def built_in_half(deployment: Deployment, graph: GraphFile, size: Size, passes: str, capability: str) -> BuiltEngine:
    """An engine in float16 of the graph after ``passes``; it is built for its listing and not kept.

    Everything is float16 but what the exporter marked, folded Fourier units left out: as a plan has it that no
    photograph has changed.

    Args:
        deployment: opened.
        graph: one of its graphs, for ``size`` or for any.
        size: (height, width).
        passes: as for ``--rewrite``.
        capability: such as "8.6".

    Raises:
        CheckFailed: the builder refuses the graph, or lists nothing.
        MissingPackage: it is not installed.
    """
    return _built(deployment.path_of(graph), size, passes, capability)


def listed_in_half(graph: Path, size: Size, passes: str, capability: str) -> Listing:
    """The listing of an engine as ``built_in_half`` makes it, of a graph that is in no deployment.

    Args:
        graph: a file, for ``size`` or for any.
        size, passes, capability: see ``built_in_half``.

    Raises:
        CheckFailed, MissingPackage: as for ``built_in_half``.
    """
    listing = _built(graph, size, passes, capability).listing
    assert listing is not None, "_built refuses it"
    return listing


def streamed_in_half(
    deployment: Deployment, size: Size, budget: int, capability: str, say: Callable[[str], None]
) -> BuiltEngine:
    """The engine of the deployment's graph for any size, in the fewest strips that need ``budget`` bytes at most.

    Raises:
        CheckFailed: no strip count does, a seam shows, or the builder refuses the graph or lists nothing.
    """
    from sr_deploy.engine.options import EngineOptions
    from sr_deploy.engine.tensorrt import engine_from_graph
    from sr_deploy.pipeline.engines.strips import prove_seams, streamed_engine

    assert deployment.dynamic_graph is not None
    graph = deployment.path_of(deployment.dynamic_graph)
    options = EngineOptions(precision=AUTO, one_stream=True)

    def build(path: Path) -> BuiltEngine:
        return engine_from_graph(LISTING_RUNTIME, path, None, (capability,), options)

    built = _listing(streamed_engine(_half(graph, size, "none"), size, budget, build, say))
    prove_seams(graph, deployment.manifest.contract, deployment.manifest.sizes)
    return built


def _built(graph: Path, size: Size, passes: str, capability: str) -> BuiltEngine:
    import onnx

    from sr_deploy.engine.options import EngineOptions
    from sr_deploy.engine.tensorrt import engine_from_graph

    with temporary_folder() as folder:
        path = folder / "model.onnx"
        onnx.save(_half(graph, size, passes), str(path))
        return _listing(engine_from_graph(LISTING_RUNTIME, path, None, (capability,), EngineOptions(precision=AUTO)))


def _half(graph: Path, size: Size, passes: str) -> onnx.ModelProto:
    """The graph of one size after the passes, in float16."""
    from sr_deploy.graph.rewrite import RewriteOptions, passes_named, rewrite
    from sr_deploy.graph.specialise import static_graph
    from sr_deploy.precision.lower.typed_graph import half_graph

    model = static_graph(graph, size)
    for node in model.graph.node:
        if "Fourier unit, folded" in node.doc_string:
            node.doc_string = ""
    model, _ = rewrite(model, passes_named(passes, folding=False), RewriteOptions(size=size))
    return half_graph(model)


def _listing(built: BuiltEngine) -> BuiltEngine:
    """The engine, which has a listing."""
    if built.listing is None:
        raise CheckFailed(
            f"{built.version} lists no layers",
            "a TensorRT-RTX that does, such as 1.7.1",
            "install that version; without --for, tune times what is here",
        )
    return built
