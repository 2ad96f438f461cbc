"""A plan that lies in a deployment with its graphs for every kind of TensorRT: what a build takes, also on a board.

DIR/precision/int8/plan.json          types, reasons and scales; weights.npz beside it
                   model.onnx         the typed graph: TensorRT 10 and 11, TensorRT-RTX, ONNX Runtime
                   simulated.onnx     for ONNX Runtime, of a plan with bfloat16: float32, rounded to it
                   legacy.onnx        float32 with Q/DQ: TensorRT 8.5 and 8.6, with the types in legacy.json
                   calibration.cache  scales for TensorRT 8.5 without Q/DQ, and for trtexec --calib
                   implicit.onnx      the graph that the cache is for, of a plan with channel factors
                   report.json        what was measured
"""

from __future__ import annotations

import dataclasses
import math
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Dict, Iterable, Mapping, Optional

from sr_deploy.core.artifact import sha256_of
from sr_deploy.core.deployment.external_data import check_self_contained
from sr_deploy.core.deployment.manifest import CALIBRATION_FOLDER, UNFINISHED_FOLDER, Deployment, GraphFile
from sr_deploy.core.deployment.plan import PLAN_NAME, Plan, open_plan, plan_file
from sr_deploy.core.deployment.plan_report import REPORT_NAME, read_layer_types, read_plan_report
from sr_deploy.core.deployment.target import Target
from sr_deploy.core.errors import BadDeployment, UsageError
from sr_deploy.core.names import check_name
from sr_deploy.core.number_formats import BFLOAT16, ENGINE_PRECISIONS, FLOAT32, FORMATS
from sr_deploy.precision.calibrate.ranges import METHOD, METHODS

TYPED_NAME, LEGACY_NAME, LEGACY_TYPES_NAME = "model.onnx", "legacy.onnx", "legacy.json"
#: The typed graph with bfloat16 as rounded float32; only of a plan that has it.
SIMULATED_NAME = "simulated.onnx"
CACHE_NAME = "calibration.cache"
#: The float32 graph that the cache is for, where it is not the deployment's own: of a plan with channel factors.
IMPLICIT_NAME = "implicit.onnx"
#: What ``--content`` may be: pictures that a plan shall suit. The user's own are used with each; for "graphics" and
#: "any" the tool adds graphics that it makes itself, see content.py.
CONTENTS = ("photo", "graphics", "any")
CONTENT = "any"
#: Option of a plan → how the command line spells what is not its default.
FLAGS = {
    "budget": "--psnr-budget", "mean_budget": "--mean-budget", "content": "--content", "images": "--images",
    "lr": "--lr", "hr": "--hr", "method": "--method", "improve": "--no-fit", "spectral_half": "--allow-fp16-spectral",
    "half_times": "--fp16-times", "int8_times": "--int8-times", "remake": "--remake-plan",
}  # fmt: skip
#: Precisions in which nothing is calibrated or fitted, the options that mean nothing to them, and what those are for.
_FLOATING = tuple(one.precision for one in FORMATS if one.floating)
_OF_8_BITS, _EIGHT = ("method", "improve"), "--precision int8, fp8 or auto with it"
#: Options that mean nothing beside a plan that is given.
_OF_NEW_PLANS = ("method", "improve", "spectral_half")
#: Folders of ``DIR/precision`` that hold no plan.
RESERVED = (CALIBRATION_FOLDER, UNFINISHED_FOLDER)


@dataclass(frozen=True)
class PrecisionOptions:
    """How a plan is to be made.

    Attributes:
        precision: one of PLAN_PRECISIONS.
        budget: dB of PSNR-Y that any picture may lose; None: no limit. "auto" needs this or ``mean_budget``.
        images: photographs to calibrate with, to fit weights on and to judge on. Without them INT8 needs a calibration
            and ``improve`` False, and the demo's photograph is judged on.
        lr, hr: pairs to judge on instead of shrunk photographs.
        method: of calibration, see precision/calibrate/ranges.py.
        improve: correct biases and learn roundings; False is plain calibration.
        spectral_half: let Fourier units compute in float16 too.
        plan: a plan to use instead of making one.
        remake: make the plan again though there is one.
        target: what it is for: "auto" takes of the types that it has. None: INT8 and float16, which all have.
        half_times, int8_times: for "auto", trtexec's profiles of the float16 and of the INT8 engine; see
            pipeline/precision/layer_savings.py.
        mean_budget: dB of PSNR-Y that may be lost in the mean over the pictures; None: 0.01 for "fp16" without any
            budget, else no limit.
        content: one of CONTENTS: what the plan shall suit.
    """

    precision: str
    budget: Optional[float] = None
    images: Optional[Path] = None
    lr: Optional[Path] = None
    hr: Optional[Path] = None
    method: str = METHOD
    improve: bool = True
    spectral_half: bool = False
    plan: Optional[Path] = None
    remake: bool = False
    half_times: Optional[Path] = None
    int8_times: Optional[Path] = None
    mean_budget: Optional[float] = None
    content: str = CONTENT
    target: Optional[Target] = None

    @property
    def bounded(self) -> bool:
        """Whether anything was said about what may be lost."""
        return self.budget is not None or self.mean_budget is not None

    def kept_by(self, report: Mapping[str, Any]) -> bool:
        """Whether the plan of this report keeps the budgets, by what was measured when it was made."""
        worst = report.get("worst_loss_db", report.get("loss_db", math.inf))
        return (self.budget is None or worst <= self.budget) and (
            self.mean_budget is None or report.get("loss_db", math.inf) <= self.mean_budget
        )


