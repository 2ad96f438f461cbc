"""checkpoint or ONNX file → network → folded network → ONNX graph → deployment, each step proved."""

from __future__ import annotations

import dataclasses
import platform
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Callable, Dict, List, Optional, Sequence, Tuple

from sr_deploy import __version__
from sr_deploy.core.artifact import atomic_folder, sha256_of
from sr_deploy.core.contract import IO_FORMS, IOContract, IOForm, Size, SizeRules, format_size
from sr_deploy.core.deployment.manifest import Deployment, GraphFile, Manifest, open_deployment, save_manifest
from sr_deploy.core.deployment.records import FoldRecord
from sr_deploy.core.errors import UsageError
from sr_deploy.core.names import check_name
from sr_deploy.core.yuv import YuvColour
from sr_deploy.pipeline.folds import say_folds, with_graph_folds
from sr_deploy.pipeline.load import LoadOptions, is_graph, load_network
from sr_deploy.pipeline.memory import check_memory
from sr_deploy.pipeline.network import Body, Network
from sr_deploy.pipeline.proof import OVERFLOWS, noise_overflows, proof_sizes, prove_graph, traced_size
from sr_deploy.pipeline.reach import proved_reach

#: Where multiply-accumulates are counted when the graph is dynamic, raised to what the network takes: the input of a
#: 1280x720 picture at x4.
CENSUS_SIZE: Size = (180, 320)


@dataclass(frozen=True)
class ExportOptions:
    """What ``srdeploy export`` is asked for.

    Attributes:
        checkpoint: the file; an ONNX file too.
        out: the deployment folder to make.
        sizes: fixed inputs (height, width); empty writes one dynamic graph.
        target: a name of graph/target.py.
        spectral: "fold" (Fourier units become 1×1 convolutions and a width matrix) or "dft" (DFT matrices).
        fold: False exports the network as trained.
        force: replace an existing deployment.
        rewrite: passes of graph/rewrite: "default", "none" or names separated by commas.
        load: how to build the network.
        io: "float32" (NCHW in the network's value range), "uint8" (NHWC pixels, converted and rounded in the graph),
            "nv12" or "p010" (a video decoder's planes, likewise).
        yuv: what the planes mean; None where ``io`` is of RGB.
    """

    checkpoint: Path
    out: Path
    sizes: Tuple[Size, ...] = ()
    target: str = "any"
    spectral: str = "fold"
    fold: bool = True
    force: bool = False
    load: LoadOptions = dataclasses.field(default_factory=LoadOptions)
    rewrite: str = "default"
    io: str = "float32"
    yuv: Optional[YuvColour] = None


