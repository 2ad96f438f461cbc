"""Budgets from TOML; what is not known is an error."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from sr_deploy.core.errors import BadInput
from sr_deploy.report.budget import Budget, read_budget

GOOD = """
threshold_percent = 2
floor_us = 5.5
[quality]
min_psnr_y = 30
[devices."NVIDIA H200".sizes.720x1280]
max_median_ms = 1.5
[devices."NVIDIA H200".sizes.144]
max_p99_ms = 1
"""


def written(folder: Path, text: str) -> Path:
    path = folder / "b.toml"
    path.write_text(text)
    return path


def test_a_budget(tmp_path):
    budget = read_budget(written(tmp_path, GOOD))
    assert (budget.threshold_percent, budget.floor_us, budget.run_noise_percent) == (2.0, 5.5, 10.0)
    assert budget.quality.min_psnr_y == 30.0
    sizes = budget.for_device("NVIDIA H200").sizes
    bounds = [(s.size, s.max_median_ms, s.max_p99_ms) for s in sizes]
    assert bounds == [((720, 1280), 1.5, None), ((144, 144), None, 1.0)]


def test_another_device_is_refused_and_no_bounds_are_fine(tmp_path):
    with pytest.raises(BadInput, match="no budget for 'Orin'"):
        read_budget(written(tmp_path, GOOD)).for_device("Orin")
    assert Budget().for_device("Orin").sizes == ()


@pytest.mark.parametrize(
    "text, message",
    [
        ("treshold_percent = 3", "key treshold_percent is unknown"),
        ("[quality]\npsnr = 3", "key quality.psnr is unknown"),
        ('[devices."a"]\nsize = 3', "key devices.a.size is unknown"),
        ('[devices."a".sizes.8x8]\nmax_ms = 3', "key devices.a.sizes.8x8.max_ms is unknown"),
        ('[devices."a".sizes.big]\nmax_median_ms = 3', "devices.a.sizes.big"),
        ('floor_us = "3"', "floor_us is '3'"),
        ("floor_us = true", "floor_us is True"),
        ("floor_us = -1", "floor_us is -1"),
        ("floor_us = nan", "floor_us is nan"),
        ("devices = 3", "devices is 3"),
        ("floor_us = ", "is no budget.*\nwanted: valid TOML"),
    ],
)
def test_what_is_wrong_is_named(tmp_path, text, message):
    with pytest.raises(BadInput, match=message):
        read_budget(written(tmp_path, text))


def test_a_missing_file(tmp_path):
    with pytest.raises(BadInput, match="cannot read"):
        read_budget(tmp_path / "none.toml")


def test_the_example_is_a_budget_with_its_comments_taken_away_too(tmp_path):
    example = (Path(__file__).resolve().parents[2] / "engines" / "example.toml").read_text()
    assert not read_budget(written(tmp_path, example)).has_floors, "a floor wants a report; a threshold does not"
    whole = read_budget(written(tmp_path, re.sub(r"^# (\[|\w+ = )", r"\1", example, flags=re.MULTILINE)))
    assert whole.quality.max_psnr_y_loss == 0.05 and whole.devices[0].sizes[0].max_p99_ms == 12.0
