"""What each layer costs when it alone runs in INT8."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Callable, Mapping, Sequence, Tuple

import numpy as np
import onnx

from sr_deploy.core.contract import IOContract
from sr_deploy.precision.choose.islands import Kinds
from sr_deploy.precision.choose.plan_from_ranges import Int8Choice, int8_plan
from sr_deploy.precision.evaluate import Scene, computing, judge
from sr_deploy.precision.lower.typed_graph import typed_graph


@dataclass(frozen=True)
class LayerCost:
    """One layer alone in INT8, everything else in float32.

    Attributes:
        name: of the node.
        loss: dB of PSNR-Y lost; negative where the picture became better.
        noise: mean squared change of the luma, (8-bit steps)². Noises of layers add up, roughly; losses do not.
        macs_share: of the graph's multiply-accumulates outside pinned islands, 0…1.
        why_wide: the reason why it does not run in INT8 by default; empty where it does.
    """

    name: str
    loss: float
    noise: float
    macs_share: float
    why_wide: str


@dataclass(frozen=True)
class View:
    """What plans are judged on.

    Attributes:
        scenes: pictures to look at.
        scale: output size over input size.
        contract: of the graph.
        threads: of ONNX Runtime; 0 lets it choose.
    """

    scenes: Sequence[Scene]
    scale: int
    contract: IOContract
    threads: int = 0


def sensitivities(
    model: onnx.ModelProto,
    kinds: Kinds,
    activation_scales: Mapping[str, float],
    weights: Mapping[str, np.ndarray],
    view: View,
    names: Sequence[str],
    say: Callable[[str], None] = lambda _: None,
) -> Tuple[LayerCost, ...]:
    """Quantise layers one at a time and look at the pictures.

    Args:
        model: the float32 graph.
        kinds: from ``kinds_of``.
        activation_scales: tensor → scale.
        weights: constants that replace the graph's own in a layer that is quantised.
        view: what to look at.
        names: which candidates.
        say: told how far it is.

    Returns:
        One entry for each name, most noise first.
    """
    found = []
    inputs = {node.name: tuple(node.input) for node in model.graph.node}
    for index, name in enumerate(names):
        own = {constant: value for constant, value in weights.items() if constant in inputs[name]}
        alone = Int8Choice(narrow=(name,), skips=False, rest="float32")
        plan = int8_plan(model, kinds, "", activation_scales, alone, own)
        compute = computing(typed_graph(model, plan, own), view.threads)
        judged = judge(view.scenes, compute, view.scale, view.contract)
        share = kinds.candidates[name] / max(kinds.macs, 1)
        found.append(LayerCost(name, judged.loss, judged.noise, share, kinds.wide.get(name, "")))
        if (index + 1) % 10 == 0 or index + 1 == len(names):
            say(f"  {index + 1} of {len(names)} layers")
    return tuple(sorted(found, key=lambda one: -one.noise))
