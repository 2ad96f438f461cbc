"""A sum of which only a part is one convolution: a summand of another source, or a branch that would cost more.

    before:  x ─┬─ Conv 3×3 ─┐
             y ─┼────────────┴─ Add ─┐
                └─ Conv 1×1 ─────────┴─ Add
    after:   x ─ Conv 3×3 ─┐
             y ────────────┴─ Add

No region between two tensors holds both branches: the sum is written as (branch + y) + branch. Its summands are taken
apart, those of one source are summed first, and that sum is a region. Where those do not fold together, a chain of
layers among them may be to blame (1×1 and a fixed filter for each channel cost less than the 3×3 that they are): those
of one layer or none are tried without the chains.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Iterator, List, Sequence, Tuple

import onnx

from sr_deploy.graph.rewrite.editor import Editor
from sr_deploy.graph.rewrite.fold.region import Region, region_between
from sr_deploy.graph.rewrite.fold.structure import Structure


@dataclass(frozen=True)
class PartialSum:
    """Some summands of a sum.

    Attributes:
        region: from their source to their sum, which the graph does not have yet.
        sums: the nodes of the graph that make the whole sum.
        rest: nodes that add the other summands to that of the region, and make the whole sum.
    """

    region: Region
    sums: Tuple[onnx.NodeProto, ...]
    rest: Tuple[onnx.NodeProto, ...]


#: A summand, and whether it is subtracted.
_Term = Tuple[str, bool]


def partial_sums(editor: Editor, structure: Structure, exit: str) -> Iterator[PartialSum]:
    """The sums of summands of one source in the sum that makes ``exit``; the largest sums and nearest sources first."""
    sums: List[onnx.NodeProto] = []
    terms = _terms(editor, structure, exit, sums)
    if len(terms) < 3:
        return
    for source, group in _groups(editor, structure, terms):
        others = [term for term in terms if term not in group]
        own = _unused(editor, f"{exit}/of_one_source")
        first = _summed(editor, group, own, sums[0], own[len(exit) + 1 :])
        region = region_between(editor, structure, (source, own), first, sums)
        if region is not None:
            rest = _summed(editor, [(own, False), *others], exit, sums[0], "")
            yield PartialSum(region, tuple(sums), tuple(rest))


def _groups(editor: Editor, structure: Structure, terms: Sequence[_Term]) -> List[Tuple[str, List[_Term]]]:
    """Sources and their summands: two or more, fewer than all; the most summands and the nearest source first."""
    above = {name: [*structure.dominators(name), name] for name, _ in terms}
    found: List[Tuple[str, List[_Term]]] = []
    for source in dict.fromkeys(source for chain in above.values() for source in chain):
        if structure.channels(source) is None:
            continue
        group = [term for term in terms if source in above[term[0]]]
        plain = [term for term in group if _is_plain(editor, structure, source, term[0])]
        found += [(source, some) for some in (group, plain) if some not in [other for _, other in found]]
    found = [(source, some) for source, some in found if 1 < len(some) < len(terms)]
    found = [(source, some) for source, some in found if not all(negative for _, negative in some)]
    return sorted(found, key=lambda item: (-len(item[1]), -len(structure.dominators(item[0]))))


def _is_plain(editor: Editor, structure: Structure, source: str, tensor: str) -> bool:
    """Whether a summand is its source, or one layer away from it."""
    if tensor == source:
        return True
    region = region_between(editor, structure, (source, tensor))
    return region is not None and region.layers < 2


def _terms(editor: Editor, structure: Structure, exit: str, sums: List[onnx.NodeProto]) -> List[_Term]:
    """The summands of ``exit``, through sums that nothing else reads; the nodes go to ``sums``, the last one first."""
    node = editor.maker(exit)
    if node is None or node.op_type not in ("Add", "Sub", "Sum") or not structure.follows.issuperset(node.input):
        return [(exit, False)]
    if sums and (editor.only_reader(exit) is None or structure.channels(exit) != structure.channels(sums[0].output[0])):
        return [(exit, False)]
    sums.append(node)
    found: List[_Term] = []
    for position, name in enumerate(node.input):
        turned = node.op_type == "Sub" and position == 1
        found += [(term, negative != turned) for term, negative in _terms(editor, structure, name, sums)]
    return found


def _unused(editor: Editor, name: str) -> str:
    """``name``, or with a number behind it where the graph has such a tensor already."""
    number, free = 1, name
    while editor.maker(free) is not None:
        number, free = number + 1, f"{name}_{number + 1}"
    return free


def _summed(
    editor: Editor, terms: Sequence[_Term], result: str, like: onnx.NodeProto, role: str
) -> List[onnx.NodeProto]:
    """Nodes that sum ``terms``, of which one at least is not subtracted, one after the other."""
    (total, _), *others = sorted(terms, key=lambda term: term[1])
    made: List[onnx.NodeProto] = []
    for number, (name, negative) in enumerate(others):
        last = number == len(others) - 1
        out = result if last else f"{result}/{number}"
        own_role = role if last else f"{role}sum{number}"
        made.append(editor.make("Sub" if negative else "Add", [total, name], out, like, own_role))
        total = out
    return made