@dataclass(frozen=True)
class Planned:
    """A plan that was proved, with what was lowered from it.

    Attributes:
        folder: where it lies.
        plan: see core/deployment/plan.py.
        report: what was measured, JSON-able.
        sha256: of its ``plan.json``.
    """

    folder: Path
    plan: Plan
    report: Dict[str, Any]
    sha256: str

    @property
    def typed(self) -> Path:
        """The typed graph."""
        return self.folder / TYPED_NAME

    @property
    def simulated(self) -> Path:
        """The graph for a runtime without kernels for bfloat16; the typed one where the plan has none."""
        return self.folder / SIMULATED_NAME if BFLOAT16.name in self.plan.formats else self.typed

    @property
    def cache(self) -> Path:
        """The calibration cache; it need not be there."""
        return self.folder / CACHE_NAME

    @property
    def precision(self) -> str:
        """What engines of it are called: one of PLAN_PRECISIONS."""
        return self.plan.precision

    @property
    def identity(self) -> Dict[str, str]:
        """Its name and hash, for the settings in an engine's manifest."""
        return {"plan": self.folder.name, "plan_sha256": self.sha256}

    def legacy(self, implicit: bool) -> Dict[str, str]:
        """Node → type that TensorRT 8 must obey.

        Args:
            implicit: for a build with the calibration cache instead of Q/DQ.

        Raises:
            BadDeployment: the plan could not be lowered for TensorRT 8; the message says why.
        """
        path = self.folder / LEGACY_TYPES_NAME
        if not path.is_file():
            raise BadDeployment(
                f"{self.folder} has no graph for TensorRT 8: {self.report.get('legacy', 'none was written')}",
                f"{LEGACY_NAME} and {LEGACY_TYPES_NAME}",
                "export the network with --target xavier-nx and make the plan again",
            )
        return read_layer_types(path)["implicit" if implicit else "explicit"]


def find_planned(deployment: Deployment, name: str) -> Optional[Planned]:
    """The plan of that name that the deployment holds; None when there is none.

    Raises:
        BadDeployment: it is damaged, or of a graph that the deployment does not have.
    """
    folder = deployment.precision_folder / name
    path = plan_file(folder)
    if not path.is_file():
        return None
    planned = Planned(folder, open_plan(folder)[0], dict(read_plan_report(folder)), sha256_of(path))
    graph_of(deployment, planned)
    for path in (planned.typed, planned.simulated):
        if not path.is_file():
            raise BadDeployment(f"{path} is missing", "the typed graph of the plan", "make it with --remake-plan")
    for path in (planned.typed, planned.simulated, folder / LEGACY_NAME, folder / IMPLICIT_NAME):
        if path.is_file():
            check_self_contained(path)
    return planned


def graph_of(deployment: Deployment, planned: Planned) -> GraphFile:
    """The float32 graph that a plan was made for.

    Raises:
        BadDeployment: the deployment does not have it.
    """
    for graph in deployment.manifest.graphs:
        if graph.sha256 == planned.plan.graph_sha256:
            return graph
    have = ", ".join(f"{graph.file} {graph.sha256[:12]}…" for graph in deployment.manifest.graphs)
    raise BadDeployment(
        f"{planned.folder / PLAN_NAME} was made for another graph: {planned.plan.graph_sha256[:12]}…",
        f"a plan for one of {have}",
        f"make it again: srdeploy build {deployment.folder} --precision … --remake-plan",
    )


def ready_plan(deployment: Deployment, options: PrecisionOptions) -> Optional[Planned]:
    """The plan that lies in the deployment and is what is asked for; None when one must be made.

    Needs neither onnx nor pictures, so that a board can build what was planned on a PC.

    Raises:
        UsageError: options that contradict each other.
        BadDeployment: see ``find_planned``.
    """
    check_options(options)
    if options.remake:
        return None
    folder = deployment.precision_folder / folder_name(options)
    if options.plan is not None and not _lies_in(options.plan, folder):
        return None
    found = find_planned(deployment, folder.name)
    if found is None:
        return None
    lowered = found.report.get("plan_sha256") == found.sha256
    if options.plan is not None:
        return found if lowered and options.kept_by(found.report) else None
    if not _asked_alike(found.report.get("request", {}), options):
        return None
    if not lowered:
        raise BadDeployment(
            f"{folder / PLAN_NAME} was changed after its graphs were made",
            "the plan that they were made from",
            f"build with the changed plan: --plan {folder}; or make it again: --remake-plan",
        )
    return found


