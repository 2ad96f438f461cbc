"""The gate's honesty on 200 trials of four noises; tests/benchmarks/gate_simulation.py runs thousands of all."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).resolve().parent / "benchmarks"


@pytest.fixture(scope="module")
def simulation():
    sys.path.insert(0, str(BENCHMARKS))
    try:
        import gate_simulation

        yield gate_simulation
    finally:
        sys.path.remove(str(BENCHMARKS))


@pytest.fixture(scope="module")
def batches(simulation):
    noises = simulation.noises(200, 7, simulation.TRACES)
    recorded = next(name for name in noises if name.startswith("recorded") and name.endswith("large_1"))
    return {name: noises[name]() for name in (simulation.RUN_NOISE_ROW, "drift", "all of these", recorded)}


def test_no_false_alarm_in_two_hundred_trials(simulation, batches):
    for noise, trials in batches.items():
        for name, rule in simulation.rules().items():
            if name.startswith("gate"):
                alarms, _ = simulation.shares(rule, trials, 0.0)
                assert alarms <= 1.0, f"{name} in {noise}"


def test_five_percent_and_two_percent_are_found_under_run_noise(simulation, batches):
    trials = batches[simulation.RUN_NOISE_ROW]
    assert simulation.shares(simulation.in_turn(0.03), trials, 0.05)[0] >= 99.0
    assert simulation.shares(simulation.in_turn(0.01), trials, 0.02)[0] >= 80.0


def test_a_speed_up_passes(simulation, batches):
    assert simulation.shares(simulation.in_turn(0.03), batches["all of these"], -0.05) == (0.0, 0.0)


def test_the_rules_of_other_tools_are_what_they_say(simulation, batches):
    trials = batches["drift"]
    found = {name: simulation.shares(rule, trials, 1.5)[0] for name, rule in simulation.rules().items()}
    # A network 2.5 times as slow is seen by everyone, drift or not.
    assert all(share > 99.0 for name, share in found.items() if not name.startswith("gate, 5")), found
    assert simulation.shares(simulation.rules()["github-action 200 %"], trials, 0.5)[0] == 0.0
