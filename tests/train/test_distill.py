"""What a distillation learns: losses together, low-rank changes, averages, and that it goes on to the bit."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
from torch import nn

from sr_deploy.core.errors import BadInput, UsageError
from sr_deploy.train import loop
from sr_deploy.train.distill import DistillLearner, DistillOptions, Lesson
from sr_deploy.train.features import FeaturePairs, default_pairs, pairs_of, spread_over
from sr_deploy.train.loop import Course, train
from sr_deploy.train.lora import Lora, add_changes, lora_of, merge_changes
from sr_deploy.train.losses.table import LOSSES, terms_of
from sr_deploy.train.objective import check_terms
from sr_deploy.train.optimisers import OPTIMISERS, Optimiser
from sr_deploy.train.presets import PRESETS
from sr_deploy.train.schedule import Schedule
from sr_deploy.train.state import Keeping


def small(width, seed):
    """(N, 3, H, W) in 0…1 to twice the size, nearly by repeating; one feature map of ``width``."""
    torch.manual_seed(seed)
    network = nn.Sequential(
        nn.Conv2d(3, width, 3, padding=1), nn.ReLU(), nn.Conv2d(width, 12, 3, padding=1), nn.PixelShuffle(2)
    )
    nn.init.constant_(network[2].bias, 0.5)
    return network


def pictures(count=4, side=24, scale=1):
    rng = np.random.default_rng(7)
    coarse = rng.integers(0, 256, (count, 1, 3, side // 8, side // 8), dtype=np.uint8)
    return [one.repeat(8 * scale, axis=2).repeat(8 * scale, axis=3) for one in coarse]


def lesson(**changes):
    teacher = small(6, 2)
    made = Lesson(small(4, 1), 1.0, pictures(), pictures(scale=2), teacher, pairs=FeaturePairs(("1",), ("1",)))
    return dataclasses.replace(made, **changes)


EVERY = terms_of(",".join(f"{loss.name}={1e-3 if loss.white > 1 else 1}" for loss in LOSSES) + ",l1@hr=0.1")
OPTIONS = DistillOptions(EVERY, batch=2, patch=16, judged_patch=24, ema=0.5, affinity_rows=5)


def trained(learner, steps, keeping=None, resume=False, told=lambda _: None):
    schedule = Schedule(steps, None, warm_up=2, floor=0.1)
    train(learner, Course(schedule, 2, keeping), resume, told)
    return learner


def test_all_losses_train_together_and_the_best_is_kept():
    learner = trained(DistillLearner(lesson(), OPTIONS), 6)
    assert [point.step for point in learner.points] == [0, 2, 4, 6]
    assert all(np.isfinite((point.psnr, point.fidelity)).all() for point in learner.points)
    assert learner.points[-1].fidelity > learner.points[0].fidelity, "it follows"
    assert learner.objective.attention is not None and len(learner.trained) > len(list(learner.student.parameters()))
    best = max(learner.points, key=lambda point: point.fidelity)
    assert learner.best_point() == best
    learner.take_best()
    assert all(torch.equal(value, learner.best[name]) for name, value in learner.student.state_dict().items())
    # What is judged and kept is the average, which lags behind.
    assert not torch.equal(learner.average.state["0.weight"], small(4, 1)[0].weight)


def test_it_goes_on_to_the_bit(tmp_path, monkeypatch):
    whole = trained(DistillLearner(lesson(), OPTIONS), 6)
    keeping = Keeping(tmp_path / "state", "k", {}, "go on", "anew", 0.0)
    keep = loop.keep

    def killed(keeping, state):
        keep(keeping, state)
        if state.step == 3:
            raise RuntimeError("killed")

    with monkeypatch.context() as patched:
        patched.setattr(loop, "keep", killed)
        with pytest.raises(RuntimeError, match="killed"):
            trained(DistillLearner(lesson(), OPTIONS), 6, keeping)
    torch.manual_seed(99)
    again = trained(DistillLearner(lesson(), OPTIONS), 6, keeping, resume=True)
    for name, value in whole.student.state_dict().items():
        assert torch.equal(value, again.student.state_dict()[name])
        assert torch.equal(whole.best[name], again.best[name])
    for one, other in zip(whole.points, again.points):
        assert dataclasses.replace(one, seconds=0, loss=0) == dataclasses.replace(other, seconds=0, loss=0)
        assert one.loss == other.loss or one.step == 0


def test_originals_alone_teach_and_each_optimiser_learns():
    for name in OPTIMISERS:
        options = DistillOptions(terms_of("l1"), Optimiser(name, 0.01), batch=2, patch=16, judged_patch=24)
        learner = trained(DistillLearner(lesson(teacher=None, pairs=None), options), 8)
        assert learner.points[0].fidelity is None
        assert learner.points[-1].psnr > learner.points[0].psnr
    with pytest.raises(UsageError, match="no optimiser 'sgd'"):
        Optimiser("sgd").of(list(small(4, 1).parameters()))


def test_pictures_are_given_in_the_value_range_of_each_network():
    class Wide(nn.Module):
        def __init__(self, inner):
            super().__init__()
            self.inner = inner

        def forward(self, x):
            return 255.0 * self.inner(x / 255.0)

    options = DistillOptions(terms_of("l1"), batch=2, patch=16, judged_patch=24)
    plain = DistillLearner(lesson(pairs=None), options)
    wide = DistillLearner(lesson(student=Wide(small(4, 1)), white=255.0, pairs=None), options)
    assert wide.learn(0) == pytest.approx(plain.learn(0), rel=1e-5)


def test_changes_of_low_rank_are_learnt_and_merged():
    network = small(4, 1)
    before = {name: value.clone() for name, value in network.state_dict().items()}
    assert add_changes(network, Lora(2, 4.0)) == ("0", "2")
    options = DistillOptions(terms_of("l1"), Optimiser(rate=0.01), batch=2, patch=16, judged_patch=24)
    learner = trained(DistillLearner(lesson(student=network, pairs=None), options), 4)
    low = torch.rand(1, 3, 9, 11)
    with torch.no_grad():
        unmerged = network(low)
        merge_changes(network)
        assert float((network(low) - unmerged).abs().max()) <= 1e-5
    after = network.state_dict()
    assert {name: value.shape for name, value in after.items()} == {n: v.shape for n, v in before.items()}
    assert not torch.equal(after["0.weight"], before["0.weight"])
    assert torch.equal(after["0.bias"], before["0.bias"]), "what has no change is frozen"
    change = (after["0.weight"] - before["0.weight"]).reshape(12, 9)
    assert torch.linalg.matrix_rank(change, atol=1e-6) <= 6, "rank times kernel"
    assert len(learner.trained) == 4


def test_lora_is_read_from_the_command_line():
    assert lora_of("r=2,alpha=2r") == lora_of("r=2") == Lora(2, 4.0) and lora_of("r=4, alpha=1.5") == Lora(4, 1.5)
    for text in ("2", "r=0", "r=2,alpha=0", "r=2,alpha=r", "alpha=2"):
        with pytest.raises(UsageError, match="no rank and alpha"):
            lora_of(text)
    with pytest.raises(UsageError, match="no convolution"):
        add_changes(nn.Linear(3, 3), Lora(2, 4.0))


def test_features_are_spread_over_the_depth_or_named():
    deep = nn.ModuleDict({f"block_{number}": nn.Identity() for number in range(1, 7)})
    assert spread_over(deep, r"block_\d+", 3) == ("block_2", "block_4", "block_6")
    assert spread_over(deep, r"block_\d+", 9)[-1] == "block_6" and spread_over(deep, "", 3) == ()
    flat = nn.ModuleDict({"a": nn.Identity()})
    assert default_pairs(deep, flat, (r"block_\d+", "a")) == FeaturePairs(("block_6",), ("a",))
    with pytest.raises(UsageError, match="of the teacher to compare(.|\\n)*--features"):
        default_pairs(deep, flat, (r"block_\d+", ""))
    assert pairs_of(["a=b", "c.1=d"]) == FeaturePairs(("a", "c.1"), ("b", "d"))
    with pytest.raises(UsageError, match="names no pairs"):
        pairs_of(["a"])


def test_features_that_cannot_be_compared_are_refused():
    options = DistillOptions(terms_of("l1,at"), batch=2, patch=16, judged_patch=24)
    for student, teacher, found in (
        ("9", "1", "no module '9'"),
        ("1", "3", "is 16x16, 3 of the teacher 32x32"),
    ):
        with pytest.raises(UsageError, match=found):
            DistillLearner(lesson(pairs=FeaturePairs((student,), (teacher,))), options)


def test_losses_without_anything_to_compare_with_are_refused():
    for text, taught, originals, found in (
        ("l1,at", False, True, "compares features with a teacher's"),
        ("l1@teacher", False, True, "follows a teacher"),
        ("l1@hr", True, False, "compares with originals"),
        ("tv,at", True, True, "never looks at a picture"),
    ):
        with pytest.raises(UsageError, match=found):
            check_terms(terms_of(text), taught, originals)


def test_few_or_small_pictures_are_refused():
    with pytest.raises(BadInput, match="1 picture"):
        DistillLearner(lesson(images=pictures(1), originals=None), OPTIONS)
    with pytest.raises(BadInput, match="smaller than the squares of 16"):
        DistillLearner(lesson(images=pictures(side=8), originals=None), OPTIONS)


def test_presets_name_losses_that_there_are():
    for preset in PRESETS:
        assert terms_of(preset.loss) and all(term.against != "hr" for term in terms_of(preset.unlabelled))
        assert preset.optimiser.name in OPTIMISERS and preset.patch_at(2) >= 8
        if preset.lora:
            lora_of(preset.lora)
    assert [preset.name for preset in PRESETS] == ["plain", "cdism", "light-f2srgan", "efdn", "dsclora"]
