"""Whether 8 bits pay on TensorRT-RTX: what their engine and the float16 plan's move, by the builder's listing.

TensorRT-RTX 1.7.1 computes convolutions in INT8 and FP8, but each writes float32 and a second kernel does bias,
activation and quantisation, so that 8 bits mostly move more bytes than float16. Both engines are built of the same
graph, size and targets. A build that was asked for 8 bits gets them, with the figures as a warning; ``--precision
auto`` takes float16 where they do not move fewer bytes.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import TYPE_CHECKING, Callable, Optional, Tuple

from sr_deploy.core.contract import Size, format_size
from sr_deploy.core.deployment.manifest import Deployment
from sr_deploy.core.deployment.plan import Plan
from sr_deploy.core.errors import BadDeployment, SrDeployError
from sr_deploy.core.number_formats import QUANTISED
from sr_deploy.engine.manifest import Profile
from sr_deploy.pipeline.precision.deployed_plan import Planned, PrecisionOptions, find_planned

if TYPE_CHECKING:
    from sr_deploy.engine.built import BuiltEngine

#: Builds an engine of a plan for these inputs, of one graph, with the same targets and limits each time.
Build = Callable[[Planned, Profile], "BuiltEngine"]
#: Gives the plan that is asked for; told what happens.
Make = Callable[[Deployment, PrecisionOptions, Callable[[str], None]], Planned]


@dataclass(frozen=True)
class Payoff:
    """Kernels and bytes moved of the engine of 8 bits and of the float16 one, for an input of ``size`` (height, width);
    ``label`` says which 8 bits."""

    size: Size
    label: str
    narrow: Tuple[int, int]
    half: Tuple[int, int]

    @property
    def pays(self) -> bool:
        """Whether 8 bits move fewer bytes."""
        return self.narrow[1] < self.half[1]

    def text(self) -> str:
        """The figures in words."""
        (kernels, moved), (half_kernels, half_moved) = self.narrow, self.half
        return (
            f"at {format_size(self.size)} the {self.label} engine reads and writes {moved / 1e6:.1f} MB in {kernels} "
            f"kernels, the float16 engine {half_moved / 1e6:.1f} MB in {half_kernels}"
        )


def weighed(
    deployment: Deployment,
    planned: Planned,
    built: BuiltEngine,
    options: Optional[PrecisionOptions],
    build: Build,
    make: Make,
    say: Callable[[str], None],
) -> Tuple[BuiltEngine, Planned]:
    """Compare an engine that has 8 bits in it with one of the deployment's float16 plan.

    Args:
        deployment: opened.
        planned: what ``built`` was built from.
        built: the engine.
        options: what was asked for.
        build: see ``Build``.
        make: makes the float16 plan where the deployment has none, see pipeline/engines/plans.planned_for.
        say: told the figures and what was chosen.

    Returns:
        The engine to keep and its plan: the given one, or for "auto" the float16 one where 8 bits do not pay and
        float16 keeps the budget. ``against_float16`` in its settings holds the figures; where they speak against 8 bits
        and these are kept all the same, or where nothing could be compared, a warning says so.
    """
    options = options or PrecisionOptions(planned.plan.precision)
    label = labels(planned.plan)
    try:
        half = _half_plan(deployment, planned, options, make, say)
        other = build(half, built.profile)
        payoff = _payoff(built, other, planned, half, build)
    except SrDeployError as error:
        return _warned(built, f"{label} was not weighed against float16: {' '.join(error.found.split())}"), planned
    if payoff is None:
        return _warned(built, f"{label} was not weighed against float16: the builder lists no layers"), planned
    text = payoff.text()
    say(text)
    built = dataclasses.replace(built, settings={**built.settings, "against_float16": text})
    if payoff.pays:
        return built, planned
    if planned.plan.precision != "auto":
        return _warned(built, f"{label} does not pay on this backend: {text}"), planned
    if not options.kept_by(half.report):
        lost = half.report.get("worst_loss_db", half.report.get("loss_db"))
        return _warned(built, f"{label} does not pay: {text}; but float16 loses {lost} dB, and is not taken"), planned
    say(f"{label} moves no fewer bytes here, so float16 is taken")
    settings = {**other.settings, "against_float16": text, "left_out": f"{label}: it moves no fewer bytes than float16"}
    return dataclasses.replace(other, settings=settings), half


def _half_plan(
    deployment: Deployment,
    planned: Planned,
    options: PrecisionOptions,
    make: Make,
    say: Callable[[str], None],
) -> Planned:
    """The deployment's float16 plan; made, judged on the same pictures, only where there is none.

    Raises:
        BadDeployment: the one that is there is for another graph.
    """
    half = find_planned(deployment, "fp16")
    if half is None:
        asked = PrecisionOptions("fp16", images=options.images, lr=options.lr, hr=options.hr, content=options.content)
        say("a float16 plan, to weigh 8 bits against")
        half = make(deployment, asked, say)
    if half.plan.graph_sha256 != planned.plan.graph_sha256:
        raise BadDeployment(
            f"{half.folder} is a plan for another graph",
            "one for the same",
            "make it again: srdeploy build DIR --precision fp16 --remake-plan",
        )
    return half


def _payoff(built: BuiltEngine, other: BuiltEngine, planned: Planned, half: Planned, build: Build) -> Optional[Payoff]:
    """The figures; for an engine of a range of sizes, of two more that are fixed to the size it is optimised for."""
    low, best, high = built.profile
    if low != high:
        built, other = (build(one, (best, best, best)) for one in (planned, half))
    figures = []
    for engine in (built, other):
        if engine.listing is None or engine.listing.bytes_moved is None:
            return None
        figures.append((engine.listing.kernels, engine.listing.bytes_moved))
    return Payoff(best, labels(planned.plan), figures[0], figures[1])


def labels(plan: Plan) -> str:
    """The 8-bit formats of a plan, for people."""
    return " and ".join(one.label for one in QUANTISED if plan.nodes_of(one.name))


def _warned(built: BuiltEngine, text: str) -> BuiltEngine:
    return dataclasses.replace(built, warnings=(*built.warnings, text))
