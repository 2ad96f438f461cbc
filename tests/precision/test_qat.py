"""Fine-tuning lowers the loss, gives exact grids, and goes on after an interruption as if there had been none."""

from __future__ import annotations

import dataclasses
import itertools
import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from sr_deploy.core.errors import BadInput, UsageError
from sr_deploy.core.signals import ended_by_signals
from sr_deploy.precision.fit.qat import STATE_NAME, fine_tune
from sr_deploy.precision.fit.qat_learner import Lesson, QatOptions
from sr_deploy.precision.lower.quantize import quantized_weights
from sr_deploy.train.patches import pool_of, squares_of
from tests.precision import small_plans

OPTIONS = QatOptions(
    steps=40, batch=2, patch=16, warm_up=5, judge_every=10, keep_seconds=0.0, judged_patch=32,
    weight_rate=1e-3, scale_rate=2e-3,
)  # fmt: skip


@pytest.fixture(scope="module")
def model():
    return small_plans.network()


@pytest.fixture(scope="module")
def plan(model):
    made = small_plans.plan_of(model)
    # Coarse weights: there is something to learn.
    wider = {name: tuple(16 * value for value in values) for name, values in made.weight_scales.items()}
    return dataclasses.replace(made, weight_scales=wider)


@pytest.fixture(scope="module")
def tuned(model, plan):
    return fine_tune(Lesson(model, plan, {}, small_plans.pictures(), 1.0), OPTIONS)


def test_the_quantised_network_comes_nearer_to_float32(tuned):
    assert [point.step for point in tuned.points] == [0, 10, 20, 30, 40]
    assert tuned.points[-1].loss < 0.8 * tuned.points[1].loss
    assert tuned.best.psnr > tuned.points[0].psnr + 1.0
    assert "fine-tuned for 40 steps" in tuned.plan.notes[-1]


def test_weights_are_multiples_of_the_scales_that_came_out(tuned, plan):
    assert tuned.plan.weight_scales != plan.weight_scales
    assert tuned.plan.activation_scales != plan.activation_scales
    for name, scales in tuned.plan.weight_scales.items():
        steps = tuned.weights[name].astype(np.float64) / np.asarray(scales).reshape(-1, 1, 1, 1)
        assert np.abs(steps - np.rint(steps)).max() < 1e-4
        assert np.array_equal(np.rint(steps).astype(np.int8), quantized_weights(tuned.weights[name], scales, 0))


def test_resuming_gives_the_same_weights(model, plan, tuned, tmp_path):
    pictures = small_plans.pictures()

    class Stop(Exception):
        pass

    def stop(text):
        if text.startswith("step 30/"):
            raise Stop

    with pytest.raises(Stop):
        fine_tune(Lesson(model, plan, {}, pictures, 1.0), OPTIONS, folder=tmp_path, say=stop)
    said = []
    again = fine_tune(Lesson(model, plan, {}, pictures, 1.0), OPTIONS, folder=tmp_path, resume=True, say=said.append)
    assert said[0] == "going on after step 29"
    assert [dataclasses.replace(p, seconds=0) for p in again.points[1:]] == [
        dataclasses.replace(p, seconds=0) for p in tuned.points[1:]
    ]
    assert all(np.array_equal(again.weights[name], tuned.weights[name]) for name in tuned.weights)
    assert again.plan.activation_scales == tuned.plan.activation_scales


KILLED = """
import os, signal, sys
from pathlib import Path
sys.path.insert(0, {root!r})
from tests.precision import small_plans
from tests.precision.test_qat import OPTIONS, small_coarse
from sr_deploy.precision.fit.qat import fine_tune
from sr_deploy.precision.fit.qat_learner import Lesson
import dataclasses
model, plan = small_coarse()
def die(text):
    if text.startswith("step 20/"):
        os.kill(os.getpid(), signal.SIGKILL)
options = dataclasses.replace(OPTIONS, keep_seconds={seconds})
fine_tune(Lesson(model, plan, {{}}, small_plans.pictures(), 1.0), options, folder=Path({folder!r}), say=die)
"""


def small_coarse():
    """Model and plan as the fixtures have them, for another process."""
    model = small_plans.network()
    made = small_plans.plan_of(model)
    wider = {name: tuple(16 * value for value in values) for name, values in made.weight_scales.items()}
    return model, dataclasses.replace(made, weight_scales=wider)


