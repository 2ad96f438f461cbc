"""Fine-tuning for INT8: weights and scales follow the float32 network while the graph is quantised (no labels needed).

The scales learn as in Esser et al., "Learned Step Size Quantization", ICLR 2020.
"""

from __future__ import annotations

import dataclasses
import hashlib
import io
import json
import math
import pickle
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Callable, Dict, List, Mapping, Optional, Sequence, Tuple

import numpy as np
import onnx
import torch
from torch import Tensor

from sr_deploy.core.artifact import atomic_file
from sr_deploy.core.deployment.plan import Plan
from sr_deploy.core.errors import BadInput, CheckFailed, UsageError
from sr_deploy.core.signals import held_back
from sr_deploy.precision.fit.to_int8_grid import snapped
from sr_deploy.precision.fit.training_patches import Pool, pool_of, squares_of
from sr_deploy.precision.interpreter import GraphModule, takes_batches

#: A scale may grow or shrink to this share of where it began; beyond it the training has gone astray.
_LEAST_STRETCH, _MOST_STRETCH = 0.02, 50.0
STATE_NAME = "training.pt"
#: Options that a training may go on with others of.
_FREE = ("minutes", "device", "keep_seconds")


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
class Point:
    """A judgement: after which step, the mean loss since the last one (8-bit steps), PSNR against float32 in dB."""

    step: int
    seconds: float
    loss: float
    psnr: float


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
    model: onnx.ModelProto,
    plan: Plan,
    weights: Mapping[str, np.ndarray],
    images: Sequence[np.ndarray],
    options: QatOptions,
    value_range: float,
    teacher: Optional[onnx.ModelProto] = None,
    originals: Optional[Sequence[np.ndarray]] = None,
    folder: Optional[Path] = None,
    resume: bool = False,
    say: Callable[[str], None] = lambda _: None,
) -> Tuned:
    """Fine-tune weights and scales so that the quantised graph gives what the float32 graph gives.

    Args:
        model: the float32 graph of the plan, dynamic.
        plan: with scales to start from.
        weights: constants that replace the graph's own at the start.
        images: float32 (1, 3, H, W), in the units of the graph. Some are kept back for judging.
        options: see QatOptions.
        value_range: the units of the graph: 1 or 255.
        teacher: the graph to follow; None takes ``model`` itself.
        originals: high-resolution pictures of the images, (1, 3, s·H, s·W).
        folder: where the state is kept while it runs; None keeps none.
        resume: go on from that state.
        say: told how it goes.

    Returns:
        The state that was best on the squares kept back. Where none was better than the start, the start, and the note
        in the plan says so.

    Raises:
        UsageError: an operator that cannot be trained, nothing to resume, or a state of another run.
        BadInput: too few or too small pictures.
        CheckFailed: the loss became NaN or infinite.
    """
    return _Training(model, plan, weights, images, options, value_range, teacher, originals, folder, say).run(resume)


#: What reading a damaged state ends in.
_DAMAGED = (RuntimeError, LookupError, ValueError, TypeError, AttributeError, EOFError, pickle.PickleError)


