"""``auto``: for each layer the cheapest type that the target has and the budget bears."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Callable, Dict, Iterable, List, Mapping, Optional, Sequence, Tuple

import numpy as np

from sr_deploy.core.deployment.manifest import Deployment
from sr_deploy.core.deployment.plan import Plan
from sr_deploy.core.deployment.target import formats_of
from sr_deploy.core.number_formats import BFLOAT16, FLOAT16, FLOAT32, INT8, QUANTISED
from sr_deploy.core.text import decibels_lost
from sr_deploy.pipeline.precision.deployed_plan import PrecisionOptions
from sr_deploy.pipeline.precision.int8 import Material, gather, layer_costs
from sr_deploy.pipeline.precision.judged_sets import (
    Ground,
    JudgedSets,
    Set8,
    grounds_of,
    labels_of,
    that_16_bits_keep,
)
from sr_deploy.pipeline.precision.layer_savings import Savings, float_savings, savings_of
from sr_deploy.pipeline.precision.plan_inputs import Workbench
from sr_deploy.precision.choose.budget import Budget
from sr_deploy.precision.choose.forecast import Forecast, PictureKey
from sr_deploy.precision.choose.search import most_looked_at, search
from sr_deploy.precision.choose.sensitivity import LayerCost
from sr_deploy.precision.evaluate import Judged, Scene, losses_of

#: In one layer another format than INT8, which all targets have, must make this much less of its noise.
_CLEARLY = 0.9

Say = Callable[[str], None]
#: Format → layer → what it costs alone.
Costs = Mapping[str, Mapping[str, LayerCost]]


@dataclass(frozen=True)
class Chosen:
    """What was chosen on one ground.

    Attributes:
        plan, weights: that go together.
        judged: of them.
        facts: for the plan's report.
        kept: whether the budget is.
        saved: microseconds, of layers in 8 bits and of what is in 16 bits and else would be float32.
    """

    plan: Plan
    weights: Dict[str, np.ndarray]
    judged: Judged
    facts: Dict[str, Any]
    kept: bool
    saved: float


def auto_plan(
    deployment: Deployment, bench: Workbench, options: PrecisionOptions, say: Say
) -> Tuple[Workbench, Plan, Dict[str, np.ndarray], Dict[str, Any]]:
    """See ``chosen_plan``; with scales and pictures from the deployment's calibration.

    Returns:
        What the plan was judged on too: painted pictures in which 16 bits alone break the budget judge nothing.

    Raises:
        BadInput: there are no calibration pictures.
    """
    savings = savings_of(bench.work, bench.kinds.candidates, options.half_times, options.int8_times)
    material = gather(deployment, bench, options, say)
    bench, note = that_16_bits_keep(bench, material, Budget(options.budget), say)
    plan, weights, facts = chosen_plan(bench, material, savings, options, say)
    return bench, dataclasses.replace(plan, notes=(*plan.notes, *note)), weights, facts


def chosen_plan(
    bench: Workbench, material: Material, savings: Savings, options: PrecisionOptions, say: Say
) -> Tuple[Plan, Dict[str, np.ndarray], Dict[str, Any]]:
    """8 bits wherever the islands and the budget allow it, what saves most for its noise first.

    Of INT8 and FP8, where the target has both, each layer takes the one that makes less noise. Weights are fitted once
    with all layers in each format, which orders the layers, and again for every set that is judged: biases make up for
    what the layers before them do. Where float16 overflows, bfloat16 takes its place if the target has it and the plan
    saves more so, else float32.

    Args:
        bench, material: what the plan is made from.
        savings: what each layer saves in 8 bits.
        options: budgets, whether weights are fitted, and the target.
        say: told what was tried.

    Returns:
        The plan, the weights that go with it, and for its report what was given up, how many sets were tried and what
        the budget promises.
    """
    kinds = bench.kinds
    slower = {name: why for name, why in savings.slower().items() if name not in kinds.wide}
    if slower:
        say(f"{len(slower)} more convolutions stay float16: 8 bits are no faster {savings.source}")
    names = tuple(name for name in kinds.candidates if name not in kinds.wide and name not in slower)
    grounds = grounds_of(bench, material, options.target)
    found: List[Chosen] = []
    for ground in grounds:
        if len(grounds) > 1:
            say(f"where float16 overflows: {_told(ground)}")
        made = JudgedSets(bench, material, options.improve, slower, ground, say, _most_sets(options))
        found.append(_on_ground(made, names, savings, options, say))
        if found[-1].kept and set(names) <= set(found[-1].plan.quantised):
            break
    # Of those that save alike the first is cheapest: max takes it.
    best = max((one for one in found if one.kept), key=lambda one: one.saved, default=found[-1])
    return best.plan, best.weights, {**best.facts, "sets_tried": sum(one.facts["sets_tried"] for one in found)}


def _told(ground: Ground) -> str:
    if ground.rest == BFLOAT16.name:
        return f"{BFLOAT16.label} all over but where it is too coarse for the picture"
    return f"{(BFLOAT16 if ground.types else FLOAT32).label}, and {FLOAT16.label} elsewhere"


def _on_ground(
    made: JudgedSets, names: Tuple[str, ...], savings: Savings, options: PrecisionOptions, say: Say
) -> Chosen:
    """The layers in 8 bits that save most within the budget."""
    budget = Budget(options.budget, options.mean_budget)
    singles = _singles(made, names, options) if names else ()
    if made.strict:
        names = tuple(name for name in names if name not in made.ground.wide)
        singles = _singles(made, names, options) if names else ()
    if not names:
        return _chosen(made, (), budget, savings, None)
    kept = _keeping(made, singles, budget)
    if kept is None:
        felt = dataclasses.replace(budget, felt=budget.felt_from(made.of(singles[0])[1]))
        if not felt.keeps(made.of(())[1]):
            return _none(made, names, felt, savings, say)
        costs = _costs(made, singles, made.telling_scenes(singles, budget), say)
        mixture = _set(_quietest(made.bench, costs))
        kept = _keeping(made, (mixture,), budget)
        if kept is None:
            return _searched(made, costs, singles, mixture, felt, savings, say)
    note = (
        f"all {len(names)} layers in {labels_of(kept)} for a budget of {budget.text()}: {losses_of(made.of(kept)[1])}"
    )
    note += _beside(made, singles, kept)
    say(note)
    return _chosen(made, kept, budget, savings, note)


def _none(made: JudgedSets, names: Sequence[str], budget: Budget, savings: Savings, say: Say) -> Chosen:
    """No layer in 8 bits, where 16 bits alone do not keep the budget."""
    note = f"no layer in 8 bits: 16 bits alone do not keep {budget.text()}: {budget.verdict(made.of(())[1])}"
    say(note)
    return _chosen(made, (), budget, savings, note, dict.fromkeys(names, "16 bits alone do not keep the budget"))


def _chosen(
    made: JudgedSets,
    layers: Set8,
    budget: Budget,
    savings: Savings,
    note: Optional[str],
    raised: Mapping[str, str] = MappingProxyType({}),
) -> Chosen:
    (plan, weights), judged = made.of(layers)
    plan = dataclasses.replace(
        plan, reasons={**plan.reasons, **raised}, notes=plan.notes if note is None else (*plan.notes, note)
    )
    facts = {"gave_up": {**made.slower, **raised}, "sets_tried": len(made.plans), **budget.promise(judged)}
    saved = sum(max(savings.microseconds[name], 0.0) for name, _ in layers)
    saved += sum(
        spared
        for name, spared in float_savings(made.bench.work, made.ground.types).items()
        if plan.nodes[name] == made.ground.types[name]
    )
    return Chosen(plan, weights, judged, facts, budget.keeps(judged), saved)


def _formats(options: PrecisionOptions) -> List[str]:
    """The 8-bit formats that the target has."""
    have = (INT8.name,) if options.target is None else formats_of(options.target)
    return [one.name for one in QUANTISED if one.name in have]


def _most_sets(options: PrecisionOptions) -> int:
    """How many sets are made on one ground, at most: 16 bits alone, those of the search, and at the end those of one
    format again."""
    formats = len(_formats(options))
    return 1 + most_looked_at(1 if formats == 1 else formats + 1) + formats


def _singles(made: JudgedSets, names: Tuple[str, ...], options: PrecisionOptions) -> Tuple[Set8, ...]:
    """All layers in one 8-bit format, for each that the target has."""
    found = tuple(tuple(sorted((name, one) for name in names)) for one in _formats(options))
    for layers in found:
        made.everywhere(layers)
    return found


def _keeping(made: JudgedSets, sets: Iterable[Set8], budget: Budget) -> Optional[Set8]:
    """Of the sets that keep the budget, the one that loses least; None where none does.

    With all layers in 8 bits the noise is large, and what is lost is what was measured.
    """
    good = [one for one in sets if dataclasses.replace(budget, felt=0.0).keeps(made.of(one)[1])]
    return min(good, key=lambda one: _lost(made, one, budget)) if good else None


def _lost(made: JudgedSets, one: Set8, budget: Budget) -> float:
    """What a set that was judged loses: in the worst picture where the budget is about it, else in the mean."""
    judged = made.of(one)[1]
    return judged.loss if budget.worst is None else judged.worst.loss


def _costs(made: JudgedSets, singles: Tuple[Set8, ...], scenes: Sequence[Scene], say: Say) -> Costs:
    """What each layer costs alone on these scenes, in the order of ``singles``."""
    found = {}
    for layers in singles:
        (_, weights), _ = made.of(layers)
        costs = layer_costs(made.bench, made.material, dict(layers), weights, say, scenes)
        found[layers[0][1]] = {one.name: one for one in costs}
    return found


def _quietest(bench: Workbench, costs: Costs) -> Tuple[LayerCost, ...]:
    """Each layer in the format in which the noise that it makes alone costs least."""
    chosen: List[LayerCost] = []
    # INT8, which all targets have, comes first.
    first = next(iter(costs))
    for group in _sharing(bench, tuple(costs[first])):
        cost = {kind: sum(one[name].cost for name in group) for kind, one in costs.items()}
        best = min(cost, key=lambda kind: cost[kind] * (_CLEARLY if kind == first else 1.0))
        chosen += [costs[best][name] for name in group]
    return tuple(chosen)


def _set(layers: Iterable[LayerCost]) -> Set8:
    return tuple(sorted((one.name, one.format) for one in layers))


def _sharing(bench: Workbench, names: Sequence[str]) -> List[List[str]]:
    """Layers by the weights that they use: those of one constant have one format."""
    groups: Dict[str, List[str]] = {}
    weight = {node.name: node.input[1] for node in bench.model.graph.node if node.name in names}
    for name in names:
        groups.setdefault(weight[name], []).append(name)
    return list(groups.values())


def _searched(
    made: JudgedSets, costs: Costs, singles: Tuple[Set8, ...], first: Set8, budget: Budget, savings: Savings, say: Say
) -> Chosen:
    """The layers in 8 bits that save most within the budget, which 16 bits alone keep: of ``first``, or in one format.

    A layer may be quiet on the pictures that told what it costs, and loud on another: pictures that come near to the
    budget are asked too.
    """
    say(f"searching for the layers that keep {budget.text()}")
    forecast = Forecast(budget, made.of(())[1])
    forecast.ask(one for layers in costs.values() for one in layers.values())

    def asked(pictures: Sequence[PictureKey]) -> List[LayerCost]:
        more = _costs(made, singles, made.scenes_called(pictures), say)
        return [one for layers in more.values() for one in layers.values()]

    others = [_set(layers.values()) for layers in costs.values()]
    families = [first, *(one for one in others if one != first)]
    found = search(families, savings.microseconds, lambda one: made.of(one, budget)[1], forecast, asked, say)
    best = _least_loss(made, found.narrow, singles, budget)
    alone = dict(first)
    raised = {
        name: f"given back for the PSNR budget: alone it makes {costs[alone[name]][name].noise:.3g} (8-bit steps)² of "
        "noise"
        for name in found.raised
    }
    worth = {name: max(savings.microseconds[name], 0.0) for name, _ in first}
    gone = sum(worth[name] for name in raised) / max(sum(worth.values()), 1e-9)
    note = (
        f"{len(best)} of {len(worth)} layers in {labels_of(best)} for a budget of {budget.text()}; this "
        f"gives up {gone:.0%} of what 8 bits would save {savings.source}" + _beside(made, singles, best)
    )
    say(note)
    return _chosen(made, best, budget, savings, note, raised)


def _least_loss(made: JudgedSets, found: Set8, singles: Tuple[Set8, ...], budget: Budget) -> Set8:
    """What was found, or the same layers in one format where that keeps the budget and loses less."""
    names = {name for name, _ in found}
    rivals = [tuple(one for one in single if one[0] in names) for single in singles] if found else []
    good = [one for one in rivals if one != found and budget.keeps(made.of(one, budget)[1])]
    return min([found, *good], key=lambda one: _lost(made, one, budget))


def _beside(made: JudgedSets, singles: Tuple[Set8, ...], chosen: Set8) -> str:
    """What all layers in one format would lose, where that is not what was chosen."""
    told = ", ".join(f"{labels_of(one)} {decibels_lost(made.of(one)[1].loss)}" for one in singles if one != chosen)
    return f"; all layers in one type: {told}" if told else ""
