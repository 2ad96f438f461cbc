"""The door for Python: what the command line does, as functions over the same frozen requests.

    import sr_deploy
    sr_deploy.export("net.pth", "net")
    sr_deploy.build("net", size="360x640")
    with sr_deploy.open("net") as net:
        sr = net.upscale(lr)                       # uint8 or uint16 (H, W, 3) RGB, in and out
        net.bench("144,360")
        net.verify("Set5/LRbicx4", "Set5/HR").to_dict()

Names, values and errors are those of the commands (sr_deploy.core.errors); importing this loads neither torch nor onnx.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Any, Callable, List, Optional, Sequence, Tuple, Union

from sr_deploy.core.contract import Size, format_size, parse_bytes, parse_size
from sr_deploy.core.errors import BadImage, UsageError

if TYPE_CHECKING:
    import numpy as np

    from sr_deploy.bench.result import Result
    from sr_deploy.engine.manifest import EngineManifest
    from sr_deploy.pipeline.verify import QualityReport
    from sr_deploy.pipeline.video.clip import ClipDone
    from sr_deploy.run.base import Runner

Place = Union[str, Path]
#: "360x640", "144" for a square, several by commas, (height, width), or a list of these.
Sizes = Union[None, str, Size, Sequence[Union[str, Size]]]
Say = Callable[[str], None]


def silent(_: str) -> None:
    """Take a line of progress and show it to nobody."""


def sizes_of(asked: Sizes) -> Tuple[Size, ...]:
    """Inputs (height, width) in pixels, each once, in the order given.

    Raises:
        UsageError: a text, or a single number, that is no size.
    """
    if asked is None:
        return ()
    if isinstance(asked, str):
        return tuple(dict.fromkeys(parse_size(part.strip()) for part in asked.split(",")))
    edges = [edge for edge in asked if isinstance(edge, int)]
    if len(edges) == len(asked) == 2:
        return (parse_size(format_size((edges[0], edges[1]))),)
    if edges:
        raise UsageError(f"the number {edges[0]} alone is no size", '(height, width), or "144" for a square')
    return tuple(dict.fromkeys(size for part in asked if not isinstance(part, int) for size in sizes_of(part)))


def export(checkpoint: Place, out: Place, *, say: Say = silent, **options: Any) -> Deployed:
    """A checkpoint or an ONNX file as a proved deployment: ``srdeploy export``.

    Args:
        checkpoint: .pth, .pt, .pth.tar, .ckpt or .safetensors, of which no code is run; or .onnx.
        out: the folder to make.
        say: told each step.
        options: fields of ``ExportOptions`` and ``LoadOptions`` by name (sizes, target, spectral, fold, force, rewrite,
            io; arch, factory, model_arg, scale, value_range, lora_alpha, res_scale, key, colours, ignore_surplus), as
            the command's options.

    Returns:
        The deployment, open.

    Raises:
        UsageError: an option that does not exist.
        CheckFailed, BadCheckpoint, EnvironmentFault: see ``pipeline.export.export_deployment``.
    """
    from sr_deploy.pipeline.export import ExportOptions, export_deployment
    from sr_deploy.pipeline.load import LoadOptions

    loading = {field.name for field in dataclasses.fields(LoadOptions)}
    exporting = {field.name for field in dataclasses.fields(ExportOptions)} - {"checkpoint", "out", "load"}
    _check_names("export", options, loading | exporting)
    load = LoadOptions(**{name: value for name, value in options.items() if name in loading})
    rest = {name: value for name, value in options.items() if name in exporting}
    if "sizes" in rest:
        rest["sizes"] = sizes_of(rest["sizes"])
    made = export_deployment(ExportOptions(Path(checkpoint), Path(out), load=load, **rest), say)
    return Deployed(made.folder, say=say)


def build(deployment: Place, size: Sizes = None, *, precision: Optional[str] = None, plan: Optional[Place] = None,
          say: Say = silent, **options: Any) -> Tuple[EngineManifest, ...]:  # fmt: skip
    """Engines of a deployment: ``srdeploy build``.

    Args:
        deployment: the folder.
        size: fixed inputs; None: any size, where the runtime can.
        precision: None for fp32, "fp16", "bf16", "int8", "fp8" or "auto".
        plan: a plan.json to build instead.
        say: told each step.
        options: fields of ``BuildOptions`` (backend, profile, compute_capabilities, workspace_bytes, force,
            memory_budget, dla_core, implicit) and arguments of ``precision_options`` (budget, mean_budget, content,
            images, lr, hr, method, improve, spectral_half, remake, half_times, int8_times) by name.

    Returns:
        The record of each engine that was built.

    Raises:
        UsageError: an option that does not exist, or see ``pipeline.engines.build.build_engines``.
    """
    import inspect

    from sr_deploy.pipeline.engines.build import build_engines
    from sr_deploy.pipeline.engines.request import BuildOptions
    from sr_deploy.pipeline.precision.deployed_plan import precision_options

    planning = set(inspect.signature(precision_options).parameters) - {"precision", "plan"}
    building = {field.name for field in dataclasses.fields(BuildOptions)} - {"deployment", "sizes", "precision"}
    _check_names("build", options, planning | building)
    asked = {name: value for name, value in options.items() if name in planning}
    for name in ("images", "lr", "hr", "half_times", "int8_times"):
        if asked.get(name) is not None:
            asked[name] = Path(asked[name])
    typed = precision_options(precision, None if plan is None else Path(plan), **asked)
    rest = {name: value for name, value in options.items() if name in building}
    return build_engines(BuildOptions(Path(deployment), sizes=sizes_of(size), precision=typed, **rest), say)


def open(deployment: Place, *, backend: Optional[str] = None, engine: Optional[Place] = None,
         precision: Optional[str] = None, memory: Union[None, int, str] = None, allow_inexact: bool = False,
         say: Say = silent) -> Deployed:  # fmt: skip
    """A deployment to upscale with; files are checked against the manifest's hashes.

    Args:
        deployment: the folder.
        backend, engine, precision: which runtime, as ``srdeploy run`` takes them; see ``pipeline.runner.decide``.
        memory: bytes, or a text such as "2GB", that may be used: what takes more, or what no engine takes, runs in
            tiles. None: half of what is free.
        allow_inexact: tiles of a network that is not local too, which do not give what the whole picture would.
        say: told what runs, each once.

    Raises:
        BadDeployment: no deployment, or an altered one.
    """
    limit = parse_bytes(memory) if isinstance(memory, str) else memory
    named = None if engine is None else Path(engine)
    return Deployed(Path(deployment), backend, named, precision, say, limit, allow_inexact)


class Deployed:
    """An open deployment. Its runner stays open between pictures of one size; ``close`` or ``with`` ends it."""

    def __init__(self, folder: Path, backend: Optional[str] = None, engine: Optional[Path] = None,
                 precision: Optional[str] = None, say: Say = silent, memory: Optional[int] = None,
                 allow_inexact: bool = False) -> None:  # fmt: skip
        import contextlib

        from sr_deploy.core.deployment.manifest import open_deployment

        self.deployment = open_deployment(folder)
        self._asked = (backend, engine)
        self._precision, self._say = precision, say
        self._memory, self._inexact = memory, allow_inexact
        self._exit = contextlib.ExitStack()
        self._runner_at: Optional[Callable[[Size], Runner]] = None

    @property
    def folder(self) -> Path:
        """Where it lies."""
        return self.deployment.folder

    @property
    def scale(self) -> int:
        """Output size over input size."""
        return self.deployment.manifest.scale

    @property
    def engines(self) -> Tuple[EngineManifest, ...]:
        """The records of the engines in it, whether or not they run on this machine.

        Raises:
            BadDeployment: one is damaged.
        """
        from sr_deploy.engine.index import EngineIndex

        index = EngineIndex(self.deployment)
        return tuple(index.proved(path) for path in index.paths)

    def upscale(self, picture: Union[Place, np.ndarray]) -> np.ndarray:
        """One picture of any size, ``scale`` times as large.

        Args:
            picture: uint8 or uint16 (H, W, 3) RGB, or a file (whose alpha is left out; grey becomes RGB).

        Returns:
            (scale·H, scale·W, 3) RGB of the same type.

        Raises:
            BadImage: a file that cannot be read, or another shape or type.
            CheckFailed: it would be made in tiles, and the network is not local (unless ``allow_inexact``).
            EnvironmentFault: there is no memory even for tiles.
        """
        from sr_deploy.engine.index import EngineIndex
        from sr_deploy.pipeline.pictures.stages import upscale_picture
        from sr_deploy.pipeline.runner import resolve, runners
        from sr_deploy.pipeline.tiling import tiling_of

        found = _picture_of(picture)
        if self._runner_at is None:
            tiling = tiling_of(self._memory, self._inexact)
            resolved = resolve(EngineIndex(self.deployment), *self._asked, self._precision, tiling=tiling)
            self._runner_at = self._exit.enter_context(runners(resolved, self._say))
        return upscale_picture(self.deployment, self._runner_at(found.size), found).pixels

    def upscale_clip(self, clip: Place, out: Place, **options: Any) -> ClipDone:
        """A clip with every frame ``scale`` times as large: ``srdeploy run`` on a clip.

        Args:
            clip: the file.
            out: the file to write; its suffix names the container.
            options: other fields of ``pipeline.video.request.ClipOptions`` by name (codec, crf, pixel_format, assumed,
                sound, force, resume, segment_frames).

        Raises:
            UsageError: an option that does not exist, or see ``pipeline.video.clip.upscale_clip``, as for the others.
        """
        from sr_deploy.pipeline.video.clip import upscale_clip
        from sr_deploy.pipeline.video.request import ClipOptions

        given = {"deployment", "clip", "out", "backend", "engine", "precision", "memory", "allow_inexact"}
        _check_names("upscale_clip", options, {field.name for field in dataclasses.fields(ClipOptions)} - given)
        return upscale_clip(
            ClipOptions(
                self.folder, Path(clip), Path(out), self._asked[0], self._asked[1], self._precision,
                memory=self._memory, allow_inexact=self._inexact, **options,
            ),
            self._say,
        )  # fmt: skip

    def bench(self, sizes: Sizes, **options: Any) -> Result:
        """Latency over input sizes: ``srdeploy bench``; the result lies in the deployment's results folder too.

        Args:
            sizes: inputs to measure.
            options: other fields of ``pipeline.measure.bench.BenchRequest`` by name.

        Raises:
            UsageError: an option that does not exist, an engine that ``open`` was given, or see
                ``pipeline.measure.bench.bench_deployment``.
        """
        from sr_deploy.pipeline.measure.bench import BenchRequest, bench_deployment

        known = {field.name for field in dataclasses.fields(BenchRequest)}
        known -= {"deployment", "sizes", "backend", "precision", "memory", "allow_inexact"}
        _check_names("bench", options, known)
        if self._asked[1] is not None:
            raise UsageError(
                f"a sweep chooses its engines by size, and {self._asked[1]} was named",
                "open(…) without engine=",
                "choose by backend and precision",
            )
        request = BenchRequest(
            self.folder, sizes_of(sizes), backend=self._asked[0], precision=self._precision, memory=self._memory,
            allow_inexact=self._inexact, **options,
        )  # fmt: skip
        return bench_deployment(request, self._say)[0]

    def verify(
        self,
        lr: Place,
        hr: Place,
        *,
        against_torch: bool = True,
        reference: Optional[Place] = None,
        niqe_params: Optional[Place] = None,
    ) -> QualityReport:
        """Quality against originals, and the difference from the PyTorch network: ``srdeploy verify``.

        Args:
            lr, hr: folders of pictures (babyx4.png or baby.png belongs to baby.png).
            against_torch: compare with the checkpoint's own network too.
            reference: for the fidelity: a deployment whose output is followed, or a folder of its pictures.
            niqe_params: for NIQE: niqe_pris_params.npz of BasicSR.

        Returns:
            The report; ``raise_on_failure`` raises where a tolerance is not kept.

        Raises:
            BadImage: pictures without a partner, or that do not fit.
        """
        from sr_deploy.pipeline.verify import VerifyOptions, verify_quality

        options = VerifyOptions(
            self.folder, Path(lr), Path(hr), *self._asked, against_torch=against_torch, precision=self._precision,
            memory=self._memory, allow_inexact=self._inexact,
            reference=None if reference is None else Path(reference),
            niqe_params=None if niqe_params is None else Path(niqe_params),
        )  # fmt: skip
        return verify_quality(options, self._say)

    def close(self) -> None:
        """Free the runner; another ``upscale`` opens it again."""
        self._runner_at = None
        self._exit.close()

    def __enter__(self) -> Deployed:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _picture_of(picture: Any) -> Any:
    """A ``Picture`` in RGB without alpha, of a file or an array."""
    import numpy as np

    from sr_deploy.core.media.image import Picture, read_picture

    if isinstance(picture, (str, Path)):
        pixels = read_picture(Path(picture)).pixels
        return Picture(np.repeat(pixels, 3, axis=2) if pixels.shape[2] == 1 else pixels)
    array = np.asarray(picture)
    if array.ndim != 3 or array.shape[2] != 3 or array.dtype not in (np.uint8, np.uint16) or 0 in array.shape:
        raise BadImage(
            f"an array of {array.dtype} {tuple(array.shape)} was given",
            "uint8 or uint16 (H, W, 3), RGB",
            "np.clip(x, 0, 255).round().astype('uint8') makes one of floats in 0…255; BGR of OpenCV: x[:, :, ::-1]",
        )
    return Picture(np.ascontiguousarray(array))


def _check_names(function: str, given: Any, known: Any) -> None:
    unknown: List[str] = sorted(set(given) - set(known))
    if unknown:
        raise UsageError(f"{function} has no option {', '.join(unknown)}", "one of " + ", ".join(sorted(known)))
