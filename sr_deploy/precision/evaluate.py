"""Judging a typed graph on pictures: PSNR-Y, distance from the float32 graph, colour shift, NaN.

ONNX Runtime computes the graph as it is written: Q/DQ pairs are executed, not fused into integer kernels, so every
machine gives the same figures. An engine's integer kernels differ from that by the rounding of exact ties only.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Callable, Optional, Sequence, Tuple

import numpy as np
import onnx

from sr_deploy.core.contract import IOContract
from sr_deploy.core.deployment.plan import Plan
from sr_deploy.core.errors import CheckFailed
from sr_deploy.core.media.bicubic import resize
from sr_deploy.core.media.image import Picture, colours_of, from_network, read_picture, to_network
from sr_deploy.core.quality.metrics import CRITERION
from sr_deploy.core.quality.pairing import pair_images
from sr_deploy.core.quality.psnr_ssim import crop_like, luma_of_colours
from sr_deploy.core.quality.structure import largest_error, new_structure, off_share
from sr_deploy.core.text import decibels_lost
from sr_deploy.core.tolerance import CHANNEL_FACTORS, largest_difference
from sr_deploy.graph.byte_io import without_rounding
from sr_deploy.precision.float16_rounding import rounded_graph, rounding_session
from sr_deploy.precision.lower.channel_factors import factored_floats
from sr_deploy.precision.lower.quantize import check_plan

#: The smallest height or width of a low-resolution picture that is worth judging, pixels.
LEAST_SIDE = 16
#: A patch of WINDOW² whose mean is further from the original, in 8-bit steps, shows something else: a quarter of the
#: range. On painted graphics the worst patch of SPAN-tiny is off by 8 to 50 but on combs, where it is by 120.
RUNAWAY = 64.0
#: A picture that float32 restores worse than bicubic enlargement by more dB says nothing about 8 bits. Networks that
#: were trained for looks are as good as bicubic on graphics, a little better here and worse there: F2SRGAN's student
#: differs from it by 0.4 dB at most on 19 of 28 painted pictures, and of Light only three would be left to judge on.
WORSE = 1.0
#: Noise below this is none, (8-bit steps)².
_SILENT = 1e-9
#: From a network's input to its output, (1, 3, H, W) to (1, 3, scale·H, scale·W), both in the contract's range.
Compute = Callable[[np.ndarray], np.ndarray]


#: Kinds of scenes: a photograph that was shrunk and is its own original, a painted picture, a pair that was given.
SHRUNK, GRAPHICS, PAIR = "shrunk photograph", "graphics", "pair"


@dataclass(frozen=True)
class PictureJudged:
    """How a graph does on one picture, beside the float32 graph.

    Attributes:
        name, kind: of the scene.
        loss: dB of PSNR-Y lost; infinite for NaN.
        independent: dB that noise of this strength costs where it has nothing to do with float32's own error.
        shift: mean difference of a colour channel, the largest of three, 8-bit steps.
        off: share of the pixels off by more than structure.OFF_STEPS, 0…1.
        structure: what a window of the picture is further from the original than float32 is, see ``new_structure``,
            8-bit steps.
        noise: mean squared change of the luma before it is rounded to 8 bits, (8-bit steps)².
        moved: mean difference of the three colour channels, 8-bit steps.
        sick: output values that are NaN or infinite.
    """

    name: str
    kind: str
    loss: float
    independent: float
    shift: float = 0.0
    off: float = 0.0
    structure: float = 0.0
    noise: float = 0.0
    moved: Tuple[float, ...] = (0.0, 0.0, 0.0)
    sick: int = 0


@dataclass(frozen=True)
class Judged:
    """How a graph does on a set of pictures, beside the float32 graph.

    Attributes:
        psnr: mean PSNR-Y in dB against the originals.
        reference_psnr: the same of the float32 graph.
        noise: mean squared difference of the two graphs' lumas before rounding, (8-bit steps)².
        independent: dB that noise of this strength costs where it has nothing to do with the float32 graph's own error:
            10 log₁₀(1 + noise / float32's error), the mean over the pictures.
        mean_shift: mean difference of a colour channel over all pictures, the largest of three, in 8-bit steps.
        worst_shift: the same over one picture, the largest of all.
        sick: output values that are NaN or infinite.
        pictures: how many.
        each: the pictures one by one.
    """

    psnr: float
    reference_psnr: float
    noise: float
    independent: float
    mean_shift: float
    worst_shift: float
    sick: int
    pictures: int
    each: Tuple[PictureJudged, ...] = ()

    @property
    def worst(self) -> PictureJudged:
        """The picture that loses most."""
        return max(self.each, key=lambda one: one.loss)

    @property
    def without_luck(self) -> float:
        """dB that pictures lose, each at least what its noise costs: what one wins by chance another loses."""
        return float(np.mean([max(one.loss, one.independent) for one in self.each]))

    @property
    def loss(self) -> float:
        """dB lost against float32; negative where the graph is better."""
        return self.reference_psnr - self.psnr

    @property
    def felt(self) -> float:
        """How much of ``independent`` is lost here: 1 where the noise has nothing to do with float32's error, 0 or less
        where it takes away what float32 had too much. A network's own, and much the same on other pictures."""
        return self.loss / self.independent if 0.0 < self.independent < float("inf") else 0.0


def quieter(one: Judged, other: Judged) -> bool:
    """Whether a plan makes less noise than another on the same pictures: the ratio in the geometric mean, so that each
    picture counts alike.

    What pictures lose tells two plans apart less well: it hangs on a few edges on which the network amplifies whatever
    differs. One plan of SPAN-tiny loses 0.34 dB on a screen with float16 around its INT8, and 0.21 with float32.
    """
    if one.sick or other.sick:
        return one.sick < other.sick
    mine, theirs = ([max(picture.noise, _SILENT) for picture in judged.each] for judged in (one, other))
    return float(np.mean(np.log(mine) - np.log(theirs))) < 0.0


def losses_of(judged: Judged) -> str:
    """What is lost, for people: in the mean, and in the worst picture."""
    return f"{decibels_lost(judged.loss)} in the mean, {decibels_lost(judged.worst.loss)} in {judged.worst.name}"


@dataclass(frozen=True)
class Scene:
    """A low-resolution picture, its original, and what the float32 graph makes of it.

    Attributes:
        name: of the picture.
        lr: the picture as read.
        hr: uint8 (H, W, 3) or (H, W, 1), cropped to the output.
        reference: the float32 graph's picture, uint8 (H, W, 3) or (H, W, 1).
        reference_psnr: PSNR-Y of that, dB.
        luma: of what the float32 graph gives before it is rounded, float32 (H, W).
        kind: SHRUNK, GRAPHICS or PAIR.
    """

    name: str
    lr: Picture
    hr: np.ndarray
    reference: np.ndarray
    reference_psnr: float
    luma: np.ndarray
    kind: str = PAIR


def computing(model: onnx.ModelProto, threads: int = 0) -> Compute:
    """A graph as a function, run on the CPU node by node as it is written, rounded to float16 where it says so.

    Args:
        model: any types inside; one input and one output.
        threads: of ONNX Runtime; 0 lets it choose.
    """
    session = rounding_session(rounded_graph(model), threads)
    name = session.get_inputs()[0].name
    return lambda lr: session.run(None, {name: lr})[0]


def judging(model: onnx.ModelProto, threads: int = 0) -> Compute:
    """The same for ``judge``: a graph that rounds to 8 bits itself gives floats in 0…255 before that.

    Rounding makes small noise look larger than it is. Two values that are d steps apart, anywhere between two steps
    with equal probability, differ once rounded by floor(|d|), or with probability f, the fraction of |d|, by one more:

        E[(round(x + d) - round(x))²] = d² + f (1 - f),

    and where |d| < 1 the mean square is |d|, not d². Float16 alone, which on a photograph that SPAN-tiny restores at
    36 dB makes 0.002 (8-bit steps)², seems to make 0.017 in rounded pictures, and so to spend all of a budget of
    0.01 dB. PSNR has that rounding on both sides.
    Graphs of a decoder's planes round their samples: what that adds, 1/6 at most, stays in.
    """
    return computing(without_rounding(model), threads)


def prove_factors(model: onnx.ModelProto, plan: Plan, inputs: Sequence[np.ndarray], value_range: float) -> None:
    """Run the float32 graph with and without a plan's channel factors: it must give the same.

    Args:
        model: the float32 graph of the plan.
        plan: with factors or without.
        inputs: as the graph takes them.
        value_range: of its output: the value of white.

    Raises:
        CheckFailed: it gives more than CHANNEL_FACTORS else.
        BadDeployment: the factors do not fit the graph.
    """
    if not plan.channel_factors:
        return
    check_plan(model, plan, {})
    plain = computing(model)
    for absorb in (True, False):
        divided = computing(factored_floats(model, plan, absorb))
        largest = max(largest_difference(divided(one), plain(one), value_range) for one in inputs)
        if largest > CHANNEL_FACTORS.steps:
            raise CheckFailed(
                f"the plan's channel factors change the float32 graph by {largest:.3g} of 255",
                f"{CHANNEL_FACTORS.steps:g}: factors are powers of two",
                "make the plan again, and report the network",
            )


def scenes_of(lr: Path, hr: Path, scale: int, contract: IOContract, reference: Compute) -> Tuple[Scene, ...]:
    """Pairs of pictures with the float32 graph's answer to each.

    Raises:
        BadImage: pictures without partner, of wrong sizes, or unreadable.
    """
    return tuple(
        scene_of(name, read_picture(low), read_picture(high).pixels, scale, contract, reference, str(high))
        for name, low, high in pair_images(Path(lr), Path(hr), scale)
    )


def scene_of(
    name: str,
    picture: Picture,
    original: np.ndarray,
    scale: int,
    contract: IOContract,
    reference: Compute,
    original_name: str = "the original",
) -> Scene:
    """One pair with the float32 graph's answer."""
    output = reference(to_network(picture, contract))
    pixels = from_network(output, contract, like=picture).pixels
    hr = crop_like(original, pixels, original_name)
    return Scene(name, picture, hr, pixels, CRITERION.of(pixels, hr, scale), _exact_luma(output, contract, picture))


def _exact_luma(output: np.ndarray, contract: IOContract, like: Picture) -> np.ndarray:
    """Of what a graph gives, limited to the range and not rounded, float32 (H, W)."""
    full = np.iinfo(like.pixels.dtype).max
    return luma_of_colours(np.clip(colours_of(output, contract, like), 0, full)).astype(np.float32)


def part_of(scene: Scene, side: int, scale: int, contract: IOContract, reference: Compute) -> Scene:
    """The corner of a scene, at most ``side`` low-resolution pixels each way, with the float32 graph's answer to it."""
    low = Picture(np.ascontiguousarray(scene.lr.pixels[:side, :side]))
    original = scene.hr[: scale * side, : scale * side]
    return replace(scene_of(scene.name, low, original, scale, contract, reference), kind=scene.kind)


def scenes_from_photographs(
    pictures: Sequence[Tuple[str, Picture]],
    scale: int,
    contract: IOContract,
    reference: Compute,
    side: int,
    multiple: int = 1,
    kind: str = SHRUNK,
) -> Tuple[Scene, ...]:
    """Pairs made from photographs without originals: each is shrunk, and is its own original.

    The losses that such pairs show follow those of Set5 and Set14, somewhat smaller: shrunk photographs are busier, so
    float32 itself is further from the original.

    Args:
        pictures: (name, photograph).
        scale: output size over input size.
        contract: of the graph.
        reference: the float32 graph.
        side: of the low-resolution picture at most, pixels; the centre of the photograph is taken.
        multiple: height and width of the low-resolution picture are multiples of this.
        kind: of the scenes.
    """
    found = []
    for name, picture in pictures:
        low = tuple(min(side, length // scale) // multiple * multiple for length in picture.size)
        if min(low) < LEAST_SIDE:
            continue
        top, left = ((length - scale * part) // 2 for length, part in zip(picture.size, low))
        original = picture.pixels[top : top + scale * low[0], left : left + scale * low[1]]
        shrunk = Picture(np.ascontiguousarray(resize(original, (low[0], low[1]))))
        found.append(replace(scene_of(name, shrunk, original, scale, contract, reference), kind=kind))
    return tuple(found)


def within_reach(scene: Scene, scale: int) -> bool:
    """Whether float32 itself is not clearly worse than bicubic enlargement here, and nowhere off by a patch beyond
    recognition.

    On combs of saturated colours near the limit of resolution some networks run away: SPAN-tiny's features grow to
    400 times what they are on photographs, and its picture is 5 dB worse than bicubic's. INT8 cuts such values off, is
    better for it and shifts colours by it; neither says anything about INT8.
    """
    if largest_error(scene.reference, scene.hr) > RUNAWAY:
        return False
    height, width = scene.lr.size
    bicubic = resize(scene.lr.pixels, (scale * height, scale * width))
    return scene.reference_psnr > CRITERION.of(bicubic, scene.hr, scale) - WORSE


def judge(
    scenes: Sequence[Scene],
    compute: Compute,
    scale: int,
    contract: IOContract,
    order: Optional[Sequence[int]] = None,
    enough: Callable[[PictureJudged], bool] = lambda _: False,
) -> Judged:
    """Run a graph over the scenes.

    NaN anywhere gives minus infinity dB.

    Args:
        scenes: one or more.
        compute: the graph.
        scale, contract: of it.
        order: indices of the scenes, in which they are looked at; None is as they are.
        enough: asked after each picture; where it says so, the others are not looked at.

    Returns:
        Of the pictures that were looked at, in the order of ``scenes``.
    """
    found = {}
    for index in range(len(scenes)) if order is None else order:
        found[index] = judged_picture(scenes[index], compute, scale, contract)
        if enough(found[index]):
            break
    each = [found[index] for index in sorted(found)]
    reference = float(np.mean([scenes[index].reference_psnr for index in found]))
    shifts = [one.moved for one in each if not one.sick]
    return Judged(
        psnr=reference - float(np.mean([one.loss for one in each])),
        reference_psnr=reference,
        noise=float(np.mean([one.noise for one in each])),
        independent=float(np.mean([one.independent for one in each])),
        mean_shift=float(np.abs(np.mean(shifts, axis=0)).max()) if shifts else 0.0,
        worst_shift=float(np.abs(shifts).max()) if shifts else 0.0,
        sick=sum(one.sick for one in each),
        pictures=len(each),
        each=tuple(each),
    )


def judged_picture(scene: Scene, compute: Compute, scale: int, contract: IOContract) -> PictureJudged:
    """Run a graph on one picture."""
    output = compute(to_network(scene.lr, contract))
    bad = int(np.count_nonzero(~np.isfinite(output)))
    if bad:
        infinite = float("inf")
        return PictureJudged(scene.name, scene.kind, infinite, infinite, noise=infinite, sick=bad)
    pixels = from_network(output, contract, like=scene.lr).pixels
    noise = float(np.mean((_exact_luma(output, contract, scene.lr) - scene.luma) ** 2))
    moved = pixels.mean(axis=(0, 1), dtype=np.float64) - scene.reference.mean(axis=(0, 1), dtype=np.float64)
    error = 255.0**2 / 10.0 ** (scene.reference_psnr / 10.0)
    return PictureJudged(
        name=scene.name,
        kind=scene.kind,
        loss=scene.reference_psnr - CRITERION.of(pixels, scene.hr, scale),
        independent=10.0 * float(np.log10(1.0 + noise / max(error, 1e-12))),
        shift=float(np.abs(moved).max()),
        off=off_share(pixels, scene.reference),
        structure=new_structure(pixels, scene.reference, scene.hr),
        noise=noise,
        # A grey picture has one channel that stands for all three.
        moved=tuple(np.broadcast_to(moved, (3,)).tolist()),
    )
