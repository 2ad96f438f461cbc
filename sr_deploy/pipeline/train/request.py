"""What ``srdeploy distill`` is asked for, as one value."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Optional, Tuple

from sr_deploy.core.errors import UsageError
from sr_deploy.core.names import check_name
from sr_deploy.pipeline.load import LoadOptions
from sr_deploy.pipeline.training import check_minutes

#: Minutes of a training whose length is not said.
DEFAULT_MINUTES = 10.0
#: What ``--schedule`` may be.
SCHEDULES = ("cosine", "step")


@dataclass(frozen=True)
class Wanted:
    """What is asked for beside, or instead of, the preset's; None takes the preset's.

    Attributes:
        loss, optimiser, rate, batch, patch, ema, lora: see train/presets.py.
        schedule: of ``SCHEDULES``.
    """

    loss: Optional[str] = None
    optimiser: Optional[str] = None
    rate: Optional[float] = None
    batch: Optional[int] = None
    patch: Optional[int] = None
    ema: Optional[float] = None
    lora: Optional[str] = None
    schedule: Optional[str] = None


@dataclass(frozen=True)
class DistillRequest:
    """What ``srdeploy distill`` is asked for.

    Attributes:
        out: the .safetensors file to write.
        student: a checkpoint; None: a new network of ``load``.
        sizes: of a new network, ``--arch-arg``.
        load: how to load the student, or which network it is.
        teacher: a checkpoint, deployment or ONNX file; None: the originals teach.
        images, hr: folders of pictures; see pictures.py.
        preset: a name of train/presets.py.
        wanted: what replaces the preset's.
        features: pairs of modules, "STUDENT=TEACHER".
        affinity_rows: rows of the affinity that are compared; None: all.
        steps, minutes: the training's length; both None: ``DEFAULT_MINUTES``.
        judge_every: steps between two judgements.
        device: "auto", "cpu" or "cuda"; mixed: bfloat16 on CUDA.
        plot: .png or .svg; None: beside ``out``.
        resume: go on with an unfinished training.
        force: begin again, or replace what is there.
    """

    out: Path
    student: Optional[Path] = None
    sizes: Tuple[str, ...] = ()
    load: LoadOptions = field(default_factory=LoadOptions)
    teacher: Optional[Path] = None
    images: Optional[Path] = None
    hr: Optional[Path] = None
    preset: str = "plain"
    wanted: Wanted = Wanted()
    features: Tuple[str, ...] = ()
    affinity_rows: Optional[int] = None
    steps: Optional[int] = None
    minutes: Optional[float] = None
    judge_every: int = 200
    seed: int = 0
    device: str = "auto"
    mixed: bool = False
    plot: Optional[Path] = None
    resume: bool = False
    force: bool = False

    def check(self) -> None:
        """Refuse what cannot be, before anything is read.

        Raises:
            UsageError: a number out of its range, an unknown name, options that contradict each other, another suffix.
        """
        from sr_deploy.train.optimisers import OPTIMISERS

        wanted = self.wanted
        if self.out.suffix != ".safetensors":
            raise UsageError(f"-o {self.out} is no .safetensors file", "such as -o student.safetensors")
        limits = (("steps", self.steps, 1), ("batch", wanted.batch, 1), ("patch", wanted.patch, 8),
                  ("affinity-rows", self.affinity_rows, 1), ("judge-every", self.judge_every, 1))  # fmt: skip
        for name, number, least in limits:
            if number is not None and number < least:
                raise UsageError(f"--{name} {number} is too small", f"{least} or more")
        check_minutes(self.minutes)
        if wanted.rate is not None and not 0 < wanted.rate < 1:
            raise UsageError(f"--rate {wanted.rate:g} is not a learning rate", "between 0 and 1, such as 5e-4")
        if wanted.ema is not None and not 0 <= wanted.ema < 1:
            raise UsageError(f"--ema {wanted.ema:g} is no decay", "0 (none) up to less than 1, such as 0.999")
        if wanted.schedule is not None:
            check_name("schedule", wanted.schedule, SCHEDULES)
        if wanted.optimiser is not None:
            check_name("optimiser", wanted.optimiser, OPTIMISERS)
        if self.resume and self.force:
            raise UsageError("--resume and --force contradict each other", "one of them", "leave one of them out")
        if self.images is not None and self.hr is None and self.teacher is None:
            raise UsageError(
                "low-resolution pictures alone teach nothing", "a teacher, or their originals", "--teacher CKPT or --hr"
            )
