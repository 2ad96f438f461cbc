"""What a rewriting pass is: a function from a graph to an equal, cheaper graph."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Callable, Optional, Tuple

import onnx

from sr_deploy.core.contract import Size
from sr_deploy.fold.result import FoldedBlock, KeptBlock


@dataclass(frozen=True)
class RewriteOptions:
    """What a pass may need to know beyond the graph.

    Attributes:
        size: the input (height, width) that the graph is fixed to; None when it is dynamic.
        traced: a size that the graph is known to take, for one that may not take others as it stands.
        memory_budget: bytes of activations that the graph should stay below; None: no limit. For streaming.
        strips: the strip count to use whatever the budget says; None: choose from the budget. For streaming.
        share: of ``strips``, what parts other than the widest get for the memory they work on. For streaming.
        value_range: the value of white at the graph's float input and output, 1 or 255. For 8-bit input and output.
    """

    size: Optional[Size] = None
    traced: Optional[Size] = None
    memory_budget: Optional[int] = None
    strips: Optional[int] = None
    share: float = 0.5
    value_range: float = 1.0


@dataclass(frozen=True)
class PassResult:
    """What a pass gives back.

    Attributes:
        model: the graph after it; the one it was given, untouched, when ``changed`` is 0.
        changed: how many places it rewrote.
        notes: what a user should know, such as why a place was left alone.
        folded, kept: of the pass that folds: what became one convolution, and where branches stay and why.
    """

    model: onnx.ModelProto
    changed: int
    notes: Tuple[str, ...] = ()
    folded: Tuple[FoldedBlock, ...] = ()
    kept: Tuple[KeptBlock, ...] = ()


@dataclass(frozen=True)
class Pass:
    """One equality-preserving rewrite.

    Attributes:
        name: as written in ``--rewrite``.
        about: one line for people.
        apply: the rewrite. It checks its own precondition at every place it looks at and leaves alone what does not
            meet it; it must not modify the model it is given. Names of nodes, and the mark in the doc_string of pinned
            ones (see ``keep_pin`` in nodes.py), must survive.
        default: whether ``--rewrite default`` runs it.
    """

    name: str
    about: str
    apply: Callable[[onnx.ModelProto, RewriteOptions], PassResult]
    default: bool = True
