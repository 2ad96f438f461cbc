"""What every training of a graph has: a student that follows a teacher on squares, and the best that was seen."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass
from typing import Any, Dict, List, Mapping

import numpy as np
import torch
from torch import Tensor

from sr_deploy.precision.interpreter import GraphModule, takes_batches
from sr_deploy.train.loop import Moment
from sr_deploy.train.patches import Pool


@dataclass(frozen=True)
class Point:
    """A judgement: after which step, the mean loss since the last one (8-bit steps), PSNR against the teacher in dB."""

    step: int
    seconds: float
    loss: float
    psnr: float


class GraphLearner:
    """The networks and the best that was seen so far: of a Learner (train/loop.py) all but its optimiser and its step.

    Attributes:
        student: what is trained.
        teacher: what it follows.
        pool: the squares.
        value_range: the units of both: 1 or 255.
        device: "cpu" or "cuda".
        optimiser: of the student; set by who takes the steps.
        points: the judgements so far.
    """

    optimiser: torch.optim.Optimizer

    def __init__(self, student: GraphModule, teacher: GraphModule, pool: Pool, value_range: float, device: str) -> None:
        self.pool, self.value_range, self.device = pool, value_range, device
        self.student, self.teacher = _placed(student, device), _placed(teacher, device)
        self.teacher.requires_grad_(False)
        self.batched = takes_batches(self.student, self.tensor(pool.judged[:1]))
        self.expected = [self.taught(self.tensor(square[None])) for square in pool.judged]
        self.points: List[Point] = []
        self.best: Dict[str, Tensor] = {}

    def judge(self, moment: Moment) -> str:
        """Compare with the teacher on the squares kept back, and remember the best."""
        squared = []
        with torch.no_grad():
            for square, expected in zip(self.pool.judged, self.expected):
                squared.append(float(((self.student(self.tensor(square[None])) - expected) ** 2).mean()))
        # The mean of the pictures' PSNR, not the PSNR of their mean: none on which the network runs away decides alone.
        # Nor does what rounding to 8 bits hides.
        psnr = float(np.mean([10.0 * math.log10(255.0**2 / max(e, 1.0 / 12.0)) for e in self._steps(squared)]))
        if not self.points or psnr > max(known.psnr for known in self.points):
            self.best = {name: value.detach().clone() for name, value in self.student.state_dict().items()}
        self.points.append(Point(moment.step, round(moment.seconds, 2), moment.loss, psnr))
        return f"{psnr:.2f} dB to float32"

    def _steps(self, squared: List[float]) -> List[float]:
        """Squared errors in 8-bit steps."""
        return [error * (255.0 / self.value_range) ** 2 for error in squared]

    def state(self) -> Dict[str, Any]:
        """Networks, optimiser and judgements."""
        return {
            "student": self.student.state_dict(),
            "optimiser": self.optimiser.state_dict(),
            "best": self.best,
            "points": [dataclasses.astuple(point) for point in self.points],
        }

    def restore(self, state: Mapping[str, Any]) -> None:
        """Be as ``state`` says."""
        self.student.load_state_dict(state["student"])
        self.optimiser.load_state_dict(state["optimiser"])
        self.best = dict(state["best"])
        self.points = [Point(*values) for values in state["points"]]

    def take_best(self) -> None:
        """Let the student be the best that was seen."""
        self.student.load_state_dict(self.best)

    @property
    def best_point(self) -> Point:
        """The judgement of the best."""
        return max(self.points, key=lambda point: point.psnr)

    def tensor(self, array: np.ndarray) -> Tensor:
        """Squares where the networks are."""
        tensor = torch.from_numpy(np.ascontiguousarray(array)).to(self.device)
        return tensor.contiguous(memory_format=torch.channels_last)

    def taught(self, squares: Tensor) -> Tensor:
        """What the teacher gives."""
        with torch.no_grad():
            return self.through(self.teacher, squares)

    def through(self, module: GraphModule, squares: Tensor) -> Tensor:
        """What a network gives, one by one where it takes no batches."""
        if self.batched or len(squares) == 1:
            return module(squares)
        return torch.cat([module(square[None]) for square in squares])


def _placed(module: GraphModule, device: str) -> GraphModule:
    # PyTorch's types leave out the overload of Module.to that its documentation has.
    return module.to(device).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
