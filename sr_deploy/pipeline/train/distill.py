"""``srdeploy distill``: a network learns from a teacher or from originals, and becomes a checkpoint to export."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Callable, Dict, List, Optional, Sequence

from sr_deploy.core.artifact import atomic_file, check_can_write, check_free, sha256_of, write_json
from sr_deploy.core.errors import UsageError
from sr_deploy.pipeline.train.request import DistillRequest
from sr_deploy.pipeline.train.settle import Settled, lines_of, prepared

if TYPE_CHECKING:
    from sr_deploy.train.distill import DistillLearner, Judge
    from sr_deploy.train.loop import Moment


#: In the file and in its record.
MADE_BY = "srdeploy distill"


@dataclass(frozen=True)
class Distilled:
    """What came out: the checkpoint, and the record that lies beside it."""

    out: Path
    record: Dict[str, Any]


def distill(request: DistillRequest, say: Callable[[str], None] = lambda _: None) -> Distilled:
    """Train, and write the best state as OUT.safetensors, its record and its plot beside it.

    Raises:
        UsageError: see DistillRequest.check; a teacher of another scale; losses, features or sizes that are not there.
        BadInput: no, too few or too small pictures; a checkpoint that cannot be read.
        CheckFailed: the training diverged, or what was trained cannot be loaded again.
        KeyboardInterrupt, SystemExit: it was interrupted; the best so far is written, and ``--resume`` goes on.
    """
    from sr_deploy.train.distill import DistillLearner
    from sr_deploy.train.loop import Course, train

    request.check()
    _check_places(request)
    training = prepared(request, say)
    learner = DistillLearner(_lesson(training), training.options)
    keeping = _keeping(request, training, learner)
    for line in lines_of(training):
        say(line)
    course = Course(training.schedule, request.judge_every, keeping)
    try:
        end = train(learner, course, request.resume, say)
    except (KeyboardInterrupt, SystemExit):
        if learner.points:
            _written(request, training, learner, None)
            say(f"the best so far is in {request.out}; --resume goes on")
        raise
    record = _written(request, training, learner, end)
    keeping.file.unlink()
    return Distilled(request.out, record)


def plan_distill(request: DistillRequest, say: Callable[[str], None] = lambda _: None) -> List[str]:
    """What ``distill`` would do, as --dry-run says it; nothing is written."""
    request.check()
    return [*lines_of(prepared(request, say)), f"would write {request.out}"]


def _check_places(request: DistillRequest) -> None:
    """Nothing that took long to make is lost without being asked."""
    from sr_deploy.report.plots import check_suffix

    plot = _plot_of(request)
    check_suffix(plot)
    check_places(
        (request.out, record_of(request.out), plot), _state_of(request), request.resume, request.force,
        (request.student, request.teacher),
    )  # fmt: skip


def record_of(out: Path) -> Path:
    """Where the record of a checkpoint lies: beside it."""
    return out.with_suffix(".json")


def check_places(
    outs: Sequence[Path], state: Path, resume: bool, force: bool, read: Sequence[Optional[Path]] = ()
) -> None:
    """Refuse what would lose a training or a file, and what cannot be gone on with.

    Args:
        outs: all that is written at the end.
        state: of the training while it runs.
        resume, force: as they were asked for.
        read: what the training is made from, which --resume needs again; None is none.

    Raises:
        UsageError: nothing to resume, an unfinished training, one of ``outs`` exists or is what is read.
        EnvironmentFault: the place of the first cannot be written.
    """
    for path in outs:
        if any(one is not None and one.resolve() == path.resolve() for one in read):
            raise UsageError(f"{path} would be written over while it is read", "another place", "choose another -o")
    check_can_write(outs[0])
    if resume:
        if not state.is_file():
            raise UsageError(f"there is no state to resume at {state}", "an interrupted one", "start without --resume")
        return
    if state.is_file() and not force:
        raise UsageError(
            f"there is an unfinished training in {state}", "its place to be free",
            "--resume goes on with it, --force begins again",
        )  # fmt: skip
    for path in outs:
        check_free(path, force, "a new file", "choose another -o, or replace it with --force")


def _lesson(training: Settled) -> Any:
    from sr_deploy.train.distill import Lesson

    teacher, material = training.teacher, training.material
    return Lesson(
        training.student.loaded.module,
        training.student.loaded.value_range,
        material.lows,
        material.highs,
        None if teacher is None else teacher.module,
        1.0 if teacher is None else teacher.white,
        training.pairs,
        material.names,
    )


def _keeping(request: DistillRequest, training: Settled, learner: DistillLearner) -> Any:
    """The state's file, and what it must be of: all that decides what training gives, but for its length in time."""
    from sr_deploy.train.state import Keeping, key_of

    settings = {**_settings(training), "steps": request.steps, "judge_every": request.judge_every}
    weights = [value.detach().cpu().float().numpy() for value in learner.student.state_dict().values()]
    key = key_of([settings, training.material.sha256s], weights)
    return Keeping(_state_of(request), key, settings, "--resume goes on there", "begin again with --force")


