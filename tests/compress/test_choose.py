"""Which channels go, how many, and what the rest makes of it: against brute force and against plain numpy."""

from __future__ import annotations

import itertools
import math

import numpy as np
import onnx
import pytest
import torch
from onnx import numpy_helper

from sr_deploy.compress.allocate import Allocation, at_most, path_down
from sr_deploy.compress.cost import Spending, cpu_seconds, gpu_seconds, macs_of
from sr_deploy.compress.distil import Distiller, DistilOptions, distilled, with_weights
from sr_deploy.compress.groups import narrowed, network_of
from sr_deploy.compress.importance import METHODS, Evidence, rankings_of
from sr_deploy.compress.statistics import statistics_of
from sr_deploy.compress.subject import fidelity, subject_of
from sr_deploy.core.errors import UsageError
from sr_deploy.core.host.gpu_rates import gpu_named
from sr_deploy.precision.interpreter import GraphModule
from sr_deploy.train.patches import pool_of
from tests.compress.graphs import CASES, Case, model_of
from tests.precision import small_plans

#: Two layers of one pixel: what a channel is worth can be computed by hand.
FLAT = Case("a = Conv(lr, w0, b0) b = Relu(a) sr = Conv(b, w1, b1)",
            {"w0": (6, 3, 1, 1), "b0": (6,), "w1": (3, 6, 1, 1), "b1": (3,)}, (6,))  # fmt: skip


def arrays(model):
    return {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer}


@pytest.fixture(scope="module")
def squares():
    return torch.from_numpy(np.concatenate(small_plans.pictures(4, (24, 24))))


@pytest.fixture(scope="module")
def flat(squares):
    network = network_of(model_of(FLAT), squares[:1])
    return subject_of(network, squares, 24 * 24, "obs", 0)


def test_the_harm_of_a_channel_is_the_least_error_without_it(flat, squares):
    """Of a layer behind which nothing follows: by least squares in numpy, for the best first channel and its order."""
    constants = arrays(flat.network.model)
    x = squares.numpy().transpose(1, 0, 2, 3).reshape(3, -1)
    hidden = np.maximum(constants["w0"][:, :, 0, 0] @ x + constants["b0"][:, None], 0).astype(np.float64)
    wanted = constants["w1"][:, :, 0, 0].astype(np.float64) @ hidden

    def error(left):
        features = np.concatenate([hidden[list(left)], np.ones((1, hidden.shape[1]))])
        fitted = np.linalg.lstsq(features.T, wanted.T, rcond=None)[0]
        return float(((features.T @ fitted - wanted.T) ** 2).mean())

    classes = flat.network.groups[0].classes
    [ranking] = flat.rankings.values()
    rest = set(range(6))
    for gone, one in enumerate(ranking.order[:5], 1):
        best = min(rest, key=lambda index: error(rest - {index}))
        assert classes[best] == one
        rest.remove(best)
        # G is an estimate of the identity here: the probes are random.
        assert ranking.harm[gone] == pytest.approx(error(rest), rel=0.1, abs=1e-6)
    assert ranking.harm[5] > 1e-4


def test_statistics_of_a_convolution_with_taps(squares):
    """Sums over all places, border included, against a window that is moved by hand."""
    model = model_of(CASES["residual stream"])
    module = GraphModule(network_of(model, squares[:1]).model)
    seen = statistics_of(module, ("w1",), squares, 2, 0).seen["w1"]
    with torch.no_grad():
        read = module.tensors(squares, ("a",))["a"].numpy()
    padded = np.pad(read, ((0, 0), (0, 0), (1, 1), (1, 1)))
    windows = np.lib.stride_tricks.sliding_window_view(padded, (3, 3), (2, 3)).transpose(1, 4, 5, 0, 2, 3)
    features = windows.reshape(8 * 9, -1)
    expected = np.concatenate([features, np.ones((1, features.shape[1]))])
    assert seen.features.numpy() == pytest.approx(expected @ expected.T, rel=1e-4, abs=1e-2)


def test_magnitudes_against_their_formulas(flat):
    network, constants = flat.network, arrays(flat.network.model)
    weights = np.abs(constants["w0"][:, :, 0, 0].astype(np.float64))
    evidence = Evidence(network, None, 3)
    classes = network.groups[0].classes
    [l1], [lamp], [any_] = (rankings_of(evidence, name).values() for name in ("l1", "lamp", "random"))
    assert l1.order == tuple(classes[index] for index in np.argsort(weights.sum(1)))
    squared = (weights**2).sum(1)
    scores = [value / squared[squared >= value].sum() for value in squared]
    assert lamp.order == tuple(classes[index] for index in np.argsort(squared))
    assert np.diff(lamp.harm) == pytest.approx(sorted(scores))
    assert sorted(any_.order) == sorted(classes)
    assert any_.order == rankings_of(evidence, "random")[network.groups[0].name].order
    assert not METHODS["l1"].predicts


@pytest.fixture(scope="module")
def subject(squares):
    return subject_of(network_of(small_plans.network(), squares[:1]), squares, 24 * 24, "obs", 0)