def _lies_in(given: Path, folder: Path) -> bool:
    """Whether the plan given is the one in ``folder``, with its graphs; a fine-tuned one has none at first."""
    return plan_file(given).resolve() == (folder / PLAN_NAME).resolve() and (folder / REPORT_NAME).is_file()


def check_options(options: PrecisionOptions) -> None:
    """Raises UsageError for options that do not go together, or that would mean nothing."""
    if options.plan is not None:
        _refuse(options, _OF_NEW_PLANS, "the making of a plan, and --plan takes one", "no --plan with it")
    elif options.precision in _FLOATING:
        _refuse(options, _OF_8_BITS, f"types of 8 bits, and --precision is {options.precision}", _EIGHT)
    check_name("calibration method", options.method, METHODS)
    for name, budget in (("psnr", options.budget), ("mean", options.mean_budget)):
        if budget is not None and not 0 <= budget < math.inf:
            raise UsageError(f"--{name}-budget {budget:g} is no number of dB to keep", "0 or more, such as 0.1")
    if options.precision == "auto" and not options.bounded and options.plan is None:
        raise UsageError(
            "--precision auto needs to know what may be lost", "--psnr-budget or --mean-budget in dB, such as 0.1"
        )
    check_content(options.content)
    if (options.lr is None) != (options.hr is None):
        raise UsageError("--lr and --hr belong together", "both folders, or neither")
    times = (options.half_times, options.int8_times)
    if any(times) and (options.precision != "auto" or not all(times)):
        raise UsageError("--fp16-times and --int8-times belong together, and to --precision auto", "both files with it")


def _refuse(options: PrecisionOptions, names: Iterable[str], meant: str, wanted: str) -> None:
    """Raise UsageError where one of these options was given.

    Args:
        options: what was asked for.
        names: keys of FLAGS.
        meant: what they are for, and what was asked for instead.
        wanted: what they go with.
    """
    default = PrecisionOptions(options.precision)
    given = [FLAGS[name] for name in names if getattr(options, name) != getattr(default, name)]
    if given:
        raise UsageError(f"{' and '.join(given)}: only for {meant}", wanted, f"leave out {' and '.join(given)}")


def check_content(content: str) -> None:
    """Raises UsageError for a content that does not exist."""
    check_name("content", content, CONTENTS)


def folder_name(options: PrecisionOptions) -> str:
    """Where a plan lies under ``DIR/precision``: under its precision.

    One that was given lies under its file's name, without the suffix, or for a ``plan.json`` under its folder's.

    Raises:
        UsageError: that name cannot be a folder there.
    """
    if options.plan is None:
        return options.precision
    path = options.plan.resolve()
    name = path.name if path.is_dir() else path.parent.name if path.name == PLAN_NAME else path.stem
    if not re.fullmatch(r"[A-Za-z0-9_]([A-Za-z0-9_.-]{0,30}[A-Za-z0-9_])?", name) or name in RESERVED:
        raise UsageError(
            f"the plan {options.plan} would be kept under the name {name!r}",
            "a name of letters, digits, _ . and -, other than " + " and ".join(RESERVED),
            "rename the file or its folder",
        )
    return name


def request_of(options: PrecisionOptions) -> Dict[str, Any]:
    """What a stored plan must have been asked for to be taken again."""
    free = ("remake", "plan", "target")
    asked = {key: value for key, value in dataclasses.asdict(options).items() if key not in free}
    return {key: str(value) if isinstance(value, Path) else value for key, value in asked.items()}


def _asked_alike(stored: Mapping[str, Any], options: PrecisionOptions) -> bool:
    """Whether a stored plan was asked for with all that is asked for now; what is left open now, it may have had."""
    default = request_of(PrecisionOptions(options.precision))
    return all(value in (default[key], stored.get(key)) for key, value in request_of(options).items())


def precision_options(
    precision: Optional[str],
    plan: Optional[Path],
    budget: Optional[float] = None,
    images: Optional[Path] = None,
    lr: Optional[Path] = None,
    hr: Optional[Path] = None,
    method: str = METHOD,
    improve: bool = True,
    spectral_half: bool = False,
    remake: bool = False,
    half_times: Optional[Path] = None,
    int8_times: Optional[Path] = None,
    mean_budget: Optional[float] = None,
    content: str = CONTENT,
) -> Optional[PrecisionOptions]:
    """What the options of ``build`` ask for; None is float32.

    Raises:
        UsageError: options of a plan without a precision, or a plan of another precision than the one asked for.
        BadDeployment: the plan given cannot be read.
    """
    if plan is not None:
        own = open_plan(plan)[0].precision
        if precision not in (None, own):
            raise UsageError(
                f"{plan} is a plan for {own}, and --precision is {precision}", "one precision", "leave out --precision"
            )
        precision = own
    options = PrecisionOptions(
        check_name("precision", precision or FLOAT32.precision, ENGINE_PRECISIONS), budget, images, lr, hr, method,
        improve, spectral_half, plan, remake, half_times, int8_times, mean_budget, content,
    )  # fmt: skip
    if options.precision == FLOAT32.precision:
        _refuse(options, FLAGS, "lower precisions", "--precision fp16, bf16, int8, fp8 or auto with it")
        return None
    check_options(options)
    return options