def export_deployment(options: ExportOptions, say: Callable[[str], None] = lambda _: None) -> Deployment:
    """Make a deployment folder; it appears whole or not at all.

    Args:
        options: see ExportOptions.
        say: told each step in a few words.

    Raises:
        CheckFailed: a fold or a graph differs from the network by more than its tolerance.
        BadCheckpoint, UsageError, EnvironmentFault: see the stages.
    """
    from sr_deploy.graph.rewrite import passes_named
    from sr_deploy.graph.target import target_named

    target = target_named(options.target)
    passes = passes_named(options.rewrite, options.fold)
    check_name("--spectral", options.spectral, ("fold", "dft"))
    check_io(options.io, options.yuv)
    with atomic_folder(options.out, options.force) as folder:
        say(f"reading {options.checkpoint.name}")
        loaded = load_network(options.checkpoint, options.load)
        wanted: Tuple[Optional[Size], ...] = loaded.sizes_for(options.sizes) or (None,)
        # Of a graph it is not known what was folded before.
        form = "" if is_graph(options.checkpoint) else f"{loaded.form} form, "
        say(f"{loaded.architecture} x{loaded.scale}, {form}{loaded.parameters:,} parameters")
        network, fold_report = _fold(loaded, options, say)
        notes = loaded.notes
        if noise_overflows(loaded):
            fold_report["noise_overflows"] = True
            notes = (*notes, OVERFLOWS)
        contract = contract_of(loaded.value_range, options.io, options.yuv)
        rules = rules_of(loaded.sizes, contract, wanted)
        graphs: List[GraphFile] = []
        proofs: Dict[str, float] = {}
        pinned: Dict[str, str] = {}
        rewrites: Dict[str, Any] = {}
        for index, size in enumerate(wanted):
            name = "model.onnx" if index == 0 or size is None else f"model_{format_size(size)}.onnx"
            say(f"writing {name} ({format_size(size) if size else 'any size'}, opset {target.opset})")
            graph_file, graph_pins, rewrites[name] = _graph(
                network, loaded, contract, folder / name, target, size, options.spectral, passes
            )
            say_folds(rewrites[name], say)
            for proof_size in (size,) if size else proof_sizes(rules):
                check_memory(graph_file, proof_size)
                difference = prove_graph(folder / name, loaded, contract, proof_size, dynamic=size is None)
                proofs[f"{name} at {format_size(proof_size)}"] = difference
                say(f"  at {format_size(proof_size)}: largest difference {difference:.5f} of 255")
            graphs.append(graph_file)
            pinned.update(graph_pins)
        fold_report, warnings = with_graph_folds(fold_report, rewrites)
        largest = max(graphs, key=lambda graph: min(graph.macs_size))
        save_manifest(
            folder,
            Manifest(
                architecture=loaded.architecture,
                form=loaded.form,
                scale=loaded.scale,
                contract=contract,
                sizes=rules,
                graphs=tuple(graphs),
                source=loaded.source,
                parameters=loaded.parameters,
                hyperparameters=loaded.hyperparameters,
                fold=fold_report,
                proofs=proofs,
                pinned_fp32=pinned,
                notes=(*notes, *warnings),
                tools=tool_versions(),
                target=target.name,
                rewrite=rewrites,
                reach=proved_reach(folder / largest.file, contract, loaded.scale, rules, say),
            ),
        )
    return open_deployment(options.out)


def check_io(io: str, yuv: Optional[YuvColour] = None) -> IOForm:
    """The tensors that ``--io`` names.

    Raises:
        UsageError: no such name, planes of no matrix, or a matrix for RGB.
    """
    check_name("--io", io, IO_FORMS)
    if IO_FORMS[io].planar and yuv is None:
        raise UsageError(
            f"--io {io} does not say what the planes mean",
            "the matrix of the video",
            "--matrix bt709 for high definition, bt601 for less, bt2020 for UHD; --range and --siting if they are "
            "not limited and left",
        )
    if yuv is not None and not IO_FORMS[io].planar:
        raise UsageError(f"--io {io} takes RGB, which has no matrix", "--matrix, --range, --siting with nv12 or p010")
    return IO_FORMS[io]


def contract_of(value_range: float, io: str, yuv: Optional[YuvColour] = None) -> IOContract:
    """The tensors of a network whose white is ``value_range``, exported with ``--io``."""
    form = check_io(io, yuv)
    white = 255.0 if form.dtype == "uint8" else value_range
    return IOContract(white, layout=form.layout, dtype=form.dtype, yuv=yuv)


def rules_of(rules: SizeRules, contract: IOContract, wanted: Sequence[Optional[Size]]) -> SizeRules:
    """Which sizes the graphs of a contract take, of a network with these rules; raises BadImage for another wanted."""
    found = rules if contract.yuv is None else rules.even()
    for size in wanted:
        if size is not None:
            found.check(size)
    return found


