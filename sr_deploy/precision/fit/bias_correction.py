"""Bias correction: what quantisation moves the mean of every output channel by is added to the bias.

After Nagel et al., "Data-Free Quantization Through Weight Equalization and Bias Correction", ICCV 2019, section 4.2,
with means measured on pictures, one layer after the other; pictures on which a network runs away count less (``shares``
in layerwise.py).
"""

from __future__ import annotations

from typing import Dict, Mapping, Sequence

import numpy as np
import onnx

from sr_deploy.core.deployment.plan import Plan
from sr_deploy.precision.fit.layerwise import Layer, mean_short, through_layers
from sr_deploy.precision.interpreter import GraphModule


def corrected_bias(
    model: onnx.ModelProto,
    plan: Plan,
    weights: Mapping[str, np.ndarray],
    images: Sequence[np.ndarray],
    count: int = 16,
) -> Dict[str, np.ndarray]:
    """Biases with which every convolution gives the channel means of the float32 graph.

    Args:
        model: the float32 graph.
        plan: its types and scales.
        weights: constants that replace the graph's own.
        images: as the graph takes them.
        count: squares to take the means over, see ``through_layers``.

    Returns:
        ``weights`` with the biases added. A convolution without bias is left as it is.

    Raises:
        UsageError: an operator that the interpreter does not know.
        BadDeployment: the plan does not fit the graph.
    """
    biases: Dict[str, np.ndarray] = {}

    def correct(module: GraphModule, layer: Layer) -> None:
        if not layer.bias:
            return
        bias = module.constants[layer.bias]
        bias.data += mean_short(module, layer).to(bias.dtype)
        biases[layer.bias] = bias.detach().cpu().numpy().copy()

    through_layers(model, plan, weights, images, count, correct)
    return {**weights, **biases}
