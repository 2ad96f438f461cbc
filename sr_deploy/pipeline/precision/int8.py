"""Plans of 8 bits, INT8 or FP8: ranges from photographs, and weights that suit them."""

from __future__ import annotations

import dataclasses
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Callable, Dict, List, Mapping, Optional, Sequence, Tuple

import numpy as np

from sr_deploy.core.deployment.manifest import Deployment
from sr_deploy.core.deployment.plan import Plan
from sr_deploy.core.errors import BadInput, CheckFailed, UsageError
from sr_deploy.core.media.image import read_picture, to_network
from sr_deploy.core.number_formats import INT8, QUANTISED
from sr_deploy.core.text import counted
from sr_deploy.pipeline.precision.calibrate import (
    CalibrateOptions,
    Calibration,
    calibrate_deployment,
    calibration_path,
    open_calibration,
)
from sr_deploy.pipeline.precision.content import graphics_to_fit
from sr_deploy.pipeline.precision.deployed_plan import PrecisionOptions
from sr_deploy.pipeline.precision.plan_inputs import Workbench, photographs, scan
from sr_deploy.precision.calibrate.collect import PATCH, patches
from sr_deploy.precision.calibrate.float8_scale import float8_scale
from sr_deploy.precision.choose.plan_from_ranges import Divided, NarrowChoice, Scales, narrow_plan
from sr_deploy.precision.choose.sensitivity import LayerCost, View, sensitivities
from sr_deploy.precision.evaluate import (
    Judged,
    Scene,
    judge,
    judging,
    losses_of,
    part_of,
    quieter,
)
from sr_deploy.precision.lower.typed_graph import typed_graph

if TYPE_CHECKING:
    from sr_deploy.precision.fit.adaptive_rounding import Fits

#: Sensitivity is judged on this many pictures: it only orders the layers.
FEW = 2
#: Where a picture loses more dB than this, layers are looked for that are better left in float16: those of at most
#: LOUD_MACS of the work that make LOUD times their share of it of the noise, and LOUD_NOISE of it at least. In EFDN
#: four 1×1 convolutions with 5 % of the work make most of it. 8 bits keep LEAST_NARROW of the work.
QUIET = 0.1
LOUD, LOUD_NOISE, LOUD_MACS, LEAST_NARROW = 4.0, 0.05, 0.07, 0.8
#: So often it is looked again, with weights fitted anew, and at so many pictures of each kind, of this low-resolution
#: side.
LOUD_ROUNDS, LOUD_SCENES, LOUD_SIDE = 3, 4, 64
#: Then grids that are so many times as coarse are tried too, and of all plans that one is taken whose pictures lose
#: least, each at least what its noise costs. In a chart or a page the same few edges come again and again, so what
#: rounding does to them does not average out as it does in photographs: a grid moved by a tenth decides whether charts
#: lose 0.2 dB or none, painted ones and others alike (with SPAN-tiny painted charts 0.24 or 0.03 in the mean, others
#: 0.24 or -0.16).
GRIDS = (0.9, 1.1)

#: Squares that weights are fitted on, and biases are corrected on after it.
FITTED = 32

Weighted = Tuple[Plan, Dict[str, np.ndarray]]


@dataclasses.dataclass(frozen=True)
class Material:
    """What plans of 8 bits of one graph are made from.

    Attributes:
        images: inputs of the graph to fit weights on.
        scales: of its tensors in each 8-bit format.
        wide: nodes that float16 cannot hold, with the reason.
        calibration: where the scales come from, for the plan.
    """

    images: List[np.ndarray]
    scales: Scales
    wide: Dict[str, str]
    calibration: Dict[str, Any]


