"""How far a network looks: what decides whether a picture can be made in parts that fit together without a seam."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Optional, Tuple

from pydantic import Field
from typing_extensions import Annotated

from sr_deploy.core.schema import Amount, Edge, ShortText, described


@described
@dataclass(frozen=True)
class GlobalNode:
    """A node by which an output pixel depends on the whole picture, on its size or on its place in it.

    Attributes:
        node: its name in the graph.
        operator: the kind of node, as ONNX names it.
        why: what it does, in words.
    """

    node: ShortText
    operator: ShortText
    why: ShortText


@described
@dataclass(frozen=True)
class Reach:
    """What of the input an output pixel depends on; found from the graph and proved by probing (graph/reach.py).

    Attributes:
        halo: pixels of the input beyond the one in its place, in every direction, that an output pixel depends on at
            most (the receptive field is 2 · halo + 1). 0 for a network with global nodes, where no number holds.
        multiple: a part of a picture is treated as the whole picture is when it begins at a multiple of this.
        global_nodes: what makes the network global; empty for a local one.
        proved: the largest difference of parts from the whole that was measured, in 8-bit steps; null where the graph
            has one size only and parts could not be run.
    """

    halo: Annotated[int, Field(ge=0, le=10**6)]
    multiple: Edge
    global_nodes: Annotated[Tuple[GlobalNode, ...], Field(max_length=10_000)] = ()
    proved: Optional[Amount] = None

    @property
    def is_local(self) -> bool:
        """Whether a picture made of parts equals the one that is made whole."""
        return not self.global_nodes

    def explained(self) -> str:
        """One line for people: the halo, or what is global."""
        if self.is_local:
            at = f", parts begin at multiples of {self.multiple}" if self.multiple > 1 else ""
            return f"local: an output pixel depends on {self.halo} pixels around its own{at}"
        kinds = sorted({node.why for node in self.global_nodes})
        first = self.global_nodes[0]
        return f"not local: {'; '.join(kinds[:3])} (first at {first.operator} {first.node})"
