"""Learned rounding: every convolution's weights are fitted and rounded so that its output stays that of float32.

One layer after the other, on what the layers before it really give:

1. The weights move to where, read with the quantised input, they give the float32 output best: least squares, held to
   the old weights by a ridge. That makes up for what the input's rounding and clipping take away.
2. They are rounded one input weight after the other, and each rounding's error is made up for by the weights still to
   come, by the inverse Hessian of the layer's squared error: Frantar and Alistarh, "Optimal Brain Compression", NeurIPS
   2022, in the fixed order and Cholesky form of Frantar et al., "GPTQ", ICLR 2023. No gradient steps are needed: what
   AdaRound (Nagel et al., ICML 2020) searches for, the problem of the same layer-wise error, is solved greedily.
3. The bias takes what is left of the mean.

Pictures count alike, not their squares: see ``shares`` in layerwise.py.

Convolutions that stay wider are fitted too (steps 1 and 3): they make up for what 8 bits did before them. A weight that
several convolutions use is not moved (step 1): what suits the inputs of one shifts the colours of another.
"""

from __future__ import annotations

import dataclasses
import hashlib
from dataclasses import dataclass, field
from typing import Dict, FrozenSet, Mapping, Optional, Sequence, Set, Tuple

import numpy as np
import onnx
import torch
import torch.nn.functional as F
from torch import Tensor

from sr_deploy.core.deployment.plan import Plan
from sr_deploy.core.number_formats import NumberFormat
from sr_deploy.precision.choose.plan_from_ranges import rounded_scale
from sr_deploy.precision.fit.fake_quant import on_grid
from sr_deploy.precision.fit.layerwise import Earlier, Layer, Taught, corrected, given, shares, through_layers
from sr_deploy.precision.fit.to_grid import snapped
from sr_deploy.precision.interpreter import GraphModule, Key
from sr_deploy.precision.lower.quantize import CHANNEL_AXIS, NARROW

#: The ridge, as a share of the mean of the Hessian's diagonal: how strongly weights are held where they were.
_RIDGE = 1e-3
#: Of second moments so many rows are computed at once.
_ROWS = 128
#: Of each channel's largest weight: ranges that are tried for its scale.
_CUTS = (1.0, 0.95, 0.9, 0.85, 0.8)


@dataclass(frozen=True)
class Fitted:
    """What a layer's fit found.

    Attributes:
        constants: its weights and bias, of those that change.
        scales: their key in the module, and those of the weights, one an output channel; None where they were not
            chosen here.
    """

    constants: Dict[str, Tensor]
    scales: Optional[Tuple[Key, Tensor]]


@dataclass
class Fits:
    """What several fits have in common, see ``learned_rounding``.

    Attributes:
        layers: what was found, by all that it follows from.
        taught: what the float32 graph gives.
    """

    layers: Dict[str, Fitted] = field(default_factory=dict)
    taught: Taught = field(default_factory=Taught)


def learned_rounding(
    model: onnx.ModelProto,
    plan: Plan,
    weights: Mapping[str, np.ndarray],
    images: Sequence[np.ndarray],
    count: int = 32,
    fit: bool = True,
    fits: Optional[Fits] = None,
) -> Tuple[Plan, Dict[str, np.ndarray]]:
    """Weights on the 8-bit grid of their layer that keep every layer's output, their scales, and biases.

    Args:
        model: the float32 graph.
        plan: its types and scales. The activations' scales stay.
        weights: constants that replace the graph's own.
        images: as the graph takes them.
        count: squares to fit on, see ``through_layers``.
        fit: move the weights before rounding (step 1).
        fits: what earlier calls found, of the same graph, ``weights``, images, count and ``fit``; added to. A layer
            follows from those before it alone, so of plans that begin alike the beginnings are fitted once.

    Returns:
        The plan with the weights' new scales; ``weights`` with those of the convolutions of 8 bits on their grids,
        those of wider ones moved, and biases. Grouped and transposed convolutions keep their weights,
        rounded to the nearest, and get a new bias only.

    Raises:
        UsageError, BadDeployment: as for ``corrected_bias``.
    """
    changed: Set[str] = set()
    known = Fits() if fits is None else fits
    prefixes = _prefixes(model, plan)

    def take(module: GraphModule, found: Fitted) -> None:
        for name, value in found.constants.items():
            module.constants[name].data = value.clone()
        if found.scales is not None:
            key, scales = found.scales
            module.scales[key].data = scales.clone()
        changed.update(found.constants)

    def begin(module: GraphModule) -> FrozenSet[str]:
        ready = {layer.input[1]: known.layers[key] for layer, key in prefixes.values() if key in known.layers}
        for found in ready.values():
            take(module, found)
        return frozenset(ready)

    def learn(module: GraphModule, layer: Layer) -> Tensor:
        found, gives = _fitted(module, layer, plan.rest, fit)
        known.layers[prefixes[layer.node.name][1]] = found
        changed.update(found.constants)
        return gives

    module = through_layers(model, plan, weights, images, count, learn, Earlier(known.taught, begin))
    learned, arrays = snapped(module, plan)
    kept = {name: array for name, array in arrays.items() if name in changed}
    learned = dataclasses.replace(learned, activation_scales=plan.activation_scales, float8_scales=plan.float8_scales)
    return learned, {**weights, **kept}


