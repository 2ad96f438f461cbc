"""What GPUs can do at best: the figures that estimates of a network's time start from.

All rates are dense; data sheets of Hopper and Orin print those with sparsity, twice as much. Float16 is that with
float16 accumulation, as the names of TensorRT's convolutions have it (…f16f16_f16f16_f16_nhwckrsc…). Sources:

Xavier NX: clocks of NVIDIA's nvpmodel file for module p3668, 64 float16 products a clock and tensor core
    (graph/roofline.py).
Orin: Jetson AGX Orin Series Technical Brief v1.2, of 2048 CUDA and 64 tensor cores at 1.3 GHz: 5.3 FP32 TFLOPS, 170
    sparse INT8 TOPS. The NX has half as many cores, at 918 MHz. Float16 is half of int8. Bandwidth: their data sheets.
RTX 3090: NVIDIA Ampere GA102 GPU Architecture V2.0, appendix A (35.6, 142.3, 284.7; 936 GB/s).
RTX 3060: NVIDIA's announcement of February 2021 (3584 CUDA cores in 28 SMs, 1.78 GHz, 13 TFLOPS, 101 sparse tensor
    TFLOPS) with the 512 float16 products a clock and SM of that paper's table of tensor cores; 192 bits of 15 Gbit/s.
RTX 4090: NVIDIA Ada GPU Architecture V2.01, appendix A (82.6, 330.3, 660.6 INT8, and FP8 with float16 accumulation).
RTX 5090: NVIDIA RTX Blackwell GPU Architecture, appendix (104.8, 419, 838; 1792 GB/s).
H200: NVIDIA H200 data sheet, SXM (67; half of its sparse 1,979 and 3,958; 4.8 TB/s).

Memory is of the same papers and data sheets; the Xavier NX is the one of 8 GB.

On GeForce cards float32 accumulation halves float16 (the same papers; an A40 does it at full rate: its data sheet), so
bfloat16, which always accumulates so, is half of it there. What a launch costs is an assumption: about 2 µs within a
CUDA graph on a desktop, 5 µs on a Jetson.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Dict, Tuple

from sr_deploy.core.host.machine import Gpu
from sr_deploy.core.names import row_named


@dataclass(frozen=True)
class GpuRates:
    """One GPU, or one power mode of a board.

    Attributes:
        name: as written after ``--roofline`` and ``--for``.
        title: as people write it.
        capability: the compute capability whose listing stands for it; TensorRT-RTX lists the same layers for 8.6, 8.9
            and 12.0, and builds for no Xavier, Orin or Hopper.
        compute_capability: its own.
        bandwidth: of its memory, GB/s.
        memory: GB; on a Jetson shared with the processor.
        tera_macs: element type → 10¹² multiply-accumulates a second.
        launch_us: what starting a kernel costs, µs.
    """

    name: str
    title: str
    capability: str
    compute_capability: str
    bandwidth: float
    memory: float
    tera_macs: Dict[str, float]
    launch_us: float = 2.0


def _rates(float32: float, float16: float, int8: float, bfloat16: float = 0.0, float8: float = 0.0) -> Dict[str, float]:
    """From TFLOPS and TOPS, which count a multiply-accumulate twice; what a GPU does not have is left out."""
    each = {"float32": float32, "float16": float16, "bfloat16": bfloat16, "int8": int8, "float8": float8}
    return {name: rate / 2 for name, rate in each.items() if rate}


GPUS: Tuple[GpuRates, ...] = (
    GpuRates("xavier-nx", "Xavier NX, 20 W", "8.6", "7.2", 59.7, 8.0, _rates(0.852, 6.82, 13.63), 5.0),
    GpuRates("xavier-nx-15w", "Xavier NX, 15 W", "8.6", "7.2", 51.2, 8.0, _rates(0.852, 6.82, 13.63), 5.0),
    GpuRates("xavier-nx-10w", "Xavier NX, 10 W", "8.6", "7.2", 51.2, 8.0, _rates(0.617, 4.94, 9.87), 5.0),
    GpuRates("orin-nx", "Orin NX 16 GB", "8.6", "8.7", 102.4, 16.0, _rates(1.88, 15.0, 30.1, 15.0), 5.0),
    GpuRates("agx-orin", "AGX Orin 64 GB", "8.6", "8.7", 204.8, 64.0, _rates(5.33, 42.6, 85.2, 42.6), 5.0),
    GpuRates("rtx-3060", "RTX 3060", "8.6", "8.6", 360.0, 12.0, _rates(12.7, 50.9, 101.9, 25.5)),
    GpuRates("rtx-3090", "RTX 3090", "8.6", "8.6", 936.0, 24.0, _rates(35.6, 142.3, 284.7, 71.2)),
    GpuRates("rtx-4090", "RTX 4090", "8.9", "8.9", 1008.0, 24.0, _rates(82.6, 330.3, 660.6, 165.2, 660.6)),
    GpuRates("rtx-5090", "RTX 5090", "12.0", "12.0", 1792.0, 32.0, _rates(104.8, 419.0, 838.0, 209.5, 838.0)),
    GpuRates("h200", "H200", "8.9", "9.0", 4800.0, 141.0, _rates(67.0, 989.0, 1979.0, 989.0, 1979.0)),
)


def name_of(gpu: Gpu) -> str:
    """What a GPU of this machine is called: as ``--for`` names it, else as the driver does."""
    title = gpu.name.replace("NVIDIA ", "").replace("GeForce ", "")
    rows = (row for row in GPUS if (row.title, row.compute_capability) == (title, gpu.compute_capability))
    return next((row.name for row in rows), gpu.name)


def gpu_named(name: str, option: str) -> GpuRates:
    """The row of that name.

    Raises:
        UsageError: there is none; the message lists them.
    """
    return row_named(f"GPU with known rates for {option}", name, GPUS)
