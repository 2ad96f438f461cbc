"""What the work on one graph's precision starts from: its nodes sorted, pictures to calibrate with and to judge on."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Callable, Dict, List, Mapping, Optional, Sequence, Tuple

import numpy as np

from sr_deploy.core.contract import IOContract, Size, format_size
from sr_deploy.core.deployment.manifest import Deployment, GraphFile
from sr_deploy.core.deployment.plan import Plan
from sr_deploy.core.errors import BadImage, CheckFailed, UsageError
from sr_deploy.core.media.image import Picture, find_images, in_8_bits, read_picture, to_network
from sr_deploy.core.media.surface import surface_of_rgb
from sr_deploy.core.text import counted
from sr_deploy.graph.census import Work, work_by_node
from sr_deploy.graph.specialise import load_graph
from sr_deploy.pipeline.precision.content import graphics_to_judge
from sr_deploy.pipeline.precision.deployed_plan import PrecisionOptions
from sr_deploy.precision.calibrate.collect import ranges_of
from sr_deploy.precision.calibrate.scan import extreme_inputs, pinned, scan_half, too_large
from sr_deploy.precision.choose.islands import Kinds, kinds_of
from sr_deploy.precision.evaluate import (
    GRAPHICS,
    LEAST_SIDE,
    SHRUNK,
    WORSE,
    Compute,
    Judged,
    PictureJudged,
    Scene,
    judge,
    judging,
    scenes_from_photographs,
    scenes_of,
    within_reach,
)
from sr_deploy.precision.lower.typed_graph import typed_graph

if TYPE_CHECKING:
    import onnx

#: How much larger than on black, white, noise, a checkerboard and pure colours a value may become elsewhere. On
#: photographs it is scan.MARGIN, but nothing is more extreme than these but their size.
EXTREME_MARGIN = 2.0
#: Low-resolution side and number of the photographs that plans are judged on.
JUDGED_SIDE, JUDGED = 96, 10
#: The photograph that ships with the demo, for FP16 without --images.
_OWN_PHOTOGRAPH = Path(__file__).resolve().parents[2] / "demo" / "demo.png"
#: How the exporter's reasons for float32 begin (pipeline/export.py). A Fourier transform sums a whole picture, which
#: float16 cannot hold. A folded unit is two 1×1 convolutions and a product along the width: in float16 F2SRGAN ×4 is as
#: near to float32 with it as without (within 0.0002 dB on Set5 and Set14), and the scan finds what leaves its range.
_SPECTRAL, _FOLDED = "Fourier", "Fourier unit, folded"


@dataclass(frozen=True)
class Workbench:
    """All that the work on one graph needs.

    Attributes:
        overflowing: extreme pictures on which the network itself overflows, as its export found of noise.
    """

    model: onnx.ModelProto
    graph: GraphFile
    contract: IOContract
    scale: int
    work: Dict[str, Work]
    kinds: Kinds
    scenes: Tuple[Scene, ...]
    overflowing: Tuple[str, ...] = ()

    @property
    def macs(self) -> Dict[str, int]:
        """Node → multiply-accumulates."""
        return {name: work.macs for name, work in self.work.items()}

    def judged(
        self,
        plan: Plan,
        weights: Mapping[str, np.ndarray],
        order: Optional[Sequence[int]] = None,
        enough: Callable[[PictureJudged], bool] = lambda _: False,
    ) -> Judged:
        """How a plan does on the scenes; NaN and infinite values on extreme pictures count too.

        Args:
            plan, weights: of this graph.
            order, enough: as for ``judge``; where that is enough, extreme pictures are not looked at.
        """
        compute = judging(typed_graph(self.model, plan, weights))
        found = judge(self.scenes, compute, self.scale, self.contract, order, enough)
        if any(enough(one) for one in found.each):
            return found
        sick = sum(int(np.count_nonzero(~np.isfinite(compute(array)))) for array in self.extremes())
        return dataclasses.replace(found, sick=found.sick + sick)

    def extremes(self) -> Tuple[np.ndarray, ...]:
        """Black, white, noise, a checkerboard and pure colours, as the graph takes them; not the overflowing ones."""
        return tuple(one for name, one in _extremes(self).items() if name not in self.overflowing)


def _extremes(bench: Workbench) -> Dict[str, np.ndarray]:
    size: Size = bench.scenes[0].lr.size
    found = extreme_inputs(size, bench.contract.value_range)
    return {
        name: one if bench.contract.dtype == "float32" else _bytes(one, bench.contract) for name, one in found.items()
    }


def _overflowing(bench: Workbench) -> Tuple[str, ...]:
    """The extreme pictures on which a tensor of the float32 graph is not finite."""
    found = {
        name: ranges_of(bench.model, [one], extremes_only=True).tensors.values()
        for name, one in _extremes(bench).items()
    }
    return tuple(name for name, tensors in found.items() if any(stats.non_finite for stats in tensors))


def workbench(
    deployment: Deployment, graph: GraphFile, options: PrecisionOptions, say: Callable[[str], None]
) -> Workbench:
    """Read the graph, sort its nodes, and prepare the pictures it will be judged on."""
    path, manifest = deployment.path_of(graph), deployment.manifest
    model = load_graph(path)
    work = work_by_node(path, graph.macs_size)
    scenes = _scenes(deployment, graph, options, judging(model), say)
    kinds = kinds_of(model, {name: one.macs for name, one in work.items()})
    released = _SPECTRAL if options.spectral_half else _FOLDED if options.precision in ("fp16", "bf16") else None
    if released is not None:
        kinds = dataclasses.replace(
            kinds, pinned={n: why for n, why in kinds.pinned.items() if not why.startswith(released)}
        )
    bench = Workbench(model, graph, manifest.contract, manifest.scale, work, kinds, scenes)
    if manifest.fold.get("noise_overflows"):
        bench = dataclasses.replace(bench, overflowing=_overflowing(bench))
        say(f"not judged on what the network itself overflows on: {', '.join(bench.overflowing) or 'nothing'}")
    return bench


def _scenes(
    deployment: Deployment,
    graph: GraphFile,
    options: PrecisionOptions,
    reference: Compute,
    say: Callable[[str], None],
) -> Tuple[Scene, ...]:
    """The pairs that were given or shrunk photographs, and graphics where they belong to the content."""
    manifest = deployment.manifest
    if graph.size is not None and options.lr is not None:
        raise UsageError(
            f"--lr and --hr are of many sizes, and {graph.file} takes {format_size(graph.size)} only",
            "photographs, from which pairs of that size are cut: --images FOLDER",
        )
    side = JUDGED_SIDE if graph.size is None else max(graph.size)
    height, width = graph.size or (LEAST_SIDE, LEAST_SIDE)
    least = (manifest.scale * height, manifest.scale * width)

    def shrunk(pictures: Sequence[Tuple[str, Picture]], kind: str) -> Tuple[Scene, ...]:
        if graph.size is not None:
            pictures = [(name, _centre(one, least)) for name, one in pictures if _holds(one, least)]
        return scenes_from_photographs(
            pictures, manifest.scale, manifest.contract, reference, side, manifest.sizes.multiple, kind
        )

    if options.lr is not None and options.hr is not None:
        scenes = scenes_of(options.lr, options.hr, manifest.scale, manifest.contract, reference)
    else:
        files = photographs(options.images) or (_OWN_PHOTOGRAPH,)
        step = max(1, len(files) // JUDGED)
        scenes = shrunk([(file.name, in_8_bits(read_picture(file))) for file in files[::step][:JUDGED]], SHRUNK)
    if not scenes:
        raise BadImage(
            "none of the photographs is large enough to judge a plan on",
            f"pictures of at least {format_size(least)} pixels",
            "give others with --images" + ("" if graph.size else ", or pairs with --lr and --hr"),
        )
    painted: List[Scene] = []
    for picture in graphics_to_judge(options.content, deployment, side).pictures():
        try:
            painted += shrunk([picture], GRAPHICS)
        except CheckFailed:
            if not manifest.fold.get("noise_overflows"):
                raise
            say(f"not judged on {picture[0]}: the float32 network itself overflows there")
    drawn = tuple(scene for scene in painted if within_reach(scene, manifest.scale))
    say(
        f"judging on {counted(len(scenes) + len(drawn), 'picture')}"
        + (f", {len(drawn)} of them graphics" if drawn else "")
    )
    if len(drawn) < len(painted):
        judged = {scene.name for scene in drawn}
        beyond = ", ".join(scene.name for scene in painted if scene.name not in judged)
        clearly = f"or is worse than bicubic enlargement there by more than {WORSE:g} dB"
        say(f"not judged on {beyond}: the float32 network itself runs away, {clearly}")
    return scenes + drawn


def _holds(picture: Picture, size: Size) -> bool:
    return all(length >= part for length, part in zip(picture.size, size))


def _centre(picture: Picture, size: Size) -> Picture:
    """So much of the middle of a picture."""
    top, left = ((length - part) // 2 for length, part in zip(picture.size, size))
    return Picture(np.ascontiguousarray(picture.pixels[top : top + size[0], left : left + size[1]]))


def photographs(images: Optional[Path]) -> Tuple[Path, ...]:
    """The pictures of a folder; none without one.

    Raises:
        BadImage: the folder does not exist or holds no pictures.
    """
    return () if images is None else find_images([images])


def scan(bench: Workbench, say: Callable[[str], None]) -> Dict[str, str]:
    """Nodes that float16 cannot hold: too close to its end on the scenes or on extreme pictures, or not finite."""
    pictures = [to_network(scene.lr, bench.contract) for scene in bench.scenes]
    extremes = bench.extremes()
    pins = too_large(bench.model, ranges_of(bench.model, extremes, extremes_only=True), EXTREME_MARGIN)
    held = pinned(bench.model, pins)
    ranges = ranges_of(bench.model, pictures, extremes_only=True)
    return {**pins, **scan_half(held, ranges, [*pictures, *extremes], say=say)}


def _bytes(array: np.ndarray, contract: IOContract) -> np.ndarray:
    """(1, 3, H, W) in 0…255 as uint8 (1, H, W, 3), or as planes."""
    if contract.yuv is not None:
        return surface_of_rgb(array[0].transpose(1, 2, 0) / np.float32(255), contract)
    return np.ascontiguousarray(np.rint(array).astype(np.uint8).transpose(0, 2, 3, 1))
