"""checkpoint → model → folded model → ONNX graph → deployment, each step proved."""

from __future__ import annotations

import dataclasses
import platform
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Callable, Dict, List, Optional, Tuple

from sr_deploy import __version__
from sr_deploy.core.artifact import atomic_folder, sha256_of
from sr_deploy.core.contract import IO_FORMS, IOContract, IOForm, Size, SizeRules, format_size
from sr_deploy.core.deployment.manifest import Deployment, GraphFile, Manifest, open_deployment, save_manifest
from sr_deploy.core.errors import EnvironmentFault, UsageError
from sr_deploy.core.tolerance import GRAPH_FP32
from sr_deploy.core.yuv import YuvColour
from sr_deploy.pipeline.load import LoadOptions, load_model, source_record
from sr_deploy.pipeline.memory import check_memory

#: Sizes that a dynamic graph is traced and proved at: (height, width), raised to what the network takes.
PROOF_SIZES: Tuple[Size, ...] = ((40, 56), (45, 51), (33, 70), (64, 24))
#: Where multiply-accumulates are counted when the graph is dynamic: the input of a 1280x720 picture at x2 and x4 alike.
CENSUS_SIZE: Size = (180, 320)


@dataclass(frozen=True)
class ExportOptions:
    """What ``srdeploy export`` is asked for.

    Attributes:
        checkpoint: the file.
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
    passes = passes_named(options.rewrite)
    if options.spectral not in ("fold", "dft"):
        raise UsageError(f"--spectral {options.spectral} does not exist", "fold or dft")
    check_io(options.io, options.yuv)
    with atomic_folder(options.out, options.force) as folder:
        say(f"reading {options.checkpoint.name}")
        checkpoint, loaded = load_model(options.checkpoint, options.load)
        say(f"{loaded.architecture} x{loaded.scale}, {loaded.form} form, {loaded.parameters:,} parameters")
        network, fold_report = _fold(loaded, options, say)
        contract = contract_of(loaded.value_range, options.io, options.yuv)
        rules = loaded.sizes if contract.yuv is None else loaded.sizes.even()
        for asked in options.sizes:
            rules.check(asked)
        graphs: List[GraphFile] = []
        proofs: Dict[str, float] = {}
        pinned: Dict[str, str] = {}
        rewrites: Dict[str, Any] = {}
        wanted: Tuple[Optional[Size], ...] = options.sizes or (None,)
        for index, size in enumerate(wanted):
            name = "model.onnx" if index == 0 or size is None else f"model_{format_size(size)}.onnx"
            say(f"writing {name} ({format_size(size) if size else 'any size'}, opset {target.opset})")
            graph_file, graph_pins, rewrites[name] = _graph(
                network, loaded, contract, folder / name, target, size, options.spectral, passes
            )
            for proof_size in (size,) if size else proof_sizes(rules):
                check_memory(graph_file, proof_size)
                difference = _prove(folder / name, loaded, contract, proof_size, dynamic=size is None)
                proofs[f"{name} at {format_size(proof_size)}"] = difference
                say(f"  at {format_size(proof_size)}: largest difference {difference:.5f} of 255")
            graphs.append(graph_file)
            pinned.update(graph_pins)
        save_manifest(
            folder,
            Manifest(
                architecture=loaded.architecture,
                form=loaded.form,
                scale=loaded.scale,
                contract=contract,
                sizes=rules,
                graphs=tuple(graphs),
                source=source_record(checkpoint, options.load),
                parameters=loaded.parameters,
                hyperparameters=loaded.hyperparameters,
                fold=fold_report,
                proofs=proofs,
                pinned_fp32=pinned,
                notes=tuple(checkpoint.notes) + tuple(loaded.notes),
                tools=tool_versions(),
                target=target.name,
                rewrite=rewrites,
            ),
        )
    return open_deployment(options.out)


def check_io(io: str, yuv: Optional[YuvColour] = None) -> IOForm:
    """The tensors that ``--io`` names.

    Raises:
        UsageError: no such name, planes of no matrix, or a matrix for RGB.
    """
    if io not in IO_FORMS:
        names = list(IO_FORMS)
        raise UsageError(f"--io {io} does not exist", f"{', '.join(names[:-1])} or {names[-1]}")
    if IO_FORMS[io].planar and yuv is None:
        raise UsageError(
            f"--io {io} does not say what the planes mean",
            "the matrix of the video",
            "--matrix bt709 for high definition, bt601 for less, bt2020 for UHD; --range and --siting if they are "
            "not limited and left",
        )
    if yuv is not None and not IO_FORMS[io].planar:
        raise UsageError(
            f"--io {io} takes RGB, which has no matrix", "--matrix, --range and --siting with nv12 or p010"
        )
    return IO_FORMS[io]


def contract_of(value_range: float, io: str, yuv: Optional[YuvColour] = None) -> IOContract:
    """The tensors of a network whose white is ``value_range``, exported with ``--io``."""
    form = check_io(io, yuv)
    white = 255.0 if form.dtype == "uint8" else value_range
    return IOContract(white, layout=form.layout, dtype=form.dtype, yuv=yuv)


def plan_export(options: ExportOptions) -> List[str]:
    """What ``export_deployment`` would do, one line each; the checkpoint is read, nothing is written.

    Raises:
        BadCheckpoint, UsageError: as the export itself would, up to folding.
    """
    from sr_deploy.graph.rewrite import passes_named
    from sr_deploy.graph.target import target_named

    target = target_named(options.target)
    check_io(options.io, options.yuv)
    _, loaded = load_model(options.checkpoint, options.load)
    contract = contract_of(loaded.value_range, options.io, options.yuv)
    for size in options.sizes:
        (loaded.sizes if contract.yuv is None else loaded.sizes.even()).check(size)
    shapes = ", ".join(map(format_size, options.sizes)) or f"any from {loaded.sizes.minimum}x{loaded.sizes.minimum}"
    meaning = "RGB" if contract.yuv is None else contract.yuv.matrix
    return [
        f"network: {loaded.architecture} x{loaded.scale}, {loaded.form} form, {loaded.parameters:,} parameters",
        f"input:   {meaning} {contract.dtype} {contract.layout} in 0…{contract.value_range:g}, size {shapes}",
        f"fold:    {'yes' if options.fold else 'no'}; Fourier units: {options.spectral}",
        f"graph:   ONNX opset {target.opset} for {target.about}; rewriting: "
        + (", ".join(one.name for one in passes_named(options.rewrite)) or "none"),
        f"folder:  {options.out}" + (" (exists already: --force)" if options.out.exists() else ""),
        *(f"note:    {note}" for note in loaded.notes),
    ]


def proof_sizes(rules: SizeRules) -> Tuple[Size, ...]:
    """The sizes a dynamic graph is proved at: the traced one first, then even, odd, wide and tall ones.

    Each is raised to the network's minimum and to its multiple.
    """

    return tuple(dict.fromkeys((rules.fit(height), rules.fit(width)) for height, width in PROOF_SIZES))


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


def _fold(loaded, options: ExportOptions, say):
    """The network to export and the manifest's account of what was folded."""
    from sr_deploy.fold import fold

    if not options.fold:
        return loaded.module, {"blocks": [], "kept": [], "network_error": 0.0}
    size = proof_sizes(loaded.sizes)[0]
    result = fold(loaded.module, input_size=size, value_range=loaded.value_range, spectral=options.spectral == "fold")
    report = result.report
    if report.blocks:
        say(f"folded {len(report.blocks)} blocks, largest relative difference {report.network_error:.1e}")
    return result.module, report.to_dict()


