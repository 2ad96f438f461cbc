"""How often the intervals that bench and gate print hold the truth: on AR(1) samples and on recorded traces.

    python tests/benchmarks/interval_coverage.py [--trials 2000] [--seed 0] [--traces tests/benchmarks/traces]

AR(1) with autocorrelation ρ and normal noise is the usual test of such intervals: with ρ = 0.9 thirty samples are worth
1.6 independent ones. Each cell is, in percent of the trials: intervals that do not miss the truth, and in brackets
those that were given at all. No interval is no statement: bench prints none, and the gate says INCONCLUSIVE.

The intervals, each by the product's own functions:
- median: of a bench point, at 95 %, for a fixed number of samples;
- stopped: the same, where the stop rule of bench decided how many (measure() with a scripted clock, 10 ms a sample,
  noise of 10 %, a wanted precision of 3 %, and at most 1200 samples);
- paired: the ratio of gate --interleave, at the confidence of one look;
- session: the same at the look that ends a session of noise 10 %, where all looks together have the gate's 99 %;
- single: two results of one run each, told that runs do not differ, at 99 %.

A trace is cut into pieces from random moments. For a ratio the truth is 1: both sides are the same network. For a
median it is that of the whole trace, which no interval from a piece promises: it knows nothing of the states the
machine was in at other times. Its column shows how far that goes.

Exit code 1 when a cell of AR(1), or of a ratio on a trace, is more than one percent below its nominal coverage.
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path
from typing import Dict, Iterator, List, Optional, Tuple

import numpy as np

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT), str(Path(__file__).resolve().parent)]

from gate_noise import medians_in_turn, part_of, recorded_traces  # noqa: E402

from sr_deploy.bench.compare import paired_cut, single_run_ratio  # noqa: E402
from sr_deploy.bench.interleave import InterleaveOptions  # noqa: E402
from sr_deploy.bench.interval import effective_sample_size, median_interval  # noqa: E402
from sr_deploy.bench.measure import measure  # noqa: E402
from sr_deploy.bench.options import BenchOptions  # noqa: E402
from sr_deploy.report.gate import CONFIDENCE, look_confidence  # noqa: E402
from sr_deploy.run.fake import FakeClock, FakeRunner  # noqa: E402

TRACES = Path(__file__).resolve().parent / "traces"
RHOS = (0.0, 0.3, 0.5, 0.7, 0.8, 0.9)
COUNTS = (10, 30, 100, 300, 1000)
LOOKS = InterleaveOptions().looks
LOOK_CONFIDENCE = look_confidence(len(LOOKS))
MEDIAN_CONFIDENCE = BenchOptions().confidence
#: Of a cell below its nominal coverage.
ALLOWED = 0.01
#: Noise of a sample or a round, as a part of it, and the limit of the gate, where their sizes matter.
NOISE, LIMIT = 0.10, 0.03

#: One trial: None where no interval was given, else whether it held the truth.
Outcome = Optional[bool]


def ar1(random: np.random.Generator, trials: int, count: int, rho: float) -> np.ndarray:
    """(trials, count) of a stationary first-order autoregressive process with mean and median 0 and variance 1."""
    values = random.standard_normal((trials, count))
    values[:, 1:] *= np.sqrt(1 - rho * rho)
    for step in range(1, count):
        values[:, step] += rho * values[:, step - 1]
    return values


def median_outcome(samples: np.ndarray, truth: float) -> Outcome:
    """The interval of a point's median."""
    interval = median_interval(samples, MEDIAN_CONFIDENCE)
    return None if interval is None else bool(interval[0] <= truth <= interval[1])


