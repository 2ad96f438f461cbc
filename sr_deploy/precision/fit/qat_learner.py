"""What fine-tuning for INT8 trains: a quantised graph, taught by a float32 one, judged on squares kept back.

The scales learn as in Esser et al., "Learned Step Size Quantization", ICLR 2020.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Mapping, Optional, Sequence

import numpy as np
import onnx
import torch

from sr_deploy.core.deployment.plan import Plan
from sr_deploy.precision.fit.graph_learner import GraphLearner
from sr_deploy.precision.interpreter import GraphModule
from sr_deploy.train.descend import descend
from sr_deploy.train.losses.pictures import taught_distance
from sr_deploy.train.patches import pool_of, squares_of

#: A scale may grow or shrink to this share of where it began; beyond it the training has gone astray.
_LEAST_STRETCH, _MOST_STRETCH = 0.02, 50.0


@dataclass(frozen=True)
class QatOptions:
    """How to fine-tune.

    Attributes:
        steps: of the optimiser.
        batch: squares in a step.
        patch: side of a square in low-resolution pixels.
        weight_rate: Adam's rate for weights, biases and PReLU slopes, at its highest.
        scale_rate: the same for scales, relative to each scale.
        warm_up: steps until the rates are at their highest; then they fall as a cosine to a hundredth.
        minutes: time for training; None has no limit. The rates then fall with the time, where that is faster.
        label_share: share of the loss that is the distance from the originals, where there are any, 0…1.
        judge_every: steps between two judgements on the squares kept back.
        keep_seconds: at most so long until the state is written again; it is after the first step and the last, too.
        judged_patch: side of the squares that are judged on.
        seed: of all that is random.
        device: "cpu" or "cuda".
    """

    steps: int = 1000
    batch: int = 4
    patch: int = 48
    weight_rate: float = 1e-4
    scale_rate: float = 1e-3
    warm_up: int = 50
    minutes: Optional[float] = None
    label_share: float = 0.3
    judge_every: int = 100
    keep_seconds: float = 30.0
    judged_patch: int = 96
    seed: int = 0
    device: str = "cpu"


@dataclass(frozen=True)
class Lesson:
    """What is fine-tuned, and on what.

    Attributes:
        model: the float32 graph of the plan, dynamic.
        plan: with scales to start from.
        weights: constants that replace the graph's own at the start.
        images: float32 (1, 3, H, W), in the units of the graph. Some are kept back for judging.
        value_range: the units of the graph: 1 or 255.
        teacher: the graph to follow; None takes ``model`` itself.
        originals: high-resolution pictures of the images, (1, 3, s·H, s·W); None without.
        names: of the images, for messages.
    """

    model: onnx.ModelProto
    plan: Plan
    weights: Mapping[str, np.ndarray]
    images: Sequence[np.ndarray]
    value_range: float
    teacher: Optional[onnx.ModelProto] = None
    originals: Optional[Sequence[np.ndarray]] = None
    names: Sequence[str] = ()


class QatLearner(GraphLearner):
    """A quantised graph, a float32 one, and the optimiser; a Learner of train/loop.py.

    Attributes:
        lesson, options: what is trained, on what, and how.

    Raises:
        UsageError: an operator that cannot be trained.
        BadInput: too few or too small pictures.
    """

    def __init__(self, lesson: Lesson, options: QatOptions) -> None:
        self.lesson, self.options = lesson, options
        pool = pool_of(lesson.images, options.patch, options.judged_patch, lesson.originals, names=lesson.names)
        student = GraphModule(lesson.model, lesson.plan, lesson.weights)
        super().__init__(student, GraphModule(lesson.teacher or lesson.model), pool, lesson.value_range, options.device)
        self.optimiser = torch.optim.Adam(
            [
                {"params": list(self.student.trained().values()), "peak": options.weight_rate},
                {"params": list(self.student.stretches.values()), "peak": options.scale_rate},
            ],
            lr=0.0,
            betas=(0.9, 0.999),
        )

    def learn(self, step: int) -> float:
        """One step; gives the loss in 8-bit steps."""
        options = self.options
        lows, highs = squares_of(self.pool.trained, options.seed, step, options.batch, options.patch)
        squares = self.tensor(lows)
        expected = self.taught(squares)
        originals = None if highs is None else self.tensor(highs)
        loss = taught_distance(self.through(self.student, squares), expected, originals, options.label_share)
        value = descend(
            self.optimiser, loss / (self.lesson.value_range / 255.0), step, "start again with a lower --rate"
        )
        with torch.no_grad():
            for stretch in self.student.stretches.values():
                stretch.clamp_(_LEAST_STRETCH, _MOST_STRETCH)
        return value
