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
from typing import Dict, Mapping, Optional, Sequence, Set, Tuple

import numpy as np
import onnx
import torch
import torch.nn.functional as F
from torch import Tensor

from sr_deploy.core.deployment.plan import Plan
from sr_deploy.core.number_formats import NumberFormat
from sr_deploy.precision.choose.plan_from_ranges import rounded_scale
from sr_deploy.precision.fit.fake_quant import on_grid
from sr_deploy.precision.fit.layerwise import Layer, mean_short, shares, through_layers
from sr_deploy.precision.fit.to_grid import snapped
from sr_deploy.precision.interpreter import GraphModule

#: The ridge, as a share of the mean of the Hessian's diagonal: how strongly weights are held where they were.
_RIDGE = 1e-3
#: Of each channel's largest weight: ranges that are tried for its scale.
_CUTS = (1.0, 0.95, 0.9, 0.85, 0.8)


def learned_rounding(
    model: onnx.ModelProto,
    plan: Plan,
    weights: Mapping[str, np.ndarray],
    images: Sequence[np.ndarray],
    count: int = 32,
    fit: bool = True,
) -> Tuple[Plan, Dict[str, np.ndarray]]:
    """Weights on the 8-bit grid of their layer that keep every layer's output, their scales, and biases.

    Args:
        model: the float32 graph.
        plan: its types and scales. The activations' scales stay.
        weights: constants that replace the graph's own.
        images: as the graph takes them.
        count: squares to fit on, see ``through_layers``.
        fit: move the weights before rounding (step 1).

    Returns:
        The plan with the weights' new scales; ``weights`` with those of the convolutions of 8 bits on their grids,
        those of wider ones moved, and biases. Grouped and transposed convolutions keep their weights,
        rounded to the nearest, and get a new bias only.

    Raises:
        UsageError, BadDeployment: as for ``corrected_bias``.
    """
    changed: Set[str] = set()

    def learn(module: GraphModule, layer: Layer) -> None:
        weight = module.constants[layer.weight]
        bias = module.constants[layer.bias] if layer.bias else None
        if layer.node.op_type == "Conv" and layer.attributes.get("group", 1) == 1 and (fit or layer.narrow):
            hessian, fitted = _moved(layer, weight.detach(), bias, fit and not layer.shared)
            changed.add(layer.weight)
            if layer.narrow is not None:
                scales = _scales(fitted, hessian, plan.rest, layer.narrow)
                fitted = _rounded(fitted, scales, hessian, layer.narrow)
                module.scales[layer.weight, layer.narrow.name].data = scales.float()
            weight.data = fitted.float().reshape(weight.shape)
        if layer.narrow is not None:
            changed.add(layer.weight)
        if bias is not None:
            bias.data += mean_short(module, layer).to(bias.dtype)
            changed.add(layer.bias)

    module = through_layers(model, plan, weights, images, count, learn)
    learned, arrays = snapped(module, plan)
    kept = {name: array for name, array in arrays.items() if name in changed}
    learned = dataclasses.replace(learned, activation_scales=plan.activation_scales, float8_scales=plan.float8_scales)
    return learned, {**weights, **kept}


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
        second += share * (patches @ patches.T).double()
        cross += share * (patches @ lacks.T).double()
        first += share * patches.double().sum(1)
        missing += share * lacks.double().sum(1)
        seen += float(share) * patches.shape[1]
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
