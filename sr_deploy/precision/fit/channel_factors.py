"""Which channels to divide in front of INT8, and by how much: what makes a layer's output least noisy, measured.

One scale for a whole tensor suits its largest channel. Behind SiLU and gates a channel may be twenty times the others
(the input of one convolution of SPANF has one that reaches 77 where half of them stay below 3.3), and these get a few
of the 127 steps. Divided by factors they share them better, and the weights of the large channels become larger:
precision/lower/channel_factors.py. How much of the difference to take from the activations is a trade that is measured:
every power below on squares of pictures, activations and weights rounded, against float32. Each picture counts as in
the fit (``shares`` in layerwise.py), by Cauchy's estimator.
"""

from __future__ import annotations

from collections import Counter
from typing import Any, Dict, List, Mapping, Optional, Sequence, Tuple

import numpy as np
import onnx
import torch
from torch import Tensor

from sr_deploy.core.number_formats import INT8
from sr_deploy.graph.operators import FUNCTIONS
from sr_deploy.precision.calibrate.noise_curve import noise_curve, quietest
from sr_deploy.precision.choose.islands import Kinds
from sr_deploy.precision.choose.plan_from_ranges import Divided, channel_scales
from sr_deploy.precision.fit.fake_quant import quantised_activation, quantised_weight
from sr_deploy.precision.fit.layerwise import SIDE, squares_from
from sr_deploy.precision.interpreter import GraphModule
from sr_deploy.precision.lower.channel_factors import along_inputs
from sr_deploy.precision.tensors import CHANNEL_AXIS

#: A convolution, its attributes and its weights.
_Reader = Tuple[onnx.NodeProto, Mapping[str, Any], Tensor]
#: Squares that are looked at, and their side.
SQUARES, LOOKED_SIDE = 48, SIDE // 2
#: Factors are the channels' magnitudes to these powers, over those of the weights that read them to the second.
POWERS: Tuple[Tuple[float, float], ...] = (
    (0.25, 0.0), (0.5, 0.0), (0.75, 0.0), (1.0, 0.0), (0.25, 0.25), (0.5, 0.5), (0.75, 0.25),
)  # fmt: skip
#: A division that leaves more than this of the layer's error is not made: it is one more operation.
PAYS = 0.9
#: Factors are within 2 to plus and minus this.
MOST = 8


def divided_channels(
    model: onnx.ModelProto,
    kinds: Kinds,
    scales: Mapping[str, float],
    images: Sequence[np.ndarray],
    count: int = SQUARES,
) -> Dict[str, Divided]:
    """Tensor → factors of its channels and the scale that is left, of the tensors where that pays.

    Args:
        model: the float32 graph.
        kinds: from ``kinds_of``: its candidates may run in INT8.
        scales: tensor → INT8 scale without factors, of all that candidates read.
        images: as the graph takes them.
        count: squares to look at.

    Raises:
        UsageError: an operator that the interpreter does not know.
    """
    module = GraphModule(model)
    uses = Counter(node.input[1] for node in model.graph.node if node.op_type in CHANNEL_AXIS)
    readers: Dict[str, List[onnx.NodeProto]] = {}
    for node in model.graph.node:
        if node.name in kinds.candidates:
            readers.setdefault(node.input[0], []).append(node)
    found: Dict[str, Divided] = {}
    waiting = {
        name: nodes for name, nodes in readers.items() if name in scales and all(uses[n.input[1]] == 1 for n in nodes)
    }
    with torch.no_grad():
        for node, inputs, _ in module.walk(squares_from(images, count, LOOKED_SIDE)):
            name = node.input[0] if len(node.input) else ""
            if node.name in kinds.candidates and name in waiting and inputs[0].dim() == 4:
                look = _Look(module, inputs[0], waiting.pop(name))
                best = look.best(scales[name])
                if best is not None:
                    found[name] = best
    return found


class _Look:
    """A tensor on squares, and the convolutions that read it."""

    def __init__(self, module: GraphModule, read: Tensor, nodes: Sequence[onnx.NodeProto]) -> None:
        self.read = read
        names = {node.name for node in nodes}
        self.readers: List[_Reader] = [
            (step.node, step.attributes, module.constants[step.node.input[1]])
            for step in module.steps
            if step.node.name in names
        ]
        self.wanted = [self._given(reader, read, reader[2]) for reader in self.readers]

    def best(self, scale: float) -> Optional[Divided]:
        """The factors with the least error; None where none pays."""
        channels = self.read.shape[1]
        plain = self._error(np.ones(channels, np.float32), scale)
        typical = plain.median() + 1e-30

        def cost(error: Tensor) -> float:
            return float(torch.log1p(error / typical).mean())

        least, found = PAYS * cost(plain), None
        tried = {(1.0,) * channels}
        for powers in POWERS:
            factors = self._factors(*powers)
            key = tuple(factors.tolist())
            if key in tried:
                continue
            tried.add(key)
            left = self._scale(factors)
            now = cost(self._error(factors, left))
            if now < least:
                least, found = now, Divided(key, left)
        return found

    def _factors(self, power: float, over: float) -> np.ndarray:
        """Powers of two for the channels, half of them at least 1 and half at most; float32."""
        # Of each picture the largest value; over pictures the geometric mean, as no picture leads.
        magnitude = self.read.abs().amax((2, 3)).double().clamp(min=1e-12).log2().mean(0).numpy()
        weight = np.max([self._inputs_of(reader) for reader in self.readers], axis=0)
        exponent = power * magnitude - over * np.log2(np.maximum(weight, 1e-12))
        rounded = np.rint(exponent - np.median(exponent)).clip(-MOST, MOST)
        return np.exp2(rounded).astype(np.float32)

    @staticmethod
    def _inputs_of(reader: _Reader) -> np.ndarray:
        """Largest weight on each input channel."""
        node, attributes, weight = reader
        largest = weight.abs().amax(tuple(range(2, weight.dim()))).double().numpy()
        if node.op_type == "ConvTranspose":
            return np.asarray(largest.max(1))
        groups = attributes.get("group", 1)
        return np.asarray(largest.reshape(groups, -1, largest.shape[1]).max(1).reshape(-1))

    def _scale(self, factors: np.ndarray) -> float:
        """The scale of what is left, as calibration would choose it."""
        divided = (self.read / torch.from_numpy(factors).reshape(-1, 1, 1)).numpy()
        return quietest(np.mean([noise_curve(one) for one in divided], axis=0)) / INT8.largest

    def _error(self, factors: np.ndarray, scale: float) -> Tensor:
        """Mean squared error of the readers' outputs in each picture, (N,), float64."""
        divided = quantised_activation(
            self.read / torch.from_numpy(factors).reshape(-1, 1, 1), torch.tensor(scale, dtype=torch.float32)
        )
        error = torch.zeros(len(self.read), dtype=torch.float64)
        for reader, wanted in zip(self.readers, self.wanted):
            node, _, weight = reader
            scaled = weight * torch.from_numpy(along_inputs(node, weight.shape, factors))
            axis = CHANNEL_AXIS[node.op_type]
            rounded = quantised_weight(
                scaled, torch.tensor(channel_scales(scaled.detach().numpy(), axis, "float32")), axis
            )
            error += (self._given(reader, divided, rounded) - wanted).double().square().mean((1, 2, 3))
        return error

    @staticmethod
    def _given(reader: _Reader, read: Tensor, weight: Tensor) -> Tensor:
        node, attributes, _ = reader
        result: Tensor = FUNCTIONS[node.op_type](attributes, read, weight, None)
        return result