@pytest.mark.parametrize("seconds, kept", [(30.0, 1), (0.0, 19)])
def test_kill_9_costs_nothing_but_time(model, plan, tuned, tmp_path, seconds, kept):
    root = str(Path(__file__).resolve().parents[2])
    killed = [sys.executable, "-c", KILLED.format(root=root, folder=str(tmp_path), seconds=seconds)]
    assert subprocess.run(killed, timeout=120).returncode == -signal.SIGKILL
    said = []
    again = fine_tune(
        Lesson(model, plan, {}, small_plans.pictures(), 1.0), OPTIONS, folder=tmp_path, resume=True, say=said.append
    )
    assert said[0] == f"going on after step {kept}"
    assert {path.name for path in tmp_path.iterdir()} == {STATE_NAME}
    assert [(p.step, p.psnr) for p in again.points] == [(p.step, p.psnr) for p in tuned.points]
    assert [p.loss for p in again.points[1:]] == [p.loss for p in tuned.points[1:]]
    assert all(np.array_equal(again.weights[name], tuned.weights[name]) for name in tuned.weights)
    assert again.plan.activation_scales == tuned.plan.activation_scales
    assert again.plan.weight_scales == tuned.plan.weight_scales


def test_the_state_is_kept_by_time(model, plan, tmp_path, monkeypatch):
    from sr_deploy.train import loop

    # Every look at the clock is two seconds later; a step looks a few times.
    ticks = itertools.count(0, 2)
    monkeypatch.setattr(loop.time, "monotonic", lambda: float(next(ticks)))
    steps = []
    monkeypatch.setattr(loop, "keep", lambda keeping, state: steps.append((state.step, next(ticks))))
    options = dataclasses.replace(OPTIONS, steps=30, keep_seconds=QatOptions().keep_seconds)
    fine_tune(Lesson(model, plan, {}, small_plans.pictures(), 1.0), options, folder=tmp_path)
    assert QatOptions().keep_seconds == 30.0
    assert steps[0][0] == 1 and steps[-1][0] == 30 and len(steps) > 3
    assert all(later - earlier <= 30 + 6 * 2 for (_, earlier), (_, later) in zip(steps, steps[1:]))


def test_a_state_of_another_run_is_refused(model, plan, tmp_path):
    pictures = small_plans.pictures()
    short = dataclasses.replace(OPTIONS, steps=1)
    fine_tune(Lesson(model, plan, {}, pictures, 1.0), short, folder=tmp_path)
    for options, images, differing in (
        (dataclasses.replace(short, seed=1), pictures, "seed 0, now 1"),
        (short, [picture[:, :, ::-1] for picture in pictures], "other pictures"),
    ):
        with pytest.raises(UsageError, match=f"another run: .*{differing}"):
            fine_tune(Lesson(model, plan, {}, images, 1.0), options, folder=tmp_path, resume=True)
    for damage in (b"PK\x03\x04 cut off", b"garbage", b""):
        (tmp_path / STATE_NAME).write_bytes(damage)
        with pytest.raises(BadInput, match="is damaged"):
            fine_tune(Lesson(model, plan, {}, pictures, 1.0), short, folder=tmp_path, resume=True)
    # As it was kept before there was a form.
    torch.save({"key": "0" * 64, "options": {}, "step": 1, "spent": 0.1, "student": {}}, str(tmp_path / STATE_NAME))
    with pytest.raises(BadInput, match="kept by another version of srdeploy(.|\n)*begin again with --force"):
        fine_tune(Lesson(model, plan, {}, pictures, 1.0), short, folder=tmp_path, resume=True)
    with pytest.raises(UsageError, match="no state"):
        fine_tune(Lesson(model, plan, {}, pictures, 1.0), short, folder=tmp_path / "empty", resume=True)


@pytest.mark.parametrize("kind", [signal.SIGTERM, signal.SIGHUP])
def test_a_signal_waits_until_the_step_is_kept(model, plan, tmp_path, kind):
    def tell(line):
        if line.startswith("step 2/"):
            os.kill(os.getpid(), kind)

    options = dataclasses.replace(OPTIONS, steps=4, judge_every=1, keep_seconds=1e9)
    before = signal.signal(kind, signal.SIG_DFL)
    try:
        with pytest.raises(SystemExit) as ended, ended_by_signals():
            fine_tune(Lesson(model, plan, {}, small_plans.pictures(), 1.0), options, folder=tmp_path, say=tell)
        assert signal.getsignal(kind) == signal.SIG_DFL
    finally:
        signal.signal(kind, before)
    assert ended.value.code == 128 + kind
    said = []
    fine_tune(
        Lesson(model, plan, {}, small_plans.pictures(), 1.0), options, folder=tmp_path, resume=True, say=said.append
    )
    assert said[0] == "going on after step 2"


