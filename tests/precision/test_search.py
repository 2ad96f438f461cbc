"""The search finds the layers that save most within the budget, in few looks, and takes none that was not judged."""

from __future__ import annotations

import itertools
import random

import pytest

from sr_deploy.graph.roofline import XAVIER_NX
from sr_deploy.precision.choose.budget import Budget
from sr_deploy.precision.choose.search import TRIALS, saved_microseconds, search
from sr_deploy.precision.choose.sensitivity import LayerCost
from sr_deploy.precision.evaluate import PAIR, Judged, PictureJudged


def judged(loss: float, sick: int = 0, noise: float = 0.0) -> Judged:
    each = (PictureJudged("a", PAIR, loss, noise),)
    return Judged(30.0 - loss, 30.0, noise, noise, 0.0, 0.0, sick, 1, each)


def within(budget: float, felt: float = 0.0):
    return Budget(mean=budget, felt=felt).keeps


def costs(noises):
    return [LayerCost(f"layer{index}", noise / 10, noise, 0.1, "") for index, noise in enumerate(noises)]


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
    found = search(costs([1, 2, 3]), EQUAL, summed([1, 2, 3], seen), within(6.0))
    assert set(found.narrow) == {"layer0", "layer1", "layer2"} and not found.raised
    assert len(seen) == found.tried == 1 and found.judged.loss == pytest.approx(6.0)


def test_the_noisiest_for_what_they_save_are_given_back_first():
    noises = [1.0, 5.0, 2.0, 4.0]
    found = search(costs(noises), EQUAL, summed(noises), within(3.5))
    assert set(found.narrow) == {"layer0", "layer2"}
    assert list(found.raised) == ["layer1", "layer3"]
    assert all("5 (8-bit" in why or "4 (8-bit" in why for why in found.raised.values())
    saved = {**EQUAL, "layer1": 100.0}
    assert "layer1" in search(costs(noises), saved, summed(noises), within(8.5)).narrow, (
        "what saves much is kept longest"
    )


def test_a_loss_that_pictures_hide_is_judged_by_its_noise():
    noises = [4.0, 3.0, 2.0, 1.0]

    def lucky(narrow):  # two layers lose nothing on these pictures, whatever noise they make
        loss = sum(noises[int(name[5:])] for name in narrow)
        return judged(loss if len(narrow) > 2 else 0.0, noise=loss)

    assert set(search(costs(noises), EQUAL, lucky, within(2.0)).narrow) == {"layer2", "layer3"}
    assert set(search(costs(noises), EQUAL, lucky, within(2.0, 1.0)).narrow) == {"layer3"}
    assert set(search(costs(noises), EQUAL, lucky, within(2.0, 0.5)).narrow) == {"layer2", "layer3"}


def test_nothing_keeps_the_budget():
    found = search(costs([1, 2]), EQUAL, lambda narrow: judged(0.5), within(0.1))
    assert found.narrow == () and set(found.raised) == {"layer0", "layer1"} and found.judged.loss == 0.5


def test_no_layers():
    found = search([], {}, lambda narrow: judged(0.0), within(0.1))
    assert found.narrow == () and not found.raised and found.tried == 1


def test_nan_counts_as_over_budget():
    def judge(narrow):
        return judged(0.0, sick=1 if "layer0" in narrow else 0)

    found = search(costs([3, 2, 1]), EQUAL, judge, within(1.0))
    assert set(found.narrow) == {"layer1", "layer2"} and found.judged.sick == 0


def test_a_loud_layer_is_skipped_and_what_stands_behind_it_kept():
    """In order of noise for savings the loud layer comes last to be given back; it alone breaks the budget."""
    noises = [1.0, 1.0, 1.0, 1.0, 6.0]
    saved = {**EQUAL, "layer4": 20.0}
    seen = []
    found = search(costs(noises), saved, summed(noises, seen), within(5.5))
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
    found = search(costs(noises), saved, summed(noises, seen), within(budget))
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
        found = search(costs(noises), saved, summed(noises), within(budget))
        order = sorted(range(40), key=lambda i: -noises[i] / saved[f"layer{i}"])
        cut = next(cut for cut in range(41) if sum(noises[i] for i in order[cut:]) <= budget)
        assert found.judged.loss <= budget and found.tried <= TRIALS
        assert sum(saved[name] for name in found.narrow) >= sum(saved[f"layer{i}"] for i in order[cut:])


def test_a_judge_that_is_not_monotone_still_gives_a_set_that_was_judged_good():
    rng = random.Random(5)
    table = {}

    def judge(narrow):
        return table.setdefault(narrow, judged(rng.choice([0.05, 0.2]) if narrow else 0.0))

    for _ in range(20):
        table.clear()
        found = search(costs([rng.random() for _ in range(17)]), EQUAL, judge, within(0.1))
        assert found.judged == table[found.narrow] and found.judged.loss <= 0.1


def test_savings_follow_the_roofline():
    mode = XAVIER_NX.modes[0]
    saved = saved_microseconds({"big": 10**9, "small": 10**6}, {"big": 10**6}, XAVIER_NX, mode)
    assert saved["big"] > saved["small"] > 0
    more = saved_microseconds({"big": 10**9}, {"big": 10**7}, XAVIER_NX, mode)
    bandwidth = XAVIER_NX.memory_bits / 8 * 2 * mode.memory_mhz
    assert more["big"] - saved["big"] == pytest.approx(9 * 10**6 / bandwidth)
