"""A budget is a promise about pictures that were not judged: the worst, the mean, what can be seen."""

from __future__ import annotations

import numpy as np
import pytest

from sr_deploy.core.tolerance import COLOUR_SHIFT, STRUCTURE
from sr_deploy.precision.choose.budget import SAFETY, Budget, promised_worst
from sr_deploy.precision.evaluate import GRAPHICS, PAIR, SHRUNK, Judged, PictureJudged


def judged(*each: PictureJudged, sick: int = 0) -> Judged:
    loss = float(np.mean([one.loss for one in each]))
    return Judged(30.0 - loss, 30.0, 1.0, loss, 0.0, 0.0, sick, len(each), each)


def picture(loss: float, kind: str = PAIR, **more: float) -> PictureJudged:
    return PictureJudged("a", kind, loss, more.pop("independent", 0.0), **more)


def test_the_mean_may_be_kept_and_the_worst_not():
    losses = judged(picture(0.0), picture(0.02), picture(0.3, GRAPHICS))
    assert Budget(mean=0.12).keeps(losses) and not Budget(worst=0.12, mean=0.12).keeps(losses)
    assert not Budget(mean=0.1).keeps(losses)


def test_shrunk_photographs_show_less_than_others_lose():
    assert Budget(worst=0.1).keeps(judged(picture(0.1, GRAPHICS)))
    assert not Budget(worst=0.1).keeps(judged(picture(0.09, SHRUNK)))
    assert Budget(worst=0.1).keeps(judged(picture(0.1 / SAFETY, SHRUNK)))


def test_noise_that_pictures_hide_counts():
    lucky = judged(picture(0.0, independent=0.2))
    assert Budget(worst=0.1).keeps(lucky) and not Budget(worst=0.1, felt=1.0).keeps(lucky)


@pytest.mark.parametrize("budget", [Budget(worst=9.0), Budget(mean=9.0)])
def test_nan_and_visible_structure_are_kept_by_no_budget_and_shifted_colours_by_none_of_every_picture(budget):
    assert not budget.keeps(judged(picture(0.0), sick=1))
    assert budget.keeps(judged(picture(0.0, structure=STRUCTURE.steps, shift=COLOUR_SHIFT.steps)))
    seen, shifted = judged(picture(0.0, structure=32.0)), judged(picture(0.0, shift=0.5))
    assert not budget.keeps(seen) and "32.0 of 255" in budget.verdict(seen)
    assert budget.keeps(shifted) == (budget.worst is None) == ("0.50 of 255" not in budget.verdict(shifted))


def test_kinds_are_held_against_themselves_and_gains_of_some_hide_nothing():
    """One drawing in nine loses 0.04: among photographs it would seem rarer than it is among drawings."""
    photographs = [picture(0.01, PAIR)] * 30
    drawings = [picture(0.0, GRAPHICS)] * 8 + [picture(0.04, GRAPHICS)]
    budget = Budget(worst=0.06)
    assert not budget.keeps(judged(*photographs, *drawings)) and budget.keeps(judged(*photographs))
    assert budget.promise(judged(*photographs, *drawings))["promised_worst_db"] == pytest.approx(0.08)
    mixed = judged(*[picture(0.08, independent=0.1)] * 3, picture(-0.5, GRAPHICS, independent=0.5))
    assert budget.felt_from(mixed) == pytest.approx(0.8) and Budget(mean=0.1).felt_from(mixed) <= 0
    assert budget.felt_from(judged(picture(0.0), sick=1)) == 1.0


def test_a_picture_that_breaks_a_budget_breaks_it_for_the_set():
    """So nothing else need be looked at; a set may break it with no single picture doing so."""
    random = np.random.default_rng(1)
    broken = kept = 0
    for _ in range(300):
        each = [picture(loss, kind, independent=noise) for loss, noise, kind in zip(
            random.gamma(1.0, 0.03, 6), random.gamma(1.0, 0.03, 6), [SHRUNK, GRAPHICS, PAIR] * 2)]  # fmt: skip
        budget = Budget(worst=0.12, mean=0.1, felt=0.8)
        alone = any(budget.broken_by(one) for one in each)
        broken += alone
        kept += budget.keeps(judged(*each))
        said = budget.verdict(judged(*each))
        assert said.startswith("broken by ") == alone and said.endswith(": kept") == budget.keeps(judged(*each)), said
        assert not (alone and budget.keeps(judged(*each)))
    assert broken > 50 and kept > 20
    assert Budget(mean=0.1).broken_by(picture(0.0, structure=STRUCTURE.steps + 1))
    assert Budget(mean=0.1).broken_by(picture(0.0, sick=1)) and not Budget(mean=0.1).broken_by(picture(9.0))


def test_a_promise_grows_with_how_much_worse_held_out_pictures_are():
    even, uneven = [0.05] * 10, [0.01] * 9 + [0.05]
    assert promised_worst(even) == pytest.approx(0.05)
    assert 0.05 < promised_worst(uneven) <= 0.05 + 0.04 + 1e-9
    assert promised_worst([0.05]) == 0.05 and promised_worst([0.0, np.inf]) == np.inf


def test_a_promise_is_kept_by_pictures_of_the_same_kind():
    random = np.random.default_rng(0)
    kept = 0
    for _ in range(200):
        losses = random.gamma(2.0, 0.02, 40)
        kept += losses[20:].max() <= promised_worst(losses[:20])
    assert kept > 140, "three of four such sets; the plain maximum holds for one of two"
