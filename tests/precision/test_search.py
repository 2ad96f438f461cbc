"""The search finds the layers that save most within the budget, in few looks, and takes none that was not judged."""

from __future__ import annotations

import dataclasses
import itertools
import math
import random

import pytest

from sr_deploy.graph.roofline import XAVIER_NX
from sr_deploy.precision.choose.budget import Budget
from sr_deploy.precision.choose.search import MORE_TRIALS, TRIALS, most_looked_at, saved_microseconds, search
from sr_deploy.precision.choose.sensitivity import LayerCost
from sr_deploy.precision.evaluate import PAIR, Judged, PictureJudged


def judged(loss: float, sick: int = 0, noise: float = 0.0) -> Judged:
    each = (PictureJudged("a", PAIR, loss, noise),)
    return Judged(30.0 - loss, 30.0, noise, noise, 0.0, 0.0, sick, 1, each)


def within(budget: float, felt: float = 0.0):
    return Budget(mean=budget, felt=felt).keeps


def costs(noises):
    return [
        LayerCost(f"layer{index}", noise / 10, noise, 0.1, "", cost=noise / 7) for index, noise in enumerate(noises)
    ]


def names(narrow):
    return tuple(name for name, _ in narrow)


def search_one(layers, saved, judge, keeps):
    """One family; judges and what is found in names alone."""
    found = search([layers], saved, lambda narrow: judge(names(narrow)), keeps)
    return dataclasses.replace(found, narrow=names(found.narrow))


def summed(noises, seen=None):
    """A judge: losses of the layers in INT8 add up."""

    def judge(narrow):
        if seen is not None:
            seen.append(narrow)
        return judged(sum(noises[int(name[5:])] for name in narrow))

    return judge


EQUAL = {f"layer{index}": 1.0 for index in range(100)}


def test_a_budget_that_all_keep_is_answered_at_the_first_look():
    seen = []
    found = search_one(costs([1, 2, 3]), EQUAL, summed([1, 2, 3], seen), within(6.0))
    assert set(found.narrow) == {"layer0", "layer1", "layer2"} and not found.raised
    assert len(seen) == found.tried == 1 and found.judged.loss == pytest.approx(6.0)


def test_the_noisiest_for_what_they_save_are_given_back_first():
    noises = [1.0, 5.0, 2.0, 4.0]
    found = search_one(costs(noises), EQUAL, summed(noises), within(3.5))
    assert set(found.narrow) == {"layer0", "layer2"}
    assert list(found.raised) == ["layer1", "layer3"]
    assert all("5 (8-bit" in why or "4 (8-bit" in why for why in found.raised.values())
    saved = {**EQUAL, "layer1": 100.0}
    assert "layer1" in search_one(costs(noises), saved, summed(noises), within(8.5)).narrow, (
        "what saves much is kept longest"
    )


def test_a_loss_that_pictures_hide_is_judged_by_its_noise():
    noises = [4.0, 3.0, 2.0, 1.0]

    def lucky(narrow):  # two layers lose nothing on these pictures, whatever noise they make
        loss = sum(noises[int(name[5:])] for name in narrow)
        return judged(loss if len(narrow) > 2 else 0.0, noise=loss)

    assert set(search_one(costs(noises), EQUAL, lucky, within(2.0)).narrow) == {"layer2", "layer3"}
    assert set(search_one(costs(noises), EQUAL, lucky, within(2.0, 1.0)).narrow) == {"layer3"}
    assert set(search_one(costs(noises), EQUAL, lucky, within(2.0, 0.5)).narrow) == {"layer2", "layer3"}


def test_nothing_keeps_the_budget():
    found = search_one(costs([1, 2]), EQUAL, lambda narrow: judged(0.5), within(0.1))
    assert found.narrow == () and set(found.raised) == {"layer0", "layer1"} and found.judged.loss == 0.5


def test_no_layers():
    found = search_one([], {}, lambda narrow: judged(0.0), within(0.1))
    assert found.narrow == () and not found.raised and found.tried == 1


def test_nan_counts_as_over_budget():
    def judge(narrow):
        return judged(0.0, sick=1 if "layer0" in narrow else 0)

    found = search_one(costs([3, 2, 1]), EQUAL, judge, within(1.0))
    assert set(found.narrow) == {"layer1", "layer2"} and found.judged.sick == 0


def test_a_loud_layer_is_skipped_and_what_stands_behind_it_kept():
    """In order of noise for savings the loud layer comes last to be given back; it alone breaks the budget."""
    noises = [1.0, 1.0, 1.0, 1.0, 6.0]
    saved = {**EQUAL, "layer4": 20.0}
    seen = []
    found = search_one(costs(noises), saved, summed(noises, seen), within(5.5))
    assert set(found.narrow) == {"layer0", "layer1", "layer2", "layer3"}
    assert list(found.raised) == ["layer4"] and len(seen) <= 8


