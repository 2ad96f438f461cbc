"""OBProx-SG on a problem whose answer is known, the density of a network, and the shapes of the first paper."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from sr_deploy.core.errors import UsageError
from sr_deploy.train.density import density_of
from sr_deploy.train.obprox import ObproxSg
from sr_deploy.train.shape import Reading, Shape, derived, readings, shapes

SWINIR, EDSR = Shape(blocks=4, layers=6, channels=60), Shape(blocks=16, layers=1, channels=64)


def test_obprox_reaches_the_exact_zeros_of_a_lasso():
    """With AᵀA = n·I the answer of ‖Ax − b‖²/2n + λ‖x‖₁ is Aᵀb/n, each value shrunk by λ."""
    rng = np.random.default_rng(3)
    matrix, _ = np.linalg.qr(rng.normal(size=(40, 12)))
    matrix *= np.sqrt(40)
    truth = np.array([1.5, -2.0, 0, 0, 0.7, 0, 0, 0, -0.4, 0, 0, 0])
    wanted = matrix @ truth + 0.05 * rng.normal(size=40)
    free = matrix.T @ wanted / 40
    answer = np.sign(free) * np.maximum(np.abs(free) - 0.1, 0)
    assert 3 < np.count_nonzero(answer) < 6

    x = torch.nn.Parameter(torch.from_numpy(rng.normal(size=12)))
    optimiser = ObproxSg([x], rate=0.2, penalty=0.1, least=0.0)
    a, b = torch.from_numpy(matrix), torch.from_numpy(wanted)
    for step in range(200):
        optimiser.in_orthant = step >= 20
        optimiser.zero_grad()
        (((a @ x - b) ** 2).mean() / 2).backward()
        optimiser.step()
    assert np.array_equal(x.detach().numpy() == 0, answer == 0), "exact zeros, and no others"
    np.testing.assert_allclose(x.detach().numpy(), answer, atol=1e-9)


def test_a_weight_that_would_leave_its_orthant_becomes_zero_and_stays_so():
    x = torch.nn.Parameter(torch.tensor([0.05, -0.05, 0.0, 1.0]))
    optimiser = ObproxSg([x], rate=0.1, penalty=0.0, least=0.01)
    optimiser.in_orthant = True
    for gradient in ([1.0, -1.0, -1.0, 0.0], [-5.0, 5.0, 5.0, 9.95]):
        x.grad = torch.tensor(gradient)
        optimiser.step()
    # The last one kept its sign, at 0.005, and is below the least.
    assert x.detach().tolist() == [0.0, 0.0, 0.0, 0.0]


def test_density_counts_weights_of_the_deep_part():
    network = torch.nn.ModuleDict({"head": torch.nn.Conv2d(3, 2, 1), "body": torch.nn.Conv2d(2, 4, 1)})
    with torch.no_grad():
        network["head"].weight.zero_()
        network["body"].weight.fill_(1.0)
        network["body"].weight[0] = 0.0
    assert density_of(network, ("body.",)) == 0.75
    assert density_of(network, ("body.", "head.")) == 6 / 14
    for deep in ((), ("tail.",)):
        with pytest.raises(UsageError, match="which part(.|\\n)*head, body(.|\\n)*--deep"):
            density_of(network, deep)


def test_the_published_shapes_come_out_with_their_choices():
    swinir = derived(0.089, SWINIR, Reading("square", blocks="nearest", layers="nearest", channels="nearest"))
    assert swinir.shape == Shape(blocks=3, layers=4, channels=24)
    assert swinir.exact == pytest.approx((2.673, 3.677, 24.46), abs=0.005)
    edsr = derived(0.03, EDSR, Reading("square", blocks="floor", layers="ceil", channels="nearest"))
    assert edsr.shape == Shape(blocks=8, layers=1, channels=16)
    assert edsr.exact == pytest.approx((8.919, 0.115, 15.68), abs=0.005)
    # As printed, with the cube root, the widths are others.
    assert derived(0.089, SWINIR, Reading("cube", "nearest", "nearest", "nearest")).shape.channels == 33
    assert derived(0.03, EDSR, Reading("cube", "floor", "ceil", "nearest")).shape.channels == 25


def test_no_one_rounding_gives_both_published_networks():
    both = [
        rounding
        for rounding in readings("square", {})
        if derived(0.089, SWINIR, rounding).shape == Shape(3, 4, 24) and derived(0.03, EDSR, rounding).shape.blocks == 8
    ]
    assert both == []


def test_what_is_not_chosen_is_shown_in_all_readings():
    assert len(readings(None, {})) == 54 and len(readings("cube", {"blocks": "floor"})) == 9
    found = shapes(0.089, SWINIR, readings(None, {}))
    assert Shape(3, 4, 24) in found and Shape(3, 4, 33) in found and len(found) > 4
    assert sum(map(len, found.values())) == 54
    assert shapes(1.0, EDSR, readings(None, {})) == {EDSR: list(readings(None, {}))}, "all of it is needed"


def test_what_is_no_choice_is_refused():
    for root, roundings, found in (
        ("fourth", {}, "there is no --root 'fourth'"),
        (None, {"blocks": "up"}, "--round blocks=up"),
        (None, {"rows": "floor"}, "--round rows=floor"),
    ):
        with pytest.raises(UsageError, match=found):
            readings(root, roundings)
    with pytest.raises(UsageError, match="no density"):
        derived(1.5, EDSR, readings(None, {})[0])
    with pytest.raises(UsageError, match="is none"):
        derived(0.5, Shape(4, 0, 8), readings(None, {})[0])
