"""Pictures that arrive at a rate: a clock of the test's own makes latency, jitter and deadlines exact."""

from __future__ import annotations

import pytest

from sr_deploy.bench.load import LoadOptions, jitter, load_of, loads_wanted, measure_load
from sr_deploy.core.errors import UsageError


class Machine:
    """Takes the given seconds for each picture, in turn; a look at the clock takes a microsecond."""

    def __init__(self, *seconds):
        self.now, self.seconds, self.done = 5.0, seconds, 0

    def clock(self):
        self.now += 1e-6
        return self.now

    def sleep(self, seconds):
        assert seconds > 0
        self.now += seconds

    def run(self):
        self.now += self.seconds[self.done % len(self.seconds)]
        self.done += 1

    def under(self, **options):
        return measure_load(self.run, LoadOptions(**options), self.clock, self.sleep)


def test_a_machine_that_keeps_up_has_its_own_latency():
    load = Machine(0.010).under(rate_hz=30, seconds=1.0)
    assert len(load.latencies_s) == 30 and load.missed == 0 and not load.cut_short
    assert all(0.010 <= value < 0.0101 for value in load.latencies_s)
    assert load.jitter_s < 1e-5 and load.period_s == pytest.approx(1 / 30)


def test_pictures_wait_for_each_other_and_miss_their_deadlines():
    """At 50 a second a picture has 20 ms. One of 45 ms makes the next ones late too, until the queue is empty."""
    load = Machine(0.045, *[0.010] * 9).under(rate_hz=50, seconds=0.2)
    wanted = [0.045, 0.035, 0.025, 0.015, *[0.010] * 6]
    assert load.latencies_s == pytest.approx(wanted, abs=1e-4)
    assert load.missed == 3
    assert load.jitter_s == pytest.approx((0.010 * 3 + 0.005) / 9, abs=1e-4)


def test_a_machine_that_is_too_slow_falls_behind_and_is_ended():
    load = Machine(0.100).under(rate_hz=100, seconds=10.0, max_seconds=1.0)
    assert load.cut_short and load.missed == len(load.latencies_s)
    assert 10 <= len(load.latencies_s) <= 12
    assert load.latencies_s[-1] > load.latencies_s[0] + 0.8


def test_a_burst_arrives_at_once_and_has_until_the_next():
    load = Machine(0.010).under(rate_hz=40, burst=4, seconds=1.0)
    assert load.period_s == pytest.approx(0.1) and len(load.latencies_s) == 40
    assert load.latencies_s[:4] == pytest.approx([0.010, 0.020, 0.030, 0.040], abs=1e-4)
    assert load.missed == 0 and load.jitter_s < 1e-4, "a place in the burst has its own latency every time"
    assert Machine(0.030).under(rate_hz=40, burst=4, seconds=1.0).missed > 0


def test_few_pictures_a_second_still_give_ten_bursts():
    assert LoadOptions(1.0, seconds=3.0).bursts == 10
    assert jitter([0.1], 1) == 0.0


@pytest.mark.parametrize(("pace", "burst"), [(None, 4), (0.0, None), (-1.0, None), (30.0, 0), (1e7, None)])
def test_what_is_no_load_is_refused(pace, burst):
    with pytest.raises(UsageError):
        loads_wanted(pace, burst, 3.0, 60.0)


def test_both_loads_are_measured_at_one_rate():
    alone, four = loads_wanted(30.0, 4, 1.0, 9.0)
    assert (alone.burst, four.burst) == (1, 4) and alone.rate_hz == four.rate_hz == 30.0
    assert len(loads_wanted(30.0, 1, 1.0, 9.0)) == 1


def test_a_record_that_contradicts_itself_is_refused():
    with pytest.raises(ValueError, match="missed"):
        type(load_of([0.1], 30.0, 1))(30.0, 1, (0.1,), 0.1, 0.1, 0.1, 0.0, 2)