def calibrated_plan(
    deployment: Deployment, bench: Workbench, options: PrecisionOptions, say: Callable[[str], None]
) -> Weighted:
    """INT8 or FP8 wherever the islands allow it, less the few small layers that spoil it for the others.

    Raises:
        BadInput: there are no calibration pictures.
    """
    material = gather(deployment, bench, options, say)
    one = next(one for one in QUANTISED if one.precision == options.precision)
    formats = dict.fromkeys(bench.kinds.candidates, one.name)
    fits = no_fits() if options.improve else None
    plan, weights, _ = everywhere(bench, material, options, formats, say, fits=fits)
    wide: Dict[str, str] = {}
    judged = bench.judged(plan, weights)
    for _ in range(LOUD_ROUNDS if options.improve else 0):
        loud = {} if judged.worst.loss <= QUIET else _loud_layers(bench, material, (plan, weights), judged, say)
        if not loud:
            break
        wider = everywhere(bench, material, options, formats, say, {**wide, **loud}, fits)[:2]
        now = bench.judged(*wider)
        if not quieter(now, judged):
            say(f"they stay {one.label} after all: {losses_of(now)} with them wider, {losses_of(judged)} without")
            break
        (plan, weights), judged = wider, now
        wide.update(loud)
    for times in GRIDS if options.improve and one is INT8 and judged.worst.loss > QUIET else ():
        other = dataclasses.replace(material, scales=material.scales.coarser(times))
        tried = everywhere(bench, other, options, formats, say, wide, fits)[:2]
        now = bench.judged(*tried)
        lost = f"pictures lose {now.without_luck:.3f} dB, each at least what its noise costs"
        told = f"grids {times} times as coarse: {lost}"
        say(f"{told}; {judged.without_luck:.3f} before")
        if (now.sick, now.without_luck) < (judged.sick, judged.without_luck):
            plan, weights = dataclasses.replace(tried[0], notes=(*tried[0].notes, told)), tried[1]
            judged = now
    return dataclasses.replace(plan, precision=one.precision), weights


def no_fits() -> Fits:
    """For several fits to have in common, see ``learned_rounding``."""
    from sr_deploy.precision.fit.adaptive_rounding import Fits

    return Fits()


def _loud_layers(
    bench: Workbench, material: Material, made: Weighted, judged: Judged, say: Callable[[str], None]
) -> Dict[str, str]:
    """Layer → why it should stay float16: it makes much of the noise and does little of the work."""
    (plan, weights), macs = made, bench.kinds.candidates
    scenes = _losing_most(bench, judged)

    def noise(judged: Plan) -> np.ndarray:
        compute = judging(typed_graph(bench.model, judged, weights))
        return np.array([judge((one,), compute, bench.scale, bench.contract).noise for one in scenes])

    narrow = {name: plan.nodes[name] for name in plan.quantised if name in macs}
    small = [name for name in narrow if macs[name] <= LOUD_MACS * bench.kinds.macs]
    whole = np.maximum(noise(plan), 1e-12)
    large = NarrowChoice(tuple(name for name in narrow if name not in small), narrow)
    # Mostly the small layers do not even make so much noise together, and none needs to be looked at.
    if not small or np.mean(1.0 - noise(narrow_of(bench, material, large, weights)) / whole) < LOUD_NOISE:
        return {}
    # The share of a picture's noise, all of it at most, so that each picture counts alike: fitted layers make up for
    # one another, and one that runs away alone may make ten times the noise of all together.
    shares: Dict[str, float] = dict.fromkeys(small, 0.0)
    formats = {name: narrow[name] for name in small}
    for one, loudness in zip(scenes, whole):
        view = View((one,), bench.scale, bench.contract)
        for cost in sensitivities(bench.model, bench.kinds, material.scales, weights, view, formats):
            shares[cost.name] += min(cost.noise / loudness, 1.0) / len(scenes)
    loud: Dict[str, str] = {}
    left = sum(macs[name] for name in narrow)
    for name in sorted(small, key=lambda name: -shares[name] / max(macs[name], 1)):
        work = macs[name] / max(bench.kinds.macs, 1)
        if shares[name] < max(LOUD_NOISE, LOUD * work) or left - macs[name] < LEAST_NARROW * bench.kinds.macs:
            continue
        left -= macs[name]
        loud[name] = (
            f"loud: alone it makes {shares[name]:.0%} of the noise of all layers together, with "
            f"{work:.1%} of the multiply-accumulates"
        )
        say(f"stays float16: {name}, {loud[name]}")
    return loud


