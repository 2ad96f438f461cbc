"""Latency noise for gate_simulation.py: recorded traces, and models of what they hold.

A trial is two sessions of rounds and two separate groups of processes. Everything is a logarithm of a latency over its
undisturbed value, so that a regression of e adds log(1 + e) to the candidate.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Dict, List

import numpy as np

#: Rounds of a session, and the part of a second that one side of a round takes: the product's defaults.
ROUNDS = 540
PART_SECONDS, PART_MOST = 0.03, 20
#: Samples of a part in the models (a network of 5 ms).
PART = 6
#: Processes on each side, where separate runs are compared, and samples of each.
PROCESSES, RUN_SAMPLES = 5, 600
#: Of the samples taken in turn, so many of each side go to the rules that take samples.
TURN_SAMPLES = 600

#: Run-to-run noise of the models, standard deviation: what two runs of one network differ by.
RUN_NOISE = 0.10
#: Of the machine's state within a run: correlation time in parts (5 s).
STATE_PARTS = 167
#: What opening a session anew changes on each side by itself (memory layout), standard deviation.
LAYOUT = 0.003


@dataclass(frozen=True)
class Trials:
    """Many trials at once.

    Attributes:
        rounds: two sessions, each (2, trials, rounds): log of the part medians, baseline then candidate.
        turn_samples: (2, trials, n) logs of the first session's samples, baseline then candidate.
        run_samples: (2, trials, RUN_SAMPLES) logs of one separate run on each side.
        process_medians: (2, trials, PROCESSES).
    """

    rounds: List[np.ndarray]
    turn_samples: np.ndarray
    run_samples: np.ndarray
    process_medians: np.ndarray


def smooth(random: np.random.Generator, shape, correlation: float, deviation: float) -> np.ndarray:
    """AR(1) along the last axis, stationary, with its correlation time in steps."""
    rho = np.exp(-1.0 / correlation)
    noise = random.standard_normal(shape)
    noise[..., 1:] *= np.sqrt(1 - rho**2)
    for step in range(1, shape[-1]):
        noise[..., step] += rho * noise[..., step - 1]
    return deviation * noise


def jitter(random: np.random.Generator, shape) -> np.ndarray:
    """Every sample's own noise: 2 %, skewed to the slow side."""
    return 0.02 * np.abs(random.standard_normal(shape))


def drift(random: np.random.Generator, shape) -> np.ndarray:
    """A steady change of up to 20 % over the session, such as a warming device, either way."""
    return random.uniform(-0.2, 0.2, (shape[0], 1)) * np.linspace(0, 1, shape[1])


def two_modes(random: np.random.Generator, shape) -> np.ndarray:
    """A second mode 8 % slower, entered and left every 100 samples on average."""
    state = np.cumsum(random.random(shape) < 0.01, axis=1) + random.integers(0, 2, (shape[0], 1))
    return 0.08 * (state % 2)


def bursts(random: np.random.Generator, shape) -> np.ndarray:
    """A neighbour that makes 30 samples 1.3 to 3 times as slow, about once in 200 samples."""
    starts = np.where(random.random(shape) < 0.005, random.uniform(np.log(1.3), np.log(3.0), shape), 0.0)
    total = np.cumsum(starts, axis=1)
    total[:, 30:] -= np.cumsum(starts, axis=1)[:, :-30]
    return total


def autocorrelated(random: np.random.Generator, shape) -> np.ndarray:
    """5 %, with a memory of ten samples."""
    return smooth(random, shape, 10, 0.05)


def heavy_tail(random: np.random.Generator, shape) -> np.ndarray:
    """One sample in twenty is slower by a Pareto factor without a variance (index 1.5)."""
    return np.where(random.random(shape) < 0.05, np.log1p(random.pareto(1.5, shape)), 0.0)


