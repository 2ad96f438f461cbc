"""ONNX Runtime engines: the graph with ONNX Runtime's own optimisations done once and saved.

The level is EXTENDED: the level above it rewrites layouts for the processor it runs on, and such a file must not move
to another machine (ONNX Runtime documentation, "Graph optimizations").
"""

from __future__ import annotations

import hashlib
import platform
import re
import time
from pathlib import Path
from typing import Any, List, Mapping, Optional, Tuple, Union

from sr_deploy import __version__
from sr_deploy.core.artifact import explained_write_errors, sha256_of
from sr_deploy.core.contract import IOContract, Size, format_size, shape_in, size_in
from sr_deploy.core.errors import BadDeployment, CheckFailed, EnvironmentFault, MissingPackage
from sr_deploy.core.host.install import pip_install
from sr_deploy.core.signals import held_back
from sr_deploy.core.temporary import temporary_folder
from sr_deploy.engine.manifest import EngineManifest, Profile, check_precision, engine_name, save_engine
from sr_deploy.engine.onnxruntime_cuda import CPU, CUDA, CUDA_OPTIONS, is_cuda_fault, no_start, preload_cuda, tf32_of

#: Log level: ONNX Runtime's errors become ours, so it need not print them too.
ONLY_FATAL = 4

_OUT_OF_MEMORY = re.compile(
    r"failed to allocate|out of memory|bad_alloc|bad allocation|CUDNN_STATUS_ALLOC", re.IGNORECASE
)


def import_onnxruntime() -> Any:
    """The module ``onnxruntime``.

    Raises:
        MissingPackage: it is not installed, or its libraries do not load; the message says which.
    """
    try:
        # A signal's SystemExit within the loading of a library becomes an ImportError, so it has to wait.
        with held_back():
            import onnxruntime

        onnxruntime.InferenceSession  # noqa: B018 - a broken installation imports as an empty namespace
    except (ImportError, OSError, AttributeError) as error:
        raise MissingPackage(
            f"ONNX Runtime does not import: {error}",
            "the package onnxruntime",
            f"{pip_install('onnxruntime')} (for an NVIDIA GPU: {pip_install('onnxruntime-gpu')})",
        ) from error
    return onnxruntime


def onnxruntime_version() -> Optional[str]:
    """Version of ONNX Runtime; None when it does not import."""
    try:
        return str(import_onnxruntime().__version__)
    except MissingPackage:
        return None


def providers_here() -> Tuple[str, ...]:
    """Execution providers that this build of ONNX Runtime has, in its own order.

    Raises:
        MissingPackage: ONNX Runtime does not import.
    """
    return tuple(import_onnxruntime().get_available_providers())


def is_out_of_memory(text: str) -> bool:
    """Whether this is what ONNX Runtime, the C++ library or CUDA says when memory runs out."""
    return bool(_OUT_OF_MEMORY.search(text))


def _openable(graph: Path) -> Union[str, bytes]:
    """What ONNX Runtime opens: the path; the bytes where that is not UTF-8, which it does not take."""
    try:
        str(graph).encode("utf-8")
    except UnicodeEncodeError:
        return graph.read_bytes()
    return str(graph)


def open_session(graph: Path, options: Any, provider: str) -> Any:
    """An InferenceSession on one provider (the CPU behind it for operators that the provider lacks).

    Args:
        graph: the ONNX file.
        options: an ``onnxruntime.SessionOptions``.
        provider: a name of ``providers_here()``. Only this one: ONNX Runtime's own retreat to the CPU is switched off.

    Raises:
        EnvironmentFault: the provider is not in this build, or does not start on this machine.
        BadDeployment: ONNX Runtime cannot read or run this graph.
    """
    ort = import_onnxruntime()
    here = providers_here()
    if provider not in here:
        raise EnvironmentFault(
            f"ONNX Runtime {ort.__version__} has no {provider} here",
            "one of " + ", ".join(here),
            f"{pip_install('onnxruntime-gpu')} instead of onnxruntime" if provider == CUDA else "",
        )
    if not Path(graph).is_file():
        raise BadDeployment(f"there is no graph {graph}", "an ONNX file", "srdeploy export")
    preloaded = preload_cuda(ort) if provider == CUDA else ""
    asked: List[Any] = [(CUDA, CUDA_OPTIONS), CPU] if provider == CUDA else list(dict.fromkeys((provider, CPU)))
    try:
        session = ort.InferenceSession(_openable(Path(graph)), options, providers=asked, enable_fallback=0)
    except Exception as error:
        # ONNX Runtime's exceptions have no common base below Exception, and new kinds come with new releases.
        text = " ".join(str(error).split())
        if is_out_of_memory(text):
            raise EnvironmentFault(
                f"not enough memory to open {graph}: {text}",
                "more memory or a smaller size",
                "free memory, or build for a smaller --size",
            ) from error
        if provider == CUDA and is_cuda_fault(text):
            raise no_start(provider, text, preloaded) from error
        raise BadDeployment(
            f"ONNX Runtime {ort.__version__} cannot open {graph}: {text}",
            "an ONNX graph whose operators it has",
            "export it again",
        ) from error
    if session.get_providers()[0] != provider:
        raise no_start(provider, f"ONNX Runtime offered {session.get_providers()[0]} instead", preloaded)
    if tf32_of(session) == "on":
        raise no_start(provider, "it leaves TF32 on", preloaded)
    return session