@pytest.mark.parametrize("of_work", (macs_of, cpu_seconds, gpu_seconds(gpu_named("xavier-nx", ""))))
def test_widths_cost_what_was_asked(subject, of_work):
    allocation = subject.allocation(Spending(subject.costs, of_work), 2)
    path = path_down(allocation, 0.3)
    costs = [point.cost for point in path]
    assert costs == sorted(costs, reverse=True) and costs[0] == 1.0
    # On a GPU a graph as small as this one is nothing but launches.
    for share in (0.8, 0.6) if path[-1].cost < 0.6 else (path[-1].cost,):
        widths = at_most(allocation, path, share)
        assert widths.cost <= share and all(width % 2 == 0 for width in widths.of.values())
        assert widths.cost == pytest.approx(
            allocation.spending.total(widths.of) / allocation.spending.total(path[0].of)
        )


def test_greedy_is_near_the_best_of_all(subject):
    """All widths of three groups, in fours: no other of this cost does a tenth less harm."""
    allocation = subject.allocation(Spending(subject.costs, macs_of), 4)
    widths = at_most(allocation, path_down(allocation, 0.55), 0.55)
    names = list(allocation.full)
    every = [allocation.point(dict(zip(names, some))) for some in itertools.product((4, 8, 12), repeat=len(names))]
    assert widths.harm <= 1.1 * min(point.harm for point in every if point.cost <= 0.55)


def test_least_squares_brings_back_what_other_channels_know(squares):
    """A layer whose second half repeats its first: without it nothing is lost, and L1 alone loses much."""
    model = model_of(CASES["residual stream"])
    constants = arrays(model)
    for name in ("w1", "slope"):
        constants[name] = np.concatenate([constants[name][:3]] * 2)
    model = with_weights(model, {name: np.ascontiguousarray(value) for name, value in constants.items()})
    subject = subject_of(network_of(model, squares[:1]), squares, 24 * 24, "obs", 0)
    allocation = subject.allocation(Spending(subject.costs, macs_of), 3)
    inner = next(name for name, width in allocation.full.items() if width == 6)
    widths = allocation.point({**allocation.full, inner: 3})
    assert subject.predicted(widths, 1.0) > 50.0
    cut, fitted = (subject.narrowed(widths, refit) for refit in (False, True))
    judged = tuple(small_plans.pictures(2, (20, 20))[0])
    assert fidelity(model, fitted, judged, 1.0) > 50.0 > 40.0 > fidelity(model, cut, judged, 1.0)


def test_shared_weights_are_fitted_for_all_their_uses(squares):
    subject = subject_of(network_of(model_of(CASES["shared weights"]), squares[:1]), squares, 24 * 24, "obs", 0)
    allocation = subject.allocation(Spending(subject.costs, macs_of), 1)
    widths = at_most(allocation, path_down(allocation, 0.4), 0.4)
    judged = tuple(small_plans.pictures(2, (20, 20))[1])
    whole = subject.network.model
    fitted, cut = (fidelity(whole, subject.narrowed(widths, refit), judged, 1.0) for refit in (True, False))
    assert fitted > cut + 3.0
    names = [node.input[1] for node in subject.narrowed(widths).graph.node if node.op_type == "Conv"]
    assert len(names) > len(set(names)), "they are still one"


OPTIONS = DistilOptions(steps=12, batch=2, patch=16, warm_up=2, judge_every=4, keep_seconds=0.0, judged_patch=24,
                        rate=1e-3)  # fmt: skip


def distiller(subject, narrow):
    pool = pool_of(small_plans.pictures(6), OPTIONS.patch, OPTIONS.judged_patch)
    return Distiller(narrow, subject.network.model, pool, 1.0, OPTIONS)


def test_distillation_comes_nearer_and_goes_on_to_the_bit(subject, tmp_path):
    allocation = subject.allocation(Spending(subject.costs, macs_of), 4)
    narrow = narrowed(subject.network, subject.gone(at_most(allocation, path_down(allocation, 0.6), 0.6).of))
    whole = distilled(distiller(subject, narrow), [], None, False)
    assert whole.best.psnr > whole.points[0].psnr and whole.steps == 12

    class Killed(Exception):
        pass

    def until(text):
        if "step 8/" in text:
            raise Killed

    with pytest.raises(Killed):
        distilled(distiller(subject, narrow), [b"graph"], tmp_path, False, until)
    rest = distilled(distiller(subject, narrow), [b"graph"], tmp_path, True)
    assert all(np.array_equal(rest.weights[name], value) for name, value in whole.weights.items())
    with pytest.raises(UsageError, match="another run"):
        distilled(distiller(subject, narrow), [b"another graph"], tmp_path, True)


def test_predictions_are_of_the_kind_they_say(flat):
    allocation = Allocation(flat.rankings, Spending(flat.costs, macs_of), 1)
    assert math.isfinite(flat.predicted(allocation.point(dict.fromkeys(allocation.full, 3)), 1.0))
    assert isinstance(flat.network.model, onnx.ModelProto)
