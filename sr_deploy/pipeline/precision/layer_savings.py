"""What INT8 instead of float16 saves at each layer: measured where two engines were timed, else a board's roofline."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Dict, Mapping, Optional, Tuple

from sr_deploy.bench.trtexec import read_profile
from sr_deploy.core.errors import BadInput
from sr_deploy.core.number_formats import FLOAT16, FLOAT32
from sr_deploy.engine.listing_parse import nodes_of_layer
from sr_deploy.graph.census import Work
from sr_deploy.graph.roofline import XAVIER_NX
from sr_deploy.precision.choose.search import saved_microseconds

#: The roofline that stands in for measured times: of the one board whose rates are known here, in its fastest mode.
BOARD, MODE = XAVIER_NX, XAVIER_NX.modes[0]
#: Of the candidates' multiply-accumulates, the share that both profiles must name.
TOLD = 0.5
#: TensorRT names a reformat after the layer that needs it, and that layer is what it belongs to.
_REFORMAT = re.compile(r"^Reformatting CopyNode for (?:Input|Output) Tensor \d+ to ")


@dataclass(frozen=True)
class Savings:
    """What INT8 saves.

    Attributes:
        microseconds: candidate → time saved; negative where INT8 is slower.
        source: where the figures come from, to go behind "what INT8 would save".
        measured: whether they are times, not an estimate.
    """

    microseconds: Dict[str, float]
    source: str
    measured: bool = False

    def slower(self) -> Dict[str, str]:
        """Candidate → why it should not run in INT8: it was measured to be no faster."""
        if not self.measured:
            return {}
        return {
            name: f"no faster in INT8: {-saved:+.1f} µs {self.source}"
            for name, saved in self.microseconds.items()
            if saved <= 0.0
        }


def savings_of(
    work: Mapping[str, Work], candidates: Mapping[str, int], half: Optional[Path], narrow: Optional[Path]
) -> Savings:
    """Measured savings where both profiles are given, else the roofline's.

    Args:
        work: node → its work, from graph/census.
        candidates: node → multiply-accumulates, of the convolutions that can run in INT8.
        half: trtexec's profile of the float16 engine.
        narrow: the same of the INT8 engine, of the same input size.

    Raises:
        BadInput: a profile cannot be read, or the two name too few of the candidates.
    """
    macs = {name: one.macs for name, one in work.items()}
    estimate = saved_microseconds(macs, {name: one.values_read for name, one in work.items()}, BOARD, MODE)
    if half is None or narrow is None:
        return Savings(estimate, f"on {BOARD.name} in {MODE.name} by its roofline (an estimate)")
    times = tuple(_node_microseconds(path, candidates) for path in (half, narrow))
    told = [name for name in candidates if all(name in found for found in times)]
    if sum(candidates[name] for name in told) < TOLD * sum(candidates.values()):
        raise BadInput(
            f"{half} and {narrow} name only {len(told)} of the {len(candidates)} convolutions between them",
            "profiles of the float16 and the INT8 engine of this deployment, whose layers carry the graph's names",
            "trtexec --loadEngine=… --exportProfile=… of both engines; without the files a roofline is used",
        )
    measured = {name: times[0][name] - times[1][name] for name in told}
    # What fusion has hidden saves what the roofline says, in the proportion that holds for the rest.
    expected = sum(estimate[name] for name in told)
    factor = sum(measured.values()) / expected if expected else 0.0
    rest = {name: max(factor, 0.0) * estimate[name] for name in candidates if name not in measured}
    return Savings({**rest, **measured}, f"by the times in {half.name} and {narrow.name}", True)


def float_savings(work: Mapping[str, Work], types: Mapping[str, str]) -> Dict[str, float]:
    """Node → what a 16-bit float instead of float32 saves there, microseconds by the roofline; 0 where ``types`` has
    float32.

    Args:
        work: as for ``savings_of``.
        types: node → its float; those that ``work`` does not know save nothing.
    """
    narrower = {name: work[name] for name, kind in types.items() if kind != FLOAT32.name and name in work}
    macs, moved = ({name: getattr(one, key) for name, one in narrower.items()} for key in ("macs", "values_read"))
    # The board's rates of float16 stand for both: where a GPU has bfloat16 it runs as fast.
    return saved_microseconds(macs, moved, BOARD, MODE, FLOAT32, FLOAT16)


def _node_microseconds(path: Path, candidates: Mapping[str, int]) -> Dict[str, float]:
    """Candidate → the time of the layers that compute it and of their reformats; layers of several by their work."""
    found: Dict[str, float] = {}
    for layer in read_profile(path)[1]:
        nodes = _candidates_in(layer.name, candidates)
        total = sum(candidates[name] for name in nodes)
        for name in nodes:
            found[name] = found.get(name, 0.0) + layer.mean_s * 1e6 * candidates[name] / max(total, 1)
    return found


def _candidates_in(name: str, candidates: Mapping[str, int]) -> Tuple[str, ...]:
    return tuple(node for node in nodes_of_layer(_REFORMAT.sub("", name), None) if node in candidates)
