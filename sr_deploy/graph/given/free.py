"""A graph that was exported for one size, made free for any, and the proof that it is the same network.

What a trace froze is the input's declared size and constants that hold it. The declaration goes, and ``unfreeze.py``
computes what constants held. The freed graph must then be the fixed one wherever that can be compared: both see the
same corner of a picture, at four other sizes and all four corners, and give the same there but for what the cut edges
reach. Networks that reach across the whole picture cannot be compared so; they are free only if nothing was changed and
no operator in them can hold a size.
"""

from __future__ import annotations

from typing import Callable, Optional, Tuple

import numpy as np
import onnx

from sr_deploy.core.contract import Size, SizeRules, format_size
from sr_deploy.core.media.natural import natural_input
from sr_deploy.core.tolerance import GRAPH_FP32, largest_difference

#: Operators whose meaning no size is part of.
SIZELESS = frozenset({
    "Abs", "Add", "AveragePool", "BatchNormalization", "Cast", "Clip", "Concat", "Constant", "Conv", "ConvTranspose",
    "DepthToSpace", "Div", "Elu", "Erf", "Exp", "Gelu", "GlobalAveragePool", "GlobalMaxPool", "HardSigmoid",
    "HardSwish", "Identity", "InstanceNormalization", "LeakyRelu", "Max", "MaxPool", "Min", "Mish", "Mul", "Neg",
    "PRelu", "Pad", "Pow", "ReduceMax", "ReduceMean", "Relu", "Sigmoid", "Softplus", "SpaceToDepth", "Split", "Sqrt",
    "Sub", "Sum", "Tanh", "Transpose", "Upsample",
})  # fmt: skip
#: How the four sizes differ from the fixed one, in multiples of what the network takes: larger, wider, taller, smaller.
_STEPS: Tuple[Size, ...] = ((3, 5), (-2, 3), (4, -3), (-1, -1))
#: Pixels of a corner that must be left when what the cut edges reach is taken away; pixels that reach is taken longer.
_LEFT, _MARGIN = 4, 2
#: An input larger than what graphs are mostly traced with (64x64), which shows a crop that was frozen.
LARGER: Size = (72, 88)

Run = Callable[[np.ndarray], np.ndarray]


def is_sizeless(model: onnx.ModelProto) -> bool:
    """Whether no node can hold a size: then the same nodes are the same network at every size."""
    constant = {tensor.name for tensor in model.graph.initializer}
    return all(
        node.op_type in SIZELESS or (node.op_type == "Resize" and len(node.input) == 3 and node.input[2] in constant)
        for node in model.graph.node
    )


def beyond(size: Size, multiple: int = 1) -> Size:
    """An input larger than the fixed one, which a frozen crop would show."""
    return size[0] + 8 * multiple, size[1] + 16 * multiple


def why_not_the_same(fixed: Run, free: Run, size: Size, scale: int, rules: SizeRules) -> Optional[str]:
    """Compare the freed graph with the fixed one at four other sizes; None when they agree.

    Args:
        fixed, free: float32 (1, 3, H, W) in 0…1 to (1, 3, scale·H, scale·W).
        size: what ``fixed`` takes.
        scale, rules: of the network.

    Returns:
        What does not agree, or why it cannot be compared.
    """
    reach = _reach(fixed, size, scale)
    for steps in _STEPS:
        other = tuple(rules.fit(max(edge + step * rules.multiple, 1)) for edge, step in zip(size, steps))
        found = _differs(fixed, free, size, (other[0], other[1]), scale, reach)
        if found:
            return found
    return None


def _reach(run: Run, size: Size, scale: int) -> Size:
    """How many pixels from a changed edge the output changes, downwards and across."""
    picture = natural_input(size, 1.0)
    before = run(picture)
    reach = []
    for axis in (2, 3):
        changed = picture.copy()
        last = [slice(None)] * 4
        last[axis] = slice(-1, None)
        changed[tuple(last)] = 1.0 - changed[tuple(last)]
        moved = np.nonzero(np.abs(run(changed) - before).max(axis=tuple(a for a in range(4) if a != axis)))[0]
        reach.append(size[axis - 2] - (int(moved.min()) // scale if len(moved) else size[axis - 2]) + _MARGIN)
    return reach[0], reach[1]


def _differs(fixed: Run, free: Run, size: Size, other: Size, scale: int, reach: Size) -> Optional[str]:
    """What differs at one size, in any of the four corners that both pictures have in common."""
    canvas = natural_input((max(size[0], other[0]), max(size[1], other[1])), 1.0)
    common = [min(mine, its) - (length if mine != its else 0) for mine, its, length in zip(size, other, reach)]
    if min(common) < _LEFT:
        return f"the network reaches over {max(reach)} pixels, which leaves nothing to compare"
    for bottom in (False, True):
        for right in (False, True):
            corner = (bottom, right)
            outputs = []
            for run, edges in ((fixed, size), (free, other)):
                sr = run(np.ascontiguousarray(_corner(canvas, edges, corner)))
                outputs.append(_corner(sr, (common[0] * scale, common[1] * scale), corner))
            difference = largest_difference(outputs[1], outputs[0], 1.0)
            if not difference <= GRAPH_FP32.steps:
                return f"at {format_size(other)} it differs from itself by {difference:.3g} of 255"
    return None


def _corner(picture: np.ndarray, size: Size, corner: Tuple[bool, bool]) -> np.ndarray:
    rows, columns = (slice(-edge, None) if end else slice(edge) for edge, end in zip(size, corner))
    return picture[:, :, rows, columns]
