"""Rates, state and loop of any training, on a learner of one number."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch

from sr_deploy.core.errors import BadInput, CheckFailed, UsageError
from sr_deploy.train import loop
from sr_deploy.train.descend import descend
from sr_deploy.train.loop import Course, train
from sr_deploy.train.losses.pictures import taught_distance
from sr_deploy.train.schedule import Schedule
from sr_deploy.train.state import Keeping, key_of


class Line:
    """Fits y = a·x to points that follow from the step's number."""

    def __init__(self, stop_at=None):
        self.slope = torch.nn.Parameter(torch.zeros(()))
        self.optimiser = torch.optim.Adam([{"params": [self.slope], "peak": 0.1}], lr=0.0)
        self.stop_at, self.seen = stop_at, []

    def learn(self, step):
        if step == self.stop_at:
            raise RuntimeError("the power failed")
        x = torch.from_numpy(np.random.default_rng((1, step)).normal(size=8))
        return descend(self.optimiser, (self.slope * x - 3.0 * x).abs().mean(), step, "try less")

    def judge(self, moment):
        self.seen.append((moment.step, moment.loss))
        return ""

    def state(self):
        return {"slope": self.slope.detach(), "optimiser": self.optimiser.state_dict(), "seen": self.seen}

    def restore(self, state):
        with torch.no_grad():
            self.slope.copy_(state["slope"])
        self.optimiser.load_state_dict(state["optimiser"])
        self.seen = [tuple(one) for one in state["seen"]]


def course(file=None, key="k", **settings):
    keeping = None if file is None else Keeping(file, key, {"rate": 0.1, **settings}, "go on", "begin anew", 0.0)
    return Course(Schedule(steps=12, minutes=None, warm_up=3, floor=0.1), 5, keeping)


def test_rates_rise_then_fall_as_half_a_cosine_to_the_floor():
    optimiser = torch.optim.Adam([{"params": [torch.nn.Parameter(torch.zeros(()))], "peak": 2.0}], lr=0.0)

    def rate(schedule, step, seconds=0.0):
        schedule.set_rates(optimiser, step, seconds)
        return optimiser.param_groups[0]["lr"]

    plain = Schedule(steps=100, minutes=None, warm_up=1, floor=0.01)
    assert [rate(plain, step) for step in (0, 50, 100, 200)] == pytest.approx([2.0, 1.01, 0.02, 0.02])
    slow = Schedule(steps=None, minutes=2.0, warm_up=4, floor=0.5)
    assert [rate(slow, 0), rate(slow, 1), rate(slow, 9, 60.0)] == pytest.approx([0.5, 1.0, 1.5])
    # Whichever is further on counts.
    both = Schedule(steps=100, minutes=1.0, warm_up=1, floor=0.0)
    assert rate(both, 50, 0.0) == rate(both, 0, 30.0) == pytest.approx(1.0)
    assert both.is_over(100, 0.0) and both.is_over(0, 60.0) and not both.is_over(99, 59.9)
    with pytest.raises(ValueError, match="never end"):
        Schedule(steps=None, minutes=None, warm_up=1, floor=0.0)


def test_a_training_that_broke_off_goes_on_to_the_bit(tmp_path):
    whole, said = Line(), []
    assert train(whole, course(), False).step == 12
    assert [step for step, _ in whole.seen] == [0, 5, 10, 12]
    file = tmp_path / "state"
    with pytest.raises(RuntimeError, match="power"):
        train(Line(stop_at=7), course(file), False)
    again = Line()
    train(again, course(file), True, said.append)
    assert said[0] == "going on after step 7" and said[1].startswith("step 10/12  0 s  loss ")
    assert torch.equal(again.slope, whole.slope) and again.seen[1:] == whole.seen[1:]


def test_the_step_that_ends_a_training_by_time_is_judged_and_kept(tmp_path, monkeypatch):
    ticks, kept = itertools.count(), []
    monkeypatch.setattr(loop.time, "monotonic", lambda: float(next(ticks)))
    monkeypatch.setattr(loop, "keep", lambda keeping, state: kept.append(state.step))
    # Whichever look at the clock is the one that comes too late.
    for extra in range(8):
        line, schedule = Line(), Schedule(steps=None, minutes=(60 + extra) / 60, warm_up=1, floor=0.1)
        end = train(line, Course(schedule, 1000, course(tmp_path / "state").keeping), False)
        assert line.seen[-1][0] == kept[-1] == end.step > 5


def test_only_a_whole_state_of_the_same_training_is_gone_on_from(tmp_path):
    file = tmp_path / "state"
    with pytest.raises(UsageError, match="no state to resume"):
        train(Line(), course(file), True)
    with pytest.raises(UsageError, match="none was kept"):
        train(Line(), course(), True)
    train(Line(), course(file), False)
    whole = file.read_bytes()
    with pytest.raises(UsageError, match="of another run: rate 0.1, now 0.2(.|\\n)*begin anew"):
        train(Line(), course(file, key="other", rate=0.2), True)
    with pytest.raises(UsageError, match="another plan or other pictures"):
        train(Line(), course(file, key="other"), True)
    for damage in (whole[:-100], b"", b"no state"):
        file.write_bytes(damage)
        with pytest.raises(BadInput, match="is damaged(.|\\n)*begin anew"):
            train(Line(), course(file), True)
    for other in ({"form": 1, "step": 3}, {"key": "k", "step": 3}):
        torch.save(other, str(file))
        with pytest.raises(BadInput, match="another version of srdeploy(.|\\n)*begin anew"):
            train(Line(), course(file), True)
    for wrong in ([1, 2], {"form": 2, "key": "k"}):
        torch.save(wrong, str(file))
        with pytest.raises(BadInput, match="is damaged"):
            train(Line(), course(file), True)


def test_the_key_follows_settings_pictures_and_graphs():
    picture = np.arange(12, dtype=np.float32).reshape(3, 2, 2)
    keys = {
        key_of({"seed": 0}, [picture]),
        key_of({"seed": 1}, [picture]),
        key_of({"seed": 0}, [picture + 1]),
        key_of({"seed": 0}, [picture.reshape(3, 4, 1)]),
        key_of({"seed": 0}, [picture], b"graph"),
        key_of({"seed": 0}, [picture], b"gra", b"ph"),
    }
    assert len(keys) == 6
    assert key_of({"a": 1, "b": 2}, [picture]) == key_of({"b": 2, "a": 1}, [picture.copy()])


def test_losses_mind_originals_by_their_share_and_infinite_ones_change_nothing():
    given, taught, originals = torch.zeros(4), torch.ones(4), torch.full((4,), 3.0)
    assert float(taught_distance(given, taught, None, 0.3)) == 1.0
    assert float(taught_distance(given, taught, originals, 0.25)) == 0.75 * 1.0 + 0.25 * 3.0
    line = Line()
    with pytest.raises(CheckFailed, match="became nan at step 4(.|\\n)*try less"):
        descend(line.optimiser, line.slope * float("nan"), 4, "try less")
    assert float(line.slope.detach()) == 0.0
