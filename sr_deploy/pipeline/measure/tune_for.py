"""Which equal graph should be the fastest on a GPU that is not here: ``srdeploy tune --for DEVICE``.

Every variant is built by TensorRT-RTX in float16, which needs no GPU, and estimated from its listing
(engine/estimate.py). What is kept serves TensorRT-RTX, and a float16 build for this size runs the same passes.
"""

from __future__ import annotations

from typing import Callable, Dict, Tuple

from sr_deploy.core.deployment.manifest import open_deployment
from sr_deploy.core.deployment.records import RewriteRecord
from sr_deploy.core.errors import CheckFailed, EnvironmentFault, UsageError
from sr_deploy.core.host.gpu_rates import gpu_named
from sr_deploy.core.host.machine import this_machine
from sr_deploy.core.temporary import temporary_folder
from sr_deploy.core.tolerance import GRAPH_FP32
from sr_deploy.engine.estimate import estimated_ms
from sr_deploy.pipeline.measure.listed import LISTING_RUNTIME, built_in_half, has_listings
from sr_deploy.pipeline.measure.tune import (
    BUILDER_VARIANTS,
    Tuned,
    TuneOptions,
    keep_graph,
    plain_runner,
    source_of,
    variant_graphs,
)
from sr_deploy.run.onnxruntime import runner_from_graph
from sr_deploy.run.parity import check_parity, compare

#: Another variant than the first must be estimated faster by more than this share.
MARGIN = 0.02


def tune_for_device(options: TuneOptions, say: Callable[[str], None]) -> Tuned:
    """Estimate the variants for one size and keep the fastest as a graph of that size, for TensorRT-RTX.

    Raises:
        UsageError: a device whose rates are not known, or another backend.
        EnvironmentFault: TensorRT-RTX is not installed.
        CheckFailed: no variant could be built, or the chosen graph differs by more than GRAPH_FP32.
    """
    gpu = gpu_named(options.device or "", "--for")
    if options.backend not in (None, LISTING_RUNTIME):
        raise UsageError(f"--for estimates what {LISTING_RUNTIME} builds", f"--backend {LISTING_RUNTIME}, or none")
    if not has_listings():
        raise EnvironmentFault(
            "TensorRT-RTX is not installed, and estimates follow from its listing",
            "TensorRT-RTX, without a GPU",
            "pip install 'srdeploy[tensorrt-rtx]'",
        )
    deployment = open_deployment(options.deployment)
    source = source_of(deployment, options.size)
    contract = deployment.manifest.contract
    estimates: Dict[str, float] = {}
    notes: Tuple[str, ...]
    with temporary_folder() as folder:
        asked = TuneOptions(options.deployment, options.size, variants=options.variants or ("none", *BUILDER_VARIANTS))
        graphs, notes, reports = variant_graphs(deployment.path_of(source), asked, folder, contract.value_range)
        for name in graphs:
            try:
                built = built_in_half(deployment, source, options.size, name, gpu.capability)
            except CheckFailed as error:
                notes = (*notes, f"{name} could not be built: {error.found}")
                continue
            estimate = None if built.listing is None else estimated_ms(built.listing, gpu)
            if estimate is not None:
                estimates[name] = estimate
                say(f"{name}: {estimate:.2f} ms on {gpu.title}, an estimate")
        if not estimates:
            raise CheckFailed("no variant could be built and estimated", "one of " + ", ".join(graphs), notes[-1])
        best = fastest(estimates)
        tuned = runner_from_graph(graphs[best], contract, deployment.manifest.scale, provider="CPUExecutionProvider")
        try:
            with plain_runner(deployment, source) as reference:
                differences = compare(tuned, reference, (options.size,), contract)
        finally:
            tuned.close()
        difference = check_parity(differences, GRAPH_FP32, f"the graph rewritten with {best}")
        facts = {"variant": best, "backend": LISTING_RUNTIME, "from": source.file, "for": gpu.name}
        record: RewriteRecord = {**reports[best], "tuned": facts}
        file = keep_graph(deployment, source, graphs[best], options.size, record, difference)
    if this_machine().gpus:
        notes = (*notes, f"there is a GPU here: srdeploy tune --backend {LISTING_RUNTIME} times the same, in turn")
    return Tuned(LISTING_RUNTIME, best, {}, file, difference, notes, estimates, gpu.name)


def fastest(estimates: Dict[str, float]) -> str:
    """The variant of the least estimate; the first one unless another one is faster by MARGIN."""
    first = next(iter(estimates))
    best = min(estimates, key=lambda name: estimates[name])
    return best if estimates[best] < (1 - MARGIN) * estimates[first] else first