def _fitted(module: GraphModule, layer: Layer, rest: str, fit: bool) -> Tuple[Fitted, Tensor]:
    """What suits the layer, which the module takes, and what the layer gives then."""
    weight = module.constants[layer.weight]
    bias = module.constants[layer.bias] if layer.bias else None
    found: Dict[str, Tensor] = {layer.weight: weight} if layer.narrow is not None else {}
    chosen = None
    if layer.node.op_type == "Conv" and layer.attributes.get("group", 1) == 1 and (fit or layer.narrow):
        read = module.multiplied(layer.weight, weight.detach())
        hessian, fitted = _moved(layer, read, bias, fit and not layer.shared)
        if layer.narrow is not None:
            scales = _scales(fitted, hessian, rest, layer.narrow)
            fitted = _rounded(fitted, scales, hessian, layer.narrow)
            key = layer.weight, layer.narrow.name
            module.scales[key].data = scales.float()
            chosen = key, scales.float()
        weight.data = module.without_factors(layer.weight, fitted.float().reshape(weight.shape))
        found[layer.weight] = weight
    corrected(module, layer)
    if bias is not None:
        found[layer.bias] = bias
    constants = {name: value.detach().clone() for name, value in found.items()}
    # Computed as a layer is that was fitted before: equal to the last bit.
    return Fitted(constants, chosen), given(module, layer)


def _prefixes(model: onnx.ModelProto, plan: Plan) -> Dict[str, Tuple[onnx.NodeProto, str]]:
    """Convolution → its node, and a digest of what the plan says of the nodes up to it: its fit follows of that."""
    digest = hashlib.sha256(plan.rest.encode())
    found = {}
    for node in model.graph.node:
        kind = plan.nodes.get(node.name, "")
        if kind in NARROW:
            read = [(plan.scales_of(kind).get(name), plan.channel_factors.get(name)) for name in node.input]
            digest.update(repr((node.name, kind, read)).encode())
        if node.op_type in CHANNEL_AXIS:
            found[node.name] = node, f"{node.name} {digest.hexdigest()}"
    return found


def _moved(layer: Layer, weight: Tensor, bias: Optional[Tensor], fit: bool) -> Tuple[Tensor, Tensor]:
    """The layer's Hessian with its ridge (K, K), and its weights where its input needs them, (outputs, K)."""
    flat = weight.reshape(len(weight), -1).double()
    hessian, cross = _moments(layer, weight, bias)
    hessian = hessian + max(_RIDGE * float(hessian.diagonal().mean()), 1e-30) * torch.eye(len(hessian)).double()
    # cross is the input times what is missing from the output: the gradient at the old weights.
    return hessian, flat + torch.linalg.solve(hessian, cross).T if fit else flat


def _rounded(flat: Tensor, scales: Tensor, hessian: Tensor, one: NumberFormat) -> Tensor:
    """Weights on their grids, (outputs, K)."""
    inverse = torch.linalg.cholesky(torch.cholesky_inverse(torch.linalg.cholesky(hessian)), upper=True)
    grid = torch.zeros_like(flat)
    left = flat.clone()
    for column in range(flat.shape[1]):
        grid[:, column] = on_grid(left[:, column] / scales, one, -one.largest) * scales
        error = (left[:, column] - grid[:, column]) / inverse[column, column]
        left[:, column + 1 :] -= error[:, None] * inverse[column, None, column + 1 :]
    return grid


def _moments(layer: Layer, weight: Tensor, bias: Optional[Tensor]) -> Tuple[Tensor, Tensor]:
    """Of the patches that the kernel reads, means taken off: their second moments (K, K), and their product with what
    the layer's output is short of at these weights (K, outputs)."""
    dilations, strides = (layer.attributes.get(name, [1, 1]) for name in ("dilations", "strides"))
    pads = layer.attributes.get("pads", [0, 0, 0, 0])
    padded = F.pad(layer.read, [pads[1], pads[3], pads[0], pads[2]])
    short = layer.wanted - layer.computed(weight, bias)
    size = weight[0].numel()
    second = torch.zeros(size, size, dtype=torch.float64)
    cross = torch.zeros(size, len(weight), dtype=torch.float64)
    first, missing, seen = torch.zeros(size, dtype=torch.float64), torch.zeros(len(weight), dtype=torch.float64), 0.0
    for picture, lacking, share in zip(padded, short, shares(short)):
        patches = F.unfold(picture[None], weight.shape[2:], dilations, 0, strides)[0]
        lacks = lacking.reshape(len(lacking), -1)
        for start in range(0, size, _ROWS):
            # On and right of the diagonal: the other half is the same.
            rows = patches[start : start + _ROWS] @ patches[start:].T
            second[start : start + _ROWS, start:] += share * rows.double()
        cross += share * (patches @ lacks.T).double()
        first += share * patches.sum(1).double()
        missing += share * lacks.sum(1).double()
        seen += float(share) * patches.shape[1]
    second = second.triu() + second.triu(1).T
    return second / seen - torch.outer(first, first) / seen**2, cross / seen - torch.outer(first, missing) / seen**2


def _scales(flat: Tensor, hessian: Tensor, rest: str, one: NumberFormat) -> Tensor:
    """For each output channel the scale whose rounding costs the layer's output least, (outputs,)."""
    largest = flat.abs().amax(1)
    best = torch.full_like(largest, float("inf"))
    chosen = torch.zeros_like(largest)
    for cut in _CUTS:
        scales = torch.tensor([rounded_scale(cut * float(v) / one.largest, rest) for v in largest], dtype=torch.float64)
        off = on_grid(flat / scales[:, None], one, -one.largest) * scales[:, None] - flat
        cost = ((off @ hessian) * off).sum(1)
        chosen = torch.where(cost < best, scales, chosen)
        best = torch.minimum(cost, best)
    return chosen