class _Training:
    """The networks, the optimiser and what was seen so far."""

    def __init__(
        self,
        model: onnx.ModelProto,
        plan: Plan,
        weights: Mapping[str, np.ndarray],
        images: Sequence[np.ndarray],
        options: QatOptions,
        value_range: float,
        teacher: Optional[onnx.ModelProto],
        originals: Optional[Sequence[np.ndarray]],
        folder: Optional[Path],
        say: Callable[[str], None],
    ) -> None:
        self.plan, self.options, self.say = plan, options, say
        self.step_size = value_range / 255.0
        self.value_range = value_range
        self.pool: Pool = pool_of(images, options.patch, options.judged_patch, originals)
        self.student = _placed(GraphModule(model, plan, weights), options.device)
        self.teacher = _placed(GraphModule(teacher or model), options.device)
        self.teacher.requires_grad_(False)
        self.state_file = None if folder is None else Path(folder) / STATE_NAME
        self.key = _key(model, plan, weights, teacher, self.pool, options)
        self.batched = takes_batches(self.student, self._tensor(self.pool.judged[:1]))
        self.expected = [self._taught(self._tensor(square[None])) for square in self.pool.judged]
        self.optimiser = torch.optim.Adam(
            [
                {"params": list(self.student.trained().values()), "peak": options.weight_rate},
                {"params": list(self.student.stretches.values()), "peak": options.scale_rate},
            ],
            lr=0.0,
            betas=(0.9, 0.999),
        )
        self.points: List[Point] = []
        self.best: Dict[str, Tensor] = {}
        self.losses: List[float] = []
        self.spent = 0.0

    def run(self, resume: bool) -> Tuned:
        """Train from the start, or from the state that was kept, to the end."""
        step = self._resumed() if resume else 0
        began, kept = time.monotonic() - self.spent, -math.inf
        if not self.points:
            self._judge(0, 0.0)
        with held_back() as interrupts:
            while step < self.options.steps and not self._is_over(time.monotonic() - began):
                self._rates(step, time.monotonic() - began)
                self.losses.append(self._train(step))
                step += 1
                seconds = time.monotonic() - began
                last = step == self.options.steps or self._is_over(seconds)
                if step % self.options.judge_every == 0 or last:
                    self._judge(step, seconds)
                due = interrupts or last or time.monotonic() - kept >= self.options.keep_seconds
                if self.state_file is not None and due:
                    self.spent = time.monotonic() - began
                    self._keep(step)
                    kept = time.monotonic()
                if interrupts:
                    self.say(f"interrupted after step {step}" + (", --resume goes on there" if self.state_file else ""))
                    break
        if interrupts:
            raise KeyboardInterrupt  # whoever takes the signal elsewhere let it live on
        self.spent = time.monotonic() - began
        return self._result(step)

    def _tensor(self, array: np.ndarray) -> Tensor:
        tensor = torch.from_numpy(np.ascontiguousarray(array)).to(self.options.device)
        return tensor.contiguous(memory_format=torch.channels_last)

    def _taught(self, squares: Tensor) -> Tensor:
        with torch.no_grad():
            return self._through(self.teacher, squares)

    def _through(self, module: GraphModule, squares: Tensor) -> Tensor:
        if getattr(self, "batched", False) or len(squares) == 1:
            return module(squares)
        return torch.cat([module(square[None]) for square in squares])

    def _is_over(self, seconds: float) -> bool:
        return self.options.minutes is not None and seconds >= 60.0 * self.options.minutes

    def _rates(self, step: int, seconds: float) -> None:
        done = step / self.options.steps
        if self.options.minutes is not None:
            done = max(done, seconds / (60.0 * self.options.minutes))
        falling = 0.01 + 0.99 * 0.5 * (1.0 + math.cos(math.pi * min(done, 1.0)))
        rising = min(1.0, (step + 1) / max(self.options.warm_up, 1))
        for group in self.optimiser.param_groups:
            group["lr"] = group["peak"] * falling * rising

    def _train(self, step: int) -> float:
        """One step; gives the loss in 8-bit steps."""
        lows, highs = squares_of(self.pool, self.options.seed, step, self.options.batch, self.options.patch)
        squares = self._tensor(lows)
        expected = self._taught(squares)
        given = self._through(self.student, squares)
        loss = (given - expected).abs().mean()
        if highs is not None:
            labelled = (given - self._tensor(highs)).abs().mean()
            loss = (1.0 - self.options.label_share) * loss + self.options.label_share * labelled
        loss = loss / self.step_size
        self.optimiser.zero_grad(set_to_none=True)
        loss.backward()
        value = float(loss.detach())
        if not math.isfinite(value):
            raise CheckFailed(
                f"the loss became {value} at step {step}", "a finite loss", "start again with a lower --rate"
            )
        self.optimiser.step()
        with torch.no_grad():
            for stretch in self.student.stretches.values():
                stretch.clamp_(_LEAST_STRETCH, _MOST_STRETCH)
        return value

    def _judge(self, step: int, seconds: float) -> None:
        squared = []
        with torch.no_grad():
            for square, expected in zip(self.pool.judged, self.expected):
                squared.append(float(((self.student(self._tensor(square[None])) - expected) ** 2).mean()))
        error = float(np.mean(squared))
        psnr = 10.0 * math.log10(self.value_range**2 / max(error, 1e-12 * self.value_range**2))
        point = Point(step, round(seconds, 2), float(np.mean(self.losses)) if self.losses else math.nan, psnr)
        self.losses.clear()
        if not self.points or psnr > max(known.psnr for known in self.points):
            self.best = {name: value.detach().clone() for name, value in self.student.state_dict().items()}
        self.points.append(point)
        loss = "" if math.isnan(point.loss) else f"  loss {point.loss:.3f}"
        self.say(f"step {step}/{self.options.steps}  {seconds:.0f} s{loss}  {psnr:.2f} dB to float32")

    def _keep(self, step: int) -> None:
        assert self.state_file is not None
        stream = io.BytesIO()
        torch.save(
            {
                "key": self.key,
                "options": dataclasses.asdict(self.options),
                "step": step,
                "spent": self.spent,
                "student": self.student.state_dict(),
                "optimiser": self.optimiser.state_dict(),
                "best": self.best,
                "points": [dataclasses.astuple(point) for point in self.points],
                "losses": self.losses,
            },
            stream,
        )
        with atomic_file(self.state_file) as temporary:
            temporary.write_bytes(stream.getvalue())

    def _resumed(self) -> int:
        if self.state_file is None or not self.state_file.is_file():
            raise UsageError(f"there is no state to resume at {self.state_file}", "", "start without --resume")
        try:
            state = torch.load(self.state_file, map_location=self.options.device, weights_only=True)
            if state["key"] != self.key:
                raise self._of_another_run(state.get("options", {}))
            self.student.load_state_dict(state["student"])
            self.optimiser.load_state_dict(state["optimiser"])
        except (*_DAMAGED, OSError):
            raise BadInput(
                f"{self.state_file} is damaged", "the state that srdeploy qat keeps", "begin again with --force"
            ) from None
        self.best, self.spent = state["best"], float(state["spent"])
        self.points = [Point(*values) for values in state["points"]]
        self.losses = [float(value) for value in state["losses"]]
        self.say(f"going on after step {state['step']}")
        return int(state["step"])

    def _of_another_run(self, kept: Mapping[str, Any]) -> UsageError:
        """The error for a state that these options do not go on from, naming what differs."""
        mine = dataclasses.asdict(self.options)
        differing = [
            f"{name} {kept[name]!r}, now {mine[name]!r}"
            for name in mine
            if name in kept and name not in _FREE and kept[name] != mine[name]
        ]
        return UsageError(
            f"{self.state_file} is of another run: " + ("; ".join(differing) or "another plan or other pictures"),
            "what that run was started with",
            "give the same again, or begin anew with --force",
        )

    def _result(self, step: int) -> Tuned:
        best = max(self.points, key=lambda point: point.psnr)
        self.student.load_state_dict(self.best)
        plan, weights = snapped(self.student, self.plan)
        start = self.points[0]
        if best.step == 0:
            note = f"fine-tuning for {step} steps brought nothing: plan and weights are those it started from"
        else:
            note = (
                f"fine-tuned for {step} steps in {self.spent:.0f} s on {len(self.pool.pictures)} pictures, "
                f"{'with' if self.pool.originals else 'without'} originals; the best state was after step {best.step}: "
                f"{start.psnr:.2f} to {best.psnr:.2f} dB against the float32 graph on pictures not trained on"
            )
        plan = dataclasses.replace(plan, notes=(*self.plan.notes, note))
        return Tuned(plan, weights, tuple(self.points), best, self.spent)


def _placed(module: GraphModule, device: str) -> GraphModule:
    # PyTorch's types leave out the overload of Module.to that its documentation has.
    return module.to(device).to(memory_format=torch.channels_last)  # type: ignore[call-overload]


def _key(
    model: onnx.ModelProto,
    plan: Plan,
    weights: Mapping[str, np.ndarray],
    teacher: Optional[onnx.ModelProto],
    pool: Pool,
    options: QatOptions,
) -> str:
    """A hash of all that decides what training gives, but for its length in time."""
    digest = hashlib.sha256(model.SerializeToString(deterministic=True))
    if teacher is not None:
        digest.update(teacher.SerializeToString(deterministic=True))
    plain = dataclasses.asdict(plan)
    settings = {name: value for name, value in dataclasses.asdict(options).items() if name not in _FREE}
    digest.update(json.dumps([plain, settings, sorted(weights)], sort_keys=True).encode())
    for array in (*weights.values(), *pool.pictures, *(pool.originals or ()), pool.judged):
        digest.update(np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()
