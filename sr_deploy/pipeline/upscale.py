"""Pictures through a deployment."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Callable, Dict, List, Optional, Tuple

from sr_deploy.core.contract import Size
from sr_deploy.core.deployment.manifest import Deployment, open_deployment
from sr_deploy.core.errors import (
    BadDeployment,
    BadImage,
    BadInput,
    CheckFailed,
    EnvironmentFault,
    SrDeployError,
    UsageError,
)
from sr_deploy.core.media.encode import Saving, suffix_names
from sr_deploy.core.media.image import (
    Picture,
    check_writable,
    find_images,
    from_network,
    read_picture,
    said_but_not_kept,
    to_network,
    write_picture,
)
from sr_deploy.core.media.room import bytes_to_upscale
from sr_deploy.engine.index import EngineIndex
from sr_deploy.engine.onnxruntime_cuda import CPU
from sr_deploy.engine.runtimes import GRAPH_RUNTIME
from sr_deploy.pipeline.memory import check_memory
from sr_deploy.pipeline.runner import resolve, runners
from sr_deploy.run.base import Runner, upscale


@dataclass(frozen=True)
class UpscaleOptions:
    """What ``srdeploy run`` is asked for.

    Attributes:
        deployment: the folder.
        inputs: pictures and folders of pictures.
        out: the folder to write to.
        backend, engine, precision: which runtime; see pipeline/runner.py.
        suffix: a suffix of core/media/encode.py without its dot; None keeps each picture's own.
        force: overwrite pictures that exist.
        resume: keep pictures that exist, and make the others.
        saving: how results are written.
    """

    deployment: Path
    inputs: Tuple[Path, ...]
    out: Path
    backend: Optional[str] = None
    engine: Optional[Path] = None
    suffix: Optional[str] = None
    force: bool = False
    precision: Optional[str] = None
    resume: bool = False
    saving: Saving = Saving()


@dataclass(frozen=True)
class Upscaled:
    """What became of the pictures.

    Attributes:
        written: results, in order.
        kept: results that were there before and were left as they are.
        skipped: pictures without a result, and why.
    """

    written: Tuple[Path, ...]
    kept: Tuple[Path, ...]
    skipped: Tuple[Tuple[Path, SrDeployError], ...]

    def to_dict(self) -> Dict[str, Any]:
        """Plain values for JSON."""
        return {
            "written": [str(path) for path in self.written],
            "kept": [str(path) for path in self.kept],
            "skipped": [
                {"picture": str(path), "error": error.found, "wanted": error.wanted, "next": error.todo}
                for path, error in self.skipped
            ],
        }

    def summary(self) -> Tuple[str, ...]:
        """Lines that name what was kept and what was skipped; none when all was done."""
        lines = [f"{len(self.kept)} results were there already and were kept as they are"] if self.kept else []
        if self.skipped:
            every = len(self.written) + len(self.kept) + len(self.skipped)
            lines.append(f"{len(self.skipped)} of {every} pictures were skipped:")
            lines += [f"  {_named(path, error)}" for path, error in self.skipped]
            lines.append("mend or remove them; the same command with --resume does only what is missing")
        return tuple(lines)


def upscale_files(options: UpscaleOptions, say: Callable[[str], None] = lambda _: None) -> Upscaled:
    """Upscale every picture; each result is written whole or not at all.

    A picture that cannot be read, does not fit the network or the memory, or has no finite result is skipped, and the
    rest is done. A picture that comes alone has no rest: its error is raised.

    Raises:
        BadImage, CheckFailed, EnvironmentFault: a single picture, for the reasons above.
        BadDeployment, ForeignEngine, EnvironmentFault: nothing here can run, or no more can be written.
        UsageError: a result exists, and neither ``force`` nor ``resume`` is set, or both; or two inputs would have one
            result.
    """
    from sr_deploy.report.progress import track

    deployment = open_deployment(options.deployment)
    resolved = resolve(EngineIndex(deployment), options.backend, options.engine, options.precision)
    inputs = find_images(options.inputs)
    targets = _targets(inputs, options)
    kept = [target for target in targets if options.resume and target.exists()]
    todo = [pair for pair in zip(inputs, targets) if pair[1] not in kept]
    written: List[Path] = []
    skipped: List[Tuple[Path, SrDeployError]] = []
    with runners(resolved, say) as runner_at:
        for source, target in track(todo, "upscaling"):
            try:
                _upscale_file(deployment, runner_at, (source, target), options.saving, say)
                written.append(target)
            except _BadPicture as bad:
                if len(inputs) == 1:
                    raise bad.error from bad
                say(f"skipped {_named(source, bad.error)}")
                skipped.append((source, bad.error))
    return Upscaled(tuple(written), tuple(kept), tuple(skipped))


def _named(path: Path, error: SrDeployError) -> str:
    """What is wrong with a picture, with its name once."""
    return error.found if str(path) in error.found else f"{path}: {error.found}"


class _BadPicture(Exception):
    """The picture is at fault, not the deployment or the machine."""

    def __init__(self, error: SrDeployError) -> None:
        self.error = error
        super().__init__(str(error))


def _upscale_file(deployment: Deployment, runner_at: Callable[[Size], Runner], pair: Tuple[Path, Path],
                  saving: Saving, say: Callable[[str], None]) -> None:  # fmt: skip
    """One file to another."""
    manifest = deployment.manifest
    source, target = pair
    try:
        picture = read_picture(source, bytes_to_upscale(manifest.contract, manifest.scale))
        check_writable(target, picture, saving)
        manifest.sizes.check(picture.size)
    except (BadImage, UsageError) as error:
        raise _BadPicture(error) from error
    runner = runner_at(picture.size)
    try:
        _check_activations(deployment, runner, picture.size)
    except EnvironmentFault as error:
        raise _BadPicture(error) from error
    try:
        result = upscale_picture(deployment, runner, picture)
    except BadDeployment:
        raise
    except (BadInput, CheckFailed) as error:
        raise _BadPicture(error) from error
    try:
        write_picture(result, target, saving)
    except UsageError as error:
        raise _BadPicture(error) from error
    lost = said_but_not_kept(result, target, saving)
    if lost:
        say(f"{target.name} has no place for what {source.name} says besides its pixels: {', '.join(lost)}")


def _check_activations(deployment: Deployment, runner: Runner, size: Size) -> None:
    """Raise EnvironmentFault for what the network itself needs, where it is known: the graph on the processor."""
    about = runner.describe()
    if about.get("provider") == CPU:
        graph = deployment.graph_for(size, GRAPH_RUNTIME)
        if about["file"] == graph.file:
            check_memory(graph, size)


def upscale_picture(deployment: Deployment, runner: Runner, picture: Picture) -> Picture:
    """One picture through a runner, grey, alpha and depth kept."""
    contract = deployment.manifest.contract
    return from_network(upscale(runner, to_network(picture, contract)), contract, picture)


def _targets(inputs: Tuple[Path, ...], options: UpscaleOptions) -> List[Path]:
    """Where each result goes; refuses to overwrite and to write two results into one file."""
    if options.suffix is not None and options.suffix.lower() not in suffix_names():
        raise UsageError(f"--format {options.suffix} is not written here", "one of " + ", ".join(suffix_names()))
    options.saving.check()
    if options.force and options.resume:
        raise UsageError("--force replaces results and --resume keeps them", "one of the two")
    targets: List[Path] = []
    for source in inputs:
        suffix = f".{options.suffix.lower()}" if options.suffix else source.suffix
        target = options.out / (source.stem + suffix)
        if target in targets:
            raise UsageError(f"two inputs would be written to {target}", "different file names", "run them separately")
        if target.exists() and not options.force and not options.resume:
            raise UsageError(
                f"{target} exists already",
                "a new file",
                "choose another -o, keep what is there and make the rest with --resume, or overwrite with --force",
            )
        targets.append(target)
    return targets
