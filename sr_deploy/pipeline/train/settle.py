"""Every choice of a distillation, settled before it begins: who learns, from whom, on what, and how."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Callable, List, Optional, Tuple

from sr_deploy.core.contract import round_up
from sr_deploy.core.errors import UsageError
from sr_deploy.core.names import row_named
from sr_deploy.pipeline.train.pictures import Material, material_of
from sr_deploy.pipeline.train.request import DEFAULT_MINUTES, DistillRequest
from sr_deploy.pipeline.train.student import Student, student_of, training_of
from sr_deploy.pipeline.train.teacher import Teacher, teacher_of
from sr_deploy.pipeline.training import torch_device

if TYPE_CHECKING:
    from sr_deploy.train.distill import DistillOptions
    from sr_deploy.train.features import FeaturePairs
    from sr_deploy.train.losses.table import Term
    from sr_deploy.train.presets import Preset
    from sr_deploy.train.schedule import Schedule

#: The last rate of a cosine as a share of the highest; steps of its warm-up.
_FLOOR, _WARM_UP = 0.01, 50
#: Of ``--schedule step`` where the preset has none: shares of the schedule.
_HALVINGS = (0.5, 0.75, 0.9)


@dataclass(frozen=True)
class Settled:
    """Everything that a training is of.

    Attributes:
        student, teacher, material: who learns, from whom (None: from originals), on what.
        preset: whose settings it has.
        options, schedule: how it goes.
        pairs: modules whose features are compared; None: none are.
        changed: names of convolutions that have low-rank changes; () trains all weights.
    """

    student: Student
    teacher: Optional[Teacher]
    material: Material
    preset: Preset
    options: DistillOptions
    schedule: Schedule
    pairs: Optional[FeaturePairs]
    lora: str
    changed: Tuple[str, ...]


def prepared(request: DistillRequest, say: Callable[[str], None]) -> Settled:
    """Load everything, and settle every choice."""
    import torch

    from sr_deploy.train.lora import add_changes, lora_of
    from sr_deploy.train.objective import check_terms
    from sr_deploy.train.presets import PRESETS

    preset, device = row_named("preset", request.preset, PRESETS), torch_device(request.device, request.mixed)
    teacher = None if request.teacher is None else teacher_of(request.teacher, say)
    student = student_of(
        request.student, request.load, request.sizes, None if teacher is None else teacher.scale, request.seed
    )
    scale = student.loaded.scale
    if teacher is not None and teacher.scale != scale:
        raise UsageError(
            f"the teacher enlarges x{teacher.scale}, the student x{scale}",
            f"a teacher of x{scale}",
            f"take another teacher; a new student takes --scale {teacher.scale}",
        )
    student.proved()
    freeze(student)
    material = material_of(request.images, request.hr, scale)
    terms = _terms(request, preset, material.highs is not None)
    check_terms(terms, teacher is not None, material.highs is not None)
    pairs = _pairs(request, student, teacher, terms)
    options = _options(request, preset, student, teacher, terms, device)
    lora = _lora(request, preset)
    torch.manual_seed(request.seed)
    changed = add_changes(student.loaded.module, lora_of(lora)) if lora else ()
    return Settled(student, teacher, material, preset, options, _schedule(request, preset), pairs, lora, changed)


def lines_of(training: Settled) -> List[str]:
    """The training in words."""
    options, schedule, optimiser = training.options, training.schedule, training.options.optimiser
    length = [f"{schedule.steps} steps"] if schedule.steps is not None else []
    length += [f"{schedule.minutes:g} min"] if schedule.minutes is not None else []
    halved = schedule.halvings and "halved at " + ", ".join(f"{share:.0%}" for share in schedule.halvings)
    rates = halved or "half a cosine"
    trained = sum(one.numel() for one in training.student.loaded.module.parameters() if one.requires_grad)
    lines = [
        f"student  {training.student.about}; {trained:,} weights are trained",
        "teacher  " + ("none: the originals teach" if training.teacher is None else training.teacher.about),
        f"pictures {training.material.about}",
        f"loss     {','.join(map(str, options.terms))}",
        f"preset   {training.preset.name}: {training.preset.about}",
        f"training {' or '.join(length)}, {optimiser.name} {optimiser.rate:g}, {rates}, batch {options.batch}, "
        f"patch {options.patch}, ema {options.ema:g}, {options.device}{', bfloat16' if options.mixed else ''}",
    ]
    if training.preset.steps is not None:
        lines.append(f"note: the paper took {training.preset.steps:,} steps")
    if training.changed:
        lines.append(f"lora     {training.lora} on {len(training.changed)} convolutions; all else is frozen")
    if training.pairs is not None:
        pairs = zip(training.pairs.student, training.pairs.teacher)
        lines.append("features " + ", ".join(f"{one}={other}" for one, other in pairs))
    return lines


def freeze(student: Student) -> None:
    """Train every weight but those that are stored and fixed."""
    fixed = training_of(student.loaded).fixed
    for name, parameter in student.loaded.module.named_parameters():
        parameter.requires_grad_(not any(part in name for part in fixed))


def _lora(request: DistillRequest, preset: Preset) -> str:
    """As ``--lora`` says, or the preset; "" trains all weights.

    Raises:
        UsageError: of a network that begins with random weights.
    """
    lora = request.wanted.lora if request.wanted.lora is not None else preset.lora
    if lora in (None, "none"):
        return ""
    if request.student is None and request.load.factory is None:
        raise UsageError(
            f"--lora {lora} freezes a network that has learnt nothing yet",
            "a checkpoint to change",
            "give a checkpoint as STUDENT, or --lora none",
        )
    return str(lora)


def _terms(request: DistillRequest, preset: Preset, originals: bool) -> Tuple[Term, ...]:
    from sr_deploy.train.losses.table import terms_of

    if request.wanted.loss is not None:
        return terms_of(request.wanted.loss)
    return terms_of(preset.loss if originals else preset.unlabelled)


def _pairs(
    request: DistillRequest, student: Student, teacher: Optional[Teacher], terms: Tuple[Term, ...]
) -> Optional[FeaturePairs]:
    from sr_deploy.train.features import default_pairs, pairs_of

    if request.affinity_rows and not any(term.loss.name == "affinity" for term in terms):
        raise UsageError("--affinity-rows has no meaning without that loss", "such as --loss l1=1,affinity=1")
    if not any(term.loss.kind == "features" for term in terms):
        if request.features:
            raise UsageError("--features has no meaning without a loss of features", "such as --loss l1=1,at=1")
        return None
    assert teacher is not None, "check_terms has asked for one"
    if request.features:
        return pairs_of(request.features)
    patterns = (training_of(student.loaded).features, teacher.features)
    return default_pairs(student.loaded.module, teacher.module, patterns)


def _options(
    request: DistillRequest,
    preset: Preset,
    student: Student,
    teacher: Optional[Teacher],
    terms: Tuple[Term, ...],
    device: str,
) -> DistillOptions:
    from sr_deploy.train.distill import DistillOptions

    wanted, sizes = request.wanted, [student.loaded.sizes] + ([] if teacher is None else [teacher.sizes])
    multiple = math.lcm(*(rule.multiple for rule in sizes))
    least = max(rule.minimum for rule in sizes)
    patch = _patch(wanted.patch, round_up(max(preset.patch_at(student.loaded.scale), least), multiple), multiple, least)
    batch = wanted.batch or preset.batch
    for term in terms:
        side = patch * student.loaded.scale
        if side % term.loss.multiple or side < term.loss.smallest:
            raise UsageError(
                f"--loss {term} cannot be taken of squares of {side} pixels",
                f"a multiple of {term.loss.multiple}, {term.loss.smallest} or more, in high-resolution pixels",
                f"--patch {_fitting(patch, student.loaded.scale, term, multiple)}",
            )
        if batch < term.loss.batch:
            raise UsageError(f"--loss {term} cannot be taken of {batch} square", f"--batch {term.loss.batch} or more")
    optimiser = dataclasses.replace(
        preset.optimiser,
        name=wanted.optimiser or preset.optimiser.name,
        rate=preset.optimiser.rate if wanted.rate is None else wanted.rate,
    )
    judged = round_up(max(DistillOptions.judged_patch, least), multiple)
    return DistillOptions(
        terms, optimiser, batch, patch, preset.ema if wanted.ema is None else wanted.ema, judged, multiple,
        request.affinity_rows, request.seed, device, request.mixed,
    )  # fmt: skip


def _patch(asked: Optional[int], preset: int, multiple: int, least: int) -> int:
    if asked is None:
        return preset
    if asked % multiple or asked < least:
        raise UsageError(
            f"--patch {asked} does not fit the networks", f"a multiple of {multiple}, {least} or more",
            f"--patch {round_up(max(asked, least), multiple)}",
        )  # fmt: skip
    return asked


def _fitting(patch: int, scale: int, term: Term, multiple: int) -> int:
    """The next side, in low-resolution pixels, that a loss and the networks take."""
    while (patch * scale) % term.loss.multiple or patch * scale < term.loss.smallest or patch % multiple:
        patch += 1
    return patch


def _schedule(request: DistillRequest, preset: Preset) -> Schedule:
    from sr_deploy.train.schedule import Schedule

    steps, minutes = request.steps, request.minutes
    if steps is None and minutes is None:
        minutes = DEFAULT_MINUTES
    halvings = preset.halvings
    if request.wanted.schedule is not None:
        halvings = None if request.wanted.schedule == "cosine" else preset.halvings or _HALVINGS
    return Schedule(steps, minutes, _WARM_UP, _FLOOR, halvings)