@pytest.mark.parametrize("seed", range(12))
def test_it_saves_as_much_as_any_set_can_and_few_are_tried(seed):
    rng = random.Random(seed)
    count = rng.randint(1, 12)
    noises = [rng.choice([0.0, rng.expovariate(1)]) for _ in range(count)]
    saved = {f"layer{index}": rng.choice([0.0, rng.uniform(0.1, 9)]) for index in range(count)}
    budget = rng.uniform(0, sum(noises) * 1.1)
    seen = []
    found = search_one(costs(noises), saved, summed(noises, seen), within(budget))
    assert sorted([*found.raised, *found.narrow]) == sorted(f"layer{index}" for index in range(count))
    assert found.judged.loss <= budget and len(seen) == len(set(seen)) == found.tried <= TRIALS
    sets = itertools.chain.from_iterable(itertools.combinations(range(count), size) for size in range(count + 1))
    most = max(sum(saved[f"layer{i}"] for i in one) for one in sets if sum(noises[i] for i in one) <= budget)
    # What the budget bears is found by halving: the last step of it may be missing.
    assert sum(saved[name] for name in found.narrow) >= 0.97 * most


def test_it_is_never_worse_than_giving_back_in_order():
    for seed in range(8):
        rng = random.Random(seed)
        noises = [rng.expovariate(1) for _ in range(40)]
        saved = {f"layer{index}": rng.uniform(0.1, 9) for index in range(40)}
        budget = rng.uniform(0, sum(noises))
        found = search_one(costs(noises), saved, summed(noises), within(budget))
        order = sorted(range(40), key=lambda i: -noises[i] / saved[f"layer{i}"])
        cut = next(cut for cut in range(41) if sum(noises[i] for i in order[cut:]) <= budget)
        assert found.judged.loss <= budget and found.tried <= TRIALS
        assert math.fsum(saved[name] for name in found.narrow) >= math.fsum(saved[f"layer{i}"] for i in order[cut:])


def both(seed, count=14):
    """Layers in two formats, and what each saves."""
    rng = random.Random(seed)
    noise = {kind: [rng.expovariate(1) for _ in range(count)] for kind in ("int8", "float8")}
    layers = {
        kind: [LayerCost(f"layer{i}", 0.0, one, 0.1, "", kind, one) for i, one in enumerate(noise[kind])]
        for kind in noise
    }
    quieter = [min(pair, key=lambda one: one.noise) for pair in zip(*layers.values())]
    return layers, quieter, {f"layer{index}": rng.uniform(0.1, 9) for index in range(count)}


@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize("together", [0.0, 0.5, 3.0])
def test_a_mix_saves_no_less_than_one_format_would(seed, together):
    """Also where a mix makes more noise than its layers alone: each border between formats costs ``together``."""
    layers, quieter, saved = both(seed)
    alone = {(one.name, one.format): one.noise for one in (*layers["int8"], *layers["float8"])}

    def judge(narrow):
        kinds = [kind for _, kind in narrow]
        borders = sum(first != second for first, second in zip(kinds, kinds[1:]))
        return judged(sum(alone[one] for one in narrow) + together * borders)

    budget = random.Random(seed).uniform(0.1, 0.9) * sum(one.noise for one in quieter)
    mixed = search([quieter, *layers.values()], saved, judge, within(budget))
    assert mixed.judged.loss <= budget and dict(mixed.narrow).keys() | mixed.raised.keys() == saved.keys()
    gain = sum(saved[name] for name in dict(mixed.narrow))
    for one in layers.values():
        single = search([one], saved, judge, within(budget))
        # What is looked at differs by the steps of what the budget bears.
        assert gain >= 0.97 * sum(saved[name] for name in dict(single.narrow))


def test_one_format_is_looked_through_only_for_what_saves_more():
    layers, quieter, saved = both(3)
    alone = {(one.name, one.format): one.noise for one in (*layers["int8"], *layers["float8"])}
    seen = []

    def judge(narrow):
        seen.append(narrow)
        return judged(sum(alone[one] for one in narrow))

    first = search([quieter], saved, judge, within(4.0))
    count = len(seen)
    seen.clear()
    found = search([quieter, *layers.values()], saved, judge, within(4.0))
    least = sum(saved[name] for name in dict(first.narrow))
    assert all(sum(saved[name] for name, _ in narrow) > least for narrow in seen[count:])
    assert sum(saved[name] for name in dict(found.narrow)) >= least
    assert len(seen) <= count + 2 * (MORE_TRIALS + 4) and len(seen) <= most_looked_at(len(saved), 3, TRIALS)


def test_a_judge_that_is_not_monotone_still_gives_a_set_that_was_judged_good():
    rng = random.Random(5)
    table = {}

    def judge(narrow):
        return table.setdefault(narrow, judged(rng.choice([0.05, 0.2]) if narrow else 0.0))

    for _ in range(20):
        table.clear()
        found = search_one(costs([rng.random() for _ in range(17)]), EQUAL, judge, within(0.1))
        assert found.judged == table[found.narrow] and found.judged.loss <= 0.1


def test_savings_follow_the_roofline():
    mode = XAVIER_NX.modes[0]
    saved = saved_microseconds({"big": 10**9, "small": 10**6}, {"big": 10**6}, XAVIER_NX, mode)
    assert saved["big"] > saved["small"] > 0
    more = saved_microseconds({"big": 10**9}, {"big": 10**7}, XAVIER_NX, mode)
    bandwidth = XAVIER_NX.memory_bits / 8 * 2 * mode.memory_mhz
    assert more["big"] - saved["big"] == pytest.approx(9 * 10**6 / bandwidth)
