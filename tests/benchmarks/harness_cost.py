"""What the measuring itself adds: the harness on a runner of known latency, and beside a plain loop.

    python tests/benchmarks/harness_cost.py [--seconds 3] [--repeats 5] [--threads 1] [--size 96]

First table: a runner that spins for a drawn time (0.2, 2 and 20 ms, each with 5 % of log-normal noise) is measured as
srdeploy bench measures, sensors included; the median that was drawn is known exactly, sample for sample. Wanted: within
1 %. Second table: the same ONNX Runtime session of the network that ships with srdeploy, in turn by the harness and by
a plain loop around run_with_iobinding; the median over the repeats of the ratio of the two medians. Wanted: within 2 %.
Exit code 1 when either is not reached.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Callable, List

import numpy as np

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from sr_deploy.bench.measure import example_input, measure  # noqa: E402
from sr_deploy.bench.monitor import watch_machine  # noqa: E402
from sr_deploy.bench.options import BenchOptions  # noqa: E402
from sr_deploy.run.fake import FakeRunner  # noqa: E402

LATENCIES = (0.0002, 0.002, 0.02)
NOISE = 0.05
WANTED_FAKE, WANTED_LOOP = 0.01, 0.02
CHECKPOINT = ROOT / "sr_deploy" / "demo" / "demo_x2.safetensors"


def spin(seconds: float) -> None:
    """Busy until the time has passed; a sleep would be late by the scheduler's whim."""
    end = time.perf_counter() + seconds
    while time.perf_counter() < end:
        pass


class KnownRunner(FakeRunner):
    """Spends the drawn time and nothing else: FakeRunner enlarges its picture every time, which takes microseconds."""

    def compute(self) -> None:
        """The picture is made once."""
        if self._sr is None:
            super().compute()
        else:
            self._pending += self._latency(self._size, self._count)
            self._count += 1

    @property
    def runs(self) -> int:
        """How often it has computed."""
        return self._count


def fake_error(latency: float, seconds: float, seed: int) -> tuple:
    """(samples, the drawn median, the measured median, what a sample gets at least) of a known latency; seconds.

    The last is the 10th percentile of measured minus drawn, sample by sample: on a busy machine the scheduler's share
    is in the medians, and this is what remains of the harness's own.
    """
    # Drawn beforehand: to draw a number takes microseconds, which would be counted as the harness's.
    most = int(2 * (seconds + 60) / latency)
    drawn = (latency * np.exp(NOISE * np.random.default_rng(seed).normal(size=most))).tolist()
    runner = KnownRunner(2, lambda size, n: drawn[n], spin)
    options = BenchOptions(min_seconds=seconds, precision=None, max_seconds=seconds + 20, max_iterations=most)
    point = measure(runner, (8, 8), options, watch=watch_machine)
    count = len(point.samples_s)
    last = runner.runs
    known = drawn[last - count : last]
    added = sorted(sample - true for sample, true in zip(point.samples_s, known))
    return count, statistics.median(known), point.median_s, added[count // 10]


def exported(folder: Path) -> tuple:
    """(graph, contract, scale) of the shipped network."""
    from sr_deploy.core.deployment.manifest import open_deployment
    from sr_deploy.pipeline.export import ExportOptions, export_deployment

    deployment = open_deployment(export_deployment(ExportOptions(CHECKPOINT, folder / "net")).folder)
    manifest = deployment.manifest
    return deployment.path_of(manifest.graphs[0]), manifest.contract, manifest.scale


def plain_loop(graph: Path, threads: int, scale: int, lr: np.ndarray, seconds: float) -> Callable[[], float]:
    """A function that gives the median of a plain loop, with a session, a warm-up and a binding of its own."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 4
    session = onnxruntime.InferenceSession(str(graph), options, providers=["CPUExecutionProvider"])
    binding = session.io_binding()
    sr = np.zeros((1, 3, lr.shape[2] * scale, lr.shape[3] * scale), np.float32)
    source, target = onnxruntime.OrtValue.ortvalue_from_numpy(lr), onnxruntime.OrtValue.ortvalue_from_numpy(sr)
    binding.bind_ortvalue_input(session.get_inputs()[0].name, source)
    binding.bind_ortvalue_output(session.get_outputs()[0].name, target)

    def run() -> float:
        end = time.perf_counter() + 1.0
        while time.perf_counter() < end:
            session.run_with_iobinding(binding)
        times: List[float] = []
        end = time.perf_counter() + seconds
        while time.perf_counter() < end:
            start = time.perf_counter()
            session.run_with_iobinding(binding)
            times.append(time.perf_counter() - start)
        return statistics.median(times)

    return run


def main() -> int:
    """Print the tables; the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=3.0, help="of every measurement, after its warm-up")
    parser.add_argument("--repeats", type=int, default=5, help="pairs of harness and plain loop")
    parser.add_argument("--threads", type=int, default=1, help="threads of ONNX Runtime")
    parser.add_argument("--size", type=int, default=96, help="height and width of the input")
    arguments = parser.parse_args()
    good = True
    print(f"{'latency ms':>10}{'samples':>9}{'drawn ms':>11}{'measured ms':>13}{'off by':>10}{'adds at least':>16}")
    for seed, latency in enumerate(LATENCIES):
        count, drawn, measured, added = fake_error(latency, arguments.seconds, seed)
        off = measured / drawn - 1
        good &= abs(off) <= WANTED_FAKE
        row = f"{latency * 1e3:>10g}{count:>9}{drawn * 1e3:>11.5f}{measured * 1e3:>13.5f}"
        print(f"{row}{100 * off:>9.3f}%{added * 1e6:>13.2f} µs")
    print(f"wanted: within {100 * WANTED_FAKE:g} %\n")

    from sr_deploy.run.onnxruntime import runner_from_graph

    with tempfile.TemporaryDirectory() as folder:
        graph, contract, scale = exported(Path(folder))
        size = (arguments.size, arguments.size)
        lr = example_input(size, contract.value_range)
        loop = plain_loop(graph, arguments.threads, scale, lr, arguments.seconds)
        options = BenchOptions(value_range=contract.value_range, min_seconds=arguments.seconds, precision=None)
        runner = runner_from_graph(graph, contract, scale, threads=arguments.threads, provider="CPUExecutionProvider")
        ratios: List[float] = []
        print(f"shipped network at {arguments.size}x{arguments.size}, {arguments.threads} threads")
        print(f"{'pair':>10}{'plain loop ms':>17}{'harness ms':>13}{'off by':>10}")
        for pair in range(arguments.repeats):
            # Each goes first in turn, so that a drift of the machine favours neither.
            plain = loop() if pair % 2 == 0 else None
            harness = measure(runner, size, options, watch=watch_machine).median_s
            plain = loop() if plain is None else plain
            ratios.append(harness / plain)
            print(f"{pair + 1:>10}{plain * 1e3:>17.4f}{harness * 1e3:>13.4f}{100 * (ratios[-1] - 1):>9.3f}%")
        runner.close()
    off = statistics.median(ratios) - 1
    print(f"{'median':>10}{'':>30}{100 * off:>9.3f}%\nwanted: within {100 * WANTED_LOOP:g} %")
    return 0 if good and abs(off) <= WANTED_LOOP else 1


if __name__ == "__main__":
    sys.exit(main())
