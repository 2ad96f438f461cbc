"""What the weights that read channels see on pictures, and how much the output minds what they give.

For a weight that multiplies features x (F,) to outputs, a change ΔW moves the network's output by about J ΔW x, J the
Jacobian of the picture behind. Its expected square is tr(G ΔW H ΔWᵀ) with H the sum of x xᵀ over places and G the mean
of JᵀJ, which gradients of random projections of the output estimate without bias (Hutchinson, Communications in
Statistics 1989). Taking H and G apart is the approximation of Martens and Grosse, "Optimizing Neural Networks with
Kronecker-factored Approximate Curvature", ICML 2015.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Dict, List, Optional, Tuple

import numpy as np
import onnx
import torch
from torch import Tensor

from sr_deploy.compress.places import some_places, taps_at, values_at
from sr_deploy.precision.interpreter import GraphModule

#: Places that a reader looks at in one run, at most; of more, every second, third … is taken.
PLACES = 8192


@dataclass
class Seen:
    """What one weight saw.

    Attributes:
        features: sum of x xᵀ over all places, (F + 1, F + 1); the last feature is always 1, for the bias.
        minded: sum of JᵀJ over the places that were looked at, (O, O).
        places: how many these were.
    """

    features: Tensor
    minded: Tensor
    places: int

    @property
    def weight(self) -> Tensor:
        """The mean of JᵀJ."""
        return self.minded / max(self.places, 1)


@dataclass(frozen=True)
class Statistics:
    """What all of them saw.

    Attributes:
        seen: constant → what it saw, in all nodes that use it together.
        outputs: values of the output that were looked at.
    """

    seen: Dict[str, Seen]
    outputs: int


def statistics_of(module: GraphModule, readers: Tuple[str, ...], squares: Tensor, batch: int, seed: int) -> Statistics:
    """Run squares through a graph and back.

    Args:
        module: the graph.
        readers: weights that read channels.
        squares: (N, 3, side, side), in the units of the graph.
        batch: squares at once.
        seed: of the random projections.
    """
    wanted = set(readers)
    random = torch.Generator().manual_seed(seed)
    seen: Dict[str, Seen] = {}
    outputs = 0
    attributes = {step.node.output[0]: step.attributes for step in module.steps}
    for start in range(0, len(squares), batch):
        held: List[Tuple[onnx.NodeProto, Any, Tensor, str]] = []
        picture = squares[start : start + batch].clone().requires_grad_()
        output: Optional[Tensor] = None
        for node, inputs, result in module.walk(picture):
            if len(node.input) > 1 and node.input[1] in wanted and node.op_type in FEATURES:
                held.append((node, inputs[0].detach(), result, node.input[1]))
            if module.output in node.output:
                output = result
        assert output is not None
        outputs += output.numel()
        probe = torch.randn(output.shape, generator=random)
        slopes = torch.autograd.grad((output * probe).sum(), [result for _, _, result, _ in held], allow_unused=True)
        for (node, read, result, name), slope in zip(held, slopes):
            given = torch.zeros_like(result) if slope is None else slope
            weight = module.constants[name].detach()
            columns = FEATURES[node.op_type](attributes[node.output[0]], read, given, weight, start)
            _add(seen, name, columns, _places(node.op_type, read, given) / columns[0].shape[1])
    return Statistics(seen, outputs)


def _places(operator: str, read: Tensor, given: Tensor) -> int:
    """How many places a node has: pixels of its output, of a transposed convolution of its input, rows of a product."""
    if operator in ("MatMul", "Gemm"):
        return given.numel() // given.shape[-1]
    return (read if operator == "ConvTranspose" else given)[:, :1].numel()


def _add(seen: Dict[str, Seen], name: str, columns: Tuple[Tensor, Tensor], share: float) -> None:
    """Add features (F, P) and slopes (O, P) of P places, each of which stands for ``share``."""
    x, slope = columns
    x = torch.cat([x, torch.ones(1, x.shape[1])])
    features, minded = (share * (x @ x.T)).double(), (slope @ slope.T).double()
    if name in seen:
        seen[name].features += features
        seen[name].minded += minded
        seen[name].places += x.shape[1]
    else:
        seen[name] = Seen(features, minded, x.shape[1])


def _of_conv(attributes: Any, x: Tensor, slope: Tensor, weight: Tensor, seed: int) -> Tuple[Tensor, Tensor]:
    places = some_places(slope.shape, PLACES, seed)
    return taps_at(attributes, x, weight.shape[2:], places).flatten(0, 1), values_at(slope, places)


def _of_conv_transpose(attributes: Any, x: Tensor, slope: Tensor, weight: Tensor, seed: int) -> Tuple[Tensor, Tensor]:
    places = some_places(x.shape, PLACES, seed)
    # What an input pixel adds to is what a convolution with the same attributes reads there.
    return values_at(x, places), taps_at(attributes, slope, weight.shape[2:], places).flatten(0, 1)


def _of_product(attributes: Any, x: Tensor, slope: Tensor, weight: Tensor, seed: int) -> Tuple[Tensor, Tensor]:
    return x.reshape(-1, x.shape[-1]).T, slope.reshape(-1, slope.shape[-1]).T


#: Operator → features (F, P) and slopes (O, P) of some of a node's places.
FEATURES = {"Conv": _of_conv, "ConvTranspose": _of_conv_transpose, "MatMul": _of_product, "Gemm": _of_product}


def as_matrix(node: onnx.NodeProto, attributes: Any, weight: np.ndarray) -> Tuple[np.ndarray, int, int]:
    """A weight as (O, F), the axis of the channels that it reads, and how many features each channel has.

    A grouped convolution's is filled up with zeros.
    """
    if node.op_type == "Conv":
        group, each = attributes.get("group", 1), weight.shape[1]
        if group > 1:
            full = np.zeros((weight.shape[0], group * each, *weight.shape[2:]), weight.dtype)
            rows = weight.shape[0] // group
            for one in range(group):
                full[one * rows : (one + 1) * rows, one * each : (one + 1) * each] = weight[
                    one * rows : (one + 1) * rows
                ]
            weight = full
        return weight.reshape(weight.shape[0], -1), 1, int(np.prod(weight.shape[2:]))
    if node.op_type == "ConvTranspose":
        return np.ascontiguousarray(weight.reshape(weight.shape[0], -1).T), 0, 1
    if node.op_type == "Gemm" and attributes.get("transB"):
        return weight, 1, 1
    return np.ascontiguousarray(weight.T), 0, 1
