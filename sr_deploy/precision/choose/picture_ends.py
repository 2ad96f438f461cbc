"""The nodes that read and write the picture, which bfloat16 is too coarse for.

From a half to white its steps are 2⁻⁸: one of 255. A feature may be off by so much and is averaged with others; the
picture itself would be seen to be, flat areas by up to half a step all over, at either end.
"""

from __future__ import annotations

from typing import Dict, List, Mapping, Tuple

import onnx

from sr_deploy.precision.choose.float32_patterns import global_skips
from sr_deploy.precision.choose.islands import FEW_CHANNELS
from sr_deploy.precision.tensors import CHANNEL_AXIS

READS = "it reads the picture: bfloat16 has steps of 1 of 255 near white"
WRITES = "it writes the picture: bfloat16 has steps of 1 of 255 near white"

#: Operator → the axis of its weights that counts what it reads, and that which counts what it gives.
_AXES: Mapping[str, Tuple[int, int]] = {name: (1 - axis, axis) for name, axis in CHANNEL_AXIS.items()}
_READ, _GIVEN = 0, 1


def picture_ends(model: onnx.ModelProto) -> Dict[str, str]:
    """Node → why it should be wider than bfloat16: up to the first product of features, from the last one on, and what
    carries the picture past all of them.

    Args:
        model: the float32 graph. Convolutions between pictures (a mean that is added by one) end nothing.
    """
    shapes = {tensor.name: tuple(tensor.dims) for tensor in model.graph.initializer}
    readers: Dict[str, List[onnx.NodeProto]] = {}
    makers: Dict[str, List[onnx.NodeProto]] = {}
    for node in model.graph.node:
        makers.update({name: [node] for name in node.output})
        for name in node.input:
            readers.setdefault(name, []).append(node)
    found = dict.fromkeys(global_skips(model), WRITES)
    for ends, beside, side, onwards, why in (
        (model.graph.output, makers, _READ, "input", WRITES),
        (model.graph.input, readers, _GIVEN, "output", READS),
    ):
        waiting, seen = [value.name for value in ends], set()
        while waiting:
            for node in beside.get(waiting.pop(), []):
                if node.name not in seen and node.op_type not in ("Shape", "Size"):
                    seen.add(node.name)
                    found.setdefault(node.name, why)
                    waiting += [] if _of_features(node, shapes, side) else getattr(node, onwards)
    return found


def _of_features(node: onnx.NodeProto, shapes: Mapping[str, Tuple[int, ...]], side: int) -> bool:
    """Whether a node is a product that has features, not a picture, on this side."""
    if node.op_type in ("MatMul", "Gemm"):
        return True
    shape = shapes.get(node.input[1], ()) if node.op_type in _AXES else ()
    return bool(shape) and shape[_AXES[node.op_type][side]] > FEW_CHANNELS
