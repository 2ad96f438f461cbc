"""How far a network looks, as its deployment records it: found from the graph, then proved by experiment."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Callable, List, Tuple

from sr_deploy.core.contract import IOContract, Size, SizeRules, format_size
from sr_deploy.core.reach import GlobalNode, Reach
from sr_deploy.core.tolerance import TILES, largest_difference
from sr_deploy.run.tiles import TILED_LAYOUTS

#: Pixels across the strips that are run; more shows nothing else.
STRIP = 12


def proved_reach(
    path: Path, contract: IOContract, scale: int, sizes: SizeRules, say: Callable[[str], None] = lambda _: None
) -> Reach:
    """The reach of the graph in ``path``.

    Two experiments are made where the graph takes any size: a row, then a column, of the input is changed, and nothing
    farther than the halo may change (graph/probe.py); and strips of the sample picture are made whole and in the
    smallest tiles, which must agree within TILES. A network that fails one is recorded as not local.

    Args:
        path: ONNX, as the deployment has it.
        contract, scale, sizes: of the network.
        say: told the outcome.
    """
    from sr_deploy.graph.reach import reach_of
    from sr_deploy.graph.specialise import load_graph

    if contract.layout not in TILED_LAYOUTS:
        return Reach(0, 1, (GlobalNode("all", "graph", "takes the planes of a video, which are not cut into tiles"),))
    reach = reach_of(path, sizes)
    model = load_graph(path)
    dims = model.graph.input[0].type.tensor_type.shape.dim
    if reach.is_local and not all(dim.HasField("dim_value") for dim in dims):
        from sr_deploy.graph.probe import seen_reach

        strips = _strips(reach, sizes)
        seen = seen_reach(model, contract, strips)
        difference = _tiled_difference(path, contract, scale, reach, sizes)
        reach = dataclasses.replace(reach, proved=difference)
        if seen > reach.halo:
            reach = _refuted(reach, f"a change was seen {seen} pixels away, and {reach.halo} were found from the graph")
        elif not difference <= TILES.steps:
            reach = _refuted(reach, f"parts differ from the whole by {difference:.4g} of 255")
    say(reach.explained())
    return reach


def _refuted(reach: Reach, why: str) -> Reach:
    """The reach of a network that an experiment shows not to be local."""
    return Reach(0, 1, (GlobalNode("all", "graph", why),), reach.proved)


def _strips(reach: Reach, sizes: SizeRules) -> List[Size]:
    """A high and a wide strip, longer than an output pixel reaches."""
    length, across = sizes.fit(2 * reach.halo + 4 * reach.multiple + 5), sizes.fit(STRIP)
    return [(length, across), (across, length)]


def _tiled_difference(path: Path, contract: IOContract, scale: int, reach: Reach, sizes: SizeRules) -> float:
    """The largest difference of strips in the smallest tiles from whole ones, in 8-bit steps."""
    from sr_deploy.core.media.sample import sample_for
    from sr_deploy.run.base import upscale
    from sr_deploy.run.onnxruntime import runner_from_graph
    from sr_deploy.run.tiled import TiledRunner
    from sr_deploy.run.tiles import cut_for, least_tile

    least, across = least_tile(reach, sizes), sizes.fit(STRIP)
    length = sizes.fit(least + 3 * reach.multiple + 2)
    shapes: Tuple[Tuple[Size, Size], ...] = (
        ((length, across), (least, max(least, across))),
        ((across, length), (max(least, across), least)),
    )
    runner = runner_from_graph(path, contract, scale, provider="CPUExecutionProvider")
    worst = 0.0
    try:
        for size, tile in shapes:
            lr = sample_for(contract, size)
            whole = upscale(runner, lr)
            # Not called exact: it is measured here whether they are.
            cut = dataclasses.replace(cut_for(reach, sizes, tile, False, format_size(tile)), exact=False)
            tiled = TiledRunner(runner, cut, contract, scale, inexact=True)
            worst = max(worst, largest_difference(upscale(tiled, lr), whole, contract.value_range))
    finally:
        runner.close()
    return worst
