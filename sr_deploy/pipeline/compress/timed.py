"""How long a narrower graph takes beside the whole one: timed in turn here, or estimated for a GPU."""

from __future__ import annotations

import hashlib
import statistics
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Callable, Dict, Optional

from sr_deploy.core.contract import IOContract, Size, format_size
from sr_deploy.core.host.gpu_rates import GpuRates
from sr_deploy.core.temporary import temporary_folder
from sr_deploy.core.text import counted

if TYPE_CHECKING:
    import onnx

#: Rounds of timing, in each of which both run once or more.
ROUNDS = 15


@dataclass(frozen=True)
class Target:
    """Where the time counts.

    Attributes:
        contract, scale: of the network.
        size: input (height, width).
        threads: of ONNX Runtime; None lets it choose.
        gpu: estimate for it instead.
        known: hash of a graph → its estimate, ms, so that the whole network's is made once.
    """

    contract: IOContract
    scale: int
    size: Size
    threads: Optional[int]
    gpu: Optional[GpuRates]
    known: Dict[bytes, float] = field(default_factory=dict, compare=False)

    @property
    def kind(self) -> str:
        """How times come about, in words."""
        at = format_size(self.size)
        if self.gpu is None:
            threads = "" if self.threads is None else f", {counted(self.threads, 'thread')}"
            return f"ONNX Runtime here, {at}{threads}, in turn"
        if _listed():
            return f"{self.gpu.title}, {at}, estimate from TensorRT-RTX's listing"
        return f"{self.gpu.title}, {at}, estimate from bytes and products"

    def share(self, whole: onnx.ModelProto, narrow: onnx.ModelProto, guess: float) -> float:
        """The time of the narrower graph as a share of the whole one's.

        Args:
            whole, narrow: plain graphs; what is timed is what a build makes of them.
            guess: by the sum over nodes, for a GPU whose builder is not here.
        """
        if self.gpu is not None:
            return self._estimated(narrow, self.gpu) / self._estimated(whole, self.gpu) if _listed() else guess
        return self._timed(whole, narrow)

    def _timed(self, whole: onnx.ModelProto, narrow: onnx.ModelProto) -> float:
        from sr_deploy.bench.interleave import InterleaveOptions, interleave
        from sr_deploy.bench.options import BenchOptions
        from sr_deploy.run.onnxruntime import runner_from_graph

        with temporary_folder() as folder:
            paths = [self._deployed(model, folder / f"{name}.onnx") for name, model in (("a", whole), ("b", narrow))]
            runners = [
                runner_from_graph(path, self.contract, self.scale, self.threads, "CPUExecutionProvider")
                for path in paths
            ]
            try:
                session = interleave(
                    runners[0], runners[1], self.size, BenchOptions(value_range=self.contract.value_range),
                    InterleaveOptions(looks=(ROUNDS,)), lambda *_: True,
                )  # fmt: skip
            finally:
                for runner in runners:
                    runner.close()
        return statistics.median(session.candidate_s) / statistics.median(session.baseline_s)

    def _deployed(self, model: onnx.ModelProto, path: Path) -> Path:
        """The graph as an export writes it."""
        import onnx

        from sr_deploy.graph.rewrite import RewriteOptions, passes_named, rewrite

        options = RewriteOptions(traced=self.size, value_range=self.contract.value_range)
        onnx.save(rewrite(model, passes_named("default"), options)[0], str(path))
        return path

    def _estimated(self, model: onnx.ModelProto, gpu: GpuRates) -> float:
        """Milliseconds."""
        from sr_deploy.engine.estimate import estimated_ms
        from sr_deploy.engine.runtimes import RUNTIMES
        from sr_deploy.pipeline.measure.listed import LISTING_RUNTIME, listed_in_half

        key = hashlib.sha256(model.SerializeToString(deterministic=True)).digest()
        if key not in self.known:
            with temporary_folder() as folder:
                path = self._deployed(model, folder / "model.onnx")
                listing = listed_in_half(path, self.size, RUNTIMES[LISTING_RUNTIME].rewrite, gpu.capability)
            self.known[key] = estimated_ms(listing, gpu) or 0.0
        return self.known[key]


def _listed() -> bool:
    from sr_deploy.pipeline.measure.listed import has_listings

    return has_listings()


def fitting_share(measured: Callable[[float], float], asked: float, tries: int = 4) -> float:
    """The share of the modelled cost whose measured share is what was asked for.

    Args:
        measured: modelled share → measured share.
        asked: the measured share that may be reached.
        tries: of measuring.

    Returns:
        The largest modelled share that was found within the asked one; else the one that came nearest.
    """
    seen = {0.0: 0.0, 1.0: 1.0}
    share = asked
    for _ in range(tries):
        seen[share] = measured(share)
        if 0.98 * asked <= seen[share] <= asked:
            break
        # Between the nearest shares that took less and more, where a straight line has what is asked for.
        low = max(one for one, found in seen.items() if found <= asked)
        high = min((one for one, found in seen.items() if found > asked and one > low), default=1.0)
        slope = (seen[high] - seen[low]) / max(high - low, 1e-6)
        share = min(max(low + (0.99 * asked - seen[low]) / max(slope, 1e-6), low + 0.1 * (high - low)), high)
    del seen[0.0], seen[1.0]
    within = [one for one, found in seen.items() if found <= asked]
    return max(within) if within else min(seen, key=lambda one: abs(seen[one] - asked))
