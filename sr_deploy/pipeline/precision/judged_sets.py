"""Sets of layers in 8 bits as plans, each made, fitted and judged once; and what all else is in beside them."""

from __future__ import annotations

import dataclasses
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Callable, Dict, List, Mapping, Optional, Sequence, Tuple

import numpy as np

from sr_deploy.core.deployment.plan import Plan
from sr_deploy.core.deployment.target import Target, formats_of
from sr_deploy.core.number_formats import AUTO, BFLOAT16, FLOAT16, FLOAT32, FORMAT, QUANTISED, FloatName
from sr_deploy.core.text import counted
from sr_deploy.pipeline.precision.int8 import Material, Weighted, improved, narrow_of, no_fits, sick
from sr_deploy.pipeline.precision.plan_inputs import Workbench
from sr_deploy.precision.choose.budget import Budget
from sr_deploy.precision.choose.forecast import Layer8, PictureKey
from sr_deploy.precision.choose.picture_ends import picture_ends
from sr_deploy.precision.choose.plan_from_ranges import NarrowChoice, floating_plan
from sr_deploy.precision.evaluate import GRAPHICS, Judged, Scene, losses_of

if TYPE_CHECKING:
    from sr_deploy.precision.fit.adaptive_rounding import Fits

#: Of each kind of pictures so many tell what single layers cost, before others come near to the budget.
TELLING = 2
#: Layers in 8 bits, each with its format.
Set8 = Tuple[Layer8, ...]


def labels_of(layers: Set8) -> str:
    """The 8-bit formats of a set, in words; "8 bits" of the empty one."""
    kinds = {kind for _, kind in layers}
    return " and ".join(one.label for one in QUANTISED if one.name in kinds) or "8 bits"


@dataclass(frozen=True)
class Ground:
    """What nodes that are not in 8 bits compute in.

    Attributes:
        rest: the type of most of them, and of what layers of 8 bits give.
        wide: node → why ``rest`` is not for it.
        types: of ``wide``, node → another type than float32.
    """

    rest: FloatName
    wide: Mapping[str, str]
    types: Mapping[str, FloatName] = field(default_factory=dict)

    def typed(self, plan: Plan, pinned: Mapping[str, str]) -> Plan:
        """The plan with ``types``; what is pinned stays float32."""
        own = {name: kind for name, kind in self.types.items() if name not in pinned}
        nodes = {name: own.get(name, kind) if kind == FLOAT32.name else kind for name, kind in plan.nodes.items()}
        return dataclasses.replace(plan, nodes=nodes)


def grounds_of(bench: Workbench, material: Material, target: Optional[Target]) -> Tuple[Ground, ...]:
    """What else than 8 bits may be in, cheapest first; the last is float16, and float32 where that overflows.

    Where float16 overflows and the target has bfloat16, two come before it: float16 with bfloat16 in those nodes, and
    bfloat16 all over but where it is too coarse for the picture, for networks whose layers of 8 bits give more than
    float16 holds.
    """
    plain = Ground(FLOAT16.name, material.wide)
    beyond = [name for name in material.wide if name not in bench.kinds.pinned]
    if not beyond or target is None or BFLOAT16.name not in formats_of(target):
        return (plain,)
    ends = picture_ends(bench.model)
    return (
        Ground(FLOAT16.name, material.wide, dict.fromkeys(beyond, BFLOAT16.name)),
        Ground(BFLOAT16.name, ends, {name: FLOAT16.name for name in ends if name not in material.wide}),
        plain,
    )


def that_16_bits_keep(
    bench: Workbench, material: Material, budget: Budget, say: Callable[[str], None]
) -> Tuple[Workbench, List[str]]:
    """Without painted pictures in which float16 alone breaks the budget, and a note of those.

    There the network makes a picture of whatever differs in the last bits, and no plan keeps the budget.
    """
    painted = [scene for scene in bench.scenes if scene.kind == GRAPHICS]
    if budget.worst is None or not painted:
        return bench, []
    plan = floating_plan(bench.kinds, bench.graph.sha256, material.wide)
    judged = dataclasses.replace(bench, scenes=tuple(painted)).judged(plan, {})
    gone = {one.name: one.loss for one in judged.each if budget.broken_by(one)}
    if not gone:
        return bench, []
    named = ", ".join(f"{name} ({loss:.3f} dB)" for name, loss in gone.items())
    note = f"not judged on {named}: float16 alone breaks the budget of {budget.text()} there"
    say(note)
    kept = tuple(scene for scene in bench.scenes if scene.kind != GRAPHICS or scene.name not in gone)
    return dataclasses.replace(bench, scenes=kept), [note]