def run_noise(random: np.random.Generator, shape) -> np.ndarray:
    """The machine's state: 10 % from run to run, and as much within a run, slowly (correlation time 5 s)."""
    parts = -(-shape[1] // PART)
    return np.repeat(smooth(random, (shape[0], parts), STATE_PARTS, RUN_NOISE), PART, axis=1)[:, : shape[1]]


def part_noise(random: np.random.Generator, shape) -> np.ndarray:
    """10 %, drawn anew for every part of 0.03 s: the worst case, as nothing is left that two neighbours share."""
    return np.repeat(RUN_NOISE * random.standard_normal((shape[0], -(-shape[1] // PART))), PART, axis=1)[:, : shape[1]]


#: Name → what is added to every sample's jitter, along time.
MODELS = {
    "run noise 10 %": (run_noise,),
    "10 % anew in every part": (part_noise,),
    "drift": (drift,),
    "two modes": (two_modes,),
    "bursts": (bursts,),
    "autocorrelation": (autocorrelated,),
    "heavy tails": (heavy_tail,),
    "all of these": (run_noise, drift, two_modes, bursts, autocorrelated, heavy_tail),
}


def timeline(random: np.random.Generator, parts, trials: int, samples: int) -> np.ndarray:
    """(trials, samples) of one machine's noise along time."""
    shape = (trials, samples)
    return sum((part(random, shape) for part in parts), jitter(random, shape))


def medians_in_turn(random: np.random.Generator, line: np.ndarray, part: int):
    """Cut a machine's time into rounds of two parts: (part medians, samples), baseline first.

    Of every two rounds one begins with the baseline and one with the candidate, as in the product.
    """
    trials, rounds = line.shape[0], line.shape[1] // (2 * part)
    cut = line[:, : 2 * rounds * part].reshape(trials, rounds, 2, part)
    blocks = random.random((trials, -(-rounds // 2), 1)) < 0.5
    swap = np.concatenate([blocks, ~blocks], axis=2).reshape(trials, -1)[:, :rounds]
    first = np.where(swap[..., None], cut[:, :, 1], cut[:, :, 0])
    second = np.where(swap[..., None], cut[:, :, 0], cut[:, :, 1])
    skip = 1 if part >= 3 else 0
    sides = np.stack([first[..., skip:], second[..., skip:]])
    return np.median(sides, axis=-1), sides.reshape(2, trials, -1)


def model_trials(name: str, trials: int, random: np.random.Generator) -> Trials:
    """Trials of a model."""
    parts = MODELS[name]
    sessions, samples = [], None
    for _ in range(2):
        medians, taken = medians_in_turn(random, timeline(random, parts, trials, 2 * ROUNDS * PART), PART)
        layout = LAYOUT * random.standard_normal((2, trials, 1))
        sessions.append(medians + layout)
        samples = taken[..., :TURN_SAMPLES] + layout if samples is None else samples

    def one_run() -> np.ndarray:
        return timeline(random, parts, trials, RUN_SAMPLES) + LAYOUT * random.standard_normal((trials, 1))

    runs = [[one_run() for _ in range(PROCESSES)] for _ in range(2)]
    return Trials(
        sessions,
        samples,
        np.stack([side[0] for side in runs]),
        np.stack([np.stack([np.median(run, axis=1) for run in side], axis=1) for side in runs]),
    )


def part_of(trace: np.ndarray) -> int:
    """How often a part of a round would run the network of this trace."""
    return int(max(1, min(PART_MOST, round(PART_SECONDS / float(np.median(trace))))))


def trace_trials(trace: np.ndarray, trials: int, random: np.random.Generator) -> Trials:
    """Trials cut from a recorded trace: contiguous pieces from random moments, the trace taken as a ring.

    A session is no longer than the trace: no moment is met twice.
    """
    logs = np.log(trace.astype(np.float64))
    part = part_of(trace)
    run = min(RUN_SAMPLES, logs.size // 2)

    def pieces(count: int) -> np.ndarray:
        start = random.integers(0, logs.size, (trials, 1))
        return logs[(start + np.arange(count)) % logs.size]

    session = min(2 * ROUNDS * part, logs.size)
    first, samples = medians_in_turn(random, pieces(session), part)
    second, _ = medians_in_turn(random, pieces(session), part)
    runs = [[pieces(run) for _ in range(PROCESSES)] for _ in range(2)]
    return Trials(
        [first, second],
        samples[..., :TURN_SAMPLES],
        np.stack([side[0] for side in runs]),
        np.stack([np.stack([np.median(r, axis=1) for r in side], axis=1) for side in runs]),
    )


def recorded_traces(folder: Path) -> Dict[str, np.ndarray]:
    """Name → seconds of every iteration, from every .npz in the folder."""
    found = {}
    for file in sorted(folder.glob("*.npz")):
        with np.load(file) as archive:
            found.update({f"{file.stem} {name}": archive[name] for name in archive.files})
    return found