@pytest.mark.skipif(signal.getsignal(signal.SIGINT) is signal.SIG_IGN, reason="Ctrl-C is ignored here")
def test_after_ctrl_c_it_goes_on_where_it_stopped(model, plan, tmp_path):
    pictures, told = small_plans.pictures(), []
    options = dataclasses.replace(OPTIONS, steps=4, judge_every=1)

    def stop_after_two(line):
        told.append(line)
        if line.startswith("step 2/"):
            os.kill(os.getpid(), signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):
        fine_tune(Lesson(model, plan, {}, pictures, 1.0), options, folder=tmp_path, say=stop_after_two)
    assert "interrupted after step" in told[-1] and "--resume" in told[-1]
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    resumed = fine_tune(Lesson(model, plan, {}, pictures, 1.0), options, folder=tmp_path, resume=True, say=told.append)
    whole = fine_tune(Lesson(model, plan, {}, pictures, 1.0), options)
    assert any(line.startswith("going on after step") for line in told)
    assert [point.psnr for point in resumed.points] == [point.psnr for point in whole.points]


def test_a_time_limit_ends_it_with_the_best_so_far(model, plan):
    limited = fine_tune(
        Lesson(model, plan, {}, small_plans.pictures(), 1.0), dataclasses.replace(OPTIONS, minutes=1e-6)
    )
    assert limited.best.step == 0 and "brought nothing" in limited.plan.notes[-1]


def test_training_that_makes_it_worse_gives_the_start_and_says_so(model):
    fine = small_plans.plan_of(model)
    wild = dataclasses.replace(OPTIONS, steps=5, weight_rate=0.5, warm_up=0)
    result = fine_tune(Lesson(model, fine, {}, small_plans.pictures(), 1.0), wild)
    assert result.best.step == 0 and "brought nothing" in result.plan.notes[-1]
    assert result.plan.weight_scales == fine.weight_scales


def test_originals_and_a_teacher_are_followed(model, plan):
    pictures = small_plans.pictures()
    other = small_plans.network(seed=1)
    short = dataclasses.replace(OPTIONS, steps=2, judge_every=1)
    own = fine_tune(Lesson(model, plan, {}, pictures, 1.0), short)
    taught = fine_tune(Lesson(model, plan, {}, pictures, 1.0, teacher=other), short)
    doubled = [np.repeat(np.repeat(picture, 2, 2), 2, 3) for picture in pictures]
    labelled = fine_tune(Lesson(model, plan, {}, pictures, 1.0, originals=doubled), short)
    losses = [result.points[1].loss for result in (own, taught, labelled)]
    assert len(set(losses)) == 3
    assert taught.points[0].psnr < own.points[0].psnr


def test_squares_follow_from_seed_and_step_alone():
    pictures = small_plans.pictures(9)
    doubled = [np.repeat(np.repeat(picture, 2, 2), 2, 3) for picture in pictures]
    pool = pool_of(pictures, 16, 24, doubled)
    assert len(pool.trained.pictures) == 7 and pool.judged.shape == (2, 3, 24, 24)
    lows, highs = squares_of(pool.trained, 3, 7, 5, 16)
    assert np.array_equal(lows, squares_of(pool.trained, 3, 7, 5, 16)[0])
    assert not np.array_equal(lows, squares_of(pool.trained, 3, 8, 5, 16)[0])
    assert np.array_equal(highs[:, :, ::2, ::2], lows), "an original must lie as its square does"
    for square in lows:
        views = [np.rot90(square, turns, axes=(1, 2))[:, :, ::way] for turns in range(4) for way in (1, -1)]
        pictures = pool.trained.pictures
        rows = [np.lib.stride_tricks.sliding_window_view(picture, (16, 16), axis=(1, 2)) for picture in pictures]
        assert any(np.any(np.all(windows == view[:, None, None], axis=(0, 3, 4))) for windows in rows for view in views)


def test_too_few_or_too_small_pictures_are_refused():
    with pytest.raises(BadInput, match="at least 2"):
        pool_of(small_plans.pictures(1), 16, 24)
    with pytest.raises(BadInput, match="40x44"):
        pool_of(small_plans.pictures(3), 48, 64)