def _settings(training: Settled) -> Dict[str, Any]:
    """Plain values that tell one training from another."""
    options, schedule = training.options, training.schedule
    pairs = training.pairs
    return {
        "loss": ",".join(map(str, options.terms)),
        "optimiser": dataclasses.asdict(options.optimiser) | {"betas": list(options.optimiser.betas)},
        "batch": options.batch,
        "patch": options.patch,
        "ema": options.ema,
        "lora": training.lora,
        "features": None if pairs is None else [list(pairs.student), list(pairs.teacher)],
        "affinity_rows": options.affinity_rows,
        "halvings": None if schedule.halvings is None else list(schedule.halvings),
        "seed": options.seed,
        "mixed": options.mixed,
        "teacher": None if training.teacher is None else training.teacher.sha256,
        "student": training.student.source,
    }


def _written(
    request: DistillRequest, training: Settled, learner: DistillLearner, end: Optional[Moment]
) -> Dict[str, Any]:
    """Write the best state, its record and its plot; gives the record. ``end`` is None where it was interrupted."""
    from safetensors.torch import save_file

    from sr_deploy.report.plots_training import distillation_plot
    from sr_deploy.train.lora import merge_changes

    learner.take_best()
    student = training.student
    merge_changes(student.loaded.module)
    tensors = student.proved()
    with atomic_file(request.out) as temporary:
        # One entry: the order of several is another in every process.
        save_file(tensors, str(temporary), metadata={"made_by": MADE_BY})
    best = learner.best_point()
    record = {
        "made_by": MADE_BY,
        "finished": end is not None,
        "sha256": sha256_of(request.out),
        "architecture": student.loaded.architecture,
        "scale": student.loaded.scale,
        "parameters": student.loaded.parameters,
        **_settings(training),
        "preset": training.preset.name,
        "pictures": {"about": training.material.about, "sha256": list(training.material.sha256s)},
        "steps": learner.points[-1].step if end is None else end.step,
        "seconds": round(learner.points[-1].seconds if end is None else end.seconds, 1),
        "best": _plain(best),
        "points": [_plain(point) for point in learner.points],
        "export": ["srdeploy", "export", str(request.out), *student.export_words],
    }
    write_json(record_of(request.out), record)
    title = f"{student.loaded.architecture} x{student.loaded.scale}: {','.join(map(str, training.options.terms))}"
    points = [(point.step, point.loss, point.psnr, point.fidelity) for point in learner.points]
    distillation_plot(points, best.step, _plot_of(request), title)
    return record


def _plain(point: Judge) -> Dict[str, Any]:
    values = dataclasses.asdict(point)
    return {name: None if value != value else value for name, value in values.items()}


def _state_of(request: DistillRequest) -> Path:
    return request.out.with_name(request.out.name + ".state")


def _plot_of(request: DistillRequest) -> Path:
    return request.plot or request.out.with_suffix(".png")
