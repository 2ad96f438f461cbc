"""What no device can exceed: published arithmetic rates, for telling what is impossible. Upper bounds, never estimates.

NVIDIA's datasheets, dense rates, halved for multiply-accumulates: Xavier NX at 1109.25 MHz (384 CUDA cores, 48 tensor
cores of 64 FP16 or 128 INT8); H200 SXM (TF32 for FP32, as builders may use it); for a GPU that is not listed somewhat
more than those of B200, the fastest single one. A CPU core does at most two 512-bit FMA of float32 a clock, and with
AMX 512 multiply-accumulates of 16 bits and 1024 of 8 bits (Intel 64 and IA-32 Architectures Optimization Reference
Manual); none was sold with more than 6.2 GHz.
"""

from __future__ import annotations

from typing import Any, Dict, Mapping, Tuple

from sr_deploy.bench.result import Point

#: A convolution of 3x3 needs a fourth of its multiplications by Winograd's F(4x4, 3x3): A. Lavin and S. Gray, "Fast
#: Algorithms for Convolutional Neural Networks", CVPR 2016.
WINOGRAD = 4.0
#: Hz of the fastest clock that a CPU was sold with.
CPU_HZ = 6.2e9

#: Precision → multiply-accumulates of one CPU core in a clock. A mix may hold the narrowest.
CPU_MACS: Dict[str, float] = {"fp32": 32.0, "fp16": 512.0, "int8": 1024.0}
#: Words of a GPU's name → multiply-accumulates a second by precision; the first that fits, the last for all others.
GPU_MACS: Tuple[Tuple[str, Dict[str, float]], ...] = (
    ("Xavier NX", {"fp32": 0.426e12, "fp16": 3.41e12, "int8": 6.82e12}),
    ("H200", {"fp32": 0.248e15, "fp16": 0.495e15, "int8": 0.990e15}),
    ("", {"fp32": 0.6e15, "fp16": 1.25e15, "int8": 2.5e15}),
)


def least_seconds(point: Point, macs_per_pixel: float, environment: Mapping[str, Any]) -> float:
    """The time below which a point cannot be, whatever the software.

    Args:
        point: names its device and its precision.
        macs_per_pixel: of the network, for each pixel of the input.
        environment: of the result; of a CPU, ``cores``.
    """
    rates: Mapping[str, float]
    if point.description.get("provider") == "CPUExecutionProvider":
        cores = int(environment.get("cores") or 1)
        rates = {name: each * cores * CPU_HZ for name, each in CPU_MACS.items()}
    else:
        rates = next(rates for words, rates in GPU_MACS if words in point.device)
    rate = rates.get(str(point.description.get("precision")), max(rates.values()))
    return macs_per_pixel * point.input_pixels / WINOGRAD / rate
