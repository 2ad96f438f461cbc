"""What the keys leave open is told by what a network makes of a picture, and where that does not tell, it is said."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from sr_deploy.core.errors import UsageError
from sr_deploy.models.base import Asked
from sr_deploy.models.growth import LimitedGrowth
from sr_deploy.models.readings import likeliest
from sr_deploy.models.resemblance import Reading


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
    reading, (note,) = likeliest({Reading(1.0): network, Reading(255.0): network}, 2, Asked())
    assert reading == Reading(255.0)
    assert note.startswith("0…255: not in the file, told by a picture: a smooth picture comes back 25")
    assert note.endswith(" of 255 off as 0…255")


def test_a_range_that_is_asked_for_is_taken_and_the_picture_has_its_say():
    readings = {Reading(1.0): Enlarges(1.0), Reading(255.0): Enlarges(1.0)}
    reading, (note,) = likeliest(readings, 2, Asked(value_range=1.0))
    assert reading == Reading(1.0)
    assert note.startswith("0…1, as was asked, but a smooth picture comes back 25")
    assert "it looks like 0…255; check a few pictures" in note
    reading, (note,) = likeliest(readings, 2, Asked(value_range=255.0))
    assert reading == Reading(255.0) and "told by a picture" in note
    with pytest.raises(UsageError, match="--value-range 2 is not supported"):
        likeliest(readings, 2, Asked(value_range=2.0))


def test_the_order_decides_among_those_that_are_alike():
    alike = {Reading(255.0, "a"): Enlarges(0.0), Reading(1.0, "b"): Enlarges(0.0)}
    reading, (note,) = likeliest({Reading(1.0, "black"): Black(), **alike}, 2, Asked())
    assert reading == Reading(255.0, "a")
    assert note.startswith("0…255, a: not in the file, nor told by a picture: a smooth picture")
    assert "srdeploy verify" in note


def test_what_is_too_large_is_not_tried():
    huge = torch.nn.Conv2d(5000, 1, 1)
    assert likeliest({Reading(255.0): huge}, 2, Asked())[1] == (
        "0…255: not in the file, and too large to be tried on a picture",
    )
    readings = {Reading(255.0): Enlarges(0.0), Reading(1.0): Enlarges(0.0)}
    reading, (note,) = likeliest(readings, 9, Asked(value_range=1.0))
    assert reading == Reading(1.0) and "too large" in note


def test_a_convolution_is_not_taken_for_tensors_spread_over_each_other():
    with LimitedGrowth({"weight": torch.zeros(1)}) as growth:
        picture, weight, bias = torch.zeros(1, 64, 2, 64), torch.zeros(64, 64, 1, 1), torch.zeros(64)
        made = growth.made
        F.conv2d(picture, weight, bias)
        assert growth.made == made
        assert (picture + weight).numel() == 64 * 64 * 2 * 64 == growth.made - made


def test_the_published_reading_is_taken_where_none_enlarges():
    reading, (note,) = likeliest({Reading(255.0): Black(), Reading(1.0): Shapeless()}, 2, Asked())
    assert reading == Reading(255.0)
    assert "inf of 255 off as 0…1" in note
