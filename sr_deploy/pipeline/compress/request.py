"""What ``srdeploy compress`` is asked for, checked before anything long begins."""

from __future__ import annotations

import math
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Optional, Tuple

from sr_deploy.core.artifact import check_free
from sr_deploy.core.contract import Size
from sr_deploy.core.errors import UsageError
from sr_deploy.core.host.gpu_rates import gpu_named
from sr_deploy.core.names import check_name
from sr_deploy.pipeline.training import check_minutes

#: What a budget may be of, as its option is called.
BUDGETS = ("time", "macs", "psnr-budget")
#: Channels that ONNX Runtime's and TensorRT's kernels take at once.
KERNEL_MULTIPLE = 8


@dataclass(frozen=True)
class CompressRequest:
    """What was asked for.

    Attributes:
        deployment: the folder.
        out: the folder to make.
        images: low-resolution photographs; no originals are needed.
        time, macs, psnr_budget: one of the three: the share of the time or of the multiply-accumulates that may be
            left, 0…1, or the dB of PSNR-Y that may be lost on shrunk photographs.
        importance: a name of METHODS (compress/importance.py).
        device_for: the GPU whose time counts, of core/host/gpu_rates.py; None: ONNX Runtime on this machine.
        size: input (height, width) that times are taken at.
        threads: of ONNX Runtime when it is timed; None lets it choose.
        multiple: widths are multiples of it; None: 8 for a time, 1 for multiply-accumulates.
        refit: whether weights make up for what went, by least squares.
        steps, minutes: of distillation; None of both: none.
        batch, patch, rate: see DistilOptions.
        seed: of all that is random.
        device: of distillation: "auto", "cpu" or "cuda".
        resume: go on with an unfinished distillation.
        force: replace an existing folder, and begin again though there is an unfinished one.
    """

    deployment: Path
    out: Optional[Path]
    images: Path
    time: Optional[float] = None
    macs: Optional[float] = None
    psnr_budget: Optional[float] = None
    importance: str = "obs"
    device_for: Optional[str] = None
    size: Size = (128, 128)
    threads: Optional[int] = None
    multiple: Optional[int] = None
    refit: bool = True
    steps: Optional[int] = None
    minutes: Optional[float] = None
    batch: int = 8
    patch: int = 32
    rate: float = 4e-4
    seed: int = 0
    device: str = "auto"
    resume: bool = False
    force: bool = False

    @property
    def budget(self) -> Tuple[str, float]:
        """The one that was given: a name of BUDGETS, and how much."""
        return self._given()[0]

    def _given(self) -> Tuple[Tuple[str, float], ...]:
        values = (self.time, self.macs, self.psnr_budget)
        return tuple((name, value) for name, value in zip(BUDGETS, values) if value is not None)

    @property
    def asked(self) -> str:
        """The budget as it was written, such as "--macs 0.6"."""
        name, value = self.budget
        return f"--{name} {value:g}"

    @property
    def step(self) -> int:
        """The multiple of widths, resolved."""
        if self.multiple is not None:
            return self.multiple
        return 1 if self.macs is not None else KERNEL_MULTIPLE

    @property
    def trains(self) -> bool:
        """Whether distillation is asked for."""
        return self.steps is not None or self.minutes is not None

    def check(self, dry_run: bool = False) -> None:
        """Refuse what cannot be.

        Raises:
            UsageError: naming the option.
        """
        from sr_deploy.compress.importance import METHODS

        self._check_budget(dry_run)
        check_name("importance", self.importance, METHODS)
        for name in ("steps", "batch", "multiple", "threads"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise UsageError(f"--{name} {value} leaves nothing", "1 or more")
        if self.patch < 8:
            raise UsageError(f"--patch {self.patch} shows the network almost nothing", "8 or more, in pixels")
        check_minutes(self.minutes)
        if not 0 < self.rate < 1:
            raise UsageError(f"--rate {self.rate:g} is not a learning rate", "a number between 0 and 1, such as 4e-4")
        if self.resume and (self.force or not self.trains):
            other = "--force" if self.force else "no distillation"
            raise UsageError(f"--resume and {other} contradict each other", "--resume with --steps or --minutes")
        if self.device_for is not None:
            gpu_named(self.device_for, "--for")
        self._check_idle()
        if dry_run:
            return
        if self.out is None:
            raise UsageError("no place to write to was given", "-o FOLDER, or --dry-run")
        for read in (self.deployment, self.images):
            if self.out.resolve() in (read.resolve(), *read.resolve().parents):
                raise UsageError(
                    f"-o {self.out} would replace {read}, which is read", "a new folder", "choose another -o"
                )
        if not self.resume:
            check_free(self.out, self.force, "a new folder", "choose another -o, or replace it with --force")

    def _check_idle(self) -> None:
        """Refuse options that would change nothing: those that differ from their default, and what they go with."""
        standard = {one.name: one.default for one in fields(self)}
        idle = {
            "without --steps or --minutes": () if self.trains else ("batch", "patch", "rate", "device"),
            "with --macs": () if self.macs is None else ("size", "threads"),
            "with --for": () if self.device_for is None else ("threads",),
        }
        for beside, names in idle.items():
            given = [f"--{name}" for name in names if getattr(self, name) != standard[name]]
            if given:
                raise UsageError(f"{', '.join(given)} has no meaning {beside}", "options that change something")

    def _check_budget(self, dry_run: bool) -> None:
        given = self._given()
        options = ", ".join(f"--{name}" for name in BUDGETS)
        if len(given) > 1 or (not given and not dry_run):
            found = " and ".join(f"--{name}" for name, _ in given) or "no budget"
            raise UsageError(f"{found} was given", f"exactly one of {options}")
        for name, value in given:
            if name == "psnr-budget" and not 0 < value < math.inf:
                raise UsageError(f"--{name} {value:g} is no loss to allow", "more than 0, in dB, such as 0.3")
            if name != "psnr-budget" and not 0 < value < 1:
                raise UsageError(f"--{name} {value:g} is no share of what there is", "between 0 and 1, such as 0.75")
        if self.macs is not None and self.device_for is not None:
            raise UsageError("--for has no meaning with --macs", "--time with --for DEVICE, or --macs alone")
