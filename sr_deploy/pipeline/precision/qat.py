"""Fine-tuning a deployment's INT8 plan on pictures: ``DIR/precision/int8`` → ``DIR/precision/qat``."""

from __future__ import annotations

import dataclasses
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Callable, Dict, List, Optional, Tuple

import numpy as np

from sr_deploy.core.artifact import atomic_folder, sha256_of, write_json
from sr_deploy.core.contract import format_size, round_up
from sr_deploy.core.deployment.manifest import UNFINISHED_FOLDER, Deployment, GraphFile, open_deployment
from sr_deploy.core.deployment.plan import PLAN_NAME, Plan, open_plan, plan_file, save_plan
from sr_deploy.core.deployment.plan_report import FLOAT32_QUALITY_KEY, REPORT_NAME
from sr_deploy.core.errors import BadDeployment, UsageError
from sr_deploy.core.media.image import find_images, read_picture, to_network
from sr_deploy.core.quality.pairing import pair_images
from sr_deploy.core.quality.psnr_ssim import crop_like
from sr_deploy.core.temporary import sweep, temporary_folder
from sr_deploy.core.text import counted, decibels_lost
from sr_deploy.pipeline.precision.content import graphics_to_fit, spread
from sr_deploy.pipeline.precision.deployed_plan import CONTENT, check_content
from sr_deploy.pipeline.precision.make_plan import known_ranges, report_of
from sr_deploy.pipeline.precision.plan_forms import write_lowered
from sr_deploy.pipeline.precision.plan_inputs import PrecisionOptions, Workbench, workbench
from sr_deploy.pipeline.precision.plan_needs import plannable
from sr_deploy.pipeline.training import check_minutes, torch_device
from sr_deploy.precision.evaluate import Judged, losses_of
from sr_deploy.train.patches import check_pictures

NAME = "qat"
#: dB that correcting the biases after training may cost.
NOTHING_LOST = 0.003


@dataclass(frozen=True)
class QatRequest:
    """What ``srdeploy qat`` is asked for.

    Attributes:
        deployment: the folder.
        images: a folder of low-resolution photographs; no originals are needed.
        steps, batch, patch, minutes, seed: see precision/fit/qat_learner.py's QatOptions.
        rate: of the weights; None takes the default.
        teacher: the network to follow: a checkpoint, a deployment or an ONNX file; None takes the deployment's own
            float32 graph.
        hr: originals of the images.
        device: "auto", "cpu" or "cuda".
        resume: go on with an unfinished one.
        force: begin again though there is an unfinished or a finished one.
        content: one of deployed_plan.CONTENTS: whether graphics made here are trained on and judged too.
    """

    deployment: Path
    images: Path
    steps: int = 1000
    batch: int = 4
    patch: int = 48
    minutes: Optional[float] = None
    rate: Optional[float] = None
    teacher: Optional[Path] = None
    hr: Optional[Path] = None
    device: str = "auto"
    seed: int = 0
    resume: bool = False
    force: bool = False
    content: str = CONTENT


@dataclass(frozen=True)
class QatResult:
    """Where the fine-tuned plan lies, and its report (JSON-able)."""

    folder: Path
    plan: Plan
    report: Dict[str, Any]


def fine_tune_deployment(request: QatRequest, say: Callable[[str], None] = lambda _: None) -> QatResult:
    """Fine-tune the INT8 plan and write it with its report and its plot.

    Raises:
        BadDeployment: no INT8 plan yet, one of another graph, or a graph of 8-bit or fixed inputs.
        BadInput: no, too few or too small pictures, or originals without partners.
        UsageError: nothing to resume, something that would be lost, or options that cannot be.
        CheckFailed: the training diverged.
    """
    from sr_deploy.precision.fit.qat import fine_tune
    from sr_deploy.precision.fit.qat_learner import Lesson

    _check(request)
    deployment = open_deployment(request.deployment)
    graph = plannable(deployment)
    if graph.size is not None:
        raise BadDeployment(
            f"{graph.file} takes {format_size(graph.size)} only, and is trained on patches",
            "a graph for any size",
            "export the network without --size",
        )
    if deployment.manifest.contract.dtype != "float32":
        raise BadDeployment(
            f"{deployment.folder} takes 8-bit pictures, and the rounding inside its graph has no gradient",
            "a deployment that takes floats",
            "export the network without --io uint8",
        )
    plan, weights = _start(deployment, graph)
    options = _options(request, deployment)
    state = deployment.precision_folder / UNFINISHED_FOLDER
    folder = deployment.precision_folder / NAME
    _make_room(request, folder, state)
    images, originals, names = _pictures(request, deployment)
    check_pictures(images, options.patch, names=names)
    graphics = graphics_to_fit(request.content, len(images), deployment, graph)
    graphics = dataclasses.replace(graphics, side=max(graphics.side, options.patch))
    names = spread(names, [f"{name} (graphics)" for name, _ in graphics.pictures()])
    images = spread(images, list(graphics.inputs(deployment.manifest.contract)))
    if originals is not None:
        originals = spread(originals, list(graphics.originals(deployment.manifest.contract)))
    teacher = None if request.teacher is None else _teacher(request.teacher, deployment, say)
    bench = workbench(deployment, graph, PrecisionOptions("int8", images=request.images, content=request.content), say)
    before = bench.judged(plan, weights)
    say(f"before: {losses_of(before)}, on {counted(before.pictures, 'picture')}")
    value_range = deployment.manifest.contract.value_range
    lesson = Lesson(bench.model, plan, weights, images, value_range, teacher, originals, names)
    tuned = fine_tune(lesson, options, folder=state, resume=request.resume, say=say)
    after = bench.judged(tuned.plan, tuned.weights)
    tuned, after = _colours_kept(bench, tuned, after, images, say)
    result = _written(folder, tuned, (before, after), bench, options, deployment, say)
    shutil.rmtree(state, ignore_errors=True)
    return result


