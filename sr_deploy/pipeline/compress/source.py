"""The plain float32 graph of a deployment: folded, and not rewritten for any runtime."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Callable

from sr_deploy.core.artifact import sha256_of
from sr_deploy.core.deployment.manifest import Deployment
from sr_deploy.core.errors import BadDeployment, SrDeployError
from sr_deploy.core.media.natural import natural_input
from sr_deploy.core.tolerance import GRAPH_FP32
from sr_deploy.pipeline.export import contract_of
from sr_deploy.pipeline.load import load_network, options_of
from sr_deploy.pipeline.proof import proof_sizes, traced_size

if TYPE_CHECKING:
    import onnx

#: What rewriting would undo for compression: passes that unfold shared weights and merge layers are left out.
_PASSES = "fold"


def check_compressible(deployment: Deployment) -> None:
    """Refuse a deployment whose graph has no floats to prune, or no free size.

    Raises:
        BadDeployment: of 8-bit pictures, or of fixed sizes alone.
    """
    contract = deployment.manifest.contract
    if contract.dtype != "float32":
        raise BadDeployment(
            f"{deployment.folder} takes 8-bit pictures, and the rounding inside its graph has no gradient",
            "a deployment that takes floats",
            "export the network without --io; the compressed one can be exported again with it",
        )
    if deployment.dynamic_graph is None:
        raise BadDeployment(
            f"{deployment.folder} has graphs of fixed sizes only",
            "a graph for any size",
            "export the network without --size",
        )


def plain_graph(deployment: Deployment, folder: Path, say: Callable[[str], None]) -> onnx.ModelProto:
    """The graph to compress.

    It is made again from the file that the deployment was made from, and compared with the deployment's own. Where that
    file is gone or another one, the deployment's own graph is taken: equal, but rewritten, so that weights which
    several places share may no longer be one.

    Args:
        deployment: checked by ``check_compressible``.
        folder: for temporary files.
        say: told which it is.
    """
    import onnx

    from sr_deploy.graph.specialise import load_graph

    graph = deployment.dynamic_graph
    assert graph is not None, "check_compressible refuses it"
    own = deployment.path_of(graph)
    source = deployment.source_path
    if not source.is_file() or sha256_of(source) != deployment.manifest.source["sha256"]:
        say(f"{deployment.manifest.source['file']} is not at its place: the deployment's own graph is compressed")
        return load_graph(own)
    try:
        made = _made_again(deployment, source, folder / "plain.onnx")
    except SrDeployError as error:
        say(f"{source.name} could not be exported again ({error.found}): the deployment's own graph is compressed")
        return load_graph(own)
    why = _difference(deployment, made, own)
    if why:
        say(f"{source.name} exported again {why}: the deployment's own graph is compressed")
        return load_graph(own)
    return onnx.load(str(made))


def _made_again(deployment: Deployment, source: Path, path: Path) -> Path:
    import onnx

    from sr_deploy.graph.rewrite import RewriteOptions, passes_named, rewrite
    from sr_deploy.graph.target import target_named

    network = load_network(source, options_of(deployment.manifest.source["load_options"]))
    size, contract = traced_size(network), contract_of(network.value_range, "float32")
    body, _ = network.body.folded(size, network.value_range, True)
    body.graph(contract, path, target_named(deployment.manifest.target), None, size, "Fourier unit, folded")
    options = RewriteOptions(traced=size, value_range=contract.value_range)
    model, _ = rewrite(onnx.load(str(path)), passes_named(_PASSES), options)
    onnx.save(model, str(path))
    return path


def _difference(deployment: Deployment, made: Path, own: Path) -> str:
    """What is wrong with the graph that was made again; "" where it gives what the deployment's gives."""
    from sr_deploy.run.onnxruntime import runner_from_graph
    from sr_deploy.run.parity import compare

    manifest = deployment.manifest
    runners = [runner_from_graph(path, manifest.contract, manifest.scale, provider="CPUExecutionProvider")
               for path in (made, own)]  # fmt: skip
    try:
        found = compare(runners[0], runners[1], proof_sizes(manifest.sizes)[:2], manifest.contract,
                        picture=natural_input)  # fmt: skip
    finally:
        for runner in runners:
            runner.close()
    worst = max(found.values())
    return "" if worst <= GRAPH_FP32.steps else f"differs by {worst:.3g} of 255"
