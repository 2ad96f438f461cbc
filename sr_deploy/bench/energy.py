"""Power while a network is timed, and energy a picture, from the sensors of a point. Pure."""

from __future__ import annotations

from typing import Optional, Tuple

from sr_deploy.bench.result import Point

#: Rails that are asked, the whole board's before a part's: a discrete GPU by NVML or nvidia-smi; Xavier and Orin, AGX
#: Orin and Thor by their INA3221 or tegrastats (the names of NVIDIA's Jetson Linux Developer Guide).
RAILS = ("gpu_w", "VDD_IN_w", "VIN_SYS_5V0_w", "VIN_w", "VDD_GPU_SOC_w", "VDD_CPU_GPU_CV_w", "VDD_GPU_w")


def mean_power(point: Point) -> Optional[Tuple[str, float]]:
    """(rail, its mean in watts while the samples were taken); None where no rail was read meanwhile."""
    readings = point.sensors.get("during") or ()
    for rail in RAILS:
        watts = [float(reading[rail]) for reading in readings if isinstance(reading.get(rail), (int, float))]
        if watts:
            return rail, sum(watts) / len(watts)
    return None


def joules(point: Point) -> Optional[float]:
    """Energy of one picture: mean power times the median latency, as one picture follows the other; None without
    sensors."""
    power = mean_power(point)
    return None if power is None or not point.median_s else power[1] * point.median_s