def _colours_kept(
    bench: Workbench, tuned: Any, after: Judged, images: List[np.ndarray], say: Callable[[str], None]
) -> Tuple[Any, Judged]:
    """Correct the biases once more where that brings the colours nearer to float32 and costs nothing.

    Training minds single pixels; a shift of a whole channel that is smaller than a pixel's noise it hardly sees.
    """
    from sr_deploy.precision.fit.bias_correction import corrected_bias

    weights = corrected_bias(bench.model, tuned.plan, tuned.weights, images)
    found = bench.judged(tuned.plan, weights)
    if found.mean_shift >= after.mean_shift or found.loss > after.loss + NOTHING_LOST:
        return tuned, after
    note = f"biases corrected after training: colour shift {after.mean_shift:.3f} → {found.mean_shift:.3f}"
    say(note)
    plan = dataclasses.replace(tuned.plan, notes=(*tuned.plan.notes, note))
    return dataclasses.replace(tuned, plan=plan, weights=weights), found


def _check(request: QatRequest) -> None:
    for name in ("steps", "batch"):
        if getattr(request, name) < 1:
            raise UsageError(f"--{name} {getattr(request, name)} trains nothing", "1 or more")
    if request.patch < 8:
        raise UsageError(f"--patch {request.patch} shows the network almost nothing", "8 or more, in pixels")
    check_minutes(request.minutes)
    if request.rate is not None and not 0 < request.rate < 1:
        raise UsageError(f"--rate {request.rate:g} is not a learning rate", "a number between 0 and 1, such as 1e-4")
    if request.resume and request.force:
        raise UsageError("--resume and --force contradict each other", "one of them", "leave one of them out")
    check_content(request.content)


def _start(deployment: Deployment, graph: GraphFile) -> Tuple[Plan, Dict[str, np.ndarray]]:
    folder = deployment.precision_folder / "int8"
    if not plan_file(folder).is_file():
        raise BadDeployment(
            f"{deployment.folder} has no INT8 plan to start from",
            f"{folder / PLAN_NAME}",
            f"srdeploy build {deployment.folder} --precision int8 --images FOLDER",
        )
    plan, weights = open_plan(folder)
    if plan.graph_sha256 != graph.sha256:
        raise BadDeployment(
            f"{folder / PLAN_NAME} was made for another graph: {plan.graph_sha256[:12]}…",
            f"a plan for {graph.file}, {graph.sha256[:12]}…",
            f"srdeploy build {deployment.folder} --precision int8 --images FOLDER makes it again",
        )
    return plan, weights


def _make_room(request: QatRequest, folder: Path, state: Path) -> None:
    """Nothing that took long to make is lost without being asked."""
    from sr_deploy.precision.fit.qat import STATE_NAME

    sweep(folder.parent)
    unfinished = (state / STATE_NAME).is_file()
    if request.resume and not unfinished:
        raise UsageError(
            f"there is no unfinished fine-tuning in {state}", "one that was interrupted", "start without --resume"
        )
    if not request.resume and not request.force and (unfinished or (folder / PLAN_NAME).is_file()):
        found = f"an unfinished fine-tuning in {state}" if unfinished else f"a fine-tuned plan in {folder}"
        raise UsageError(
            f"there is {found}",
            "its place to be free",
            ("--resume goes on with it, " if unfinished else "") + "--force begins again",
        )
    if not unfinished:
        # Left by a process that was killed. With --force an unfinished one stays until the first state of the new one.
        shutil.rmtree(state, ignore_errors=True)


