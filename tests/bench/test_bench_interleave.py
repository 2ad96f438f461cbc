"""Rounds of two runners, exact because the clock is scripted."""

from __future__ import annotations

import dataclasses

import pytest

from sr_deploy.bench.interleave import InterleaveOptions, interleave, opened_first
from sr_deploy.bench.options import BenchOptions
from sr_deploy.core.errors import UsageError
from sr_deploy.run.fake import FakeClock, FakeRunner

NEVER = InterleaveOptions(looks=(4, 8), part_seconds=0.005, max_seconds=1000.0, warmup_seconds=0.0)


class Log:
    """Two fake runners on one clock, and which of them computed when."""

    def __init__(self, baseline_s, candidate_s):
        self.clock, self.order = FakeClock(), []
        self.baseline = FakeRunner(2, self.latency("A", baseline_s), self.clock.sleep)
        self.candidate = FakeRunner(2, self.latency("B", candidate_s), self.clock.sleep)

    def latency(self, name, seconds):
        def of(size, n):
            self.order.append(name)
            return seconds(self.clock.now) if callable(seconds) else seconds

        return of

    def run(self, options, decided=lambda a, b: False):
        return interleave(self.baseline, self.candidate, (4, 6), BenchOptions(), options, decided, self.clock)


def test_both_sides_of_every_round_are_measured():
    log = Log(0.001, 0.0011)
    session = log.run(NEVER)
    assert session.baseline_s == pytest.approx([0.001] * 8)
    assert session.candidate_s == pytest.approx([0.0011] * 8)
    assert session.looks_taken == 2
    # A part is five iterations, the first of them left out.
    assert [len(point.samples_s) for point in session.points] == [32, 32]
    assert session.points[1].median_s == pytest.approx(0.0011)
    assert not session.points[0].cut_short


def test_the_order_is_random_and_the_same_for_the_same_seed():
    def starts(seed):
        log = Log(0.001, 0.001)
        log.run(InterleaveOptions(looks=(40,), part_seconds=0.005, warmup_seconds=0.0, seed=seed))
        rounds = log.order[-400:]
        return [rounds[i] for i in range(0, 400, 10)]

    assert {"A", "B"} == set(starts(0))
    # Of every two rounds one begins with each side.
    assert all({one, other} == {"A", "B"} for one, other in zip(starts(0)[::2], starts(0)[1::2]))
    assert starts(0) == starts(0) != starts(1)


def test_the_order_is_in_the_session():
    log = Log(0.001, 0.001)
    session = log.run(InterleaveOptions(looks=(40,), part_seconds=0.005, warmup_seconds=0.0, seed=3))
    assert ["AB"[side] for side in session.order] == [log.order[-400:][i] for i in range(0, 400, 10)]


@pytest.mark.parametrize("first", [0, 1])
def test_the_side_that_is_first_is_warmed_up_first(first):
    log = Log(0.001, 0.001)
    log.run(dataclasses.replace(NEVER, first=first))
    assert log.order[0] == "AB"[first]


def test_who_is_opened_first_is_drawn_and_turned_round_for_the_confirmation():
    drawn = [opened_first(seed, (4, 6), 0) for seed in range(200)]
    assert 70 < sum(drawn) < 130
    assert [opened_first(seed, (4, 6), 1) for seed in range(200)] == [1 - side for side in drawn]
    assert drawn != [opened_first(seed, (6, 4), 0) for seed in range(200)]


def test_it_ends_at_the_look_that_decides():
    seen = []
    session = Log(0.001, 0.001).run(NEVER, lambda a, b: seen.append((len(a), len(b))) or True)
    assert seen == [(4, 4)]
    assert len(session.baseline_s) == 4


def test_it_ends_at_its_time_with_whole_rounds_and_says_so():
    session = Log(1.0, 1.0).run(InterleaveOptions(looks=(20,), max_seconds=5.0, warmup_seconds=0.0))
    assert len(session.baseline_s) == len(session.candidate_s) == 3
    assert session.looks_taken == 0
    assert session.points[0].cut_short


def test_both_sides_have_parts_of_one_length_even_when_one_was_slow_at_first():
    log = Log(lambda now: 0.02 if now < 0.2 else 0.001, 0.001)
    session = log.run(NEVER)
    assert len(session.points[0].samples_s) == len(session.points[1].samples_s)


@pytest.mark.parametrize(
    "wrong", [{"looks": ()}, {"looks": (4, 4)}, {"part_seconds": 0.0}, {"max_seconds": 0.0}, {"first": 2}]
)
def test_impossible_sessions_are_refused(wrong):
    with pytest.raises(UsageError):
        InterleaveOptions(**wrong)
