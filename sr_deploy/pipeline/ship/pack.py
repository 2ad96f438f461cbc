"""Deployment to bundle: what a board needs, checked on the PC, in one file."""

from __future__ import annotations

import dataclasses
import shlex
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Callable, Dict, List, Optional, Tuple

from sr_deploy.bundle.golden import Golden, golden_files
from sr_deploy.bundle.layout import RECIPE_NAME, is_allowed
from sr_deploy.bundle.recipe import Recipe, build_arguments, recipe_text
from sr_deploy.bundle.write import Content, write_bundle
from sr_deploy.core.artifact import check_free, sha256_of
from sr_deploy.core.contract import Size, format_size
from sr_deploy.core.deployment.default import read_default
from sr_deploy.core.deployment.manifest import (
    MANIFEST_NAME,
    PRECISION_FOLDER,
    UNFINISHED_FOLDER,
    Deployment,
    open_deployment,
)
from sr_deploy.core.deployment.plan import PLAN_NAME, open_plan
from sr_deploy.core.deployment.target import check_formats
from sr_deploy.core.errors import BadDeployment, UsageError
from sr_deploy.core.media.sample import sample_for
from sr_deploy.core.names import proposal
from sr_deploy.core.number_formats import PLAN_PRECISIONS
from sr_deploy.core.temporary import is_temporary
from sr_deploy.engine.manifest import check_profile
from sr_deploy.engine.runtimes import RUNTIMES
from sr_deploy.pipeline.load import load_words
from sr_deploy.pipeline.memory import check_memory
from sr_deploy.pipeline.precision.deployed_plan import find_planned
from sr_deploy.pipeline.runner import check_backend

#: The smallest golden input where the network takes any size, raised to what it takes: even, odd sides, few bytes.
GOLDEN_SIZE: Size = (40, 51)
#: Files beside ``model.onnx`` that carry a precision plan or a calibration.
PRECISION_FILES = ("plan*.json", "weights.npz", "*.calibration", "calibration*.cache")


@dataclass(frozen=True)
class PackOptions:
    """What ``srdeploy pack`` is asked for.

    Attributes:
        deployment: the folder.
        out: the bundle to make.
        target: a name of graph/target.py; None takes the one that the deployment was exported for.
        recipe: which engines the board shall build.
        golden_sizes: golden inputs besides the one that every bundle has and the recipe's smallest.
        force: replace an existing bundle.
    """

    deployment: Path
    out: Path
    target: Optional[str] = None
    recipe: Recipe = Recipe()
    golden_sizes: Tuple[Size, ...] = ()
    force: bool = False


@dataclass(frozen=True)
class Packed:
    """A bundle that was made: where, its SHA-256 and length, its target, its files with their sizes in bytes."""

    path: Path
    sha256: str
    size: int
    target: str
    files: Dict[str, int]

    def to_dict(self) -> Dict[str, Any]:
        """Plain values for JSON."""
        return {
            "schema": 1,
            "bundle": str(self.path),
            "sha256": self.sha256,
            "size": self.size,
            "target": self.target,
            "files": self.files,
        }


def pack_deployment(options: PackOptions, say: Callable[[str], None] = lambda _: None) -> Packed:
    """Make a bundle. The same deployment, options and ONNX Runtime give the same bytes.

    Raises:
        BadDeployment: a graph has a newer opset or an operator that the target cannot parse (never converted here), or
            there is no graph for a size of the recipe.
        UsageError: the recipe contradicts itself, or the bundle exists and ``force`` is False.
        EnvironmentFault: no ONNX Runtime or memory for the golden pictures.
    """
    deployment, target, files, sizes = _planned(options)
    replaces = options.force and options.out.is_file()
    check_free(options.out, replaces, "a new file", "choose another -o, or replace it with --force")
    for size in sizes:
        check_memory(deployment.graph_for(size), size)
    say(f"the board builds {options.recipe.plan or 'float32'} (--precision chooses)")
    for size in sizes:
        say(f"golden picture at {format_size(size)}")
        files.update(golden_files(make_golden(deployment, size, options.recipe.plan)))
    index = write_bundle(options.out, files, target, options.force)
    return Packed(
        path=options.out,
        sha256=sha256_of(options.out),
        size=options.out.stat().st_size,
        target=target,
        files={member.name: member.size for member in index.members},
    )


def plan_to_pack(folder: Path, asked: Optional[str]) -> Optional[str]:
    """The plan that the board shall build, None for float32: what is asked for, else the deployment's default.

    Args:
        folder: the deployment.
        asked: a folder under ``precision/``, "fp32", or None.

    Raises:
        BadDeployment: the record of the default is damaged.
    """
    default = read_default(folder) if asked is None else None
    return default.plan if default is not None else None if asked == "fp32" else asked


