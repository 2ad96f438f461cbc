"""The pictures exist, are what was asked for, and show the pixels they were given."""

from __future__ import annotations

import dataclasses

import cv2
import numpy as np
import pytest

from sr_deploy.bench.measure import summary
from sr_deploy.bench.result import Point, Result
from sr_deploy.core.errors import UsageError
from sr_deploy.report.plots import LAUNCH_BOUND, busiest_square, comparison_picture, latency_plot
from sr_deploy.report.plots_bench import throughput_plot


def point(edge, ms, failure=None):
    if failure:
        return Point((edge, edge), "compute", "fake", "no device", {}, failure=failure)
    samples = [ms / 1e3, ms / 1e3, 1.1 * ms / 1e3]
    return Point((edge, edge), "compute", "fake", "no device", {}, samples_s=tuple(samples), **summary(samples))


def result(*points, name="net"):
    return Result(name, {}, {"scope": "compute"}, points, "now")


def svg_texts(path):
    """What an SVG says: matplotlib keeps each text as a comment beside its outline."""
    source = path.read_text()
    return [part.split("-->")[0].strip() for part in source.split("<!--")[1:]]


def test_latency_plot_says_medians_sizes_device_and_failures(tmp_path):
    path = tmp_path / "l.svg"
    latency_plot([result(point(144, 1.234), point(360, 7.0), point(1080, 0, failure="out of memory"))], path)
    texts = svg_texts(path)
    for wanted in (
        "1.23",
        "7.00",
        "144×144",
        "1080×1080",
        "Latency of net: fake on no device, compute",
        "failed: out of memory",
    ):
        assert wanted in texts
    assert not list(tmp_path.glob(".l*"))


def test_launch_bound_points_are_hollow_in_both_plots(tmp_path):
    bound = dataclasses.replace(point(144, 1.0), enqueue_s=0.9e-3, launch_bound=True, output_pixels=288 * 288)
    good = dataclasses.replace(point(360, 7.0), output_pixels=720 * 720)
    for name, draw in (("l.svg", latency_plot), ("t.svg", throughput_plot)):
        draw([result(bound, good), result(bound, good, name="other")], tmp_path / name)
        assert svg_texts(tmp_path / name).count(LAUNCH_BOUND) == 1
        draw([result(good)], tmp_path / name)
        assert LAUNCH_BOUND not in svg_texts(tmp_path / name)


def test_latency_plot_of_several_results_names_each(tmp_path):
    path = tmp_path / "l.svg"
    latency_plot([result(point(144, 1.0), name="a"), result(point(144, 30.0), name="b")], path)
    texts = svg_texts(path)
    # What all share is told once, in the title; what they do not share is told of each.
    assert {"a", "b", "1.00", "30.0", "Latency of a, b: fake on no device, compute"} <= set(texts)
    narrow = dataclasses.replace(point(144, 3.0), description={"precision": "int8"})
    latency_plot([result(point(144, 1.0)), result(narrow)], path)
    told = {"Latency of net", "net: fake on no device, compute", "net: INT8, fake on no device, compute"}
    assert told <= set(svg_texts(path))


def test_latency_over_the_area_is_linear_from_zero(tmp_path):
    one = result(point(100, 1.0), point(200, 4.0), point(300, 0, failure="out of memory"))
    latency_plot([one], tmp_path / "a.svg", "area")
    texts = svg_texts(tmp_path / "a.svg")
    assert {"input area, megapixels", "0", "4.00", "failed: out of memory"} <= set(texts)
    assert not [text for text in texts if text.startswith(("-", "−"))], "no negative milliseconds on the axis"
    with pytest.raises(UsageError, match="no axis"):
        latency_plot([one], tmp_path / "b.svg", "pixels")


def test_labels_that_would_cover_each_other_are_left_out(tmp_path):
    path = tmp_path / "l.svg"
    latency_plot([result(point(144, 1.0 + 0.001 * n), point(360, 5.0)) for n in range(8)], path)
    assert 1 <= len([text for text in svg_texts(path) if text in ("1.00", "1.01")]) < 8


