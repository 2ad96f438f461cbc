"""From the output back to the input: at each tensor the largest region that ends there and is one convolution."""

from __future__ import annotations

from typing import Dict, List, Optional, Set, Tuple

import numpy as np
import onnx
import torch

from sr_deploy.core.contract import Size
from sr_deploy.core.tolerance import FOLD_ROUNDED_RELATIVE
from sr_deploy.fold.convolution import one_convolution
from sr_deploy.fold.double import one_thread, run_block
from sr_deploy.fold.prove import Candidate
from sr_deploy.fold.result import FoldedBlock, Kept, KeptBlock
from sr_deploy.graph.rewrite.base import Pass, PassResult, RewriteOptions
from sr_deploy.graph.rewrite.convolution import conv_node
from sr_deploy.graph.rewrite.editor import Editor
from sr_deploy.graph.rewrite.fold.region import Region, RegionModule, region_between
from sr_deploy.graph.rewrite.fold.structure import Shape, Structure, measured_shapes
from sr_deploy.graph.rewrite.fold.sums import partial_sums

#: Height and width of the input that a region is first run on.
_FIRST_SIZE = (24, 29)
_SUBGRAPH = onnx.AttributeProto.GRAPH
#: ONNX's names for what nn.Conv2d fills the border with; the others exist only in operator sets from 19 on.
_PAD_MODES = {"reflect": "reflect", "replicate": "edge"}


def apply(model: onnx.ModelProto, options: RewriteOptions) -> PassResult:
    """Fold until nothing more folds. A graph with graphs inside its nodes, which may read any tensor, stays."""
    if any(attribute.type == _SUBGRAPH for node in model.graph.node for attribute in node.attribute):
        return PassResult(model, 0)
    shapes = measured_shapes(model, options.size or options.traced)
    if not shapes:
        return PassResult(model, 0)
    editor = Editor(model)
    editor.drop_unread()
    walk = _Walk(editor, shapes)
    with one_thread():
        while walk.step(Structure(editor, shapes)):
            editor.drop_unread()
    kept = tuple(walk.kept)
    if not walk.folded:
        return PassResult(model, 0, kept=kept)
    return PassResult(editor.finish(), len(walk.folded), folded=tuple(walk.folded), kept=kept)


