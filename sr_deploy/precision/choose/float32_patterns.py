"""Parts of a graph that lose their numbers in float16, found by how they are wired: LayerNorm, softmax, attention.

A LayerNorm squares differences and sums them; a softmax exponentiates; attention sums products of activations with
activations, which no training has kept small. All three have given black or NaN pictures in float16
(JingyunLiang/SwinIR#103, NVIDIA/TensorRT#2564, #2875). They hold few of the multiply-accumulates.
"""

from __future__ import annotations

from typing import Dict, List, Optional, Set

import onnx

from sr_deploy.precision.tensors import following_picture

NORMALISATION = "LayerNorm: it squares differences and sums them"
SOFTMAX = "softmax: it exponentiates"
ATTENTION = "attention: products of activations with activations, beside a softmax"
GLOBAL_SKIP = "global skip: it carries the picture's low frequencies past the body"

_FUSED_NORMALISATIONS = ("LayerNormalization", "GroupNormalization", "InstanceNormalization")
#: What may stand between the products of attention and its softmax: scaling, masks, biases and changes of shape.
_BETWEEN = ("Add", "Sub", "Mul", "Div", "Where", "Reshape", "Transpose", "Squeeze", "Unsqueeze", "Expand", "Identity")
_SHAPE_ONLY = ("Reshape", "Transpose", "Squeeze", "Unsqueeze", "Identity", "Cast", "Dropout")
_LAYERS = ("Conv", "ConvTranspose", "MatMul", "Gemm")


def float32_recipes(model: onnx.ModelProto) -> Dict[str, str]:
    """Nodes that stay float32 whatever their ranges are: node name → reason.

    LayerNorm is found as one node (operator set 17) and as the chain that older sets write: mean, difference, square,
    mean, epsilon, square root, division. Of attention: both products, and all between the first one and the softmax.
    """
    wiring = _Wiring(model)
    found: Dict[str, str] = {}
    for node in model.graph.node:
        if node.op_type in _FUSED_NORMALISATIONS:
            found[node.name] = NORMALISATION
        elif node.op_type == "Sqrt":
            found.update((name, NORMALISATION) for name in wiring.layer_norm(node))
        elif node.op_type in ("Softmax", "LogSoftmax"):
            found.update((name, ATTENTION) for name in wiring.attention(node))
            found[node.name] = SOFTMAX
    return {node.name: found[node.name] for node in model.graph.node if node.name in found}


def global_skips(model: onnx.ModelProto) -> Dict[str, str]:
    """Additions of an early tensor to what most of the network made of it: node name → reason.

    An addition counts when one of its inputs has passed at least half of all layers in a row (convolutions and matrix
    products on the longest path), and the other at most one in ten of them, and two at least.
    """
    depth: Dict[str, int] = {value.name: 0 for value in model.graph.input}
    adds: List[onnx.NodeProto] = []
    for node in model.graph.node:
        if node.op_type in ("Shape", "Size"):
            continue
        have = [depth[name] for name in node.input if name in depth]
        if have:
            for name in node.output:
                depth[name] = max(have) + (node.op_type in _LAYERS)
            if node.op_type == "Add":
                adds.append(node)
    deepest = max(depth.values(), default=0)
    found = {}
    for node in adds:
        sides = sorted(depth[name] for name in node.input if name in depth)
        if (
            len(sides) == 2
            and sides[1] * 2 >= deepest
            and sides[0] <= max(2, deepest // 10)
            and sides[1] > sides[0] + 2
        ):
            found[node.name] = GLOBAL_SKIP
    return found


class _Wiring:
    """Who makes and who reads each tensor."""

    def __init__(self, model: onnx.ModelProto) -> None:
        self.maker = {name: node for node in model.graph.node for name in node.output}
        self.readers: Dict[str, List[onnx.NodeProto]] = {}
        for node in model.graph.node:
            for name in node.input:
                self.readers.setdefault(name, []).append(node)
        self.follows = following_picture(model)

    def made_by(self, tensor: str, *operators: str) -> Optional[onnx.NodeProto]:
        """The node that makes ``tensor`` from the picture, if it is one of these operators."""
        node = self.maker.get(tensor)
        return node if node is not None and node.op_type in operators and tensor in self.follows else None

    def layer_norm(self, root: onnx.NodeProto) -> List[str]:
        """Names of the nodes of the LayerNorm that this square root belongs to; none if it belongs to none."""
        shifted = self.made_by(root.input[0], "Add")
        if shifted is None:
            return []
        variance = next((n for n in (self.made_by(x, "ReduceMean") for x in shifted.input) if n is not None), None)
        square = None if variance is None else self.made_by(variance.input[0], "Pow", "Mul")
        difference = None if square is None else self.made_by(square.input[0], "Sub")
        mean = None if difference is None else self.made_by(difference.input[1], "ReduceMean")
        if variance is None or square is None or difference is None or mean is None:
            return []
        if square.op_type == "Mul" and square.input[0] != square.input[1]:
            return []
        divisions = [node for node in self.readers.get(root.output[0], []) if node.op_type in ("Div", "Reciprocal")]
        return [node.name for node in (mean, difference, square, variance, shifted, root, *divisions)]

    def attention(self, softmax: onnx.NodeProto) -> List[str]:
        """Names of both products around a softmax and of what lies between the first and it."""
        found: List[str] = []
        stack = [softmax.input[0]]
        seen: Set[str] = set()
        while stack:
            tensor = stack.pop()
            node = self.maker.get(tensor)
            if node is None or tensor in seen or tensor not in self.follows:
                continue
            seen.add(tensor)
            if node.op_type == "MatMul" and all(name in self.follows for name in node.input):
                found.append(node.name)
            elif node.op_type in _BETWEEN:
                found.append(node.name)
                stack.extend(node.input)
        after = list(softmax.output)
        while after:
            for node in self.readers.get(after.pop(), []):
                if node.op_type == "MatMul":
                    found.append(node.name)
                elif node.op_type in _SHAPE_ONLY:
                    after.extend(node.output)
        return found