def plan_pack(options: PackOptions) -> List[str]:
    """What ``pack_deployment`` would do, one line each; nothing is run or written."""
    deployment, target, files, sizes = _planned(options)
    lines = [f"bundle:  {options.out} for {target}" + (" (exists already: --force)" if options.out.exists() else "")]
    lines += [f"file:    {name}" for name in sorted(files)]
    lines += [f"golden:  {format_size(size)} with {deployment.graph_for(size).file}" for size in sizes]
    return [*lines, "board:   srdeploy " + shlex.join(build_arguments(options.recipe, "DIR"))]


def make_golden(deployment: Deployment, size: Size, plan: Optional[str] = None) -> Golden:
    """The sample picture of a size and what ONNX Runtime makes of it, on one thread of the CPU.

    With a plan, also what its typed graph makes of it, computed as it is written: 8 bits cut off what lies outside the
    calibrated ranges, so on a picture that is no photograph it may be far from float32 and an engine of it still right.

    Args:
        deployment: the opened folder.
        size: height and width in pixels.
        plan: name of a precision plan of the deployment.

    Raises:
        EnvironmentFault: not enough memory, or no ONNX Runtime.
        BadImage, BadDeployment: the network does not take this size, or has no graph for it.
    """
    from sr_deploy.engine.onnxruntime_cuda import CPU
    from sr_deploy.run.base import upscale
    from sr_deploy.run.onnxruntime import runner_from_graph

    manifest, graph = deployment.manifest, deployment.graph_for(size)
    lr = sample_for(manifest.contract, size)
    runner = runner_from_graph(deployment.path_of(graph), manifest.contract, manifest.scale, 1, CPU)
    try:
        golden = Golden(size, lr, upscale(runner, lr))
    finally:
        runner.close()
    planned = None if plan is None else find_planned(deployment, plan)
    if planned is None:
        return golden
    from sr_deploy.graph.specialise import load_graph
    from sr_deploy.precision.evaluate import computing

    return dataclasses.replace(golden, planned={planned.folder.name: computing(load_graph(planned.typed), 1)(lr)})


def _planned(options: PackOptions) -> Tuple[Deployment, str, Dict[str, Content], List[Size]]:
    """The deployment, its target, the files without golden pictures, and the sizes of those."""
    deployment = open_deployment(options.deployment)
    target = options.target or deployment.manifest.target
    check_target(deployment, target)
    recipe = options.recipe
    check_recipe(deployment, recipe)
    if recipe.plan is not None:
        check_plan(deployment, recipe.plan, target)
    files: Dict[str, Content] = {
        MANIFEST_NAME: deployment.folder / MANIFEST_NAME,
        RECIPE_NAME: recipe_text(recipe).encode("utf-8"),
    }
    for path in _carried(deployment):
        if path.parent.parent == deployment.precision_folder and path.name == PLAN_NAME:
            # A damaged plan, and one of another graph, are found here and not on the board.
            plan, _ = open_plan(path)
            if plan.graph_sha256 not in {graph.sha256 for graph in deployment.manifest.graphs}:
                raise BadDeployment(
                    f"{path} was made for another graph: {plan.graph_sha256[:12]}…",
                    "plans for the graphs of this deployment",
                    f"make it again: srdeploy build {deployment.folder} --precision … --remake-plan; or remove it",
                )
        name = path.relative_to(deployment.folder).as_posix()
        if not is_allowed(name):
            raise BadDeployment(f"{path} cannot be in a bundle", "a file that a board needs", "move it elsewhere")
        files[name] = path
    return deployment, target, files, _golden_sizes(deployment, options)


def _carried(deployment: Deployment) -> List[Path]:
    """The graphs, and what belongs to their precision."""
    folder = deployment.folder
    paths = [deployment.path_of(graph) for graph in deployment.manifest.graphs]
    paths += [path for pattern in PRECISION_FILES for path in folder.glob(pattern)]
    # Plots are for people, and a fine-tuning that was interrupted goes on where it began.
    own = folder / PRECISION_FOLDER
    found = (path for path in own.rglob("*") if path.is_file() and path.suffix != ".png")
    paths += [path for path in found if not any(map(_stays, path.relative_to(own).parts))]
    return list(dict.fromkeys(paths))


def _stays(name: str) -> bool:
    """Whether a file or folder of that name under ``DIR/precision`` is for this machine only."""
    return name == UNFINISHED_FOLDER or is_temporary(name)


