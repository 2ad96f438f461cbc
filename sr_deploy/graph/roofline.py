"""The least time a board could take: arithmetic and memory traffic against its published rates. Always an estimate.

Figures of the Xavier NX: GPU and memory clocks of each power mode from NVIDIA's nvpmodel file for module p3668; 48
tensor cores of 64 float16 multiply-adds per clock (int8 twice that) and 384 CUDA cores of one float32 multiply-add;
memory 128 bits wide, two transfers per clock. At 1109.25 MHz: 6.81 TFLOPS, 13.6 TOPS and 0.852 TFLOPS.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Dict, Tuple

from sr_deploy.core.errors import UsageError
from sr_deploy.core.number_formats import FLOAT32, FORMAT_BITS, FORMATS
from sr_deploy.graph.census import Census

#: What every table and JSON with these numbers must say.
ESTIMATE = "estimate: a lower bound from published clocks and widths, not a measurement"


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
        name: as written after ``--roofline``.
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
BOARDS: Tuple[Board, ...] = (XAVIER_NX,)


@dataclass(frozen=True)
class Bound:
    """The least time for one input.

    Attributes:
        milliseconds: of the slower of the two.
        limited_by: "arithmetic" or "memory".
    """

    milliseconds: float
    limited_by: str


def board_named(name: str) -> Board:
    """The board of that name.

    Raises:
        UsageError: there is none; the message lists them.
    """
    for board in BOARDS:
        if board.name == name:
            return board
    raise UsageError(f"--roofline {name}: no such board", ", ".join(board.name for board in BOARDS))


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


def roofline_facts(census: Census, board: Board, scale: int, least_macs: int) -> Dict[str, Any]:
    """What a graph could at best do on a board, for the size it was counted at.

    Args:
        census: of the float32 graph.
        board: where.
        scale: output size over input size.
        least_macs: the fewest known to compute the same; the graph's own may be more.

    Returns:
        JSON-able. For each type: the least bytes, how many times as many the graph moves when every node runs by
        itself, and for each power mode the bounds in milliseconds of the least and of the graph's own figures.
    """
    facts: Dict[str, Any] = {
        "kind": ESTIMATE,
        "least_macs": least_macs,
        "graph_macs": census.macs,
        "graph_macs_over_least": round(census.macs / least_macs, 3) if least_macs else None,
    }
    for dtype in (one.name for one in reversed(FORMATS) if one.name in board.macs_per_clock):
        least = least_bytes(census, scale, dtype)
        own = census.moved_bytes * FORMAT_BITS[dtype] // FLOAT32.bits
        modes = {}
        for mode in board.modes:
            best, unfused = bound(board, mode, dtype, least_macs, least), bound(board, mode, dtype, census.macs, own)
            modes[mode.name] = (
                f"at least {best.milliseconds:.2f} ms ({best.limited_by}); every node by itself at least "
                f"{unfused.milliseconds:.2f} ms ({unfused.limited_by}); estimates"
            )
        over = round(own / least, 1)
        facts[dtype] = {"least_bytes": least, "graph_bytes": own, "graph_bytes_over_least": over, **modes}
    return facts