def plan_export(options: ExportOptions) -> List[str]:
    """What ``export_deployment`` would do, one line each; the checkpoint is read, nothing is written.

    Raises:
        BadCheckpoint, UsageError: as the export itself would, up to folding.
    """
    from sr_deploy.graph.rewrite import passes_named
    from sr_deploy.graph.target import target_named

    target = target_named(options.target)
    check_io(options.io, options.yuv)
    loaded = load_network(options.checkpoint, options.load)
    contract = contract_of(loaded.value_range, options.io, options.yuv)
    wanted = loaded.sizes_for(options.sizes)
    rules = rules_of(loaded.sizes, contract, wanted)
    sizes = ", ".join(map(format_size, wanted)) or f"any from {rules.minimum}x{rules.minimum}"
    meaning = "RGB" if contract.yuv is None else contract.yuv.matrix
    return [
        f"network: {loaded.architecture} x{loaded.scale}, {loaded.form} form, {loaded.parameters:,} parameters",
        f"input:   {meaning} {contract.dtype} {contract.layout} in 0…{contract.value_range:g}, size {sizes}",
        f"fold:    {'yes' if options.fold else 'no'}; Fourier units: {options.spectral}",
        f"graph:   ONNX opset {target.opset} for {target.about}; rewriting: "
        + (", ".join(one.name for one in passes_named(options.rewrite, options.fold)) or "none"),
        f"folder:  {options.out}" + (" (exists already: --force)" if options.out.exists() else ""),
        *(f"note:    {note}" for note in loaded.notes),
    ]


def tool_versions() -> Dict[str, str]:
    """Versions of what made a deployment."""
    import onnx
    import torch

    return {
        "srdeploy": __version__,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "onnx": onnx.__version__,
    }


def _fold(loaded: Network, options: ExportOptions, say: Callable[[str], None]) -> Tuple[Body, FoldRecord]:
    """The network to export and the manifest's account of what was folded."""
    if not options.fold:
        return loaded.body, {"blocks": [], "kept": [], "network_error": 0.0}
    size = traced_size(loaded)
    body, report = loaded.body.folded(size, loaded.value_range, options.spectral == "fold")
    if report["blocks"]:
        error = report["network_error"]
        say(f"folded {len(report['blocks'])} blocks, largest relative difference {error:.1e}")
    return body, report


def census_size(rules: SizeRules) -> Size:
    """The input that a dynamic graph is counted at."""
    return rules.fit(CENSUS_SIZE[0]), rules.fit(CENSUS_SIZE[1])


def _check_countable(path: Path, loaded: Network, contract: IOContract, size: Size, dynamic: bool) -> None:
    """Refuse a graph whose shapes do not follow from its input; what tracing froze, the proof says better."""
    from sr_deploy.graph.census import Uncountable, census_of

    try:
        census_of(path, size)
    except Uncountable:
        for proof_size in proof_sizes(loaded.sizes) if dynamic else ():
            prove_graph(path, loaded, contract, proof_size, dynamic)
        raise


def _graph(network, loaded, contract, path: Path, target, size: Optional[Size], spectral: str, passes):
    """Export one graph, rewrite it, check its operators and count it."""
    import onnx

    from sr_deploy.graph.byte_io import byte_graph
    from sr_deploy.graph.census import census_of
    from sr_deploy.graph.planar_io import planar_graph
    from sr_deploy.graph.rewrite import RewriteOptions
    from sr_deploy.graph.rewrite.report import pinned_nodes, rewrite_file
    from sr_deploy.graph.target import check_operators

    reason = "Fourier unit, DFT matrices" if spectral == "dft" else "Fourier unit, folded"
    inner = contract_of(loaded.value_range, "float32")
    traced = traced_size(loaded)
    graph = network.graph(inner, path, target, size, traced, reason)
    rewrite_options = RewriteOptions(size=size, traced=traced, value_range=inner.value_range)
    at = size or census_size(rules_of(loaded.sizes, contract, ()))
    _check_countable(path, loaded, inner, at, dynamic=size is None)
    rewritten = rewrite_file(path, passes, rewrite_options, at) if passes else {}
    if contract.yuv is not None:
        onnx.save(planar_graph(onnx.load(str(path)), contract, inner.value_range), str(path))
    elif contract.dtype == "uint8":
        onnx.save(byte_graph(onnx.load(str(path)), inner.value_range), str(path))
    census = census_of(path, at)
    check_operators(census.operators, target, path.name)
    entry = GraphFile(
        file=path.name,
        size=size,
        sha256=sha256_of(path),
        opset=graph.opset,
        parameters=census.parameters,
        macs=census.macs,
        peak_activation_bytes=census.peak_activation_bytes,
        macs_size=census.size,
    )
    return entry, pinned_nodes(path), rewritten
