"""The loop: step, judge, keep, until the schedule is over or somebody asks to stop; it goes on to the bit."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass
from typing import Any, Callable, Dict, List, Mapping, Optional, Protocol, Tuple

import numpy as np
import torch

from sr_deploy.core.errors import UsageError
from sr_deploy.core.host.allocation import keep_freed_memory
from sr_deploy.core.signals import held_back
from sr_deploy.train.schedule import Schedule
from sr_deploy.train.state import DAMAGED, Keeping, State, damaged, keep, kept_state


@dataclass(frozen=True)
class Moment:
    """How far a training is.

    Attributes:
        step: steps that are behind.
        seconds: spent on them, those before an interruption included.
        loss: mean of the steps since the last judgement, as the learner gives it; NaN where there were none.
    """

    step: int
    seconds: float
    loss: float = math.nan


class Learner(Protocol):
    """What is trained: networks, an optimiser and pictures. Steps must follow from its state and their number alone."""

    @property
    def optimiser(self) -> torch.optim.Optimizer:
        """Every group has its highest rate as ``peak``."""

    def learn(self, step: int) -> float:
        """Take one step, and give its loss."""

    def judge(self, moment: Moment) -> str:
        """Look at what was learnt so far; gives what the user is told of it."""

    def state(self) -> Dict[str, Any]:
        """Tensors and plain values that ``restore`` goes on from."""

    def restore(self, state: Mapping[str, Any]) -> None:
        """Be as ``state`` says."""


@dataclass(frozen=True)
class Course:
    """How a training goes.

    Attributes:
        schedule: its length and rates.
        judge_every: steps between two judgements; there is one at the start and one at the end, too.
        keeping: its state as a file; None keeps none.
    """

    schedule: Schedule
    judge_every: int
    keeping: Optional[Keeping] = None


def train(learner: Learner, course: Course, resume: bool, say: Callable[[str], None] = lambda _: None) -> Moment:
    """Train to the end of the schedule. Ctrl-C or a signal to end waits until the step is taken and kept.

    Args:
        resume: go on from the state that was kept.
        say: told how it goes.

    Returns:
        The end.

    Raises:
        UsageError, BadInput: there is nothing to resume, or nothing that can be; see ``kept_state``.
        KeyboardInterrupt, SystemExit: it was interrupted; the state is kept.
    """
    schedule, keeping = course.schedule, course.keeping
    keep_freed_memory()
    step, seconds, losses = _resumed(learner, keeping, say) if resume else (0, 0.0, [])
    began, written = time.monotonic() - seconds, -math.inf
    if step == 0:
        _judge(learner, Moment(0, 0.0), schedule, say)
    seconds = time.monotonic() - began
    with held_back() as interrupts:
        # The clock is read once a step: what is over here was judged and kept as the last step.
        while not schedule.is_over(step, seconds):
            schedule.set_rates(learner.optimiser, step, seconds)
            losses.append(learner.learn(step))
            step += 1
            seconds = time.monotonic() - began
            last = schedule.is_over(step, seconds)
            if step % course.judge_every == 0 or last:
                _judge(learner, Moment(step, seconds, float(np.mean(losses))), schedule, say)
                losses.clear()
            if keeping and (interrupts or last or time.monotonic() - written >= keeping.seconds):
                keep(keeping, State(step, time.monotonic() - began, losses, learner.state()))
                written = time.monotonic()
            if interrupts:
                say(f"interrupted after step {step}" + (f", {keeping.going_on}" if keeping else ""))
                break
    if interrupts:
        raise KeyboardInterrupt  # whoever takes the signal elsewhere let it live on
    return Moment(step, time.monotonic() - began)


def _resumed(
    learner: Learner, keeping: Optional[Keeping], say: Callable[[str], None]
) -> Tuple[int, float, List[float]]:
    """Steps and seconds that are behind, and the losses since the last judgement; the learner is as it was."""
    if keeping is None:
        raise UsageError("there is no state to resume: none was kept", "", "start without --resume")
    state = kept_state(keeping)
    try:
        learner.restore(state.learner)
    except DAMAGED:
        raise damaged(keeping) from None
    say(f"going on after step {state.step}")
    return state.step, state.seconds, state.losses


def _judge(learner: Learner, moment: Moment, schedule: Schedule, say: Callable[[str], None]) -> None:
    of = "" if schedule.steps is None else f"/{schedule.steps}"
    loss = "" if math.isnan(moment.loss) else f"  loss {moment.loss:.4g}"
    found = learner.judge(moment)
    say(f"step {moment.step}{of}  {moment.seconds:.0f} s{loss}" + (f"  {found}" if found else ""))
