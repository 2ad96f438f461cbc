"""The search finds the layers that save most within the budget, in few looks, and takes none that was not judged."""

from __future__ import annotations

import dataclasses
import itertools
import math
import random

import numpy as np
import pytest

from sr_deploy.core.tolerance import COLOUR_SHIFT, STRUCTURE
from sr_deploy.graph.roofline import XAVIER_NX
from sr_deploy.precision.choose.budget import Budget
from sr_deploy.precision.choose.forecast import Forecast
from sr_deploy.precision.choose.search import fullest, most_looked_at, saved_microseconds, search
from sr_deploy.precision.choose.sensitivity import LayerCost
from sr_deploy.precision.evaluate import PAIR, Judged, PictureJudged


def picture(loss: float, noise: float = 0.0, name: str = "a") -> PictureJudged:
    return PictureJudged(name, PAIR, loss, noise, noise=noise)


def judged(*each: PictureJudged, sick: int = 0) -> Judged:
    loss = math.fsum(one.loss for one in each) / len(each)
    return Judged(30.0 - loss, 30.0, 0.0, 0.0, 0.0, 0.0, sick, len(each), each)


def costs(noises, kind="int8"):
    """Layers whose noise costs a seventh of what it will be found to cost."""
    return [
        LayerCost(f"layer{index}", noise / 10, noise, 0.1, "", kind, (picture(0.0, noise / 7),))
        for index, noise in enumerate(noises)
    ]


def items(layers):
    return [(one.name, one.format) for one in layers]


def names(narrow):
    return tuple(name for name, _ in narrow)


def searched(families, saved, judge, budget, known=None, ask=lambda pictures: ()):
    """As ``auto`` begins: 16 bits have been looked at.

    ``known``: what layers cost in the first pictures; None is the families' own.
    """
    forecast = Forecast(budget, judge(()))
    forecast.ask(known if known is not None else {(one.name, one.format): one for f in families for one in f}.values())
    return search([items(one) for one in families], saved, judge, forecast, ask)


def search_one(layers, saved, judge, budget):
    """One family; judges and what is found in names alone, and the sets that were looked at."""
    seen = []

    def named(narrow):
        seen.append(names(narrow))
        return judge(names(narrow))

    found = searched([layers], saved, named, budget)
    return dataclasses.replace(found, narrow=names(found.narrow)), [one for one in seen if one]


def summed(noises):
    """A judge: losses of the layers in INT8 add up."""
    return lambda narrow: judged(picture(sum(noises[int(name[5:])] for name in narrow)))


EQUAL = {f"layer{index}": 1.0 for index in range(100)}


def test_a_budget_that_all_keep_is_answered_at_the_first_look():
    found, seen = search_one(costs([1, 2, 3]), EQUAL, summed([1, 2, 3]), Budget(mean=6.0))
    assert set(found.narrow) == {"layer0", "layer1", "layer2"} and not found.raised
    assert len(seen) == found.tried == 1 and found.judged.loss == pytest.approx(6.0)


def test_the_noisiest_for_what_they_save_are_given_back_first():
    noises = [1.0, 5.0, 2.0, 4.0]
    found, _ = search_one(costs(noises), EQUAL, summed(noises), Budget(mean=3.5))
    assert set(found.narrow) == {"layer0", "layer2"} and set(found.raised) == {"layer1", "layer3"}
    saved = {**EQUAL, "layer1": 100.0}
    found, _ = search_one(costs(noises), saved, summed(noises), Budget(mean=8.5))
    assert "layer1" in found.narrow, "what saves much is kept longest"


def test_a_loss_that_pictures_hide_is_judged_by_its_noise():
    noises = [4.0, 3.0, 2.0, 1.0]

    def lucky(narrow):  # two layers lose nothing on these pictures, whatever noise they make
        loss = sum(noises[int(name[5:])] for name in narrow)
        return judged(picture(loss if len(narrow) > 2 else 0.0, loss))

    for felt, most in ((0.0, 2), (1.0, 1), (0.5, 2)):
        found, _ = search_one(costs(noises), EQUAL, lucky, Budget(mean=2.0, felt=felt))
        assert len(found.narrow) == most
        assert felt * sum(noises[int(name[5:])] for name in found.narrow) <= 2.0


def test_nothing_keeps_the_budget():
    found, _ = search_one(costs([1, 2]), EQUAL, lambda narrow: judged(picture(0.5)), Budget(mean=0.1))
    assert found.narrow == () and set(found.raised) == {"layer0", "layer1"} and found.judged.loss == 0.5


@pytest.mark.parametrize("loss", [1.001, 1.02, 1.04, 1.06, 1.9])
def test_a_set_that_breaks_the_budget_by_little_is_not_thought_of_for_ever(loss):
    found, seen = search_one(costs([loss]), EQUAL, summed([loss]), Budget(mean=1.0))
    assert found.narrow == () and len(seen) == 1


