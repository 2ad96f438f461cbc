"""Distillation of a narrower graph from the whole one: squares of photographs, L1, the best state kept.

The teacher sees the student's own square. Squares cut out of what it makes of a larger picture have other borders, and
made students worse.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import Callable, Dict, Mapping, Optional, Sequence, Tuple

import numpy as np
import onnx
import torch

from sr_deploy.precision.fit.graph_learner import GraphLearner, Point
from sr_deploy.precision.interpreter import GraphModule
from sr_deploy.train.descend import descend
from sr_deploy.train.loop import Course, Moment, train
from sr_deploy.train.losses.pictures import l1
from sr_deploy.train.patches import Pool, squares_of
from sr_deploy.train.schedule import Schedule
from sr_deploy.train.state import Keeping, key_of

STATE_NAME = "training.pt"
#: The last rates as a share of the highest.
_FLOOR = 0.01
#: Options that a training may go on with others of.
_FREE = ("minutes", "device", "keep_seconds")


@dataclass(frozen=True)
class DistilOptions:
    """How to distil.

    Attributes:
        steps: of the optimiser; None has no limit.
        minutes: of training; None has no limit. With neither, nothing is trained.
        batch: squares in a step.
        patch: side of a square in low-resolution pixels.
        rate: Adam's, at its highest. Beyond 1e-3 it destroys what least squares found.
        warm_up: steps until the rate is at its highest; then it falls as a cosine to a hundredth.
        judge_every: steps between two judgements on the squares kept back.
        keep_seconds: at most so long until the state is written again.
        judged_patch: side of the squares that are judged on.
        seed: of all that is random.
        device: "cpu" or "cuda".
    """

    steps: Optional[int] = None
    minutes: Optional[float] = None
    batch: int = 8
    patch: int = 32
    rate: float = 4e-4
    warm_up: int = 50
    judge_every: int = 100
    keep_seconds: float = 30.0
    judged_patch: int = 96
    seed: int = 0
    device: str = "cpu"

    @property
    def trains(self) -> bool:
        """Whether there is any training."""
        return self.steps is not None or self.minutes is not None


@dataclass(frozen=True)
class Distilled:
    """What came out.

    Attributes:
        weights: constant → float32 array, of the best state.
        points: how it went; the first is the start.
        best: the judgement of these weights.
        steps: that were taken.
    """

    weights: Dict[str, np.ndarray]
    points: Tuple[Point, ...]
    best: Point
    steps: int


class Distiller(GraphLearner):
    """A narrower graph that follows the whole one; a Learner of train/loop.py.

    Attributes:
        steps: that are behind.
    """

    steps = 0

    def __init__(
        self, student: onnx.ModelProto, teacher: onnx.ModelProto, pool: Pool, value_range: float, options: DistilOptions
    ) -> None:
        self.options = options
        super().__init__(GraphModule(student), GraphModule(teacher), pool, value_range, options.device)
        groups = [{"params": list(self.student.trained().values()), "peak": options.rate}]
        self.optimiser = torch.optim.Adam(groups, lr=0.0, betas=(0.9, 0.99))

    def learn(self, step: int) -> float:
        """One step; gives the loss in 8-bit steps."""
        options = self.options
        squares = self.tensor(squares_of(self.pool.trained, options.seed, step, options.batch, options.patch)[0])
        loss = l1(self.through(self.student, squares), self.taught(squares))
        value = descend(self.optimiser, loss / (self.value_range / 255.0), step, "start again with a lower --rate")
        self.steps = step + 1
        return value


def distilled(
    distiller: Distiller,
    key: Sequence[bytes],
    folder: Optional[Path],
    resume: bool,
    say: Callable[[str], None] = lambda _: None,
) -> Distilled:
    """Train to the end.

    Args:
        distiller: networks and pictures.
        key: what else decides what training gives, such as the graphs.
        folder: where the state is kept while it runs; None keeps none.
        resume: go on from that state.
        say: told how it goes.

    Raises:
        UsageError: nothing to resume, or a state of another run.
        BadInput: a state that cannot be read.
        CheckFailed: the loss became NaN or infinite.
        KeyboardInterrupt, SystemExit: it was interrupted; the state is kept. See ``interrupted``.
    """
    options = distiller.options
    schedule = Schedule(options.steps, options.minutes, options.warm_up, _FLOOR)
    keeping = None
    if folder is not None:
        settings = {name: value for name, value in dataclasses.asdict(options).items() if name not in _FREE}
        arrays = (*distiller.pool.trained.pictures, distiller.pool.judged)
        keeping = Keeping(
            folder / STATE_NAME, key_of(settings, arrays, *key), settings, "--resume goes on there",
            "begin again with --force", options.keep_seconds,
        )  # fmt: skip
    end = train(distiller, Course(schedule, options.judge_every, keeping), resume, say)
    return _best_of(distiller, end.step)


def interrupted(distiller: Distiller) -> Distilled:
    """The best state of a training that was interrupted, which is judged once more."""
    distiller.judge(Moment(distiller.steps, distiller.points[-1].seconds))
    return _best_of(distiller, distiller.steps)


def _best_of(distiller: Distiller, steps: int) -> Distilled:
    distiller.take_best()
    return Distilled(distiller.student.arrays(), tuple(distiller.points), distiller.best_point, steps)


def with_weights(model: onnx.ModelProto, weights: Mapping[str, np.ndarray]) -> onnx.ModelProto:
    """The graph with other constants of the same shapes."""
    result = onnx.ModelProto()
    result.CopyFrom(model)
    for tensor in result.graph.initializer:
        if tensor.name in weights:
            tensor.CopyFrom(onnx.numpy_helper.from_array(np.ascontiguousarray(weights[tensor.name]), tensor.name))
    return result
