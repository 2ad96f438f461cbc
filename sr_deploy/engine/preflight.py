"""Is there memory for the engine, and how much may the builder take? Asked before a build that may last an hour.

A Jetson's GPU uses the processor's memory: what MemAvailable says is what CUDA can get, and a build that passes it is
killed by the system without a word. On a card of its own the memory is the card's, and TensorRT reports its lack.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Callable, Iterable, List, Optional, TypeVar

from sr_deploy.core.contract import Size, format_size
from sr_deploy.core.errors import BadInput, EnvironmentFault
from sr_deploy.core.host.machine import MIB, Machine
from sr_deploy.engine.manifest import EngineManifest, open_engine
from sr_deploy.engine.tensorrt_faults import OUT_OF_MEMORY

#: The part of what is left beside the engine that the builder's workspace may take on a shared memory; the rest is for
#: its timing runs, which hold a layer's tensors besides, and for the system.
WORKSPACE_SHARE = 0.5
#: A workspace below this is not worth a try: TensorRT's fast convolutions want tens of MiB.
LEAST_WORKSPACE = 32 * MIB

Built = TypeVar("Built")


@dataclass(frozen=True)
class Need:
    """Bytes that an engine will hold while it runs: ``source`` says where the figure of the activations is from."""

    activations: int
    weights: int
    tensors: int
    source: str

    @property
    def total(self) -> int:
        """All of it."""
        return self.activations + self.weights + self.tensors


def need_of(
    size: Size,
    scale: int,
    parameters: int,
    counted: int,
    engines: Iterable[EngineManifest],
    graph_sha256: str,
    precision: str = "fp32",
) -> Need:
    """What an engine for an input of ``size`` (height, width) will hold.

    Args:
        size: the largest input.
        scale: output size over input size.
        parameters: of the network; 4 bytes each at most.
        counted: peak of activations in float32 by the census of the graph, in bytes.
        engines: manifests at hand; a builder's figure for the same graph, size and precision is taken before the
            census.
        graph_sha256: of the graph that will be built.
        precision: of the engine; of the census half is taken for anything but "fp32", because FP16 has half the bytes.
    """
    told = [
        manifest.activation_bytes
        for manifest in engines
        if manifest.activation_bytes and manifest.graph_sha256 == graph_sha256 and manifest.profile
        and manifest.profile[2] == tuple(size) and manifest.precision == precision
    ]  # fmt: skip
    tensors = 3 * 4 * size[0] * size[1] * (1 + scale * scale)
    if told:
        return Need(max(told), 4 * parameters, tensors, "a builder's figure for this graph and size")
    return Need(counted if precision == "fp32" else counted // 2, 4 * parameters, tensors, "the census of the graph")


def manifests_in(folder: Path) -> List[EngineManifest]:
    """The engine manifests of a folder; what cannot be read is left out, for the figures are only advice."""
    found = []
    for path in sorted(folder.glob("*.engine")):
        try:
            found.append(open_engine(path))
        except BadInput:
            continue
    return found


def shares_memory(machine: Machine) -> bool:
    """Whether the first GPU uses the processor's memory, as a Jetson's does."""
    return bool(machine.gpus) and (machine.jetson is not None or machine.gpus[0].integrated is True)


def check_room(need: Need, size: Size, machine: Machine) -> None:
    """Refuse a build whose engine could not run here.

    Raises:
        EnvironmentFault: naming what is needed, where the figure is from, and what there is.
    """
    if not machine.gpus:
        return
    shared = shares_memory(machine)
    free = machine.memory_available_bytes if shared else machine.gpus[0].memory_bytes
    if free is not None and need.total > free:
        have = "free, and the GPU shares them with the processor" if shared else f"on {machine.gpus[0].name}"
        raise EnvironmentFault(
            f"an engine for {format_size(size)} needs {_mb(need.total)}: {_mb(need.activations)} for activations "
            f"(by {need.source}), {_mb(need.weights)} for weights, {_mb(need.tensors)} for the pictures; "
            f"{_mb(free)} are {have}",
            "memory for the engine",
            "a smaller --size, --memory-budget where the bundle is made, or close the desktop: sudo init 3",
        )


def workspace_for(need: Need, asked: Optional[int], machine: Machine) -> Optional[int]:
    """The builder's workspace in bytes: what is asked for, else on a shared memory a part of what the engine leaves.

    None leaves it to TensorRT, whose default is all of the GPU's memory: right for a card, wrong for a board.
    """
    if asked is not None or not shares_memory(machine) or machine.memory_available_bytes is None:
        return asked
    return max(LEAST_WORKSPACE, int(WORKSPACE_SHARE * (machine.memory_available_bytes - need.total)) // MIB * MIB)


def with_less_on_failure(
    build: Callable[[Optional[int]], Built], workspace: Optional[int], say: Callable[[str], None]
) -> Built:
    """Build; when memory runs out and the workspace has a limit, try again with half of it.

    Args:
        build: takes the workspace in bytes.
        workspace: the first one; None: one try.
        say: told of each further try.

    Raises:
        EnvironmentFault: memory runs out with the least workspace too. Whatever ``build`` raises else.
    """
    while True:
        try:
            return build(workspace)
        except EnvironmentFault as fault:
            smaller = 0 if workspace is None else workspace // 2
            if workspace is None or smaller < LEAST_WORKSPACE or not OUT_OF_MEMORY.search(fault.found):
                raise
            say(f"out of memory with a workspace of {_mb(workspace)}; once more with {_mb(smaller)}")
            workspace = smaller


def _mb(count: int) -> str:
    return f"{count / 1e6:.0f} MB"
