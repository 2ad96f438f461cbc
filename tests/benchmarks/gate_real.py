"""The gate on this machine: a deployment against itself, and against a slower form of the same network.

    python tests/benchmarks/gate_real.py [--times 10] [--size 48] [--threads 1] [--only same|different]

A is F2SRGAN x4 exported with its Fourier units folded, B with DFT matrices (srdeploy export --spectral dft). A against
a copy of A must PASS every time; B against A (baseline) must be a REGRESSION every time, and A against B a PASS. How
many estimates lie below 1 is printed by the side that was opened first: of equal sides it should be about half of all.
The checkpoint is weights/f2srgan_x4.pt of the folder SRDEPLOY_ASSETS, default ../shared. Run it on a machine that does
nothing else, or see INCONCLUSIVE more often. Exit code 1 when a verdict is another one.
"""

from __future__ import annotations

import argparse
import os
import shutil
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from sr_deploy.bench.interleave import InterleaveOptions, opened_first  # noqa: E402
from sr_deploy.core.contract import parse_size  # noqa: E402
from sr_deploy.pipeline.export import ExportOptions, export_deployment  # noqa: E402
from sr_deploy.pipeline.measure.gate import GateRequest, run_gate  # noqa: E402
from sr_deploy.report.gate import PASS, REGRESSION  # noqa: E402

ASSETS = Path(os.environ.get("SRDEPLOY_ASSETS", ROOT.parent / "shared"))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--times", type=int, default=10, help="how often each pair is judged")
    parser.add_argument("--size", default="48", help="input HxW")
    parser.add_argument("--threads", type=int, default=1, help="of ONNX Runtime on the CPU")
    parser.add_argument("--max-seconds", type=float, default=120.0, help="of a session; there may be two")
    parser.add_argument("--only", choices=("same", "different"), help="one half only")
    options = parser.parse_args()
    size, good = parse_size(options.size), True
    with tempfile.TemporaryDirectory() as folder:
        folded, copy, matrices = (Path(folder) / name for name in ("folded", "copy", "matrices"))
        checkpoint = ASSETS / "weights" / "f2srgan_x4.pt"
        for target, spectral in ((folded, "fold"), (matrices, "dft")):
            export_deployment(ExportOptions(checkpoint, target, (size,), spectral=spectral))
        shutil.copytree(folded, copy)
        lean: Counter = Counter()
        pairs = (
            ("same", "folded against itself", folded, copy, PASS),
            ("different", "DFT matrices against folded", folded, matrices, REGRESSION),
            ("different", "folded against DFT matrices", matrices, folded, PASS),
        )
        for kind, name, baseline, candidate, wanted in pairs:
            if options.only not in (None, kind):
                continue
            verdicts: Counter = Counter()
            lean.clear()
            for number in range(options.times):
                request = GateRequest(
                    baseline,
                    candidate,
                    in_turn=True,
                    sizes=(size,),
                    backend="onnxruntime",
                    threads=options.threads,
                    rounds=InterleaveOptions(max_seconds=options.max_seconds, seed=number),
                )
                start = time.perf_counter()
                report = run_gate(request)
                verdicts[report.verdict] += 1
                lean[(opened_first(number, size, 0), (report.findings[0].ratio or 1.0) < 1)] += 1
                seconds = time.perf_counter() - start
                print(f"{name}: {report.verdict} in {seconds:.1f} s: {report.findings[0].why}", flush=True)
            print(f"{name}: {dict(verdicts)}, {wanted} wanted {options.times} times")
            for first, side in enumerate(("baseline", "candidate")):
                below, runs = lean[(first, True)], lean[(first, True)] + lean[(first, False)]
                print(f"  {side} opened first: {below} of {runs} estimates below 1")
            good = good and verdicts[wanted] == options.times
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
