"""Distillation: a network learns to give what another one gives, or what originals are, or both.

What is learnt is here; how a training runs, stops and goes on is in loop.py.
"""

from __future__ import annotations

import contextlib
import dataclasses
import math
from dataclasses import dataclass
from typing import Any, Dict, Iterator, List, Mapping, Optional, Sequence, Tuple

import numpy as np
import torch
from torch import Tensor, nn

from sr_deploy.train.average import Average, copy_of
from sr_deploy.train.descend import descend
from sr_deploy.train.features import FeaturePairs
from sr_deploy.train.loop import Moment
from sr_deploy.train.losses.table import Term
from sr_deploy.train.objective import Objective, Squares
from sr_deploy.train.optimisers import Optimiser
from sr_deploy.train.patches import pool_of, squares_of

#: Squared error below which two pictures are called equal, of 1.
_EQUAL = 1e-12


@dataclass(frozen=True)
class Judge:
    """How good a state is, on squares kept back: of what was given, clipped to 0…1.

    Attributes:
        step, seconds: when.
        loss: mean of the steps since the last one; NaN where there were none.
        psnr: to the originals, dB over RGB; None without originals.
        fidelity: to the teacher's output, dB over RGB; None without a teacher.
    """

    step: int
    seconds: float
    loss: float
    psnr: Optional[float]
    fidelity: Optional[float]

    @property
    def figure(self) -> float:
        """What the best state is chosen by: the fidelity where there is a teacher, else the PSNR."""
        found = self.psnr if self.fidelity is None else self.fidelity
        assert found is not None, "there is a teacher, or there are originals"
        return found


@dataclass(frozen=True)
class DistillOptions:
    """How to distil.

    Attributes:
        terms: of the loss.
        optimiser: with its rate.
        batch: squares in a step.
        patch: side of a square, low-resolution pixels.
        ema: decay of the weights' moving average, which is judged and kept; 0 has none.
        judged_patch: side of the squares that are judged on.
        multiple: of which the sides of squares are multiples.
        affinity_rows: see Objective.
        seed: of all that is random.
        device: "cpu" or "cuda".
        mixed: bfloat16 where PyTorch's autocast takes it; on CUDA only.
    """

    terms: Tuple[Term, ...]
    optimiser: Optimiser = Optimiser()
    batch: int = 8
    patch: int = 48
    ema: float = 0.0
    judged_patch: int = 96
    multiple: int = 1
    affinity_rows: Optional[int] = None
    seed: int = 0
    device: str = "cpu"
    mixed: bool = False


@dataclass(frozen=True)
class Lesson:
    """Who learns, from whom, on what.

    Attributes:
        student: parameters that require a gradient are trained.
        white: the value of white of its pictures, 1 or 255.
        images: uint8 (1, 3, H, W) low-resolution pictures. Some are kept back for judging.
        originals: uint8 (1, 3, s·H, s·W) of each; None without.
        teacher: None without; then there are originals.
        teacher_white: the value of white of its pictures.
        pairs: modules whose features are compared; None: none are.
        names: of the images, for messages.
    """

    student: nn.Module
    white: float
    images: Sequence[np.ndarray]
    originals: Optional[Sequence[np.ndarray]] = None
    teacher: Optional[nn.Module] = None
    teacher_white: float = 1.0
    pairs: Optional[FeaturePairs] = None
    names: Sequence[str] = ()