def test_nan_counts_as_over_budget():
    def judge(narrow):
        return judged(picture(0.0), sick=1 if "layer0" in narrow else 0)

    found, _ = search_one(costs([3, 2, 1]), EQUAL, judge, Budget(mean=1.0))
    assert set(found.narrow) == {"layer1", "layer2"} and found.judged.sick == 0


def test_a_loud_layer_is_skipped_and_what_stands_behind_it_kept():
    """In order of noise for savings the loud layer comes last to be given back; it alone breaks the budget."""
    noises = [1.0, 1.0, 1.0, 1.0, 6.0]
    found, seen = search_one(costs(noises), {**EQUAL, "layer4": 20.0}, summed(noises), Budget(mean=5.5))
    assert set(found.narrow) == {"layer0", "layer1", "layer2", "layer3"}
    assert list(found.raised) == ["layer4"] and len(seen) <= 9


@pytest.mark.parametrize("seed", range(12))
def test_it_saves_as_much_as_any_set_can_and_few_are_tried(seed):
    rng = random.Random(seed)
    count = rng.randint(1, 12)
    noises = [rng.choice([0.0, rng.expovariate(1)]) for _ in range(count)]
    saved = {f"layer{index}": rng.choice([0.0, rng.uniform(0.1, 9)]) for index in range(count)}
    budget = rng.uniform(0, sum(noises) * 1.1)
    found, seen = search_one(costs(noises), saved, summed(noises), Budget(mean=budget))
    assert sorted([*found.raised, *found.narrow]) == sorted(f"layer{index}" for index in range(count))
    assert found.judged.loss <= budget and len(seen) == len(set(seen)) == found.tried <= most_looked_at(1)
    sets = itertools.chain.from_iterable(itertools.combinations(range(count), size) for size in range(count + 1))
    most = max(sum(saved[f"layer{i}"] for i in one) for one in sets if sum(noises[i] for i in one) <= budget)
    # Exchanges of one for two and two for one find nearly all.
    assert sum(saved[name] for name in found.narrow) >= 0.97 * most


def test_the_picture_that_breaks_binds_though_no_layer_was_looked_at_there():
    """Layers that are quiet in the picture which was asked first are loud in another; that one is asked then."""
    noises = {"a": [1.0, 1.0, 1.0, 1.0], "b": [0.1, 0.1, 5.0, 0.1]}
    asked = []

    def costs_in(asks):
        asked.extend(asks)
        return [
            LayerCost(f"layer{i}", 0.0, 0.0, 0.1, "", pictures=tuple(picture(0.0, noises[n][i], n) for _, n in asks))
            for i in range(4)
        ]

    def judge(narrow):
        return judged(*(picture(sum(each[int(name[5:])] for name, _ in narrow), 0.0, n) for n, each in noises.items()))

    first = costs_in([(PAIR, "a")])
    asked.clear()
    budget = Budget(worst=6.0)
    found = searched([first], EQUAL, judge, budget, ask=costs_in)
    assert asked == [(PAIR, "b")] and set(names(found.narrow)) == {"layer0", "layer1", "layer3"}
    assert budget.keeps(found.judged)


def test_a_picture_that_shows_structure_binds_however_little_it_loses():
    """One layer shows in a window of the second picture, which loses nothing."""
    noises = [1.0, 1.0, 1.0, 3.0]

    def judge(narrow):
        seen = 2 * STRUCTURE.steps if ("layer3", "int8") in narrow else 1.0
        loss = sum(noises[int(name[5:])] for name, _ in narrow)
        return judged(picture(loss, name="a"), dataclasses.replace(picture(0.0, name="b"), structure=seen))

    def costs_in(asks):
        return [
            LayerCost(f"layer{i}", 0.0, 0.0, 0.1, "", pictures=tuple(picture(0.0, noises[i], n) for _, n in asks))
            for i in range(4)
        ]

    found = searched([costs_in([(PAIR, "a")])], EQUAL, judge, Budget(worst=20.0), ask=costs_in)
    assert set(names(found.narrow)) == {"layer0", "layer1", "layer2"} and found.tried <= 4


def test_colours_that_shift_bind_and_shifts_of_either_sign_add_in_squares():
    """Four layers shift by 0.1, one by 0.3: those four together by 0.2, which sums of what each shifts would forbid."""
    shifts = [0.1, 0.1, 0.1, 0.1, 0.3]

    def shifted(indices):
        return dataclasses.replace(picture(0.0), shift=math.sqrt(sum(shifts[i] ** 2 for i in indices)))

    layers = [LayerCost(f"layer{i}", 0.0, 0.0, 0.1, "", pictures=(shifted([i]),)) for i in range(5)]
    found, seen = search_one(
        layers, EQUAL, lambda narrow: judged(shifted([int(name[5:]) for name in narrow])), Budget(worst=9.0)
    )
    assert set(found.narrow) == {"layer0", "layer1", "layer2", "layer3"} and len(seen) <= 3
    assert found.judged.each[0].shift <= COLOUR_SHIFT.steps


