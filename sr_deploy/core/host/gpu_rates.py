"""What GPUs can do at best: the figures that estimates of a network's time start from.

Sources: NVIDIA's architecture whitepapers (GA102: RTX 3060 by its clock and cores, RTX 3090; AD102: RTX 4090; GB202:
RTX 5090), the H200 and Jetson Orin data sheets and technical briefs, and for the Xavier NX its nvpmodel clocks
(graph/roofline.py). All rates are dense. Float16 is that with float16 accumulation, as the names of TensorRT's
convolutions have it (…f16f16_f16f16_f16_nhwckrsc…); on GeForce cards float32 accumulation halves it. Orin's cores do
256 float16 multiply-accumulates a clock, which gives the 85 (AGX) and 30 (NX) dense int8 TOPS of their GPUs. Bfloat16
always accumulates in float32, so GeForce cards do half as many of it; FP8 with float16 accumulation is as fast as int8
(AD102 and GB202 whitepapers: RTX 4090 660.6, RTX 5090 838 dense TFLOPS). What a launch costs is an assumption: about
2 µs within a CUDA graph on a desktop, 5 µs on a Jetson.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Dict, Tuple

from sr_deploy.core.names import row_named


@dataclass(frozen=True)
class GpuRates:
    """One GPU, or one power mode of a board.

    Attributes:
        name: as written after ``--roofline`` and ``--for``.
        title: as people write it.
        capability: the compute capability whose listing stands for it; TensorRT-RTX lists the same layers for 8.6, 8.9
            and 12.0, and builds for no Xavier, Orin or Hopper.
        bandwidth: of its memory, GB/s.
        tera_macs: element type → 10¹² multiply-accumulates a second.
        launch_us: what starting a kernel costs, µs.
    """

    name: str
    title: str
    capability: str
    bandwidth: float
    tera_macs: Dict[str, float]
    launch_us: float = 2.0


def _rates(float32: float, float16: float, int8: float, bfloat16: float = 0.0, float8: float = 0.0) -> Dict[str, float]:
    """From TFLOPS and TOPS, which count a multiply-accumulate twice; what a GPU does not have is left out."""
    each = {"float32": float32, "float16": float16, "bfloat16": bfloat16, "int8": int8, "float8": float8}
    return {name: rate / 2 for name, rate in each.items() if rate}


GPUS: Tuple[GpuRates, ...] = (
    GpuRates("xavier-nx", "Xavier NX, 20 W", "8.6", 59.7, _rates(0.852, 6.82, 13.63), 5.0),
    GpuRates("xavier-nx-15w", "Xavier NX, 15 W", "8.6", 51.2, _rates(0.852, 6.82, 13.63), 5.0),
    GpuRates("xavier-nx-10w", "Xavier NX, 10 W", "8.6", 51.2, _rates(0.617, 4.94, 9.87), 5.0),
    GpuRates("orin-nx", "Orin NX 16 GB", "8.6", 102.4, _rates(1.88, 15.0, 30.1, 15.0), 5.0),
    GpuRates("agx-orin", "AGX Orin 64 GB", "8.6", 204.8, _rates(5.33, 42.6, 85.2, 42.6), 5.0),
    GpuRates("rtx-3060", "RTX 3060", "8.6", 360.0, _rates(12.7, 50.9, 101.9, 25.5)),
    GpuRates("rtx-3090", "RTX 3090", "8.6", 936.0, _rates(35.6, 142.3, 284.7, 71.2)),
    GpuRates("rtx-4090", "RTX 4090", "8.9", 1008.0, _rates(82.6, 330.3, 660.6, 165.2, 660.6)),
    GpuRates("rtx-5090", "RTX 5090", "12.0", 1792.0, _rates(104.8, 419.0, 838.0, 209.5, 838.0)),
    GpuRates("h200", "H200", "8.9", 4800.0, _rates(67.0, 989.0, 1979.0, 989.0, 1979.0)),
)


def gpu_named(name: str, option: str) -> GpuRates:
    """The row of that name.

    Raises:
        UsageError: there is none; the message lists them.
    """
    return row_named(f"GPU with known rates for {option}", name, GPUS)
