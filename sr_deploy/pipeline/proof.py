"""The proof of an export: the graph and the network as it was given, on the same pictures."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Tuple

import numpy as np

from sr_deploy.core.contract import IOContract, Size, SizeRules, format_size
from sr_deploy.core.errors import CheckFailed, EnvironmentFault
from sr_deploy.core.media.natural import natural_input
from sr_deploy.core.media.sample import Picture, sample_input
from sr_deploy.core.tolerance import GRAPH_FP32
from sr_deploy.pipeline.load import load_words
from sr_deploy.pipeline.network import Network
from sr_deploy.run.base import Runner, upscale

#: Sizes that a dynamic graph is traced and proved at: (height, width), raised to what the network takes.
PROOF_SIZES: Tuple[Size, ...] = ((40, 56), (45, 51), (33, 70), (64, 24))
OVERFLOWS = (
    "its output overflows on white noise and is finite on photographs: it was proved on these, and may give infinite "
    "values on pictures that are like no photograph (fold.noise_overflows in the manifest)"
)


def proof_sizes(rules: SizeRules) -> Tuple[Size, ...]:
    """The sizes a dynamic graph is proved at: the traced one first, then even, odd, wide and tall ones.

    Each is raised to the network's minimum and to its multiple.
    """
    return tuple(dict.fromkeys((rules.fit(height), rules.fit(width)) for height, width in PROOF_SIZES))


def traced_size(network: Network) -> Size:
    """An input that the network takes: the one it is folded, traced and counted with."""
    return network.fixed or proof_sizes(network.sizes)[0]


def noise_overflows(network: Network) -> bool:
    """Whether the network's output is finite on a photograph and not on white noise."""
    size, white = traced_size(network), network.value_range
    noise = np.random.default_rng(24).random((1, 3, *size), np.float32) * np.float32(white)
    runner = network.body.runner()
    try:
        return not _finite(runner, noise) and _finite(runner, natural_input(size, white))
    finally:
        runner.close()


def _finite(runner: Runner, lr: np.ndarray) -> bool:
    return bool(np.isfinite(upscale(runner, np.asarray(lr, np.float32))).all())


def prove_graph(path: Path, network: Network, contract: IOContract, size: Size, dynamic: bool) -> float:
    """Run the graph and the network as it was given on one input; the largest difference in 8-bit steps.

    The inputs are the sample picture, unless the network overflows on it, and a photograph.

    Args:
        path: the graph.
        network: what it was made from.
        contract: of the graph.
        size: the input (height, width).
        dynamic: the graph takes other sizes too.

    Raises:
        CheckFailed: it exceeds GRAPH_FP32, or the graph does not run.
        EnvironmentFault: there is not enough memory for this size.
    """
    from sr_deploy.run.onnxruntime import runner_from_graph
    from sr_deploy.run.parity import check_parity, compare

    white = network.value_range
    frozen = dynamic and size != traced_size(network)
    runner = runner_from_graph(path, contract, network.scale, provider="CPUExecutionProvider")
    reference = network.body.runner()
    try:
        pictures: Tuple[Picture, ...] = (sample_input, natural_input)
        if not _finite(reference, sample_input(size, white)):
            pictures = (natural_input,)
        found = [compare(runner, reference, (size,), contract, white, picture)[size] for picture in pictures]
    except CheckFailed as error:
        raise _frozen(network, size, _short(error.found)) if frozen else error from error
    except (RuntimeError, MemoryError) as error:
        raise EnvironmentFault(
            f"the network could not be run at {format_size(size)} to prove the graph: {str(error).splitlines()[0]}",
            "memory for the network at this size",
            "export without --size (a dynamic graph is proved at small sizes) and give the size to srdeploy build",
        ) from error
    finally:
        runner.close()
        reference.close()
    if frozen and not max(found) <= GRAPH_FP32.steps:
        raise _frozen(network, size, f"{path.name} differs from the network by {max(found):.4g} of 255")
    return check_parity({size: max(found)}, GRAPH_FP32, path.name)


def _frozen(network: Network, size: Size, found: str) -> CheckFailed:
    """The error for a graph that is right at the traced size and at no other."""
    return CheckFailed(
        f"the network fixes its size when it is traced: right at {format_size(traced_size(network))}, and at "
        f"{format_size(size)} {found}",
        "sizes that are computed from x.shape with PyTorch's own functions, not turned into Python numbers by int()",
        f"export a graph for each size that you need: {sized_command(network)}",
    )


def _short(text: str) -> str:
    """The beginning of what a runtime says, which may go on for many lines."""
    return text if len(text) <= 160 else text[:159] + "…"


def sized_command(network: Network) -> str:
    """The command that exports the same network for one size."""
    source = network.source
    words = ["srdeploy", "export", source["path"], "-o", "DIR", "--size", "HxW"]
    return shlex.join([*words, *load_words(source["load_options"])])