def _pictures(
    request: QatRequest, deployment: Deployment
) -> Tuple[List[np.ndarray], Optional[List[np.ndarray]], List[str]]:
    """Pictures, their originals where there are any, and names of the files of the first."""
    contract, scale = deployment.manifest.contract, deployment.manifest.scale
    if request.hr is None:
        files = find_images([request.images])
        return [to_network(read_picture(file), contract) for file in files], None, [str(file) for file in files]
    lows, highs, names = [], [], []
    for _, low, high in pair_images(request.images, request.hr, scale):
        names.append(str(low))
        small, large = read_picture(low), read_picture(high)
        lows.append(to_network(small, contract))
        shape = np.empty((small.size[0] * scale, small.size[1] * scale, 0), np.uint8)
        cut = dataclasses.replace(large, pixels=crop_like(large.pixels, shape, str(high)), alpha=None)
        highs.append(to_network(cut, contract))
    return lows, highs, names


def _teacher(path: Path, deployment: Deployment, say: Callable[[str], None]) -> Any:
    """The float32 graph of a checkpoint, a deployment or an ONNX file, of the same scale and value range."""
    from sr_deploy.graph.specialise import load_graph
    from sr_deploy.pipeline.export import ExportOptions, export_deployment
    from sr_deploy.pipeline.load import LoadOptions, is_graph

    if not Path(path).exists():
        raise UsageError(f"the teacher {path} does not exist", "a checkpoint, a deployment or an ONNX file")
    # Of an ONNX file that leaves it open, the value range must be the student's; another's contract is refused below.
    load = LoadOptions(value_range=deployment.manifest.contract.value_range) if is_graph(path) else LoadOptions()
    with temporary_folder() as folder:
        say(f"teacher: {path}")
        taught = (
            open_deployment(path)
            if Path(path).is_dir()
            else export_deployment(ExportOptions(Path(path), folder / "teacher", load=load))
        )
        for name, mine, other in (
            ("scale", deployment.manifest.scale, taught.manifest.scale),
            ("contract", deployment.manifest.contract, taught.manifest.contract),
        ):
            if mine != other:
                raise UsageError(f"the teacher {path} has the {name} {other}", f"{mine}, as {deployment.folder} has")
        return load_graph(taught.path_of(taught.graph_for()))


def _options(request: QatRequest, deployment: Deployment) -> Any:
    from sr_deploy.precision.fit.qat_learner import QatOptions

    device = torch_device(request.device)
    multiple = deployment.manifest.sizes.multiple
    default = QatOptions()
    return dataclasses.replace(
        default,
        steps=request.steps,
        batch=request.batch,
        patch=round_up(request.patch, multiple),
        judged_patch=round_up(default.judged_patch, multiple),
        minutes=request.minutes,
        weight_rate=default.weight_rate if request.rate is None else request.rate,
        seed=request.seed,
        device=device,
    )


def _written(
    folder: Path,
    tuned: Any,
    judged: Tuple[Judged, Judged],
    bench: Workbench,
    options: Any,
    deployment: Deployment,
    say: Callable[[str], None],
) -> QatResult:
    """Write the plan, its report, its plot and its lowered forms; ``judged`` is before and after."""
    from sr_deploy.report.plots_training import training_plot

    plan, (before, after) = tuned.plan, judged
    if after.loss > before.loss:
        note = (
            f"fine-tuning made it worse on the pictures it was judged on: {decibels_lost(before.loss)} before, "
            f"{decibels_lost(after.loss)} after; --precision int8 builds the plan that it started from"
        )
        say(note)
        plan = dataclasses.replace(plan, notes=(*plan.notes, note))
    points = [dataclasses.asdict(point) for point in tuned.points]
    for point in points:
        point["loss"] = None if point["loss"] != point["loss"] else point["loss"]
    report = {
        "loss_db_before": round(before.loss, 4),
        "loss_db": round(after.loss, 4),
        "worst_loss_db_before": round(before.worst.loss, 4),
        "worst_loss_db": round(after.worst.loss, 4),
        "worst_picture": after.worst.name,
        FLOAT32_QUALITY_KEY: round(after.reference_psnr, 4),
        "mean_shift": round(after.mean_shift, 4),
        "pictures": after.pictures,
        "seconds": round(tuned.seconds, 1),
        "best_step": tuned.best.step,
        "options": dataclasses.asdict(options),
        "points": points,
    }
    say(f"after: {losses_of(after)}")
    with atomic_folder(folder, force=True) as temporary:
        plan = save_plan(temporary, plan, tuned.weights)
        write_json(temporary / "training.json", report)
        training_plot(
            [(point.step, point.loss, point.psnr) for point in tuned.points], temporary / "training.png",
            f"Fine-tuning {deployment.manifest.architecture} for INT8",
        )  # fmt: skip
        ranges = known_ranges(deployment, bench.graph, plan)
        facts = {**report_of(bench, plan, after), **write_lowered(temporary, bench.model, plan, tuned.weights, ranges)}
        write_json(temporary / REPORT_NAME, {**facts, "plan_sha256": sha256_of(temporary / PLAN_NAME)})
    return QatResult(folder, plan, report)
