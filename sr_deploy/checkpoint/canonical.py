"""From whatever a training script saved to one flat state dict: find it, walk modules, strip prefixes, float32."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Dict, Iterator, List, Mapping, Optional, Tuple

import torch

from sr_deploy.checkpoint.budget import KEY_LETTERS, SEARCH_STEPS, TENSORS, WRAPPERS, Budget, check_limit
from sr_deploy.checkpoint.described import Malformed, StandIn, printable
from sr_deploy.checkpoint.modules import is_module, is_tensor, module_tensors
from sr_deploy.checkpoint.tensors import Leaf, elements_of
from sr_deploy.core.errors import BadCheckpoint, UsageError

#: The names that training scripts save a network under, the one to prefer first: averaged weights before the last
#: ones, as their authors measure with the averaged ones; the generator of a pair before anything of unclear meaning.
NESTED_UNDER = (
    "params_ema", "params", "model_ema", "ema", "state_dict_ema", "state_dict", "model_state_dict", "model", "deploy",
    "generator", "generator_state_dict", "netG", "net_g", "net_G", "G", "gen", "network", "net", "weights", "module",
)  # fmt: skip
#: Prefixes that wrappers put before every key: parallel training, compilation, trainer classes.
PREFIXES = ("module.", "_orig_mod.", "network.", "model.", "generator.", "net_g.", "netG.", "net.")
#: Of these, the ones that never name a network's own part.
_WRAPPERS = ("module.", "_orig_mod.")

#: Entries of one element that tools keep beside the weights, by the last part of their names, and whose they are.
BOOKKEEPING = {
    "n_averaged": "PyTorch's AveragedModel",
    "total_ops": "a counter of operations (thop)",
    "total_params": "a counter of operations (thop)",
}

_WANTED = "tensors by name: a state dict, alone or under " + ", ".join(NESTED_UNDER[:6]) + ", …"
_MAX_DEPTH = 3
#: A script that saves a list saves the network, its optimiser and a few numbers.
_MAX_LIST = 16
_WHOLE_MODULE = "whole module"


@dataclass(frozen=True)
class Found:
    """A state dict inside a checkpoint.

    Attributes:
        under: where: names joined with dots, "" for the top level, "whole module" for a module at the top level.
        tensors: its entries that are tensors, in the order of the file.
        ignored: its other entries.
        is_module: True when it comes from a pickled module.
    """

    under: str
    tensors: Dict[str, Leaf]
    ignored: Tuple[str, ...] = ()
    is_module: bool = False


def state_dict_in(root: Any, under: Optional[str], file: str) -> Tuple[Found, Tuple[str, ...]]:
    """Find the network's state dict in what a checkpoint holds.

    Args:
        root: the tree of ``archive.Opened``.
        under: the place to take, as ``Found.under`` writes it; None for the first by ``NESTED_UNDER``.
        file: the checkpoint, named in errors.

    A list (torch.save of an optimiser's state and a network's) is searched by number, 0 first.

    Returns:
        The state dict, and notes on what else the file holds.

    Raises:
        BadCheckpoint: no tensors, or several sets of them under names that say nothing.
        OverBudget: more entries, more modules or longer names than any network has.
        Malformed: names that cannot be shown, or modules that contain each other.
        UsageError: nothing under ``under``.
    """
    if isinstance(root, (list, tuple)) and len(root) <= _MAX_LIST:
        root = {str(number): entry for number, entry in enumerate(root)}
    search = _Search()
    candidates = list(search.candidates(root, ""))
    if under is not None:
        candidates = [*candidates, *search.others(root, candidates)]
        chosen = next((found for found in candidates if found.under == under), None)
        if chosen is None:
            raise UsageError(
                f"{file} has no tensors under {under!r}",
                _listed([found.under or "(top level)" for found in candidates]) or _WANTED,
                "name one of these with --key, or leave it out",
            )
        return _checked(chosen), _notes(root, chosen, [])
    if not candidates:
        candidates = list(search.others(root, []))
        if len(candidates) > 1:
            raise BadCheckpoint(
                f"{file} has tensors under {_listed([found.under for found in candidates])}, none of which is a name "
                "that says which one is the network",
                "one state dict, or one under " + ", ".join(NESTED_UNDER[:6]) + ", …",
                "say which one is meant with --key",
            )
    if not candidates:
        raise BadCheckpoint(
            f"{file} has no tensors: it is {_described(root)}",
            _WANTED,
            "check that it is the checkpoint and not a log, an optimiser state or a configuration",
        )
    return _checked(candidates[0]), _notes(root, candidates[0], [found.under for found in candidates[1:]])


class _Search:
    """The search for state dicts in one tree. The tree may have loops, and one part of it under many names."""

    def __init__(self) -> None:
        self.budget = Budget("to find its tensors", SEARCH_STEPS)
        self.known: Dict[int, Tuple[Dict[str, Leaf], Tuple[str, ...]]] = {}

    def candidates(self, value: Any, path: str, inside: Tuple[int, ...] = ()) -> Iterator[Found]:
        """State dicts under known names, the preferred first, then the value itself; no optimiser states.

        Args:
            value: where to look.
            path: what ``Found.under`` is to say of it.
            inside: the mappings that it lies in, by ``id``.
        """
        self.budget.spend()
        mapping = _as_mapping(value)
        if mapping is None:
            if isinstance(value, StandIn) and is_module(value):
                tensors = dict(module_tensors(value, self.budget))
                if tensors:
                    yield Found(path or _WHOLE_MODULE, tensors, is_module=True)
            return
        if id(mapping) in inside:
            return
        if len(inside) < _MAX_DEPTH:
            self.budget.spend(len(NESTED_UNDER))
            for name in NESTED_UNDER:
                if name in mapping and not _is_optimiser(mapping[name]):
                    below = f"{path}.{name}" if path else name
                    yield from self.candidates(mapping[name], below, (*inside, id(mapping)))
        own, ignored = self.entries(mapping)
        if own:
            yield Found(path, own, ignored)

    def others(self, root: Any, known: List[Found]) -> Iterator[Found]:
        """State dicts directly under names of the top level that are not in ``NESTED_UNDER``."""
        taken = {found.under for found in known}
        mapping = _as_mapping(root) or {}
        self.budget.spend(len(mapping))
        for name, value in mapping.items():
            if isinstance(name, str) and not is_tensor(value) and not _is_optimiser(value):
                found_here = self.candidates(value, name, (id(mapping),))
                yield from (found for found in found_here if found.under not in taken)

    def entries(self, mapping: Mapping[Any, Any]) -> Tuple[Dict[str, Leaf], Tuple[str, ...]]:
        """(entries that are tensors, names of the others), looked through once."""
        if id(mapping) not in self.known:
            self.budget.spend(len(mapping))
            own = {key: leaf for key, leaf in mapping.items() if isinstance(key, str) and is_tensor(leaf)}
            self.known[id(mapping)] = own, tuple(str(key) for key in mapping if key not in own)
        return self.known[id(mapping)]


def _checked(found: Found) -> Found:
    """The state dict, once no name in it and not their number would be a burden to whoever goes through them."""
    check_limit(len(found.tensors), TENSORS, "tensors under one name")
    for key in (found.under, *found.tensors):
        _check_name(key)
    return found


def _check_name(key: str) -> None:
    check_limit(len(key), KEY_LETTERS, "letters in the name of a tensor")
    if not key.isprintable():
        raise Malformed(f"the name {printable(key)} has characters that cannot be shown")


def _as_mapping(value: Any) -> Optional[Mapping[Any, Any]]:
    """The value as a mapping: a dict, or the items of a stand-in for some kind of dict."""
    if isinstance(value, dict):
        return value
    if isinstance(value, StandIn) and value.items:
        return value.items
    return None


def _is_optimiser(value: Any) -> bool:
    mapping = _as_mapping(value)
    return mapping is not None and "state" in mapping and "param_groups" in mapping


def _notes(root: Any, chosen: Found, passed_over: List[str]) -> Tuple[str, ...]:
    """What else the file holds: other state dicts, other entries."""
    notes = []
    if passed_over:
        others = _listed([path or "(top level)" for path in passed_over])
        notes.append(f"took the tensors under {chosen.under}; there are others under {others}")
    if chosen.under not in ("", _WHOLE_MODULE):
        known = {chosen.under.split(".")[0], *passed_over}
        beside = [str(key) for key in _as_mapping(root) or () if str(key) not in known]
        if beside:
            notes.append(f"not read: {_listed(beside)}")
    if chosen.ignored:
        notes.append(f"entries that are no tensors were ignored: {_listed(list(chosen.ignored))}")
    return tuple(notes)


def without_bookkeeping(tensors: Mapping[str, Leaf]) -> Tuple[Dict[str, Leaf], Tuple[str, ...]]:
    """The tensors without what ``BOOKKEEPING`` names, and a note on what was left out."""
    left = [key for key, leaf in tensors.items() if key.rpartition(".")[2] in BOOKKEEPING and elements_of(leaf) == 1]
    if not left:
        return dict(tensors), ()
    owners = ", ".join(dict.fromkeys(BOOKKEEPING[key.rpartition(".")[2]] for key in left))
    kept = {key: leaf for key, leaf in tensors.items() if key not in set(left)}
    return kept, (f"left out, as bookkeeping of {owners}: {_listed(left)}",)


def strip_prefixes(tensors: Mapping[str, Leaf]) -> Tuple[Dict[str, Leaf], str]:
    """Take away the prefixes of ``PREFIXES`` that every key has, again and again.

    "model." and the like stay where a number would come first without them: there they name a ``Sequential`` of the
    network itself, not a wrapper around it.

    Returns:
        The entries with their new keys, and all that was taken away, for example "module.model.".

    Raises:
        OverBudget: more wrappers than anyone puts around a network.
    """
    stripped, wrappers = "", 0
    out = dict(tensors)
    while out:
        prefix = next((p for p in PREFIXES if all(key.startswith(p) and len(key) > len(p) for key in out)), None)
        if prefix is None or (prefix not in _WRAPPERS and any(key[len(prefix)].isdigit() for key in out)):
            break
        out = {key[len(prefix) :]: leaf for key, leaf in out.items()}
        stripped += prefix
        wrappers += 1
        check_limit(wrappers, WRAPPERS, "wrappers around its network, or more")
    return out, stripped


def in_float32(tensors: Mapping[str, torch.Tensor]) -> Tuple[Dict[str, torch.Tensor], Tuple[str, ...]]:
    """Floating tensors as float32; integers, booleans and complex numbers stay as they are.

    Returns:
        The tensors, and a note for each dtype that was converted.
    """
    counts: Dict[torch.dtype, int] = {}
    out = {}
    for key, tensor in tensors.items():
        if tensor.is_floating_point() and tensor.dtype != torch.float32:
            counts[tensor.dtype] = counts.get(tensor.dtype, 0) + 1
            tensor = tensor.to(torch.float32)
        out[key] = tensor
    names = {dtype: str(dtype).replace("torch.", "") for dtype in counts}
    return out, tuple(f"{count} tensors were {names[dtype]} and are float32 now" for dtype, count in counts.items())


def _described(root: Any) -> str:
    """What the tree is, in a few words."""
    mapping = _as_mapping(root)
    if mapping is not None:
        return f"a dictionary with {_listed([str(key) for key in mapping])}" if mapping else "an empty dictionary"
    if isinstance(root, StandIn):
        return f"an object of {printable(root.kind.path)}"
    return f"a {type(root).__name__}"


def _listed(names: List[str], limit: int = 6) -> str:
    """A few names and how many more there are."""
    more = f" and {len(names) - limit} more" if len(names) > limit else ""
    return ", ".join(printable(name) for name in names[:limit]) + more