def stopped_outcome(noise: np.ndarray) -> Outcome:
    """The interval of a point that bench stopped; ``noise`` is longer than any measurement with its warm-up."""
    clock = FakeClock()
    runner = FakeRunner(1, lambda size, n: 0.01 * float(np.exp(NOISE * noise[n])), clock.sleep)
    options = BenchOptions(
        warmup_seconds=0.0, warmup_max_seconds=1.0, min_seconds=0.0, max_iterations=1200, precision=0.03
    )
    point = measure(runner, (2, 2), options, clock)
    return None if point.median_low_s is None else bool(point.median_low_s <= 0.01 <= point.median_high_s)


def averages_above(logs: np.ndarray, value: float) -> int:
    """How many Walsh averages lie above a value: the signed-rank statistic of the differences from it, much faster."""
    away = logs - value
    ranks = np.argsort(np.argsort(np.abs(away))) + 1
    return int(ranks[away > 0].sum())


def paired_outcome(logs: np.ndarray, truth: float = 0.0) -> Outcome:
    """The interval of ``paired_ratio``: from the cut-th smallest Walsh average to the cut-th largest."""
    cut = paired_cut(len(logs), LOOK_CONFIDENCE, effective_sample_size(logs))
    if cut is None:
        return None
    above = averages_above(logs, truth)
    return cut <= above <= len(logs) * (len(logs) + 1) // 2 - cut


def session_outcome(logs: np.ndarray) -> Outcome:
    """The interval at the first look that decides against the limit, or at the last one."""
    for look in LOOKS:
        seen = logs[:look]
        cut = paired_cut(look, LOOK_CONFIDENCE, effective_sample_size(seen))
        above = averages_above(seen, float(np.log1p(LIMIT)))
        if look == LOOKS[-1] or cut is not None and not cut <= above <= look * (look + 1) // 2 - cut:
            break
    return paired_outcome(seen)


def single_outcome(pair: np.ndarray) -> Outcome:
    """The interval of two results of one run; ``pair`` is (2, samples)."""
    ratio = single_run_ratio(*np.exp(NOISE * pair).tolist(), 0.0, CONFIDENCE)
    return None if ratio.low == 0 else bool(ratio.low <= 1 <= ratio.high)