def input_size(session: Any, contract: IOContract, graph: Path) -> Tuple[Optional[int], Optional[int]]:
    """Height and width that the graph is fixed to, each None where it is dynamic.

    Raises:
        BadDeployment: the graph's tensors are not those of the contract.
    """
    inputs, outputs = session.get_inputs(), session.get_outputs()
    names = ([tensor.name for tensor in inputs], [tensor.name for tensor in outputs])
    if names != ([contract.input_name], [contract.output_name]):
        raise BadDeployment(
            f"{graph} has inputs {names[0]} and outputs {names[1]}",
            f"one input {contract.input_name!r} and one output {contract.output_name!r}",
            "export it again",
        )
    shape = inputs[0].shape
    form = shape_in(contract.layout, (2, 2))
    channels = 1 if contract.layout == "NCHW" else 3
    free = len(shape) == 4 and (shape[0] in (1, None) or isinstance(shape[0], str))
    if not free or shape[channels] != form[channels]:
        wanted = "(1, 3, height, width)" if channels == 1 else f"(1, rows, width, {form[channels]})"
        raise BadDeployment(
            f"the input {contract.input_name!r} of {graph} has shape {shape}",
            wanted,
            "export the network again with srdeploy export",
        )
    kind = "tensor(uint8)" if contract.dtype == "uint8" else "tensor(float)"
    if (inputs[0].type, outputs[0].type) != (kind, kind):
        found = f"{inputs[0].type} to {outputs[0].type}"
        raise BadDeployment(
            f"{graph} goes from {found}",
            f"{kind} to {kind}, as its manifest says",
            "export the network again with srdeploy export",
        )
    return size_in(contract.layout, tuple(shape))


def engine_from_graph(
    graph: Path,
    folder: Path,
    contract: IOContract,
    scale: int,
    size: Optional[Size] = None,
    provider: str = CPU,
    precision: str = "fp32",
    stands_for: Optional[Path] = None,
    plan: Optional[Mapping[str, str]] = None,
) -> Path:
    """Save the graph as ONNX Runtime optimises it, with a manifest beside it.

    Args:
        graph: the ONNX file; dynamic axes are named "height" and "width", as the exporter names them.
        folder: where the engine goes, under ``engine_name``.
        contract: the tensors at both ends.
        scale: output size over input size, for the manifest.
        size: fix the input to (height, width); None keeps the graph's own.
        provider: optimise for this execution provider.
        precision: what the graph's types are, for the manifest. The types themselves come from the graph; ONNX Runtime
            may fuse Q/DQ and what lies between into its 8-bit operators.
        stands_for: the deployment's graph that a typed one was made from, for the manifest; None: ``graph`` itself.
        plan: of the precision plan that the graph follows, for the manifest's settings: name and hash.

    Returns:
        The path of the engine; its manifest lies beside it.

    Raises:
        BadDeployment: the graph cannot be read, or is fixed to another size.
        CheckFailed: ONNX Runtime did not write what was asked for.
        UsageError: there is no such precision.
        MissingPackage, EnvironmentFault, DiskFull.
    """
    known_precision = check_precision(precision)
    ort = import_onnxruntime()
    started = time.perf_counter()
    have = input_size(open_session(graph, _options(ort), provider), contract, graph)
    if size is not None and any(value is not None and value != asked for value, asked in zip(have, size)):
        raise BadDeployment(
            f"{graph} takes an input of {have[0]}x{have[1]} only, not {format_size(size)}",
            "a dynamic graph, or one of this size",
            f"export it again with --dynamic or --size {format_size(size)}",
        )
    options = _options(ort)
    if size is not None:
        options.add_free_dimension_override_by_name("height", size[0])
        options.add_free_dimension_override_by_name("width", size[1])
    with temporary_folder() as temporary:
        saved = temporary / "optimised.onnx"
        options.optimized_model_filepath = str(saved)
        try:
            open_session(graph, options, provider)
        except BadDeployment as error:
            _explain_failed_write(saved, graph)
            raise CheckFailed(
                f"ONNX Runtime could not save its form of {graph}: {error.found}",
                "a graph that it opens",
                "export the network again; srdeploy doctor tells the versions that are here",
            ) from error
        fixed = input_size(open_session(saved, _options(ort), provider), contract, saved)
        data = saved.read_bytes()
    if size is not None and fixed != tuple(size):
        raise CheckFailed(
            f"fixing {graph} to {format_size(size)} gave an input of {fixed}",
            'dynamic axes named "height" and "width"',
            "export it again with srdeploy export",
        )
    profile: Optional[Profile] = None
    height, width = fixed
    if height is not None and width is not None:
        profile = ((height, width), (height, width), (height, width))
    path = Path(folder) / engine_name("onnxruntime", profile, (), precision)
    manifest = EngineManifest(
        backend="onnxruntime",
        file=path.name,
        sha256=hashlib.sha256(data).hexdigest(),
        graph_file=Path(stands_for or graph).name,
        graph_sha256=sha256_of(stands_for or graph),
        profile=profile,
        precision=known_precision,
        compute_capabilities=(),
        device=None,
        runtime_version=ort.__version__,
        activation_bytes=None,
        weights_bytes=None,
        build_seconds=round(time.perf_counter() - started, 3),
        tools={"srdeploy": __version__, "python": platform.python_version(), "onnxruntime": ort.__version__},
        settings={
            "provider": provider,
            "graph_optimization_level": "extended",
            **(plan or {}),
        },  # fmt: skip
        warnings=(),
        contract=contract,
        scale=scale,
    )
    save_engine(path, data, manifest)
    return path


def _options(ort: Any) -> Any:
    """Session options that optimise without tying the graph to this processor."""
    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_EXTENDED
    options.log_severity_level = ONLY_FATAL
    return options


def _explain_failed_write(target: Path, graph: Path) -> None:
    """Raise DiskFull when a file as large as the graph cannot be written where ONNX Runtime failed to write one.

    ONNX Runtime itself only says "Protobuf serialization failed".
    """
    with explained_write_errors(target):
        target.write_bytes(bytes(graph.stat().st_size))