def _graph(network, loaded, contract, path: Path, target, size: Optional[Size], spectral: str, passes):
    """Export one graph, rewrite it, check its operators and count it."""
    import onnx

    from sr_deploy.fold.dft import spectral_modules
    from sr_deploy.graph.byte_io import byte_graph
    from sr_deploy.graph.census import census_of
    from sr_deploy.graph.export import graph_from_model
    from sr_deploy.graph.planar_io import planar_graph
    from sr_deploy.graph.rewrite import RewriteOptions
    from sr_deploy.graph.rewrite.report import pinned_nodes, rewrite_file
    from sr_deploy.graph.target import check_operators

    traced = proof_sizes(loaded.sizes)[0]
    reason = "Fourier unit, DFT matrices" if spectral == "dft" else "Fourier unit, folded"
    pinned_modules = dict.fromkeys(spectral_modules(network, (1, 3, *traced)), reason)
    inner = contract_of(loaded.value_range, "float32")
    graph = graph_from_model(network, inner, path, target, size, traced, pinned_modules)
    rewrite_options = RewriteOptions(size=size, value_range=inner.value_range)
    rewritten = rewrite_file(path, passes, rewrite_options, size or CENSUS_SIZE) if passes else {}
    if contract.yuv is not None:
        onnx.save(planar_graph(onnx.load(str(path)), contract, inner.value_range), str(path))
    elif contract.dtype == "uint8":
        onnx.save(byte_graph(onnx.load(str(path)), inner.value_range), str(path))
    census = census_of(path, size or CENSUS_SIZE)
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


def _prove(path: Path, loaded, contract: IOContract, size: Size, dynamic: bool) -> float:
    """Run the graph and the network as trained on one input; the largest difference in 8-bit steps.

    Raises:
        CheckFailed: it exceeds GRAPH_FP32.
        EnvironmentFault: there is not enough memory for this size.
    """
    from sr_deploy.run.onnxruntime import runner_from_graph
    from sr_deploy.run.parity import check_parity, compare
    from sr_deploy.run.torch import TorchRunner

    runner = runner_from_graph(path, contract, loaded.scale, provider="CPUExecutionProvider")
    try:
        differences = compare(runner, TorchRunner(loaded.module), (size,), contract, loaded.value_range)
    except (RuntimeError, MemoryError) as error:
        raise EnvironmentFault(
            f"the network could not be run at {format_size(size)} to prove the graph: {str(error).splitlines()[0]}",
            "memory for the PyTorch network at this size",
            "export without --size (a dynamic graph is proved at small sizes) and give the size to srdeploy build",
        ) from error
    finally:
        runner.close()
    other_size = dynamic and size != proof_sizes(loaded.sizes)[0]
    hint = "this network cannot be exported with dynamic sizes; give --size HxW" if other_size else ""
    return check_parity(differences, GRAPH_FP32, path.name, hint)