def test_more_of_a_budget_keeps_no_less():
    for seed in range(3):
        rng = random.Random(seed)
        noises = [rng.expovariate(1) for _ in range(12)]
        saved = {f"layer{index}": rng.uniform(0.1, 9) for index in range(12)}
        gains = []
        for share in (0.1, 0.2, 0.4, 0.8):
            found, _ = search_one(costs(noises), saved, summed(noises), Budget(mean=share * sum(noises)))
            gains.append(sum(saved[name] for name in found.narrow))
        assert gains == sorted(gains)


def test_the_fullest_of_several_bounds_is_nearly_the_best():
    shares = []
    for seed in range(40):
        random_ = np.random.default_rng(seed)
        loads, gains = random_.exponential(0.3, (3, 12)), random_.uniform(0.1, 9, 12)
        taken = fullest(loads, gains)
        assert (loads[:, taken].sum(1) <= 1).all()
        every = np.array(list(itertools.product((0, 1), repeat=12)))
        best = (every @ gains)[(every @ loads.T <= 1).all(1)].max()
        shares.append(gains[taken].sum() / best)
    assert min(shares) >= 0.85 and np.mean(shares) >= 0.99


def both(seed, count=14):
    """Layers in two formats, and what each saves."""
    rng = random.Random(seed)
    layers = {kind: costs([rng.expovariate(1) for _ in range(count)], kind) for kind in ("int8", "float8")}
    quieter = [min(pair, key=lambda one: one.noise) for pair in zip(*layers.values())]
    return layers, quieter, {f"layer{index}": rng.uniform(0.1, 9) for index in range(count)}


def alone_of(layers):
    return {(one.name, one.format): one.noise for kind in layers.values() for one in kind}


@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize("together", [0.0, 0.5, 3.0])
def test_a_mix_saves_no_less_than_one_format_would(seed, together):
    """Also where a mix makes more noise than its layers alone: each border between formats costs ``together``."""
    layers, quieter, saved = both(seed)
    alone = alone_of(layers)

    def judge(narrow):
        kinds = [kind for _, kind in narrow]
        borders = sum(first != second for first, second in zip(kinds, kinds[1:]))
        return judged(picture(sum(alone[one] for one in narrow) + together * borders))

    budget = Budget(mean=random.Random(seed).uniform(0.1, 0.9) * sum(one.noise for one in quieter))
    mixed = searched([quieter, *layers.values()], saved, judge, budget)
    assert budget.keeps(mixed.judged) and {*dict(mixed.narrow), *mixed.raised} == saved.keys()
    gain = sum(saved[name] for name in dict(mixed.narrow))
    for one in layers.values():
        single = searched([one], saved, judge, budget)
        # The forecast of one format is made from other sets than here.
        assert gain >= 0.95 * sum(saved[name] for name in dict(single.narrow))


def test_one_format_is_looked_through_only_for_what_saves_more():
    layers, quieter, saved = both(3)
    alone = alone_of(layers)
    seen = []

    def judge(narrow):
        seen.append(narrow)
        return judged(picture(sum(alone[one] for one in narrow)))

    first = searched([quieter], saved, judge, Budget(mean=4.0))
    count = len(seen)
    seen.clear()
    found = searched([quieter, *layers.values()], saved, judge, Budget(mean=4.0))
    least = sum(saved[name] for name in dict(first.narrow))
    assert all(sum(saved[name] for name, _ in narrow) > least for narrow in seen[count:])
    assert sum(saved[name] for name in dict(found.narrow)) >= least
    assert found.tried <= most_looked_at(3)


def test_a_judge_that_is_not_monotone_still_gives_a_set_that_was_judged_good():
    rng = random.Random(5)
    table = {}

    def judge(narrow):
        return table.setdefault(narrow, judged(picture(rng.choice([0.05, 0.2]) if narrow else 0.0)))

    for _ in range(6):
        table.clear()
        found, _ = search_one(costs([rng.random() for _ in range(17)]), EQUAL, judge, Budget(mean=0.1))
        assert found.judged == table[found.narrow] and found.judged.loss <= 0.1


def test_savings_follow_the_roofline():
    mode = XAVIER_NX.modes[0]
    saved = saved_microseconds({"big": 10**9, "small": 10**6}, {"big": 10**6}, XAVIER_NX, mode)
    assert saved["big"] > saved["small"] > 0
    more = saved_microseconds({"big": 10**9}, {"big": 10**7}, XAVIER_NX, mode)
    bandwidth = XAVIER_NX.memory_bits / 8 * 2 * mode.memory_mhz
    assert more["big"] - saved["big"] == pytest.approx(9 * 10**6 / bandwidth)