def _losing_most(bench: Workbench, judged: Judged) -> List[Scene]:
    """Parts of the scenes of each kind that lose most."""
    found: List[Scene] = []
    for kind in dict.fromkeys(scene.kind for scene in bench.scenes):
        both = [(one.loss, scene) for one, scene in zip(judged.each, bench.scenes) if scene.kind == kind]
        found += [scene for _, scene in sorted(both, key=lambda pair: -pair[0])[:LOUD_SCENES]]
    if bench.graph.size is not None:
        return found
    reference = judging(bench.model)
    return [part_of(one, LOUD_SIDE, bench.scale, bench.contract, reference) for one in found]


def _of_each_kind(scenes: Sequence[Scene]) -> List[Scene]:
    """The first scene of each kind: a photograph, and a painted one where there is any."""
    return [next(scene for scene in scenes if scene.kind == kind) for kind in dict.fromkeys(one.kind for one in scenes)]


def everywhere(
    bench: Workbench,
    material: Material,
    options: PrecisionOptions,
    formats: Mapping[str, str],
    say: Callable[[str], None],
    without: Mapping[str, str] = MappingProxyType({}),
    fits: Optional[Fits] = None,
) -> Tuple[Plan, Dict[str, np.ndarray], bool]:
    """All layers in 8 bits that the islands and ``without`` (layer → why not) leave, each in the format of ``formats``,
    weights that suit, and whether the float16 pins had to be kept; for ``fits`` see ``learned_rounding``."""
    kinds = bench.kinds
    narrow = tuple(name for name in kinds.candidates if name not in kinds.wide and name not in without)
    for strict in (False, True):
        choice = NarrowChoice(narrow, formats, without, strict=strict)
        plan, weights = improved(bench, narrow_of(bench, material, choice), material, options.improve, say, fits)
        if strict or not material.wide or not sick(lambda: bench.judged(plan, weights)):  # noqa: B023
            break
        say("NaN or infinite values on extreme pictures: layers that float16 cannot hold stay float32")
    return plan, weights, strict


def sick(look: Callable[[], Judged]) -> bool:
    """Whether a plan gives NaN or infinite values, or holds a constant that float16 does not."""
    try:
        return look().sick > 0
    except CheckFailed:
        return True


def narrow_of(
    bench: Workbench,
    material: Material,
    choice: NarrowChoice,
    weights: Optional[Mapping[str, np.ndarray]] = None,
) -> Plan:
    """A plan of ``auto`` with the layers of a choice in 8 bits; what the scan and the calibration found is added."""
    choice = dataclasses.replace(choice, wide=material.wide, precision="auto", calibration=material.calibration)
    return narrow_plan(bench.model, bench.kinds, bench.graph.sha256, material.scales, choice, weights)


