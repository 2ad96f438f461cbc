"""A few cells of tests/benchmarks/interval_coverage.py, which measures all of them with more trials."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest

from sr_deploy.bench.compare import paired_ratio

BENCHMARKS = Path(__file__).resolve().parent / "benchmarks"
#: Trials of a cell, and what chance may take from its coverage: two standard errors of 95 % in 300 trials.
TRIALS, CHANCE = 300, 0.025


@pytest.fixture(scope="module")
def coverage():
    sys.path.insert(0, str(BENCHMARKS))
    try:
        import interval_coverage

        yield interval_coverage
    finally:
        sys.path.remove(str(BENCHMARKS))


@pytest.mark.parametrize("rho", [0.0, 0.8, 0.9])
def test_no_interval_misses_more_often_than_it_says(coverage, rho):
    found = list(coverage.ar1_outcomes(np.random.default_rng(11), rho, TRIALS))
    assert {what.split(",")[0] for what, _, _ in found} == {"median", "paired", "single", "stopped", "session"}
    for what, nominal, outcomes in found:
        held, given = coverage.share(outcomes)
        assert held >= nominal - CHANCE, (what, held)
        # Independent samples must get one, too: what is never given is never wrong.
        assert given > 0.8 or rho > 0 or what.endswith("n 10"), (what, given)


def test_ratios_of_recorded_traces(coverage):
    traces = coverage.recorded_traces(coverage.TRACES)
    assert traces
    for name, trace in traces.items():
        for what, nominal, outcomes in coverage.trace_outcomes(np.random.default_rng(12), trace, 100):
            if what.startswith("paired"):
                assert coverage.share(outcomes)[0] >= nominal - CHANCE, (name, what)


def test_the_benchmark_judges_the_products_own_interval(coverage):
    random = np.random.default_rng(13)
    for rounds in (10, 25, 40):
        for _ in range(40):
            logs = coverage.ar1(random, 1, rounds, 0.4)[0] + 0.5
            ratio = paired_ratio(np.ones(rounds), np.exp(logs), coverage.LOOK_CONFIDENCE)
            expected = None if ratio.low == 0 else bool(ratio.low <= 1 <= ratio.high)
            assert coverage.paired_outcome(logs) is expected


def test_a_cell_that_does_not_hold_is_named(coverage):
    cells = {"rho 0": {"median, n 10": (0.95, 0.93, 1.0), "paired, n 10": (0.95, 0.95, 1.0)}}
    assert coverage.missed("AR(1)", cells) == ["AR(1) rho 0: median, n 10 holds in 93.00 %, 95 % said"]
    assert coverage.missed("a trace", cells) == []
