"""The whole line on the network and the photograph that ship with srdeploy."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Callable, Dict, Tuple

from sr_deploy.bench.result import Result
from sr_deploy.core.artifact import atomic_folder
from sr_deploy.core.errors import UsageError
from sr_deploy.core.media.bicubic import resize
from sr_deploy.core.media.image import Picture, read_picture, write_picture
from sr_deploy.core.quality.metrics import CRITERION
from sr_deploy.core.text import renaming
from sr_deploy.engine.runtimes import GRAPH_RUNTIME
from sr_deploy.pipeline.engines.build import build_engines
from sr_deploy.pipeline.engines.request import BuildOptions
from sr_deploy.pipeline.export import ExportOptions, export_deployment
from sr_deploy.pipeline.measure.bench import BenchRequest, bench_deployment
from sr_deploy.pipeline.upscale import UpscaleOptions, upscale_files
from sr_deploy.pipeline.verify import VerifyOptions, verify_quality

ASSETS = Path(__file__).resolve().parents[1] / "demo"
BENCH_SIZES = ((72, 72), (144, 144), (240, 240))


@dataclass(frozen=True)
class DemoOutcome:
    """What the demo made.

    Attributes:
        quality: the quality report as a dict.
        latency: the sweep.
        files: the pictures a person should look at.
        next: commands to go on with.
    """

    quality: Dict[str, Any]
    latency: Result
    files: Tuple[Path, ...]
    next: Tuple[str, ...]


def run_demo(out: Path, scale: int, force: bool, say: Callable[[str], None] = lambda _: None) -> DemoOutcome:
    """Export, build, run, verify and bench the shipped network; ends in a picture beside bicubic and a latency plot.

    Args:
        out: the folder to make; it appears whole or not at all.
        scale: 2 or 4.
        force: replace an earlier demo.
        say: told each step.

    Raises:
        UsageError: another scale, or the folder exists.
    """
    if scale not in (2, 4):
        raise UsageError(f"there is no demo network for x{scale}", "--scale 2 or --scale 4")
    with atomic_folder(out, force) as folder:
        told = renaming(say, folder, out)
        lr, hr = _pictures(folder, scale)
        checkpoint = ASSETS / f"demo_x{scale}.safetensors"
        deployment = export_deployment(ExportOptions(checkpoint, folder / "deployment"), told)
        build_engines(BuildOptions(deployment.folder, GRAPH_RUNTIME), told)
        (upscaled,) = upscale_files(UpscaleOptions(deployment.folder, (folder / "lr",), folder / "sr"), told).written
        quality = verify_quality(VerifyOptions(deployment.folder, folder / "lr", folder / "hr"), told)
        told("timing " + ", ".join(f"{height}x{width}" for height, width in BENCH_SIZES))
        request = BenchRequest(deployment.folder, BENCH_SIZES, seconds=0.5)
        latency, (_, plot) = bench_deployment(request, told)
        _compare(folder / "comparison.png", lr, hr, read_picture(upscaled), scale)
        relative = (Path("comparison.png"), plot.relative_to(folder))
    made = out / "deployment"
    commands = (
        f"srdeploy run {made} -i picture.png -o enlarged",
        f"srdeploy build {made} --precision int8 --images photographs",
        "srdeploy export net.pth -o net",
    )
    return DemoOutcome(quality.to_dict(), latency, tuple(Path(out) / path for path in relative), commands)


def _pictures(folder: Path, scale: int) -> Tuple[Picture, Picture]:
    """The shipped photograph as HR, and the LR made from it by bicubic shrinking, written as files."""
    hr = read_picture(ASSETS / "demo.png")
    lr = Picture(resize(hr.pixels, (hr.size[0] // scale, hr.size[1] // scale)))
    write_picture(hr, folder / "hr" / "demo.png")
    write_picture(lr, folder / "lr" / "demo.png")
    return lr, hr


def _compare(path: Path, lr: Picture, hr: Picture, sr: Picture, scale: int) -> None:
    from sr_deploy.report.plots import comparison_picture

    bicubic = resize(lr.pixels, hr.size)
    comparison_picture(
        [
            ("low resolution", lr.pixels),
            (f"bicubic, {CRITERION.of(bicubic, hr.pixels, scale):.2f} dB", bicubic),
            (f"network, {CRITERION.of(sr.pixels, hr.pixels, scale):.2f} dB", sr.pixels),
            ("original", hr.pixels),
        ],
        path,
    )
