"""Streaming: local parts of a static graph run in strips of rows, so that memory stops growing with the picture.

    x ── conv ── shuffle ── conv ── y        x ┬─ rows ── conv ── shuffle ── conv ─┐
                                               ├─ rows ── conv ── shuffle ── conv ─┼ concat ── y
                                               └─ rows ── conv ── shuffle ── conv ─┘

Each strip reads the rows it needs beyond its own (the halo), pads only at the borders of the picture, and is cut to its
own rows at the end: every value is computed from the same numbers as before.
"""

from __future__ import annotations

import math
from typing import Dict, Mapping

import onnx

from sr_deploy.graph.rewrite.base import PassResult, RewriteOptions
from sr_deploy.graph.rewrite.stages import Plan, plan_of
from sr_deploy.graph.rewrite.strips import Writer, write_strips


def apply_streaming(model: onnx.ModelProto, options: RewriteOptions) -> PassResult:
    """Rewrite ``model`` in ``options.strips`` strips: so many in the part that needs most memory, fewer elsewhere."""
    if options.strips is None or options.strips < 2:
        return PassResult(model, 0)
    if options.size is None:
        return PassResult(model, 0, ("streaming needs a graph of fixed size",))
    plan = plan_of(model)
    regions = {tensor: plan.region_of(tensor) for tensor in plan.rules if tensor in plan.whole}
    working = {tensor: plan.working_bytes(region) for tensor, region in regions.items()}
    widest = max(working.values(), default=0)
    if widest == 0:
        return PassResult(model, 0, ("no part of the graph is local",))
    counts = _counts(plan, working, options.strips, options.share)
    writer = Writer(plan.shapes, plan.rules, plan.constants)
    streamed = 0
    for index, node in enumerate(plan.nodes):
        out = node.output[0]
        if out in regions:
            write_strips(writer, regions[out], counts[out], f"s{index}_")
            streamed += counts[out] > 1
        elif out not in plan.rules:
            for name in node.input:
                writer.join(name)
            writer.nodes.append(node)
    for value in model.graph.output:
        writer.join(value.name)
    result = onnx.ModelProto()
    result.CopyFrom(model)
    del result.graph.node[:], result.graph.value_info[:]
    result.graph.node.extend([n for n in model.graph.node if n.op_type == "Constant"])
    result.graph.node.extend(writer.nodes)
    result.graph.initializer.extend(writer.initializers.values())
    return PassResult(result, streamed, (f"{streamed} parts in up to {options.strips} strips",))


def _counts(plan: Plan, working: Mapping[str, int], strips: int, share: float) -> Dict[str, int]:
    """Strips of each region: the same for all that end at one height, so that strips fit strips; 1 where little is won.

    Regions other than the widest get a share of the strips that the memory they work on would ask for: more cost nodes
    and halos there, and their inputs and outputs stay. They get a divisor of ``strips``: a strip of the widest region
    then begins and ends within one of theirs, instead of holding two of them.

    Args:
        working: bytes that each region works on at once.
        strips: of the region that works on most.
        share: of the others, from 0 to 1.
    """
    widest = max(working.values())
    most: Dict[int, int] = {}
    for tensor, size in working.items():
        height = plan.shapes[tensor][2]
        most[height] = max(most.get(height, 0), size)
    shares = {height: 1.0 if size == widest else share * size / widest for height, size in most.items()}
    divisors = [count for count in range(1, strips + 1) if strips % count == 0]
    most_of = {height: max(1, math.ceil(strips * share)) for height, share in shares.items()}
    counts = {height: max(count for count in divisors if count <= limit) for height, limit in most_of.items()}
    return {tensor: counts[plan.shapes[tensor][2]] if size * strips > widest else 1 for tensor, size in working.items()}
