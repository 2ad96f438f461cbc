"""Components of variance: against a calculation by hand, and found again in numbers drawn with known ones."""

from __future__ import annotations

import numpy as np
import pytest

from sr_deploy.bench.presets import PRESETS, preset_named
from sr_deploy.bench.result import Point
from sr_deploy.bench.variance import nested_variance, typical_point, variance_lines, variance_table
from sr_deploy.core.errors import UsageError


def test_by_hand():
    # Process means 2 and 6: MS(process) = 2·((2−4)² + (6−4)²)/1 = 16; MS(run) = (1+1+1+1)/2 = 2.
    run, process, build = nested_variance([[[1.0, 3.0], [5.0, 7.0]]])
    assert (run, process, build) == (2.0, (16 - 2) / 2, None)
    # Two builds, means 4 and 14 about 9: MS(build) = 4·(25 + 25)/1 = 200; MS(process) = 2·(4·4)/2 = 16.
    run, process, build = nested_variance([[[1.0, 3.0], [5.0, 7.0]], [[11.0, 13.0], [15.0, 17.0]]])
    assert (run, process, build) == (2.0, 7.0, (200 - 16) / 4)
    # One process for each build: what differs between them is the builds'.
    run, process, build = nested_variance([[[1.0, 3.0]], [[5.0, 7.0]]])
    assert (run, process, build) == (2.0, None, (16 - 2) / 2)
    # Process means closer than their runs allow: nothing to be seen.
    assert nested_variance([[[0.0, 10.0], [0.1, 10.1]]])[1] == 0.0


def test_known_components_are_found_again():
    generator = np.random.default_rng(0)
    found = []
    for _ in range(300):
        build = generator.normal(0, 3, (4, 1, 1))
        process = generator.normal(0, 2, (4, 5, 1))
        found.append(nested_variance((build + process + generator.normal(0, 1, (4, 5, 10))).tolist()))
    run, process, build = np.mean(found, axis=0)
    assert run == pytest.approx(1, rel=0.05)
    assert process == pytest.approx(4, rel=0.1)
    assert build == pytest.approx(9, rel=0.2)


def test_unbalanced_and_too_few_are_refused():
    with pytest.raises(UsageError, match="balanced"):
        nested_variance([[[1.0, 2.0], [1.0, 2.0, 3.0]]])
    with pytest.raises(UsageError, match="balanced"):
        nested_variance([[[1.0], [2.0]]])


def point(*samples, invalid=None, failure=None):
    median = float(np.median(samples)) if samples else None
    times = dict.fromkeys(("median_s", "p90_s", "p99_s", "mean_s", "min_s"), median)
    return Point((8, 8), "compute", "fake", "x", {}, samples_s=samples, invalid=invalid, failure=failure, **times)


def test_invalid_points_are_named_and_in_no_figure():
    good = [point(*[1.0 + 0.01 * n + shift for n in range(20)]) for shift in (0.0, 0.1)]
    hot = point(*[9.0] * 20, invalid="the GPU throttled")
    table = variance_table([[good[0], hot, good[1]]])
    assert table.process_medians_s == (good[0].median_s, good[1].median_s)
    assert table.left_out == ("build 1 process 2: the GPU throttled",)
    assert (table.processes, table.runs, table.build_s) == (2, 10, None)
    assert table.process_s == pytest.approx(0.1 / 2**0.5, rel=0.3)
    text = "\n".join(variance_lines([table]))
    assert "8x8" in text and "the GPU throttled" in text and "–" in text
    assert typical_point([hot, *good]) is good[0]
    assert variance_table([[hot]]) is None
    assert typical_point([hot]) is hot


def test_presets_are_the_published_ones():
    f2srgan = preset_named("f2srgan")
    assert [size[0] for size in f2srgan.sizes] == [144, 360, 480, 720, 1080]
    assert (f2srgan.runs, preset_named("f2srgan-500").runs, f2srgan.scale) == (50, 500, 4)
    assert preset_named("ntire").processes == 5
    assert all(preset.source for preset in PRESETS)
    with pytest.raises(UsageError, match="f2srgan-500"):
        preset_named("f2")
