"""The least time a board could take: arithmetic and memory traffic against its published rates. Always an estimate.

Figures of the Xavier NX: GPU and memory clocks of each power mode from NVIDIA's nvpmodel file for module p3668; 48
tensor cores of 64 float16 multiply-adds per clock (int8 twice that) and 384 CUDA cores of one float32 multiply-add;
memory 128 bits wide, two transfers per clock. At 1109.25 MHz: 6.81 TFLOPS, 13.6 TOPS and 0.852 TFLOPS.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Dict, Tuple

from sr_deploy.core.host.gpu_rates import GpuRates
from sr_deploy.core.number_formats import FORMAT_BITS
from sr_deploy.graph.census import Census


@dataclass(frozen=True)
class PowerMode:
    """One setting of a board.

    Attributes:
        name: as nvpmodel calls it; modes that differ only in CPU cores share an entry.
        gpu_mhz, memory_mhz: clocks.
    """

    name: str
    gpu_mhz: float
    memory_mhz: float


@dataclass(frozen=True)
class Board:
    """A GPU's rates.

    Attributes:
        name: such as "xavier-nx".
        macs_per_clock: element type → multiply-accumulates of the whole GPU in one clock.
        memory_bits: width of the memory bus.
        modes: its power modes.
    """

    name: str
    macs_per_clock: Dict[str, int]
    memory_bits: int
    modes: Tuple[PowerMode, ...]


XAVIER_NX = Board(
    name="xavier-nx",
    macs_per_clock={"float32": 384, "float16": 48 * 64, "int8": 48 * 128},
    memory_bits=128,
    modes=(
        PowerMode("20W (modes 6-8)", 1109.25, 1866),
        PowerMode("15W (modes 0-2)", 1109.25, 1600),
        PowerMode("10W (modes 3-4)", 803.25, 1600),
        PowerMode("10W_DESKTOP (mode 5, as delivered)", 510.0, 1600),
    ),
)


@dataclass(frozen=True)
class Bound:
    """The least time for one input.

    Attributes:
        milliseconds: of the slower of the two.
        limited_by: "arithmetic" or "memory".
    """

    milliseconds: float
    limited_by: str


def bound(board: Board, mode: PowerMode, dtype: str, macs: int, moved_bytes: float) -> Bound:
    """The least time for ``macs`` multiply-accumulates in ``dtype`` and ``moved_bytes`` to and from memory.

    Either takes its own time at full rate and the other hides behind it.
    """
    arithmetic = macs / (board.macs_per_clock[dtype] * mode.gpu_mhz * 1e6)
    memory = moved_bytes / (board.memory_bits / 8 * 2 * mode.memory_mhz * 1e6)
    return Bound(1e3 * max(arithmetic, memory), "arithmetic" if arithmetic >= memory else "memory")


def least_bytes(census: Census, scale: int, dtype: str) -> int:
    """Weights, input and output once each, all in ``dtype``; what no execution can avoid moving."""
    height, width = census.size
    return FORMAT_BITS[dtype] * (census.parameters + 3 * height * width * (1 + scale**2)) // 8


def least_bound(census: Census, gpu: GpuRates, scale: int, dtype: str, least_macs: int) -> Bound:
    """The least time of a network on a GPU: what no execution can avoid moving and computing.

    Args:
        census: of the float32 graph, for the size it was counted at.
        gpu: where.
        scale: output size over input size.
        dtype: of everything.
        least_macs: the fewest multiply-accumulates known to compute it; the graph's own may be more.
    """
    arithmetic = least_macs / (gpu.tera_macs[dtype] * 1e12)
    memory = least_bytes(census, scale, dtype) / (gpu.bandwidth * 1e9)
    return Bound(1e3 * max(arithmetic, memory), "arithmetic" if arithmetic >= memory else "memory")
