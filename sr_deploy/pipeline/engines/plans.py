"""The precision plan of a build: the one that is there, or a new one."""

from __future__ import annotations

from typing import Callable, Optional, Tuple

from sr_deploy.core.deployment.manifest import Deployment
from sr_deploy.core.errors import MissingPackage
from sr_deploy.core.host.install import pip_install
from sr_deploy.pipeline.precision.deployed_plan import Planned, PrecisionOptions, folder_name, ready_plan


def planned_for(deployment: Deployment, options: PrecisionOptions, say: Callable[[str], None]) -> Planned:
    """The plan that is asked for: the one in the deployment, or a new one, which needs onnx and pictures.

    Raises:
        see ``ready_plan`` and ``made_plan``.
    """
    return told_ready(deployment, options, say) or made_plan(deployment, options, say)


def made_plan(deployment: Deployment, options: PrecisionOptions, say: Callable[[str], None]) -> Planned:
    """A new plan, which needs onnx and pictures.

    Raises:
        MissingPackage: this machine builds plans but makes none.
        see pipeline/precision/make_plan.plan_for.
    """
    return _making(deployment, options)[0](deployment, options, say)


def plan_to_make(deployment: Deployment, options: PrecisionOptions) -> str:
    """A line for people: the plan that ``made_plan`` would make, after all its checks.

    Raises:
        see ``made_plan``.
    """
    _making(deployment, options)[1](deployment, options)
    folder = deployment.precision_folder / folder_name(options)
    what = "to be made" if options.plan is None else f"to be proved and lowered from {options.plan}"
    return f"plan: {folder}, {what}" + (", in place of the one that is there" if folder.is_dir() else "")


def _making(deployment: Deployment, options: PrecisionOptions) -> Tuple[Callable[..., Planned], Callable[..., None]]:
    """The functions that make a plan and that check what this needs."""
    try:
        from sr_deploy.pipeline.precision.make_plan import plan_for
        from sr_deploy.pipeline.precision.plan_needs import check_needs
    except ImportError as error:
        raise MissingPackage(
            f"a plan for {options.precision} must be made first, and {error.name} is not installed",
            f"{deployment.precision_folder / folder_name(options)}, made on a PC",
            f"srdeploy build DIR --precision … there, then srdeploy pack; or {pip_install('export')}",
        ) from error
    return plan_for, check_needs


def told_ready(deployment: Deployment, options: PrecisionOptions, say: Callable[[str], None]) -> Optional[Planned]:
    """``ready_plan``, and the user is told of it."""
    found = ready_plan(deployment, options)
    if found is not None:
        say(f"plan: {found.folder}, made before (--remake-plan makes it again)")
    return found
