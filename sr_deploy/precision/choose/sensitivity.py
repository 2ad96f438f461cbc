"""What each layer costs when it alone runs in 8 bits."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Callable, Mapping, Sequence, Tuple

import numpy as np
import onnx

from sr_deploy.core.contract import IOContract
from sr_deploy.core.number_formats import INT8
from sr_deploy.precision.choose.islands import Kinds
from sr_deploy.precision.choose.plan_from_ranges import NarrowChoice, Scales, narrow_plan
from sr_deploy.precision.evaluate import PictureJudged, Scene, judge, judging
from sr_deploy.precision.lower.typed_graph import typed_graph


@dataclass(frozen=True)
class LayerCost:
    """One layer alone in 8 bits, everything else in float32.

    Attributes:
        name: of the node.
        loss: dB of PSNR-Y lost; negative where the picture became better.
        noise: mean squared change of the luma, (8-bit steps)². Noises of layers add up, roughly; losses do not.
        macs_share: of the graph's multiply-accumulates outside pinned islands, 0…1.
        why_wide: the reason why it does not run in 8 bits by default; empty where it does.
        format: the 8-bit format.
        pictures: how each picture did.
    """

    name: str
    loss: float
    noise: float
    macs_share: float
    why_wide: str
    format: str = INT8.name
    pictures: Tuple[PictureJudged, ...] = ()

    @property
    def cost(self) -> float:
        """dB that the noise costs where it has nothing to do with float32's error, the mean over pictures: tells more
        than the noise itself where float32 is near to the originals. Adds up over layers, roughly."""
        return float(np.mean([one.independent for one in self.pictures]))


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
    scales: Scales,
    weights: Mapping[str, np.ndarray],
    view: View,
    formats: Mapping[str, str],
    say: Callable[[str], None] = lambda _: None,
) -> Tuple[LayerCost, ...]:
    """Quantise layers one at a time and look at the pictures.

    Args:
        model: the float32 graph.
        kinds: from ``kinds_of``.
        scales: of the tensors that they read.
        weights: constants that replace the graph's own in a layer that is quantised.
        view: what to look at.
        formats: which candidates, and the 8-bit format of each.
        say: told how far it is.

    Returns:
        One entry for each, most noise first.
    """
    found = []
    inputs = {node.name: tuple(node.input) for node in model.graph.node}
    for index, name in enumerate(formats):
        own = {constant: value for constant, value in weights.items() if constant in inputs[name]}
        alone = NarrowChoice((name,), formats, skips=False, rest="float32")
        plan = narrow_plan(model, kinds, "", scales, alone, own)
        compute = judging(typed_graph(model, plan, own), view.threads)
        judged = judge(view.scenes, compute, view.scale, view.contract)
        share = kinds.candidates[name] / max(kinds.macs, 1)
        why = kinds.wide.get(name, "")
        found.append(LayerCost(name, judged.loss, judged.noise, share, why, formats[name], judged.each))
        if (index + 1) % 10 == 0 or index + 1 == len(formats):
            say(f"  {index + 1} of {len(formats)} layers")
    return tuple(sorted(found, key=lambda one: -one.noise))
