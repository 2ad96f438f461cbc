"""Throughput, distribution and Pareto plots are drawn from the data, for unusual sweeps too."""

from __future__ import annotations

import dataclasses

import cv2
import numpy as np
import pytest

from sr_deploy.bench.measure import summary
from sr_deploy.bench.result import Point, Result
from sr_deploy.core.errors import UsageError
from sr_deploy.report.plots import latency_plot
from sr_deploy.report.plots_bench import Candidate, distribution_plot, pareto_plot, throughput_plot


def point(edge, ms, count=20, scale=2, **given):
    samples = tuple(ms / 1e3 * (1 + 0.01 * (n % 3)) for n in range(count))
    return Point((edge, edge), "compute", "fake", "no device", {}, output_pixels=(scale * edge) ** 2,
                 samples_s=samples, **{**summary(samples), **given})  # fmt: skip


def result(*points, name="net"):
    return Result(name, {}, {"scope": "compute"}, points, "now")


def svg_texts(path):
    return [part.split("-->")[0].strip() for part in path.read_text().split("<!--")[1:]]


FAILED = Point((500, 500), "compute", "fake", "no device", {}, failure="out of memory")


def test_throughput_names_sizes_and_results(tmp_path):
    path = tmp_path / "t.svg"
    throughput_plot([result(point(100, 1.0), FAILED), result(point(100, 2.0), name="other")], path)
    wanted = {"Throughput of net, other: fake on no device, compute", "net", "other", "100×100", "0"}
    assert wanted <= set(svg_texts(path))


def test_throughput_without_a_known_output_is_refused(tmp_path):
    with pytest.raises(UsageError, match="no throughput"):
        throughput_plot([result(point(100, 1.0, scale=0), FAILED)], tmp_path / "t.png")
    assert not list(tmp_path.iterdir())


def test_distribution_counts_samples(tmp_path):
    path = tmp_path / "d.svg"
    distribution_plot(result(point(100, 1.0, 12), point(200, 4.0, 5000), FAILED), path)
    assert {"100×100: 12 samples", "200×200: 5000 samples"} <= set(svg_texts(path))


def test_distribution_says_how_many_samples_lie_outside(tmp_path):
    for slow, words in ((3, "3 slower samples lie above the frame"), (1, "1 slower sample lies above the frame")):
        samples = (0.001,) * 997 + (0.9,) * slow
        odd = dataclasses.replace(point(100, 1.0), samples_s=samples, **summary(samples))
        distribution_plot(result(odd), tmp_path / "d.svg")
        source = (tmp_path / "d.svg").read_text()
        assert words in source and "Samples of net: fake on no device, compute" in source


@pytest.mark.parametrize("points", [[point(100, 1.0, 1)], [point(e, e / 9, 7) for e in range(20, 40)]])
def test_distribution_of_unusual_sweeps(tmp_path, points, recwarn):
    distribution_plot(result(*points), tmp_path / "d.png")
    assert cv2.imread(str(tmp_path / "d.png")).std() > 1
    assert not [w for w in recwarn if "matplotlib" in str(w.filename)]


def test_an_invalid_point_is_in_no_line(tmp_path):
    hot = point(200, 9.0, invalid="throttled: SwThermalSlowdown")
    with pytest.raises(UsageError, match="no samples"):
        distribution_plot(result(hot), tmp_path / "d.svg")
    latency_plot([result(point(100, 1.0), hot)], tmp_path / "l.svg")
    texts = svg_texts(tmp_path / "l.svg")
    assert "invalid: throttled: SwThermalSlowdown" in texts
    assert not [text for text in texts if text.startswith("9.0")]


def test_pareto_plot_names_every_candidate_and_marks_the_front(tmp_path):
    candidates = [Candidate("fast", 0.001, 31.0), Candidate("slow", 0.01, 32.5), Candidate("poor", 0.02, 31.5)]
    pareto_plot(candidates, (0, 1), "all of one kind", tmp_path / "p.svg")
    texts = svg_texts(tmp_path / "p.svg")
    assert {"fast", "slow", "poor", "31.00 dB, 1.000 ms", "32.50 dB, 10.00 ms", "beaten by another one"} <= set(texts)
    pareto_plot(candidates[:2], (0, 1), "all of one kind", tmp_path / "q.svg")
    assert "beaten by another one" not in svg_texts(tmp_path / "q.svg")


def test_names_lie_over_no_other_name_and_over_no_marker():
    from matplotlib.figure import Figure
    from matplotlib.text import Text

    from sr_deploy.report.labels import name_points

    random = np.random.default_rng(3)
    points = [(float(np.exp(random.normal(0, 0.3))), float(28 + random.normal(0, 0.1))) for _ in range(10)]
    figure = Figure(figsize=(8.0, 4.8), dpi=150, layout="constrained")
    axes = figure.add_subplot()
    axes.set(xscale="log", xlim=(0.3, 4.0), ylim=(27.5, 28.5))
    texts = [f"network-{i} INT8\n27.98 dB, 2.864 ms" for i in range(10)]
    assert name_points(figure, axes, points, texts, 9) == ()
    figure.draw_without_rendering()
    # An annotation's own box holds its line too.
    drawn = [Text.get_window_extent(text) for text in axes.texts]
    spots = axes.transData.transform(points)
    assert not any(a.overlaps(b) for i, a in enumerate(drawn) for b in drawn[:i])
    assert not any(box.count_contains(spots) for box in drawn)
    assert all(axes.bbox.x0 < box.x0 and box.x1 < axes.bbox.x1 for box in drawn)
    # Where there is no room at all, the names that have none are told.
    assert name_points(figure, axes, [(1.0, 28.0)] * 60, ["a long name of a network\n28 dB"] * 60, 9) != ()


def test_pareto_plot_of_many_equal_ones_draws_without_a_warning(tmp_path, recwarn):
    pareto_plot([Candidate(f"n{i}", 0.001, 31.0) for i in range(9)], tuple(range(9)), "t", tmp_path / "p.png")
    assert np.std(cv2.imread(str(tmp_path / "p.png"))) > 1
    assert not [w for w in recwarn if "matplotlib" in str(w.filename)]
    with pytest.raises(UsageError, match="nothing to compare"):
        pareto_plot([], (), "t", tmp_path / "p.png")
    with pytest.raises(UsageError, match="suffix"):
        pareto_plot([Candidate("a", 1, 1)], (0,), "t", tmp_path / "p.gif")