def layer_costs(
    bench: Workbench,
    material: Material,
    formats: Mapping[str, str],
    weights: Mapping[str, np.ndarray],
    say: Callable[[str], None],
    scenes: Sequence[Scene] = (),
) -> Tuple[LayerCost, ...]:
    """What each layer of ``formats`` costs when it alone runs in that 8-bit format, on these scenes or a few of the
    workbench's."""
    say(f"sensitivity of {len(formats)} layers")
    kinds = _of_each_kind(bench.scenes)
    few = kinds if len(kinds) >= FEW else bench.scenes[:: max(1, len(bench.scenes) // FEW)][:FEW]
    view = View(scenes or few, bench.scale, bench.contract)
    return sensitivities(bench.model, bench.kinds, material.scales, weights, view, formats, say)


def gather(deployment: Deployment, bench: Workbench, options: PrecisionOptions, say: Callable[[str], None]) -> Material:
    """Scales from the calibration, made now if there is none of these pictures, and pictures to fit weights on.

    Raises:
        BadInput: no pictures, or neither pictures nor a calibration.
    """
    calibration = _calibration(deployment, bench, options, say)
    arrays: List[np.ndarray] = []
    if options.images is not None:
        arrays = [to_network(read_picture(path), bench.contract) for path in photographs(options.images)]
        arrays += graphics_to_fit(options.content, len(arrays), deployment, bench.graph).inputs(bench.contract)
    squares = list(patches(arrays, bench.graph.size or PATCH, multiple=deployment.manifest.sizes.multiple))
    known = ("method", "images_sha256", "pictures", "set", "graphics")
    about = {key: calibration.provenance[key] for key in known if calibration.provenance.get(key) is not None}
    scales = Scales(
        calibration.scales,
        _float8_scales(bench, calibration, options.method == "minmax"),
        _divided(bench, calibration, squares, say) if options.improve else {},
    )
    return Material(squares, scales, scan(bench, say), about)


def _float8_scales(bench: Workbench, calibration: Calibration, naive: bool) -> Dict[str, float]:
    """Tensor → FP8 scale, of what the candidates read; with "minmax" the largest magnitude becomes 448."""
    read = {node.input[0] for node in bench.model.graph.node if node.name in bench.kinds.candidates}
    return {name: float8_scale(calibration.ranges.tensors[name], naive) for name in sorted(read)}


def _divided(
    bench: Workbench, calibration: Calibration, squares: List[np.ndarray], say: Callable[[str], None]
) -> Dict[str, Divided]:
    """Tensors whose channels INT8 convolutions should read divided."""
    from sr_deploy.precision.fit.channel_factors import divided_channels

    found = divided_channels(bench.model, bench.kinds, calibration.scales, squares)
    say(f"channels are scaled in front of INT8 in {counted(len(found), 'tensor')}")
    return found


def _calibration(
    deployment: Deployment, bench: Workbench, options: PrecisionOptions, say: Callable[[str], None]
) -> Calibration:
    """The calibration that is there if it is of these pictures, else a new one."""
    images = () if options.images is None else (options.images,)
    try:
        found = open_calibration(deployment, options.method, images, bench.graph, options.content)
    except (BadInput, UsageError) as error:
        if not images:
            raise
        if calibration_path(deployment, options.method, bench.graph).is_file():
            say(f"the calibration that is there is replaced: {error.found}")
        say(f"calibrating with {options.images}, {options.method}")
        return calibrate_deployment(
            CalibrateOptions(
                deployment.folder, images, options.method, force=True, graph=bench.graph.file, content=options.content
            ),
            say,
        )
    say(f"calibration: {found.path}, {found.provenance['pictures']} pictures")
    return found


def improved(
    bench: Workbench,
    plan: Plan,
    material: Material,
    improve: bool,
    say: Callable[[str], None] = lambda _: None,
    fits: Optional[Fits] = None,
) -> Weighted:
    """The plan with weights fitted to it, where that is wanted; for ``fits`` see ``learned_rounding``."""
    if not improve:
        return plan, {}
    from sr_deploy.precision.fit.adaptive_rounding import learned_rounding
    from sr_deploy.precision.fit.bias_correction import corrected_bias

    say("fitting weights and biases to 8 bits, layer by layer")
    fits = no_fits() if fits is None else fits
    plan, weights = learned_rounding(bench.model, plan, {}, material.images, count=FITTED, fits=fits)
    # Once more over all, when every layer before is as it will be: SPAN-tiny loses 0.017 dB on Set14 instead of 0.026.
    weights = corrected_bias(bench.model, plan, weights, material.images, FITTED, fits.taught)
    notes = ["weights and biases fitted to 8 bits layer by layer (precision/fit/adaptive_rounding.py)"]
    if plan.channel_factors:
        divided = counted(len(plan.channel_factors), "tensor")
        notes.append(f"channels of {divided} divided before INT8 (fit/channel_factors.py)")
    return dataclasses.replace(plan, notes=(*plan.notes, *notes)), weights
