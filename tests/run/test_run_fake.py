from __future__ import annotations

import numpy as np
import pytest

from sr_deploy.core.errors import BadInput, EnvironmentFault, UsageError
from sr_deploy.core.media.sample import sample_input
from sr_deploy.run.base import upscale
from sr_deploy.run.fake import FakeClock, FakeRunner


def test_the_picture_is_every_pixel_repeated():
    lr = sample_input((5, 7), 255.0)
    sr = upscale(FakeRunner(3, lambda size, n: 0.0, FakeClock().sleep), lr)
    assert sr.shape == (1, 3, 15, 21)
    assert all(np.array_equal(sr[..., dy::3, dx::3], lr) for dy in range(3) for dx in range(3))


def test_time_is_spent_in_synchronize_not_in_compute():
    clock = FakeClock()
    runner = FakeRunner(2, lambda size, n: 0.1 if n == 0 else size[0] / 1000, clock.sleep)
    runner.prepare((8, 8))
    runner.upload(sample_input((8, 8), 1.0))
    runner.compute()
    assert clock() == 0
    runner.synchronize()
    assert clock() == pytest.approx(0.1)
    runner.compute()
    runner.compute()
    runner.download()
    assert clock() == pytest.approx(0.116)
    runner.prepare((8, 8))
    runner.upload(sample_input((8, 8), 1.0))
    runner.compute()
    runner.synchronize()
    runner.synchronize()
    assert clock() == pytest.approx(0.216), "the script starts anew with prepare"


def test_scripted_failures():
    def latency(size, n):
        if n == 1:
            raise EnvironmentFault("not enough memory")
        return 0.0

    runner = FakeRunner(2, latency, FakeClock().sleep, largest=(8, 8))
    with pytest.raises(BadInput, match="(?s)9x8.*8x8"):
        runner.prepare((9, 8))
    runner.prepare((8, 8))
    runner.upload(sample_input((8, 8), 1.0))
    runner.compute()
    with pytest.raises(EnvironmentFault):
        runner.compute()


def test_order_is_the_protocols():
    runner = FakeRunner(2, lambda size, n: 0.0, FakeClock().sleep)
    with pytest.raises(BadInput, match="prepare"):
        runner.upload(sample_input((8, 8), 1.0))
    runner.prepare((8, 8))
    with pytest.raises(BadInput, match="order"):
        runner.compute()
    runner.close()
    runner.close()


def test_it_has_no_clock_of_its_own():
    with pytest.raises(UsageError, match="fake device has no device events"):
        FakeRunner(2, lambda size, n: 0.1, FakeClock().sleep).timed_compute()
