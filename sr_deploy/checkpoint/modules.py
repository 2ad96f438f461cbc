"""Pickled networks: the entries that their ``state_dict()`` would have, found without making them."""

from __future__ import annotations

from typing import Any, Iterator, List, Tuple

import torch

from sr_deploy.checkpoint.budget import KEY_LETTERS, MODULE_DEPTH, TENSORS, Budget, check_limit
from sr_deploy.checkpoint.described import Malformed, StandIn, TensorRef
from sr_deploy.checkpoint.tensors import Leaf

#: What every ``torch.nn.Module`` keeps.
_OF_A_MODULE = ("_parameters", "_buffers", "_modules")


def is_tensor(value: Any) -> bool:
    """True for a tensor, or for the description of one."""
    return isinstance(value, (torch.Tensor, TensorRef))


def is_module(value: Any) -> bool:
    """True for a stand-in whose attributes are those of every ``torch.nn.Module``."""
    return (
        isinstance(value, StandIn)
        and isinstance(value.state, dict)
        and all(isinstance(value.state.get(name), dict) for name in _OF_A_MODULE)
    )


def module_tensors(module: StandIn, budget: Budget) -> Iterator[Tuple[str, Leaf]]:
    """The entries that ``state_dict()`` of a pickled module would have, in its order.

    Its parameters, its buffers without the non-persistent ones, then its sub-modules. A hostile file can refer to one
    module from many places, or from itself.
    """
    waiting: List[Tuple[str, StandIn, int]] = [("", module, 0)]
    found = 0
    while waiting:
        prefix, current, depth = waiting.pop()
        state = current.state
        hidden = state.get("_non_persistent_buffers_set")
        hidden = hidden if isinstance(hidden, (list, tuple)) else ()
        budget.spend(1 + len(hidden) + sum(len(state[name]) for name in _OF_A_MODULE))
        if depth > MODULE_DEPTH:
            raise Malformed("the modules of the pickled network contain each other without end")
        not_saved = frozenset(name for name in hidden if isinstance(name, str))
        for name, leaf in {**state["_parameters"], **state["_buffers"]}.items():
            if is_tensor(leaf) and name not in not_saved:
                found += 1
                check_limit(found, TENSORS, "tensors in one module, or more")
                yield _joined(prefix, name), leaf
        children = [
            (_joined(prefix, name) + ".", child, depth + 1)
            for name, child in state["_modules"].items()
            if is_module(child)
        ]
        waiting.extend(reversed(children))


def _joined(prefix: str, name: Any) -> str:
    """A name inside a module."""
    if not isinstance(name, str):
        raise Malformed("a part of the pickled network has a name that is no text")
    check_limit(len(prefix) + len(name), KEY_LETTERS, "letters in the name of a tensor")
    return prefix + name
