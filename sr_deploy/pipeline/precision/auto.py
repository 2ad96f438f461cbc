"""``auto``: for each layer the cheapest type that the target has and the budget bears."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from typing import Any, Callable, Dict, Iterable, List, Mapping, Optional, Sequence, Tuple

import numpy as np

from sr_deploy.core.deployment.manifest import Deployment
from sr_deploy.core.deployment.plan import Plan
from sr_deploy.core.deployment.target import formats_of
from sr_deploy.core.number_formats import AUTO, INT8, QUANTISED
from sr_deploy.pipeline.precision.deployed_plan import PrecisionOptions
from sr_deploy.pipeline.precision.int8 import (
    Material,
    Weighted,
    everywhere,
    gather,
    improved,
    layer_costs,
    narrow_of,
)
from sr_deploy.pipeline.precision.layer_savings import Savings, savings_of
from sr_deploy.pipeline.precision.plan_inputs import Workbench
from sr_deploy.precision.choose.budget import Budget
from sr_deploy.precision.choose.plan_from_ranges import NarrowChoice, floating_plan
from sr_deploy.precision.choose.search import search
from sr_deploy.precision.choose.sensitivity import LayerCost
from sr_deploy.precision.evaluate import Judged, losses_of

#: In one layer another format than INT8, which all targets have, must make this much less of its noise.
_CLEARLY = 0.9


#: Layers in 8 bits, and the format of each.
Set8 = Tuple[Tuple[str, ...], Mapping[str, str]]
#: The same, for a dict.
Key = Tuple[Tuple[str, str], ...]
Say = Callable[[str], None]


@dataclass
class _Made:
    """The plans that were made and judged, each set once.

    Attributes:
        bench, material: what they are made from.
        improve: fit weights to each.
        slower: layer → why it is no candidate.
        strict: the float16 pins are kept.
        plans: the sets that were judged.
    """

    bench: Workbench
    material: Material
    improve: bool
    slower: Mapping[str, str]
    strict: bool = False
    plans: Dict[Key, Tuple[Weighted, Judged]] = field(default_factory=dict)

    def of(self, narrow: Sequence[str], formats: Mapping[str, str]) -> Tuple[Weighted, Judged]:
        """The plan with these layers in 8 bits, its weights, and how it does."""
        key = _key(narrow, formats)
        if key not in self.plans:
            made = _all_floating(self.bench, self.material, self.slower)
            if narrow:
                choice = NarrowChoice(tuple(narrow), formats, self.slower, strict=self.strict)
                plan = narrow_of(self.bench, self.material, choice)
                made = improved(self.bench, plan, self.material, self.improve)
            self.add(narrow, formats, made)
        return self.plans[key]

    def add(self, narrow: Sequence[str], formats: Mapping[str, str], made: Weighted) -> None:
        """Judge a plan."""
        self.plans[_key(narrow, formats)] = made, self.bench.judged(*made)


def _key(narrow: Sequence[str], formats: Mapping[str, str]) -> Key:
    return tuple(sorted((name, formats[name]) for name in narrow))


def auto_plan(
    deployment: Deployment, bench: Workbench, options: PrecisionOptions, say: Say
) -> Tuple[Plan, Dict[str, np.ndarray], Dict[str, Any]]:
    """See ``chosen_plan``; with scales and pictures from the deployment's calibration.

    Raises:
        BadInput: there are no calibration pictures.
    """
    # Read first: profiles that do not fit end it before anything long is begun.
    savings = savings_of(bench.work, bench.kinds.candidates, options.half_times, options.int8_times)
    return chosen_plan(bench, gather(deployment, bench, options, say), savings, options, say)


def chosen_plan(
    bench: Workbench, material: Material, savings: Savings, options: PrecisionOptions, say: Say
) -> Tuple[Plan, Dict[str, np.ndarray], Dict[str, Any]]:
    """8 bits wherever the islands and the budget allow it, what saves most for its noise first.

    Of INT8 and FP8, where the target has both, each layer takes the one that makes less noise. Weights are fitted once
    with all layers in each format, which orders the layers, and again for every set that is judged: biases make up for
    what the layers before them do.

    Args:
        bench, material: what the plan is made from.
        savings: what each layer saves in 8 bits.
        options: budgets, whether weights are fitted, and the target.
        say: told what was tried.

    Returns:
        The plan, the weights that go with it, and for its report what was given up, how many sets were tried and what
        the budget promises.
    """
    budget = Budget(options.budget, options.mean_budget)
    kinds = bench.kinds
    slower = {name: why for name, why in savings.slower().items() if name not in kinds.wide}
    if slower:
        say(f"{len(slower)} more convolutions stay float16: 8 bits are no faster {savings.source}")
    names = tuple(name for name in kinds.candidates if name not in kinds.wide and name not in slower)
    if not names:
        plan, weights = _all_floating(bench, material, slower)
        return plan, weights, {"gave_up": slower, "sets_tried": 0}
    made = _Made(bench, material, options.improve, slower)
    singles = _singles(made, names, options, say)
    kept = _keeping(made, singles, budget)
    if kept is None:
        layers, mixture = _quietest(made, singles, say)
        kept = _keeping(made, (mixture,), budget)
        if kept is None:
            return _searched(made, layers, singles, budget, savings, say)
    (plan, weights), judged = made.of(*kept)
    note = f"all {len(names)} layers in {_labels(kept)} for a budget of {budget.text()}: {losses_of(judged)}"
    note += _beside(made, singles, kept)
    say(note)
    plan = dataclasses.replace(plan, notes=(*plan.notes, note))
    return plan, weights, {"gave_up": slower, "sets_tried": len(made.plans), **budget.promise(judged)}


def _singles(made: _Made, names: Tuple[str, ...], options: PrecisionOptions, say: Say) -> Tuple[Set8, ...]:
    """All layers in one 8-bit format, for each that the target has."""
    have = (INT8.name,) if options.target is None else formats_of(options.target)
    found = []
    for one in (one for one in QUANTISED if one.name in have):
        formats = dict.fromkeys(names, one.name)
        plan, weights, strict = everywhere(made.bench, made.material, options, formats, say, made.slower)
        made.strict = made.strict or strict
        made.add(names, formats, (plan, weights))
        found.append((names, formats))
    return tuple(found)


def _keeping(made: _Made, sets: Iterable[Set8], budget: Budget) -> Optional[Set8]:
    """Of the sets that keep the budget, the one that loses least; None where none does.

    With all layers in 8 bits the noise is large, and what is lost is what was measured.
    """
    good = [one for one in sets if dataclasses.replace(budget, felt=0.0).keeps(made.of(*one)[1])]
    return min(good, key=lambda one: _lost(made, one, budget)) if good else None


def _lost(made: _Made, one: Set8, budget: Budget) -> float:
    """What a set that was judged loses: in the worst picture where the budget is about it, else in the mean."""
    judged = made.plans[_key(*one)][1]
    return judged.loss if budget.worst is None else judged.worst.loss


def _quietest(made: _Made, singles: Tuple[Set8, ...], say: Say) -> Tuple[Tuple[LayerCost, ...], Set8]:
    """Each layer in the format in which it alone makes the least noise: what each makes, and the set."""
    costs: Dict[str, Dict[str, LayerCost]] = {}
    for names, formats in singles:
        (_, weights), _ = made.of(names, formats)
        for one in layer_costs(made.bench, made.material, formats, weights, say):
            costs.setdefault(one.name, {})[one.format] = one
    chosen: Dict[str, LayerCost] = {}
    for group in _sharing(made.bench, tuple(costs)):
        noise = {kind: sum(costs[name][kind].noise for name in group) for kind in costs[group[0]]}
        # Singles stand in the table's order: INT8, which all targets have, before FP8.
        first = next(iter(noise))
        best = min(noise, key=lambda kind: noise[kind] * (_CLEARLY if kind == first else 1.0))
        chosen.update((name, costs[name][best]) for name in group)
    return tuple(chosen.values()), (singles[0][0], {name: one.format for name, one in chosen.items()})


def _sharing(bench: Workbench, names: Sequence[str]) -> List[List[str]]:
    """Layers by the weights that they use: those of one constant have one format."""
    groups: Dict[str, List[str]] = {}
    weight = {node.name: node.input[1] for node in bench.model.graph.node if node.name in names}
    for name in names:
        groups.setdefault(weight[name], []).append(name)
    return list(groups.values())


def _searched(
    made: _Made,
    layers: Tuple[LayerCost, ...],
    singles: Tuple[Set8, ...],
    budget: Budget,
    savings: Savings,
    say: Say,
) -> Tuple[Plan, Dict[str, np.ndarray], Dict[str, Any]]:
    """The layers in 8 bits that save most within the budget."""
    formats = {one.name: one.format for one in layers}
    whole = made.of(tuple(formats), formats)[1]
    budget = dataclasses.replace(budget, felt=1.0 if whole.sick else whole.felt)
    say(f"searching for the layers that keep {budget.text()}")
    found = search(layers, savings.microseconds, lambda narrow: made.of(narrow, formats)[1], budget.keeps, say)
    best = _least_loss(made, (found.narrow, formats), singles, budget)
    (plan, weights), judged = made.plans[_key(*best)]
    plan = dataclasses.replace(plan, reasons={**plan.reasons, **found.raised})
    worth = {name: max(savings.microseconds[name], 0.0) for name in formats}
    gone = sum(worth[name] for name in found.raised) / max(sum(worth.values()), 1e-9)
    note = (
        f"{len(found.narrow)} of {len(layers)} layers in {_labels(best) or '8 bits'} for a budget of {budget.text()}; "
        f"this gives up {gone:.0%} of what 8 bits would save {savings.source}" + _beside(made, singles, best)
    )
    say(note)
    facts = {"gave_up": {**made.slower, **found.raised}, "sets_tried": len(made.plans), **budget.promise(judged)}
    return dataclasses.replace(plan, notes=(*plan.notes, note)), weights, facts


def _least_loss(made: _Made, found: Set8, singles: Tuple[Set8, ...], budget: Budget) -> Set8:
    """What was found, or the same layers in one format where that keeps the budget and loses less."""
    rivals = [(found[0], single) for _, single in singles if found[0] and _key(found[0], single) != _key(*found)]
    good = [one for one in rivals if budget.keeps(made.of(*one)[1])]
    return min([found, *good], key=lambda one: _lost(made, one, budget))


def _labels(chosen: Set8) -> str:
    """The 8-bit formats of a set, in words."""
    kinds = {chosen[1][name] for name in chosen[0]}
    return " and ".join(one.label for one in QUANTISED if one.name in kinds)


def _beside(made: _Made, singles: Tuple[Set8, ...], chosen: Set8) -> str:
    """What all layers in one format would lose, where that is not what was chosen."""
    others = [one for one in singles if _key(*one) != _key(*chosen)]
    told = ", ".join(f"{_labels(one)} {made.of(*one)[1].loss:+.4f} dB" for one in others)
    return f"; all layers in one type would lose: {told}" if told else ""


def _all_floating(bench: Workbench, material: Material, raised: Mapping[str, str]) -> Weighted:
    """A plan of ``auto`` with nothing in 8 bits; ``raised`` says why not, where the islands give no reason."""
    plan = floating_plan(bench.kinds, bench.graph.sha256, material.wide)
    reasons = {**bench.kinds.wide, **raised, **plan.reasons}
    return dataclasses.replace(plan, precision=AUTO, reasons=reasons), {}