@pytest.mark.parametrize(
    "results",
    [
        [result(point(144, 2.0))],
        [result(point(144, 0, failure="x"))],
        [result(point(144, 1e-3), point(2160, 5e5))],
        [result(), result(point(144, 2.0))],
        [result(*(point(edge, edge**2 / 1e4) for edge in range(100, 200, 5)))],
    ],
)
def test_latency_plot_of_unusual_sweeps_draws_without_a_warning(tmp_path, results, recwarn):
    latency_plot(results, tmp_path / "l.png")
    picture = cv2.imread(str(tmp_path / "l.png"))
    assert picture.shape[1] == 1200
    assert picture.std() > 1
    assert not [str(w.message) for w in recwarn if "matplotlib" in str(w.filename)]


def test_plots_refuse_what_they_cannot_draw(tmp_path):
    with pytest.raises(UsageError, match=r"l\.bmp"):
        latency_plot([result(point(144, 2.0))], tmp_path / "l.bmp")
    with pytest.raises(UsageError, match="no result"):
        latency_plot([], tmp_path / "l.png")
    grey = np.zeros((8, 8), np.uint8)
    with pytest.raises(UsageError, match="not a picture"):
        comparison_picture([("grey", grey)], tmp_path / "c.png")
    colour = np.zeros((8, 8, 3), np.uint8)
    with pytest.raises(UsageError, match="crop"):
        comparison_picture([("a", colour)], tmp_path / "c.png", crop=(4, 4, 8, 8))
    with pytest.raises(UsageError, match="'wide' is 8x16"):
        comparison_picture([("a", np.zeros((16, 16, 3), np.uint8)), ("wide", colour.repeat(2, 1))], tmp_path / "c.png")
    assert not list(tmp_path.iterdir())


def test_comparison_shows_each_panel_whole_and_enlarged(tmp_path):
    red, blue = np.zeros((64, 96, 3), np.uint8), np.zeros((32, 48, 3), np.uint8)
    red[..., 0], blue[..., 2] = 255, 255
    red[10:20, 30:40] = (0, 255, 0)
    comparison_picture([("lr", blue), ("sr", red)], tmp_path / "c.png", crop=(10, 30, 10, 10))
    picture = cv2.imread(str(tmp_path / "c.png"))[..., ::-1].astype(int)
    height, width = picture.shape[:2]

    def share(part, colour):
        return (np.abs(part - colour).max(axis=2) < 8).mean()

    left, right = picture[:, : width // 2], picture[:, width // 2 :]
    assert share(left, (0, 0, 255)) > 0.8
    # The crop of the second panel is green throughout, though it is a tenth of the panel; it fills the lower part.
    lower = right[height * 6 // 10 : height * 9 // 10, 40:-40]
    assert share(lower, (0, 255, 0)) == 1.0
    assert share(right[: height // 3], (255, 0, 0)) > 0.5


def test_comparison_as_svg_carries_its_titles(tmp_path):
    panel = np.random.default_rng(0).integers(0, 255, (24, 24, 3), np.uint8)
    comparison_picture([("bicubic, 24.00 dB", panel), ("network", panel)], tmp_path / "c.svg")
    assert {"bicubic, 24.00 dB", "network"} <= set(svg_texts(tmp_path / "c.svg"))


def test_busiest_square_is_where_the_detail_is():
    picture = np.full((100, 120, 3), 128, np.uint8)
    picture[60:80, 90:110] = np.random.default_rng(0).integers(0, 255, (20, 20, 3), np.uint8)
    top, left, rows, columns = busiest_square(picture, (100, 120), 30)
    assert (rows, columns) == (30, 30)
    assert top <= 60
    assert left <= 90
    assert top + rows >= 80
    assert left + columns >= 110
    assert busiest_square(picture, (100, 120), 1000)[2:] == (100, 100)
    assert busiest_square(picture[::2, ::2], (100, 120), 30)[0] > 40


def test_results_are_not_changed_by_drawing(tmp_path):
    one = result(point(360, 2.0), point(144, 1.0))
    before = dataclasses.asdict(one)
    latency_plot([one], tmp_path / "l.png")
    assert dataclasses.asdict(one) == before
