"""Bias correction: what quantisation moves the mean of every output channel by is added to the bias.

After Nagel et al., "Data-Free Quantization Through Weight Equalization and Bias Correction", ICCV 2019, section 4.2,
with means measured on pictures, one layer after the other; pictures on which a network runs away count less (``shares``
in layerwise.py).
"""

from __future__ import annotations

from typing import Dict, Mapping, Optional, Sequence

import numpy as np
import onnx
from torch import Tensor

from sr_deploy.core.deployment.plan import Plan
from sr_deploy.precision.fit.layerwise import Earlier, Layer, Taught, corrected, through_layers
from sr_deploy.precision.interpreter import GraphModule


def corrected_bias(
    model: onnx.ModelProto,
    plan: Plan,
    weights: Mapping[str, np.ndarray],
    images: Sequence[np.ndarray],
    count: int = 16,
    taught: Optional[Taught] = None,
) -> Dict[str, np.ndarray]:
    """Biases with which every convolution gives the channel means of the float32 graph.

    Args:
        model: the float32 graph.
        plan: its types and scales.
        weights: constants that replace the graph's own.
        images: as the graph takes them.
        count: squares to take the means over, see ``through_layers``.
        taught: what the float32 graph gives on the same squares, if that is known.

    Returns:
        ``weights`` with the biases added. A convolution without bias is left as it is.

    Raises:
        UsageError: an operator that the interpreter does not know.
        BadDeployment: the plan does not fit the graph.
    """
    biases: Dict[str, np.ndarray] = {}

    def correct(module: GraphModule, layer: Layer) -> Tensor:
        gives = corrected(module, layer)
        if layer.bias:
            biases[layer.bias] = module.constants[layer.bias].detach().cpu().numpy().copy()
        return gives

    earlier = None if taught is None else Earlier(taught)
    through_layers(model, plan, weights, images, count, correct, earlier)
    return {**weights, **biases}