class DistillLearner:
    """The networks, the optimiser, and the best that was seen so far; a Learner of train/loop.py.

    Attributes:
        pool: the squares.
        points: the judgements so far.
        best: the student's state that was best on the squares kept back.

    Raises:
        BadInput: too few or too small pictures.
        UsageError: features that are not there or cannot be compared; no such optimiser.
    """

    def __init__(self, lesson: Lesson, options: DistillOptions) -> None:
        self.lesson, self.options = lesson, options
        self.pool = pool_of(
            lesson.images, options.patch, options.judged_patch, lesson.originals, options.multiple, names=lesson.names
        )
        self.student = lesson.student.to(options.device)
        self.teacher = None if lesson.teacher is None else lesson.teacher.to(options.device)
        if self.teacher is not None:
            self.teacher.eval().requires_grad_(False)
        networks = (self.student, self.teacher)
        self.objective = Objective(options.terms, networks, lesson.pairs, options.affinity_rows, options.seed)
        self._first_run()
        self.objective.prepare()
        self.trained = [parameter for parameter in self.student.parameters() if parameter.requires_grad]
        if self.objective.attention is not None:
            self.trained += list(self.objective.attention.to(options.device).parameters())
        self.optimiser = options.optimiser.of(self.trained)
        self.average = Average(self.student, options.ema) if options.ema else None
        self.expected = [self._taught(self._tensor(square[None])) for square in self.pool.judged]
        self.points: List[Judge] = []
        self.best: Dict[str, Tensor] = {}

    def learn(self, step: int) -> float:
        """One step; gives the loss."""
        options = self.options
        lows, highs = squares_of(self.pool.trained, options.seed, step, options.batch, options.patch)
        low = self._tensor(lows)
        self.student.train()
        with self._precision():
            taught = self._taught(low)
            given = self._given(low)
        originals = None if highs is None else self._tensor(highs)
        loss = self.objective.of(Squares(given.float(), None if taught is None else taught.float(), originals), step)
        value = descend(self.optimiser, loss, step, "start again with a lower --rate")
        if self.average is not None:
            self.average.follow(self.student)
        return value

    def judge(self, moment: Moment) -> str:
        """Compare with teacher and originals on the squares kept back, and remember the best."""
        errors: List[List[float]] = [[], []]
        wanted = (self.pool.judged_originals, self.expected)
        with self._judged_weights(), torch.no_grad():
            self.student.eval()
            for index, square in enumerate(self.pool.judged):
                given = self._given(self._tensor(square[None])).clamp(0, 1)
                for found, all_wanted in zip(errors, wanted):
                    one = None if all_wanted is None else all_wanted[index]
                    if one is not None:
                        target = self._tensor(one[None]) if isinstance(one, np.ndarray) else one
                        found.append(float(((given - target.clamp(0, 1)) ** 2).mean()))
            psnr, fidelity = (_decibels(found) for found in errors)
            point = Judge(moment.step, round(moment.seconds, 2), moment.loss, psnr, fidelity)
            if not self.points or point.figure > max(known.figure for known in self.points):
                self.best = copy_of(self.student)
        self.points.append(point)
        told = [f"{psnr:.2f} dB to originals"] if psnr is not None else []
        return "  ".join(told + ([f"{fidelity:.2f} dB to the teacher"] if fidelity is not None else []))

    def state(self) -> Dict[str, Any]:
        """Networks, optimiser and judgements."""
        attention = self.objective.attention
        return {
            "student": self.student.state_dict(),
            "attention": None if attention is None else attention.state_dict(),
            "average": None if self.average is None else self.average.state,
            "optimiser": self.optimiser.state_dict(),
            "best": self.best,
            "points": [dataclasses.astuple(point) for point in self.points],
        }

    def restore(self, state: Mapping[str, Any]) -> None:
        """Be as ``state`` says."""
        self.student.load_state_dict(state["student"])
        if self.objective.attention is not None:
            self.objective.attention.load_state_dict(state["attention"])
        if self.average is not None:
            self.average.restore(state["average"])
        self.optimiser.load_state_dict(state["optimiser"])
        self.best = dict(state["best"])
        self.points = [Judge(*values) for values in state["points"]]

    def best_point(self) -> Judge:
        """The judgement of the best state."""
        return max(self.points, key=lambda point: point.figure)

    def take_best(self) -> None:
        """Let the student be the best that was seen."""
        self.student.load_state_dict(self.best)
        self.student.eval()

    def _first_run(self) -> None:
        """Both networks once, so that the features' shapes are known."""
        side = self.options.patch
        square = torch.zeros(1, 3, side, side, device=self.options.device)
        with torch.no_grad():
            self._taught(square)
            self.student.eval()
            self._given(square)

    def _given(self, low: Tensor) -> Tensor:
        """The student's picture in 0…1, of one in 0…1."""
        given: Tensor = self.student(low * self.lesson.white) / self.lesson.white
        return given

    def _taught(self, low: Tensor) -> Optional[Tensor]:
        if self.teacher is None:
            return None
        with torch.no_grad():
            taught: Tensor = self.teacher(low * self.lesson.teacher_white) / self.lesson.teacher_white
        return taught

    def _tensor(self, array: np.ndarray) -> Tensor:
        """uint8 pictures as float32 in 0…1."""
        return torch.from_numpy(np.ascontiguousarray(array)).to(self.options.device).float() / 255.0

    def _precision(self) -> contextlib.AbstractContextManager[Any]:
        if not self.options.mixed:
            return contextlib.nullcontext()
        return torch.autocast("cuda", dtype=torch.bfloat16)

    @contextlib.contextmanager
    def _judged_weights(self) -> Iterator[None]:
        """The moving average's, where there is one."""
        if self.average is None:
            yield
            return
        own = copy_of(self.student)
        self.student.load_state_dict(self.average.state)
        try:
            yield
        finally:
            self.student.load_state_dict(own)


def _decibels(errors: Sequence[float]) -> Optional[float]:
    """PSNR of the mean of squared errors of pictures in 0…1; None of nothing."""
    return -10.0 * math.log10(max(float(np.mean(errors)), _EQUAL)) if errors else None
