"""Fine-tuning for INT8: weights and scales follow the float32 network while the graph is quantised.

No labels are needed; see qat_learner.py for what is learnt and train/ for how it runs, stops and goes on.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import Callable, Dict, Optional, Tuple

import numpy as np

from sr_deploy.core.deployment.plan import Plan
from sr_deploy.precision.fit.graph_learner import Point
from sr_deploy.precision.fit.qat_learner import Lesson, QatLearner, QatOptions
from sr_deploy.precision.fit.to_grid import snapped
from sr_deploy.train.loop import Course, Moment, train
from sr_deploy.train.schedule import Schedule
from sr_deploy.train.state import Keeping, key_of

STATE_NAME = "training.pt"
#: The last rates as a share of the highest.
_FLOOR = 0.01
#: Options that a training may go on with others of.
_FREE = ("minutes", "device", "keep_seconds")


@dataclass(frozen=True)
class Tuned:
    """What came out.

    Attributes:
        plan: with the learned scales, and a note.
        weights: constant name → float32 array; those of INT8 nodes are exact multiples of their scales.
        points: how it went; the first is the start.
        best: the point that plan and weights are of.
        seconds: spent training, those before an interruption included.
    """

    plan: Plan
    weights: Dict[str, np.ndarray]
    points: Tuple[Point, ...]
    best: Point
    seconds: float


def fine_tune(
    lesson: Lesson,
    options: QatOptions,
    folder: Optional[Path] = None,
    resume: bool = False,
    say: Callable[[str], None] = lambda _: None,
) -> Tuned:
    """Fine-tune weights and scales so that the quantised graph gives what the float32 graph gives.

    Args:
        lesson: the graph, its plan, the teacher and the pictures.
        options: see QatOptions.
        folder: where the state is kept while it runs; None keeps none.
        resume: go on from that state.
        say: told how it goes.

    Returns:
        The state that was best on the squares kept back. Where none was better than the start, the start, and the note
        in the plan says so.

    Raises:
        UsageError: an operator that cannot be trained, nothing to resume, or a state of another run.
        BadInput: too few or too small pictures, or a state that cannot be read.
        CheckFailed: the loss became NaN or infinite.
    """
    learner = QatLearner(lesson, options)
    schedule = Schedule(options.steps, options.minutes, options.warm_up, _FLOOR)
    keeping = None if folder is None else _keeping(Path(folder), learner)
    end = train(learner, Course(schedule, options.judge_every, keeping), resume, say)
    return _tuned(learner, end)


def _keeping(folder: Path, learner: QatLearner) -> Keeping:
    """The state's file, and what it must be of: all that decides what training gives, but for its length in time."""
    lesson, options, pool = learner.lesson, learner.options, learner.pool
    settings = {name: value for name, value in dataclasses.asdict(options).items() if name not in _FREE}
    graphs = [lesson.model] if lesson.teacher is None else [lesson.model, lesson.teacher]
    key = key_of(
        [dataclasses.asdict(lesson.plan), settings, sorted(lesson.weights)],
        (*lesson.weights.values(), *pool.trained.pictures, *(pool.trained.originals or ()), pool.judged),
        *(graph.SerializeToString(deterministic=True) for graph in graphs),
    )
    return Keeping(
        folder / STATE_NAME, key, settings, "--resume goes on there", "begin again with --force", options.keep_seconds
    )


def _tuned(learner: QatLearner, end: Moment) -> Tuned:
    """The best that was seen, on the grid, with a note that says how good it is."""
    points, trained = learner.points, learner.pool.trained
    best = learner.best_point
    learner.take_best()
    plan, weights = snapped(learner.student, learner.lesson.plan)
    if best.step == 0:
        note = f"fine-tuning for {end.step} steps brought nothing: plan and weights are those it started from"
    else:
        note = (
            f"fine-tuned for {end.step} steps in {end.seconds:.0f} s on {len(trained.pictures)} pictures, "
            f"{'with' if trained.originals else 'without'} originals; the best state was after step {best.step}: "
            f"{points[0].psnr:.2f} to {best.psnr:.2f} dB against the float32 graph on pictures not trained on"
        )
    plan = dataclasses.replace(plan, notes=(*learner.lesson.plan.notes, note))
    return Tuned(plan, weights, tuple(points), best, end.seconds)