@dataclass
class JudgedSets:
    """The plans that were made and judged on one ground, each set once.

    Attributes:
        bench, material: what they are made from.
        improve: fit weights to each.
        slower: layer → why it is no candidate.
        ground: what else is in.
        say: told each set before it is made, which may take a minute.
        most: sets that will be made, at most, for people.
        strict: nodes that the ground's type does not hold are kept from 8 bits too.
        begun: when, by ``time.monotonic``, seconds.
        plans: the sets that were made.
        order: of the scenes: those that broke a budget last come first.
        fits: what fits have in common, see ``learned_rounding``.
    """

    bench: Workbench
    material: Material
    improve: bool
    slower: Mapping[str, str]
    ground: Ground
    say: Callable[[str], None] = lambda _: None
    most: int = 0
    strict: bool = False
    begun: float = field(default_factory=time.monotonic)
    plans: Dict[Set8, Tuple[Weighted, Judged]] = field(default_factory=dict)
    order: List[int] = field(default_factory=list)
    fits: Optional[Fits] = None

    def of(self, layers: Set8, budget: Optional[Budget] = None) -> Tuple[Weighted, Judged]:
        """The plan with these layers in 8 bits, its weights, and how it does.

        Args:
            layers: in the order of their names.
            budget: where a picture breaks it, no further one is looked at; None looks at all.
        """
        if layers not in self.plans:
            number = f"set {len(self.plans) + 1} of at most {self.most}, after {time.monotonic() - self.begun:.0f} s"
            self.say(f"{number}: {counted(len(layers), 'layer')} in {labels_of(layers)}")
            made = self._made(layers)
            self.plans[layers] = made, self._judged(made, budget)
        return self.plans[layers]

    def everywhere(self, layers: Set8) -> None:
        """Look at the layers of a whole network; where that gives NaN or infinity, ``strict`` begins."""
        if self.ground.wide and not self.strict and sick(lambda: self.of(layers)[1]):
            self.strict = True
            self.plans.clear()
        self.of(layers)

    def telling_scenes(self, sets: Sequence[Set8], budget: Budget) -> List[Scene]:
        """The scenes that tell most about a budget: of each kind those where these sets lose most of it."""
        lost: Dict[PictureKey, float] = {}
        for layers in sets:
            for one in self.of(layers)[1].each:
                key = one.kind, one.name
                lost[key] = max(lost.get(key, -np.inf), budget.expected_of(one))
        chosen: Dict[str, List[Scene]] = {}
        for scene in sorted(self.bench.scenes, key=lambda scene: -lost.get((scene.kind, scene.name), -np.inf)):
            chosen.setdefault(scene.kind, []).append(scene)
        return [scene for scenes in chosen.values() for scene in scenes[:TELLING]]

    def scenes_called(self, pictures: Sequence[PictureKey]) -> List[Scene]:
        """The scenes of these kinds and names."""
        return [scene for scene in self.bench.scenes if (scene.kind, scene.name) in pictures]

    def _made(self, layers: Set8) -> Weighted:
        kinds, ground = self.bench.kinds, self.ground
        if not layers:
            plan = floating_plan(kinds, self.bench.graph.sha256, ground.wide, FORMAT[ground.rest])
            reasons = {**kinds.wide, **self.slower, **plan.reasons}
            return ground.typed(dataclasses.replace(plan, precision=AUTO, reasons=reasons), kinds.pinned), {}
        narrow = tuple(name for name, _ in layers)
        choice = NarrowChoice(narrow, dict(layers), self.slower, strict=self.strict, rest=ground.rest)
        plan = narrow_of(self.bench, dataclasses.replace(self.material, wide=dict(ground.wide)), choice)
        plan = ground.typed(plan, kinds.pinned)
        if self.improve and self.fits is None:
            self.fits = no_fits()
        return improved(self.bench, plan, self.material, self.improve, fits=self.fits)

    def _judged(self, made: Weighted, budget: Optional[Budget]) -> Judged:
        """Look at the scenes, those first that broke a budget last."""
        scenes = self.bench.scenes
        self.order = self.order or list(range(len(scenes)))
        if budget is None:
            judged = self.bench.judged(*made)
            self.say(f"  {losses_of(judged)}")
            return judged
        judged = self.bench.judged(*made, self.order, budget.broken_by)
        lost = {(one.name, one.kind): budget.expected_of(one) for one in judged.each}
        told = [lost.get((scene.name, scene.kind), -np.inf) for scene in scenes]
        if len(judged.each) == len(scenes):
            self.order.sort(key=lambda index: -told[index])
        else:
            worst = int(np.argmax(told))
            self.order.remove(worst)
            self.order.insert(0, worst)
        return judged