def check_plan(deployment: Deployment, name: str, target: str) -> None:
    """Refuse a plan that is not there, or one with types that the target does not have.

    Raises:
        BadDeployment, UsageError: naming what is missing.
    """
    from sr_deploy.graph.target import target_named

    planned = find_planned(deployment, name)
    if planned is None:
        makes = name if name in PLAN_PRECISIONS else "int8"
        plans = sorted(path.parent.name for path in deployment.precision_folder.glob(f"*/{PLAN_NAME}"))
        raise BadDeployment(
            f"{deployment.folder} has no plan {PRECISION_FOLDER}/{name}",
            "a plan that the board shall build: " + (", ".join(plans) or "there is none yet"),
            proposal(name, plans) or f"srdeploy build {deployment.folder} --precision {makes} makes one",
        )
    runs_on = target_named(target).runs_on
    if runs_on is not None:
        check_formats(runs_on, planned.plan.formats, f"the plan {planned.folder}")


def check_target(deployment: Deployment, name: str) -> None:
    """Refuse a deployment whose graphs the target cannot parse, with the command that exports one it can.

    Raises:
        BadDeployment: naming the graph, its opset or operators, and the target's.
        UsageError: there is no such target.
    """
    from sr_deploy.graph.census import census_of
    from sr_deploy.graph.target import target_named

    target = target_named(name)
    for graph in deployment.manifest.graphs:
        if graph.opset > target.opset:
            found = f"{graph.file} is written in ONNX opset {graph.opset}, newer than {name} takes"
        else:
            census = census_of(deployment.path_of(graph), graph.size or graph.macs_size)
            bad = sorted(set(census.operators) & target.forbidden)
            found = f"{graph.file} holds {', '.join(bad)}, which {name} cannot parse" if bad else ""
        if found:
            raise BadDeployment(
                found,
                f"opset {target.opset} or older, of operators that it has ({target.about})",
                export_command(deployment, name),
            )


def export_command(deployment: Deployment, target: str) -> str:
    """The command that exports the same network for another target."""
    manifest = deployment.manifest
    words = [
        "srdeploy",
        "export",
        str(deployment.source_path),
        "-o",
        f"{deployment.folder}-{target}",
        "--target",
        target,
    ]
    for graph in manifest.graphs:
        if graph.size is not None and all(other.size is not None for other in manifest.graphs):
            words += ["--size", format_size(graph.size)]
    if manifest.contract.dtype != "float32":
        words += ["--io", manifest.contract.io]
    if manifest.contract.yuv is not None:
        yuv = manifest.contract.yuv
        words += ["--matrix", yuv.matrix, "--range", yuv.range, "--siting", yuv.siting]
    words += load_words(manifest.source.get("load_options", {}))
    return shlex.join(words)


def check_recipe(deployment: Deployment, recipe: Recipe) -> None:
    """Refuse on the PC what the board would refuse.

    Raises:
        UsageError: an unknown backend, sizes beside a profile, a profile out of order.
        BadImage, BadDeployment: a size that the network does not take, or without a graph.
    """
    check_backend(recipe.backend)
    row = RUNTIMES[recipe.backend] if recipe.backend is not None else None
    if recipe.profile is not None:
        check_profile(recipe.profile)
        if recipe.sizes or (row is not None and row.any_size):
            raise UsageError(
                "--min-size, --opt-size and --max-size describe one dynamic TensorRT engine",
                "them without --size, and not with the backend onnxruntime",
            )
        if all(graph.size is not None for graph in deployment.manifest.graphs):
            found = f"{deployment.folder} holds graphs of fixed sizes only"
            raise UsageError(found, "a graph for any size", "export it with --dynamic")
    for size in recipe.sizes + (recipe.profile or ()):
        deployment.graph_for(size)
    if recipe.memory_budget is not None and (not recipe.sizes or (row is not None and not row.tells_memory)):
        raise UsageError("--memory-budget needs a builder that tells its memory, and sizes", "TensorRT and --size")


def _golden_sizes(deployment: Deployment, options: PackOptions) -> List[Size]:
    """A small size always, the recipe's smallest so that one of its engines can be checked, and those asked for."""
    manifest, recipe = deployment.manifest, options.recipe
    fixed = [graph.size for graph in manifest.graphs if graph.size is not None]
    if len(fixed) < len(manifest.graphs):
        height, width = (manifest.sizes.fit(edge) for edge in GOLDEN_SIZE)
        sizes = [(height, width)]
    else:
        sizes = [min(fixed, key=_pixels)]
    asked = recipe.sizes or (recipe.profile or ())[:1]
    sizes += sorted(asked, key=_pixels)[:1]
    for size in options.golden_sizes:
        deployment.graph_for(size)
    return sorted(dict.fromkeys([*sizes, *options.golden_sizes]), key=_pixels)


def _pixels(size: Size) -> int:
    return size[0] * size[1]