def ar1_outcomes(random: np.random.Generator, rho: float, trials: int) -> Iterator[Tuple[str, float, List[Outcome]]]:
    """(what, nominal coverage, outcomes) of every cell of one ρ."""
    for count in COUNTS:
        values = ar1(random, trials, count, rho)
        yield f"median, n {count}", MEDIAN_CONFIDENCE, [median_outcome(row, 0.0) for row in values]
        yield f"paired, n {count}", LOOK_CONFIDENCE, [paired_outcome(row) for row in values]
        pairs = ar1(random, 2 * (trials // 2), count, rho).reshape(-1, 2, count)
        yield f"single, n {count}", CONFIDENCE, [single_outcome(pair) for pair in pairs]
    for number, (what, nominal, outcome) in enumerate(
        (("stopped", MEDIAN_CONFIDENCE, stopped_outcome), ("session", CONFIDENCE, session_outcome))
    ):
        values = ar1(random, trials // 2, (1500, LOOKS[-1])[number], rho) * (1.0, NOISE)[number]
        yield what, nominal, [outcome(row) for row in values]


def trace_outcomes(random: np.random.Generator, trace: np.ndarray, trials: int):
    """As ``ar1_outcomes``, of pieces of a trace, seconds."""
    logs, part = np.log(trace.astype(np.float64)), part_of(trace)

    def pieces(length: int) -> np.ndarray:
        starts = random.integers(0, logs.size - length + 1, (trials, 1))
        return logs[starts + np.arange(length)]

    for rounds in LOOKS:
        if 2 * rounds * part <= logs.size:
            (before, after), _ = medians_in_turn(random, pieces(2 * rounds * part), part)
            yield f"paired, n {rounds}", LOOK_CONFIDENCE, [paired_outcome(row) for row in after - before]
    for count in COUNTS:
        if 2 * count <= logs.size:
            truth = float(np.median(logs))
            yield f"median, n {count}", MEDIAN_CONFIDENCE, [median_outcome(row, truth) for row in pieces(count)]


def round_outcomes(random: np.random.Generator, sessions: np.ndarray, trials: int):
    """As ``ar1_outcomes``, of pieces of recorded rounds, (sessions, rounds) of log-ratios.

    What a session differs by as a whole (memory) is no error of its interval, so the truth is the session's centre.
    """
    centred = sessions - np.median(sessions, axis=1, keepdims=True)
    for rounds in LOOKS:
        if 2 * rounds <= centred.shape[1]:
            rows = random.integers(0, len(centred), (trials, 1))
            starts = random.integers(0, centred.shape[1] - rounds + 1, (trials, 1))
            cut = centred[rows, starts + np.arange(rounds)]
            yield f"paired, n {rounds}", LOOK_CONFIDENCE, [paired_outcome(row) for row in cut]


def share(outcomes: List[Outcome]) -> Tuple[float, float]:
    """(share that does not miss the truth, share that was given)."""
    given = [outcome for outcome in outcomes if outcome is not None]
    return 1 - (len(given) - sum(given)) / len(outcomes), len(given) / len(outcomes)


def print_cells(title: str, columns: Dict[str, Dict[str, Tuple[float, float, float]]]) -> None:
    """A table: a row for each interval and count, a column for each kind of samples."""
    rows = list(dict.fromkeys(name for column in columns.values() for name in column))
    print(f"{title:28}" + "".join(f"{name:>16}" for name in columns))
    for row in rows:
        cells = [column.get(row) for column in columns.values()]
        nominal = next(cell[0] for cell in cells if cell)
        shown = (f"{100 * cell[1]:9.2f} ({100 * cell[2]:3.0f})" if cell else f"{'–':>15}" for cell in cells)
        print(f"{row:18}{100 * nominal:8.2f}  " + " ".join(f"{text:>15}" for text in shown))


def measured(trials: int, seed: int, folder: Path):
    """(title, what each column is of → row → (nominal, not missed, given), whether it must hold) of each table."""

    def cells(outcomes) -> Dict[str, Tuple[float, float, float]]:
        return {what: (nominal, *share(found)) for what, nominal, found in outcomes}

    random = np.random.default_rng(seed)
    yield "AR(1)", {f"rho {rho:g}": cells(ar1_outcomes(random, rho, trials)) for rho in RHOS}
    for file in sorted(folder.glob("*.npz")):
        traces = {
            name[len(file.stem) + 1 :]: trace
            for name, trace in recorded_traces(folder).items()
            if name.startswith(file.stem)
        }
        yield file.stem, {name: cells(trace_outcomes(random, trace, trials)) for name, trace in traces.items()}
    for file in sorted((folder / "rounds").glob("*.npz")):
        with np.load(file) as archive:
            sessions = {name: archive[name].astype(np.float64) for name in archive.files if not name.endswith("_order")}
        yield f"rounds {file.stem}", {n: cells(round_outcomes(random, s, trials)) for n, s in sessions.items()}


def missed(title: str, columns) -> List[str]:
    """The cells that do not hold, as sentences; the median of a trace need not, see above."""
    return [
        f"{title} {column}: {row} holds in {100 * held:.2f} %, {100 * nominal:g} % said"
        for column, rows in columns.items()
        for row, (nominal, held, _) in rows.items()
        if held < nominal - ALLOWED and (title == "AR(1)" or not row.startswith("median"))
    ]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trials", type=int, default=2000, help="of each cell (default 2000; half for some)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--traces", type=Path, default=TRACES, help="folder of recorded traces (.npz)")
    options = parser.parse_args()
    start, failures = time.perf_counter(), []
    print("percent of the trials: not missed (given at all)")
    for title, columns in measured(options.trials, options.seed, options.traces):
        print_cells(title, columns)
        failures += missed(title, columns)
    print(f"{options.trials} trials of each cell in {time.perf_counter() - start:.0f} s")
    for failure in failures:
        print(f"MISSED: {failure}")
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