class _Walk:
    """The fold under way.

    Attributes:
        folded, kept: see PassResult.
    """

    def __init__(self, editor: Editor, shapes: Dict[str, Tuple[Shape, ...]]) -> None:
        self._editor, self._shapes = editor, shapes
        self.folded: List[FoldedBlock] = []
        self.kept: List[KeptBlock] = []
        self._tried: Set[str] = set()
        self._named: Set[str] = set()

    def step(self, structure: Structure) -> bool:
        """Fold the next region; False when there is none left."""
        for node in reversed(self._editor.nodes):
            for exit in node.output:
                if exit in self._tried or structure.channels(exit) is None:
                    continue
                self._tried.add(exit)
                if self._fold_whole(structure, exit) or self._fold_part(structure, exit):
                    return True
        return False

    def _fold_whole(self, structure: Structure, exit: str) -> bool:
        """Fold the largest region that ends at ``exit``."""
        stays: Optional[Tuple[Region, Kept]] = None
        for entry in structure.dominators(exit):
            region = None
            if structure.channels(entry) is not None:
                region = region_between(self._editor, structure, (entry, exit))
            if region is None or not self._worth_a_look(region, structure):
                continue
            try:
                new = self._nodes_for(region, structure)
            except Kept as reason:
                stays = (region, reason)
                continue
            self._editor.replace(region.ways, new)
            return True
        if stays is not None:
            self._note(*stays, structure)
        return False

    def _fold_part(self, structure: Structure, exit: str) -> bool:
        """Fold some summands of a sum of more than one source."""
        for part in partial_sums(self._editor, structure, exit):
            if not self._worth_a_look(part.region, structure):
                continue
            try:
                new = self._nodes_for(part.region, structure)
            except Kept as reason:
                self._note(part.region, reason, structure)
                continue
            in_graph = [node for node in part.region.ways if any(node is other for other in self._editor.nodes)]
            self._editor.replace([*part.sums, *in_graph], [*new, *part.rest])
            self._shapes.update((name, self._shapes[exit]) for one in (*new, *part.rest) for name in one.output)
            self._tried.discard(exit)  # other summands may have a source of their own
            return True
        return False

    def _nodes_for(self, region: Region, structure: Structure) -> List[onnx.NodeProto]:
        """The convolution that a region is, with a node before it where its border is not zeros. Raises Kept."""
        last = region.ways[-1]
        try:
            convolution, entry = self._convolution(region, structure, _FIRST_SIZE)
        except Kept:
            sizes = structure.sizes(region.entry)
            if region.free or len(sizes) > 1:
                raise
            # Tracing wrote the size of the picture into the graph: it is what it is at that size.
            convolution, entry = self._convolution(region, structure, sizes[0], fixed=True)
        new = self._as_nodes(convolution, region, last)
        self.folded.append(entry)
        return new

    def _convolution(
        self, region: Region, structure: Structure, size: Size, fixed: bool = False
    ) -> Tuple[torch.nn.Conv2d, FoldedBlock]:
        """The convolution that a region is and its report, see ``one_convolution``. Raises Kept.

        That it is affine needs no test: each of its operators is, see structure.py, and the proof would find it.
        """
        shape = (1, structure.channels(region.entry) or 0, *size)
        dtypes = (torch.float32, torch.float64)
        block32, block64 = (RegionModule(region, self._editor.constants, dtype) for dtype in dtypes)
        out = run_block(block32, torch.rand(shape, generator=torch.Generator().manual_seed(26)))
        candidate = Candidate(block32, block64, shape, tuple(out.shape), fixed, FOLD_ROUNDED_RELATIVE)
        return one_convolution(region.ways[-1].name or region.exit, region.description(), candidate)

    def _as_nodes(self, convolution: torch.nn.Conv2d, region: Region, like: onnx.NodeProto) -> List[onnx.NodeProto]:
        rows, columns = (int(value) for value in convolution.padding)
        source, pads, new = region.entry, (rows, columns, rows, columns), []
        if convolution.padding_mode != "zeros":
            mode = _PAD_MODES.get(convolution.padding_mode)
            if mode is None:
                raise Kept(f"one convolution with a {convolution.padding_mode} border, which ONNX does not have")
            every = np.array([0, 0, rows, columns] * 2, np.int64)
            amounts = self._editor.add_constant(f"{region.exit}/pads", every)
            new.append(self._editor.make("Pad", [source, amounts], f"{region.exit}/padded", like, "pad", mode=mode))
            source, pads = f"{region.exit}/padded", (0, 0, 0, 0)
        assert convolution.bias is not None
        new.append(
            conv_node(
                self._editor,
                source,
                convolution.weight.detach().numpy(),
                convolution.bias.detach().numpy(),
                region.exit,
                like,
                groups=convolution.groups,
                pads=pads,
                dilations=tuple(int(value) for value in convolution.dilation),
            )
        )
        return new

    def _note(self, region: Region, reason: Kept, structure: Structure) -> None:
        """Keep in mind why branches stay; once for branches that lie in others."""
        if region.branches(structure.follows) and region.layers > 1 and region.exit not in self._named:
            last = region.ways[-1]
            self.kept.append(KeptBlock(last.name or region.exit, region.description(), str(reason)))
            self._named.update(name for node in region.ways for name in node.output)

    def _worth_a_look(self, region: Region, structure: Structure) -> bool:
        """Whether there is something to gain: several layers, one beside another way, a size that is no more needed."""
        if not any(node.op_type in ("Conv", "ConvTranspose", "MatMul") for node in region.ways):
            return False
        if region.branches(structure.follows) or not region.free:
            return True
        return region.layers > 1 and not region.costs_more(self._editor.constants)


PASS = Pass("fold", "what is affine between two tensors as one convolution: branches, BatchNorm, chains", apply)
