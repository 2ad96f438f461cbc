"""What the making of a plan needs, looked at before any of it begins: options, pictures, calibration, a plan given."""

from __future__ import annotations

from pathlib import Path
from typing import Tuple

from sr_deploy.core.deployment.manifest import Deployment, GraphFile
from sr_deploy.core.deployment.plan import PLAN_NAME, Plan, open_plan, plan_file
from sr_deploy.core.errors import BadDeployment, BadInput, UsageError
from sr_deploy.core.number_formats import AUTO, FORMAT, FORMATS, QUANTISED
from sr_deploy.graph.census import work_by_node
from sr_deploy.graph.specialise import load_graph
from sr_deploy.pipeline.precision.calibrate import check_sizes, open_calibration
from sr_deploy.pipeline.precision.deployed_plan import PrecisionOptions, check_options, folder_name
from sr_deploy.pipeline.precision.layer_savings import savings_of
from sr_deploy.pipeline.precision.plan_inputs import photographs
from sr_deploy.precision.choose.islands import kinds_of
from sr_deploy.precision.lower.quantize import check_plan

#: What is made from ranges of the tensors.
_CALIBRATED = (*(one.precision for one in QUANTISED), AUTO)


def check_needs(deployment: Deployment, options: PrecisionOptions) -> None:
    """Refuse what would end the making of a plan after work that takes long.

    Raises:
        UsageError: options that contradict each other, or photographs that are needed and not given.
        BadInput: pictures that are missing, damaged or too small, no calibration, profiles of other engines, or a plan
            that does not fit the graph.
    """
    check_options(options)
    graph = plannable(deployment)
    if options.plan is not None:
        _check_given(deployment, graph, options.plan, options)
    elif options.precision in _CALIBRATED:
        _check_calibrated(deployment, graph, options)


def plannable(deployment: Deployment) -> GraphFile:
    """The graph that plans are made for: the one for any size, or the only one.

    Raises:
        BadDeployment: there are several graphs, all of fixed sizes.
    """
    if deployment.dynamic_graph is not None:
        return deployment.dynamic_graph
    first, *others = deployment.manifest.graphs
    if not others:
        return first
    raise BadDeployment(
        f"{deployment.folder} holds graphs of several fixed sizes, and a plan is of one graph",
        "a graph for any size, from which engines of fixed sizes are built; or one of one size",
        "export the network without --size, then srdeploy build DIR --size HxW --precision …; or each size by itself",
    )


def _check_calibrated(deployment: Deployment, graph: GraphFile, options: PrecisionOptions) -> None:
    """What a plan of 8 bits is made from is there."""
    if options.images is not None:
        check_sizes(photographs(options.images), deployment, graph)
    elif options.improve:
        raise UsageError(
            f"--precision {options.precision} calibrates and fits weights on photographs, and none were given",
            "a folder of low-resolution photographs",
            f"srdeploy build {deployment.folder} --precision {options.precision} --images FOLDER",
        )
    else:
        open_calibration(deployment, options.method, (), graph)
    if options.half_times is not None:
        path = deployment.path_of(graph)
        work = work_by_node(path, graph.macs_size)
        kinds = kinds_of(load_graph(path), {name: one.macs for name, one in work.items()})
        savings_of(work, kinds.candidates, options.half_times, options.int8_times)


def _check_given(deployment: Deployment, graph: GraphFile, path: Path, options: PrecisionOptions) -> None:
    """A plan that was given is of the graph and fits it, is what it says, and takes no other's place unasked."""
    plan, weights = open_plan(path)
    if plan.graph_sha256 != graph.sha256:
        raise BadDeployment(
            f"{path} was made for another graph: {plan.graph_sha256[:12]}…",
            f"a plan for {graph.file}, {graph.sha256[:12]}…",
            "make it again: srdeploy build DIR --precision … without --plan",
        )
    names = _names_for(plan)
    if plan.precision not in names:
        types = " and ".join(FORMAT[name].label for name in plan.formats)
        raise BadInput(
            f"{path} is a plan for {plan.precision}, and its nodes are {types}",
            "a plan for " + " or ".join(names),
            f'write "precision": "{names[0]}" in it, or give nodes another type',
        )
    check_plan(load_graph(deployment.path_of(graph)), plan, weights)
    folder = deployment.precision_folder / folder_name(options)
    own = folder / PLAN_NAME
    if options.remake or not own.is_file() or plan_file(path).resolve() == own.resolve():
        return
    there = open_plan(folder)[0]
    keys = ("nodes", "activation_scales", "weight_scales", "channel_factors")
    if any(getattr(there, key) != getattr(plan, key) for key in keys):
        raise UsageError(
            f"{folder} holds another plan than {path}",
            "a name that is free",
            "rename the file or its folder, or replace the plan that is there with --remake-plan",
        )


def _names_for(plan: Plan) -> Tuple[str, ...]:
    """What a plan may be called: by a type of 8 bits that it has, else by one of 16; "auto" any."""
    have = [one for one in FORMATS if one.name in plan.formats and one.has_plans]
    quantised = [one.precision for one in have if one in QUANTISED]
    return (*(quantised or [one.precision for one in have]), AUTO)
