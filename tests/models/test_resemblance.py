"""What the keys leave open is told by what a network makes of a picture, and where that does not tell, it is said."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from sr_deploy.core.errors import UsageError
from sr_deploy.models.base import Asked
from sr_deploy.models.growth import LimitedGrowth
from sr_deploy.models.resemblance import Reading, likeliest


class Enlarges(torch.nn.Module):
    """Bilinear, with an offset."""

    def __init__(self, offset: float) -> None:
        super().__init__()
        self.offset = offset

    def forward(self, x):
        return F.interpolate(x, scale_factor=2.0, mode="bilinear", align_corners=False) + self.offset


class Black(torch.nn.Module):
    def forward(self, x):
        return F.interpolate(0 * x, scale_factor=2.0)


class Shapeless(torch.nn.Module):
    def forward(self, x):
        return x


def test_the_range_in_which_a_picture_comes_out_is_taken():
    # An offset of 1 is nothing much in 0…255, and white is lost in it in 0…1.
    network = Enlarges(1.0)
    reading, (note,) = likeliest([Reading(network, 1.0), Reading(network, 255.0)], 2, Asked())
    assert reading.value_range == 255.0
    assert note.startswith("0…255: not in the file, found by enlarging a smooth picture, ")
    assert "with 0…1)" in note


def test_a_range_that_is_asked_for_is_taken_and_the_picture_has_its_say():
    readings = [Reading(Enlarges(1.0), 1.0), Reading(Enlarges(1.0), 255.0)]
    reading, (note,) = likeliest(readings, 2, Asked(value_range=1.0))
    assert reading is readings[0]
    assert note.startswith("0…1 as asked, but a smooth picture says otherwise: 2")
    assert "with 0…255: check a few pictures" in note
    reading, (note,) = likeliest(readings, 2, Asked(value_range=255.0))
    assert reading is readings[1] and "found by enlarging a smooth picture" in note
    with pytest.raises(UsageError, match="--value-range 2 is not supported"):
        likeliest(readings, 2, Asked(value_range=2.0))


def test_the_order_decides_among_those_that_are_alike():
    readings = [Reading(Black(), 1.0, "black"), Reading(Enlarges(0.0), 255.0, "a"), Reading(Enlarges(0.0), 1.0, "b")]
    reading, (note,) = likeliest(readings, 2, Asked())
    assert reading is readings[1]
    assert note.startswith("0…255, a: not in the file, nor told by enlarging a smooth picture")
    assert "srdeploy verify" in note


def test_what_is_too_large_is_not_tried():
    huge = torch.nn.Conv2d(5000, 1, 1)
    assert likeliest([Reading(huge, 255.0)], 2, Asked())[1] == (
        "0…255: not in the file, and too large to be tried on a picture",
    )
    readings = [Reading(Enlarges(0.0), 255.0), Reading(Enlarges(0.0), 1.0)]
    reading, (note,) = likeliest(readings, 9, Asked(value_range=1.0))
    assert reading is readings[1] and "too large" in note


def test_a_convolution_is_not_taken_for_tensors_spread_over_each_other():
    with LimitedGrowth({"weight": torch.zeros(1)}) as growth:
        picture, weight, bias = torch.zeros(1, 64, 2, 64), torch.zeros(64, 64, 1, 1), torch.zeros(64)
        made = growth.made
        F.conv2d(picture, weight, bias)
        assert growth.made == made
        assert (picture + weight).numel() == 64 * 64 * 2 * 64 == growth.made - made


def test_the_published_reading_is_taken_where_none_enlarges():
    readings = [Reading(Black(), 255.0), Reading(Shapeless(), 1.0)]
    reading, (note,) = likeliest(readings, 2, Asked())
    assert reading is readings[0]
    assert "inf with 0…1" in note
