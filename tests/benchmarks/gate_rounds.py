"""Do rounds of two equal sides correlate, and does either side come out faster? Recorded in turn, as the gate does.

    python tests/benchmarks/gate_rounds.py [--sessions 24] [--rounds 180] [--load 2] [--out rounds.npz]

Both sides are runners of one small network (gate_traces.py) in ONNX Runtime on one thread, opened anew for every
session, in the order that the gate draws. Printed for each network: the lag-one autocorrelation of the rounds'
log-ratios over the sessions, what a side's place in the round costs, the share of sessions whose interval holds 1, and
how many estimates lie below 1, all together and by the side that was opened first. ``--load`` keeps so many other
processes busy meanwhile. The file holds (sessions, rounds) of log-ratios, float32, for interval_coverage.py.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Iterator, List, Tuple

import numpy as np

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT), str(Path(__file__).resolve().parent)]

from gate_traces import NETWORKS, write_network  # noqa: E402

from sr_deploy.bench.compare import paired_ratio  # noqa: E402
from sr_deploy.bench.interleave import InterleaveOptions, Session, interleave, opened_first  # noqa: E402
from sr_deploy.bench.options import BenchOptions  # noqa: E402
from sr_deploy.core.contract import IOContract  # noqa: E402
from sr_deploy.report.gate import CONFIDENCE  # noqa: E402
from sr_deploy.run.onnxruntime import runner_from_graph  # noqa: E402

#: Ends with the process that began it, however that ends.
BUSY = "import os, numpy as n; a, p = n.ones((300, 300)), os.getppid()\nwhile os.getppid() == p: a @ a"


@contextlib.contextmanager
def load(processes: int) -> Iterator[None]:
    """So many processes that compute until the end."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    running = [subprocess.Popen([sys.executable, "-c", BUSY], env=environment) for _ in range(processes)]
    try:
        yield
    finally:
        for process in running:
            process.kill()
            process.wait()


def session(graph: Path, edge: int, seed: int, rounds: int) -> Tuple[Session, int]:
    """(one session of a network against itself, the side opened first)."""
    first = opened_first(seed, (edge, edge), 0)
    opened = [runner_from_graph(graph, IOContract(1.0), 1, threads=1) for _ in range(2)]
    baseline, candidate = opened[::-1] if first else opened
    options = InterleaveOptions(looks=(rounds,), max_seconds=600.0, seed=seed, first=first)
    try:
        return interleave(
            baseline, candidate, (edge, edge), BenchOptions(), options, lambda before, after: False
        ), first
    finally:
        for runner in opened:
            runner.close()


def lag_one(logs: np.ndarray) -> np.ndarray:
    """The lag-one autocorrelation of each row, its bias of small samples undone (Marriott and Pope, 1954)."""
    away = logs - logs.mean(axis=1, keepdims=True)
    rho = (away[:, 1:] * away[:, :-1]).sum(axis=1) / (away * away).sum(axis=1)
    return (logs.shape[1] * rho + 1) / (logs.shape[1] - 4)


def describe(name: str, sessions: List[Session], firsts: List[int]) -> np.ndarray:
    """Print what is found; returns the log-ratios, (sessions, rounds)."""
    logs = np.array([np.log(s.candidate_s) - np.log(s.baseline_s) for s in sessions])
    ratios = [paired_ratio(s.baseline_s, s.candidate_s, CONFIDENCE) for s in sessions]
    order = np.array([s.order for s in sessions])
    place = [np.median(row[begins == 0]) - np.median(row[begins == 1]) for row, begins in zip(logs, order)]
    rho = lag_one(logs)
    below = np.array([ratio.estimate < 1 for ratio in ratios])
    by_side = [f"{below[np.array(firsts) == side].sum()} of {firsts.count(side)}" for side in (0, 1)]
    print(
        f"{name}: {1e3 * np.median(sessions[0].baseline_s):.3f} ms, {logs.shape[0]} sessions of {logs.shape[1]} rounds"
    )
    shown = ", ".join(f"{value:+.2f}" for value in np.percentile(rho, [0, 10, 50, 90, 100]))
    print(f"  lag-one autocorrelation at 0, 10, 50, 90, 100 % of the sessions: {shown}")
    print(f"  rounds worth, of {logs.shape[1]}: median {np.median([ratio.effective for ratio in ratios]):.0f}")
    print(f"  second in its round: {50 * float(np.median(place)):+.3f} % slower")
    print(f"  the {100 * CONFIDENCE:g} % interval holds 1 in {sum(r.low <= 1 <= r.high for r in ratios)} sessions")
    print(f"  below 1: {below.sum()} of {below.size}; baseline opened first {by_side[0]}, candidate {by_side[1]}")
    return logs.astype(np.float32)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sessions", type=int, default=24)
    parser.add_argument("--rounds", type=int, default=180)
    parser.add_argument("--networks", default="small,middle", help=f"of {', '.join(NETWORKS)}, by commas")
    parser.add_argument("--load", type=int, default=0, help="other processes kept busy")
    parser.add_argument("--seed", type=int, default=0, help="of the first session; the next one has the next")
    parser.add_argument("--out", type=Path, help="the .npz file to write")
    options = parser.parse_args()
    found = {}
    with tempfile.TemporaryDirectory() as folder, load(options.load):
        for name in options.networks.split(","):
            depth, channels, edge = NETWORKS[name]
            write_network(Path(folder) / f"{name}.onnx", depth, channels, edge)
            seeds = range(options.seed, options.seed + options.sessions)
            pairs = [session(Path(folder) / f"{name}.onnx", edge, seed, options.rounds) for seed in seeds]
            found[name] = describe(f"{name}, load {options.load}", [s for s, _ in pairs], [f for _, f in pairs])
    if options.out:
        options.out.parent.mkdir(parents=True, exist_ok=True)
        np.savez_compressed(options.out, **found)
        print(f"{options.out}: {options.out.stat().st_size / 1024:.0f} KiB")
    return 0


if __name__ == "__main__":
    sys.exit(main())
