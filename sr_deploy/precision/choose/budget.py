"""What a budget promises: about the worst picture, about the mean, and about what can be seen.

Pictures that a plan is judged on are never all pictures. What is lost on others is bound from three sides:

- A shrunk photograph loses less than others do (SAFETY).
- The worst of the pictures that were judged is not the worst there is. How much worse it gets is estimated by holding
  out half of them: what the worst of the one half loses beyond that of the other, exceeded in one of ten such halves.
  Kinds of pictures are looked at apart: graphics differ more than photographs, and would not among these.
- A small loss drowns in how much pictures differ. The noise that a plan makes is known far better, so a picture's loss
  is taken to be at least what its noise would cost, times how much of such a cost the network shows where the noise is
  large (``Budget.felt_from``).

A patch that is seen as something else is kept by no budget, a colour that shifts by none of every picture.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Dict, List, Optional, Sequence

import numpy as np

from sr_deploy.core.tolerance import COLOUR_SHIFT, STRUCTURE
from sr_deploy.precision.evaluate import SHRUNK, Judged, PictureJudged, losses_of

#: A shrunk photograph is busier than others, so that float32 itself is further from it and noise costs less: Set14
#: loses up to 1.9 times what is judged on such.
SAFETY = 2.0
#: Halves of the pictures that are held out, one after the other, and the share of them that a promise covers.
HALVES, COVERED = 64, 0.9
#: The quantile of the pictures that tells how much noise is felt by the worst.
UPPER = 0.75


@dataclass(frozen=True)
class Budget:
    """What may be lost.

    Attributes:
        worst: dB of PSNR-Y in any picture; None has no limit.
        mean: dB in the mean over the pictures; None has no limit.
        felt: see ``felt_from``; of the plan with all layers in 8 bits.
    """

    worst: Optional[float] = None
    mean: Optional[float] = None
    felt: float = 0.0

    def keeps(self, judged: Judged) -> bool:
        """Whether a plan that was judged so keeps the budget on pictures that were not judged too."""
        if judged.sick or any(self.broken_by(one) for one in judged.each):
            return False
        return (self.worst is None or self.promised_worst(judged) <= self.worst) and (
            self.mean is None or float(np.mean(self.expected(judged))) <= self.mean
        )

    def felt_from(self, judged: Judged) -> float:
        """How much of what noise costs where it has nothing to do with float32's error is lost by this plan, 0…1.

        For a budget of the mean that is so in the mean. Of several pictures some gain where others lose, such as those
        on which float32 runs away and 8 bits do not: about the worst the upper quartile of the pictures tells.
        """
        if judged.sick:
            return 1.0
        if self.worst is None:
            return judged.felt
        each = [one.loss / one.independent if one.independent > 0.0 else 0.0 for one in judged.each]
        return float(np.clip(np.quantile(each, UPPER), 0.0, 1.0))

    def broken_by(self, one: PictureJudged) -> bool:
        """Whether this picture alone breaks it, however the others do."""
        seen = one.sick > 0 or one.structure > STRUCTURE.steps
        each = self.worst is not None and (one.shift > COLOUR_SHIFT.steps or self.expected_of(one) > self.worst)
        return seen or each

    def text(self) -> str:
        """For people."""
        parts = [] if self.worst is None else [f"{self.worst:g} dB in every picture"]
        return " and ".join(parts + ([] if self.mean is None else [f"{self.mean:g} dB in the mean"]))

    def promise(self, judged: Judged) -> Dict[str, float]:
        """For a plan's report: what other pictures are expected to lose at most, and in the mean, dB."""
        return {
            "promised_worst_db": round(self.promised_worst(judged), 4),
            "promised_mean_db": round(float(np.mean(self.expected(judged))), 4),
        }

    def promised_worst(self, judged: Judged) -> float:
        """What other pictures are expected to lose at most, dB, each kind held against itself."""
        return max(promised_worst(losses) for losses in self._kinds(judged).values())

    def _kinds(self, judged: Judged) -> Dict[str, List[float]]:
        """Kind of pictures → what each loses, dB."""
        kinds: Dict[str, List[float]] = {}
        for one in judged.each:
            kinds.setdefault(one.kind, []).append(self.expected_of(one))
        return kinds

    def expected(self, judged: Judged) -> List[float]:
        """What pictures like those judged lose, dB, one by one."""
        return [self.expected_of(one) for one in judged.each]

    def expected_of(self, one: PictureJudged) -> float:
        """What pictures like this one lose, dB."""
        return max(one.loss, self.felt * one.independent) * (SAFETY if one.kind == SHRUNK else 1.0)

    def cost_of(self, one: PictureJudged) -> float:
        """What the noise of a single layer costs in a picture, dB, of what is bound there."""
        return one.independent * (SAFETY if one.kind == SHRUNK else 1.0)

    def beyond(self, judged: Judged) -> Dict[str, float]:
        """Kind of pictures → how much more than their worst is promised, as a share of it; 0 where nothing is lost."""
        return {
            kind: promised_worst(losses) / max(losses) - 1.0 if max(losses) > 0.0 else 0.0
            for kind, losses in self._kinds(judged).items()
        }

    def verdict(self, judged: Judged) -> str:
        """What a plan loses and whether it keeps the budget, for people."""
        broken = [one for one in judged.each if self.broken_by(one)]
        if judged.sick:
            return "NaN or infinite values"
        if broken:
            one = broken[0]
            why = f"{self.expected_of(one):.3f} dB are expected to be lost"
            if one.structure > STRUCTURE.steps:
                why = f"a patch is {one.structure:.1f} of 255 further off, {STRUCTURE.steps:g} at most"
            elif one.shift > COLOUR_SHIFT.steps:
                why = f"a colour is shifted by {one.shift:.2f} of 255, {COLOUR_SHIFT.steps:g} at most"
            return f"broken by {one.name}, where {why}"
        if self.keeps(judged):
            return f"{losses_of(judged)}: kept"
        if self.worst is not None and self.promised_worst(judged) > self.worst:
            others = f"other pictures may lose {self.promised_worst(judged):.3f} dB"
            return f"{losses_of(judged)}: not surely kept, {others}"
        return f"broken, {float(np.mean(self.expected(judged))):.3f} dB are expected to be lost in the mean"


def promised_worst(losses: Sequence[float]) -> float:
    """The loss that another picture will hardly exceed: the worst of these, and how much worse held-out halves are.

    Args:
        losses: dB, one a picture; one or more.
    """
    return float(max(losses)) + _beyond(np.asarray(losses, np.float64))


def _beyond(losses: np.ndarray) -> float:
    if len(losses) < 2 or not np.isfinite(losses).all():
        return 0.0
    random = np.random.default_rng(0)
    beyond = []
    for _ in range(HALVES):
        order = random.permutation(losses)
        seen, held = order[: len(order) // 2], order[len(order) // 2 :]
        beyond.append(max(0.0, float(held.max() - seen.max())))
    return float(np.quantile(beyond, COVERED))
