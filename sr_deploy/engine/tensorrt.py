"""From a graph to a TensorRT plan: the one file that knows TensorRT 8.5 … 11 and TensorRT-RTX.

Flags are looked up by name and attributes by ``hasattr``, never by number or version: the same bit of
``create_network`` means EXPLICIT_BATCH in 8.x and STRONGLY_TYPED in 11, and numbers of builder flags moved between
major releases (NvInfer.h of the releases). A strongly typed network computes in the types the graph holds; where the
flavour has that mode it is used. Elsewhere (8.x) flags and layer precisions are set: engine/tensorrt8.py.

``precision="fp32"`` switches TensorFloat-32 off. TensorRT leaves it on, and its 10-bit mantissa is not the float32 that
the graph was proved with.

Run here: TensorRT-RTX 1.7.1 building for given compute capabilities without a GPU. TensorRT 8.5 … 11 need a GPU to
build. For them every name used on a generation's path is checked against that generation's real bindings
(tests/engine/test_bindings_contract.py), and the 8.5 path runs against a stand-in written from the documentation.
"""

from __future__ import annotations

import functools
import time
from pathlib import Path
from typing import Any, Dict, Optional, Sequence, Tuple

from sr_deploy.core.contract import Size, format_size, layout_of_shape, shape_in, size_in
from sr_deploy.core.errors import BadDeployment, BadInput, CheckFailed, EnvironmentFault, UsageError
from sr_deploy.core.host.machine import Gpu, this_machine
from sr_deploy.core.host.rtx import capabilities_of
from sr_deploy.engine.built import BuiltEngine
from sr_deploy.engine.dla import runtime_for, use_dla
from sr_deploy.engine.flavour import Messages, check_flavour, collected, import_flavour, logger_of, monitor_of
from sr_deploy.engine.graph_nodes import node_names
from sr_deploy.engine.layers import check_network, network_layers
from sr_deploy.engine.manifest import Profile, check_precision, check_profile
from sr_deploy.engine.options import PLAIN, EngineOptions
from sr_deploy.engine.read_back import ReadBack, listing_of, products_of, read_back
from sr_deploy.engine.tensorrt8 import set_precision
from sr_deploy.engine.tensorrt_faults import build_failure, parse_failure
from sr_deploy.engine.timing_cache import attach_timing_cache, save_timing_cache


def engine_from_graph(
    flavour: str,
    graph: Path,
    profile: Optional[Sequence[Size]],
    compute_capabilities: Sequence[str] = (),
    options: EngineOptions = PLAIN,
) -> BuiltEngine:
    """Build a plan from an ONNX graph.

    Args:
        flavour: "tensorrt" or "tensorrt-rtx".
        graph: one input and one output, float32 (1, 3, H, W) or uint8 (1, H, W, 3); H and W dynamic or fixed.
        profile: minimum, best and maximum input (height, width); three equal ones build a fixed engine. None for a
            graph that is fixed already.
        compute_capabilities: GPUs to build for, such as ("8.6", "12.0"); TensorRT-RTX needs no GPU then. Empty: this
            machine's GPU.
        options: see EngineOptions.

    Raises:
        UsageError: a flavour, precision, profile or compute capability that does not exist or does not fit; a graph
            whose types are not those of ``precision``.
        EnvironmentFault: no GPU to build for, or not enough memory.
        MissingPackage: the flavour does not import.
        BadDeployment: the file is not such a graph, or it is fixed to another size.
        BadInput: the calibration cache is not one for this TensorRT.
        CheckFailed: the parser or the builder refuses the graph; the message names the node or holds its errors. Or
            the network's types are not as planned. What is wrong with an engine that was built is not raised: it is the
            ``refusal`` of what is returned.
    """
    trt = import_flavour(flavour)
    flavour = check_flavour(flavour)
    _check(trt, flavour, graph, options)
    wanted = None if profile is None else check_profile(profile)
    capabilities, device = targets_of(flavour, compute_capabilities)
    title = f"{flavour} {trt.__version__}"
    started = time.perf_counter()
    with collected(flavour) as messages:
        builder = _builder(trt, flavour, messages)
        network = builder.create_network(1 << int(_network_flag(trt)))
        parser = trt.OnnxParser(network, logger_of(flavour))
        if not parser.parse_from_file(str(graph)):
            raise parse_failure(parser, messages, graph, title)
        config = builder.create_builder_config()
        used, shapes = _optimization_profile(trt, builder, network, graph, wanted)
        if shapes is not None:
            config.add_optimization_profile(shapes)
        settings = _settings(trt, config, options)
        check_calibration = None
        layers = network_layers(network)
        if is_strongly_typed(flavour):
            settings.update(check_network(layers, options.precision, options.planned or {}, str(graph)))
        else:
            told, check_calibration = set_precision(
                trt, builder, network, config, options, node_names(graph) if options.layer_types else frozenset()
            )
            settings.update(told)
        if options.dla_core is not None:
            settings.update(use_dla(trt, flavour, builder, network, config, options, used))
        detailed = options.precision != "fp32" or flavour == "tensorrt-rtx"
        if detailed:
            # The inspector tells the types of a detailed engine only, and TensorRT-RTX logs the layers of no other. The
            # bytes of its engines and what they are told to need are the same with and without.
            config.profiling_verbosity = trt.ProfilingVerbosity.DETAILED
        if hasattr(config, "set_compute_capability"):
            config.num_compute_capabilities = len(capabilities)
            for index, capability in enumerate(capabilities):
                config.set_compute_capability(capabilities_of(trt)[capability], index)
        cache, problems = (
            (None, ()) if options.timing_cache is None else attach_timing_cache(config, options.timing_cache)
        )
        monitor = monitor_of(trt, options.progress)
        if monitor is not None and hasattr(config, "progress_monitor"):
            config.progress_monitor = monitor
        plan = builder.build_serialized_network(network, config)
        if options.timing_cache is not None and cache is not None:
            # Also after a failure: a second try, with less workspace, need not time again what was timed.
            problems = (*problems, *save_timing_cache(cache, options.timing_cache))
            settings["timing_cache"] = options.timing_cache.name
        if monitor is not None and monitor.failure is not None:
            raise monitor.failure
        if plan is None:
            raise build_failure(messages, graph, used, title)
        data = bytes(plan)
        listing, read = None, ReadBack({})
        try:
            if check_calibration is not None:
                check_calibration()
            if detailed:
                logged = messages.listings if flavour == "tensorrt-rtx" else []
                runtime = functools.partial(runtime_for, trt, logger_of(flavour), settings)
                listing = listing_of(trt, runtime, data, logged, tuple(products_of(layers)))
        except (BadInput, CheckFailed) as error:
            read = ReadBack({}, refusal=error)
        if listing is not None:
            read = read_back(listing, layers, options.planned or {}, is_strongly_typed(flavour), str(graph))
        elif detailed and read.refusal is None:
            read = ReadBack({}, (f"{title} lists no layers here, so the engine was not held against its graph",))
        activation = messages.memory.get("Activation")
        if activation is None:
            activation = _memory_of_plan(trt, flavour, data)
        return BuiltEngine(
            flavour=flavour,
            plan=data,
            profile=used,
            precision=check_precision(options.precision),
            compute_capabilities=capabilities,
            device=device,
            version=trt.__version__,
            activation_bytes=activation,
            weights_bytes=messages.memory.get("Weights"),
            seconds=time.perf_counter() - started,
            settings={**settings, **read.settings},
            warnings=(*problems, *messages.warnings(), *read.warnings),
            listing=listing,
            refusal=read.refusal,
        )


def _check(trt: Any, flavour: str, graph: Path, options: EngineOptions) -> None:
    """Refuse what this flavour cannot be told, before it is started."""
    check_precision(options.precision)
    if is_strongly_typed(flavour) and (options.layer_types or options.calibration_cache is not None):
        raise UsageError(
            f"{flavour} {trt.__version__} takes its types from the graph, not from layer types or a calibration cache",
            "a typed graph alone",
        )
    if options.timing_cache is not None and flavour == "tensorrt-rtx":
        raise UsageError("TensorRT-RTX takes no timings, so it has no timing cache", "no timing cache")
    if not Path(graph).is_file():
        raise BadDeployment(f"there is no graph {graph}", "an ONNX file", "srdeploy export")


def _builder(trt: Any, flavour: str, messages: Messages) -> Any:
    try:
        return trt.Builder(logger_of(flavour))
    except (TypeError, RuntimeError) as error:
        title = f"{flavour} {trt.__version__}"
        raise EnvironmentFault(
            f"{title} does not start: {messages.explain()}",
            "a GPU and its driver",
            "srdeploy doctor says what is missing",
        ) from error


def targets_of(flavour: str, asked: Sequence[str] = ()) -> Tuple[Tuple[str, ...], Optional[str]]:
    """Which GPUs a build is for.

    Args:
        flavour: "tensorrt" or "tensorrt-rtx".
        asked: compute capabilities, such as ("8.6",); empty for this machine's GPU.

    Returns:
        Compute capabilities, and the name of this machine's GPU when that is the one, else None.

    Raises:
        UsageError: the flavour does not build for what is asked; the message lists what it does build for.
        EnvironmentFault: nothing is asked, and there is no GPU here or not one that the flavour supports.
        MissingPackage: the flavour does not import.
    """
    trt = import_flavour(flavour)
    choosable = hasattr(trt, "ComputeCapability") and hasattr(trt.IBuilderConfig, "set_compute_capability")
    supported = tuple(capabilities_of(trt)) if choosable else ()
    if asked and choosable:
        wrong = [capability for capability in asked if capability not in supported]
        if wrong:
            raise UsageError(
                f"{flavour} {trt.__version__} does not build for compute capability {', '.join(wrong)}",
                "one of " + ", ".join(supported),
                "for another GPU build on that machine with --backend tensorrt",
            )
        return tuple(dict.fromkeys(asked)), None
    gpu = _first_gpu(flavour, choosable)
    here = gpu.compute_capability
    if here is None:
        raise EnvironmentFault(
            f"neither CUDA nor the driver tells the compute capability of {gpu.name}",
            "a CUDA binding for Python, which asks the GPU itself",
            "pip install cuda-python (on a Jetson: pip install pycuda), and see srdeploy doctor",
        )
    if asked and tuple(asked) != (here,):
        raise UsageError(
            f"{flavour} {trt.__version__} builds for this machine's GPU only ({gpu.name}, {here}), "
            f"not for {', '.join(asked)}",
            f"no --compute-capability, or {here}",
            "build on a machine with that GPU, or use --backend tensorrt-rtx",
        )
    if choosable and here not in supported:
        raise EnvironmentFault(
            f"{flavour} {trt.__version__} does not support {gpu.name}: its compute capability is {here}",
            "a GPU of compute capability " + ", ".join(supported),
            "use --backend tensorrt here, or build for another GPU with --compute-capability",
        )
    return (here,), gpu.name


def _first_gpu(flavour: str, choosable: bool) -> Gpu:
    gpus = this_machine().gpus
    if gpus:
        return gpus[0]
    what = f"this machine has no NVIDIA GPU that {flavour} could build for"
    if choosable:
        raise EnvironmentFault(
            what, "a GPU, or the compute capability of the one to build for", "give --compute-capability, such as 8.6"
        )
    raise EnvironmentFault(
        what,
        "a GPU",
        "build on the board (in a container: with a CUDA binding for Python), "
        "or use --backend tensorrt-rtx --compute-capability 8.6",
    )


def is_strongly_typed(flavour: str) -> bool:
    """Whether engines of this flavour compute in the types of their graph: from TensorRT 10 on, and TensorRT-RTX.

    Raises:
        MissingPackage: the flavour does not import.
    """
    return hasattr(import_flavour(flavour).NetworkDefinitionCreationFlag, "STRONGLY_TYPED")


def _network_flag(trt: Any) -> Any:
    """Strong typing where the flavour has it, else explicit batch (8.x)."""
    flags = trt.NetworkDefinitionCreationFlag
    return flags.STRONGLY_TYPED if hasattr(flags, "STRONGLY_TYPED") else flags.EXPLICIT_BATCH


def _settings(trt: Any, config: Any, options: EngineOptions) -> Dict[str, str]:
    """Set what FP32 and the user ask for; give it back by name for the manifest."""
    settings = {"typing": _network_flag(trt).name.lower()}
    if hasattr(trt.BuilderFlag, "TF32"):
        config.clear_flag(trt.BuilderFlag.TF32)
        settings["tf32"] = "off"
    if options.workspace_bytes is not None:
        config.set_memory_pool_limit(trt.MemoryPoolType.WORKSPACE, options.workspace_bytes)
        settings["workspace_bytes"] = str(options.workspace_bytes)
    # TensorRT before 8.6 has no auxiliary streams.
    if options.one_stream and hasattr(config, "max_aux_streams"):
        config.max_aux_streams = 0
        settings["auxiliary_streams"] = "none"
    return settings


def _optimization_profile(
    trt: Any, builder: Any, network: Any, graph: Path, wanted: Optional[Profile]
) -> Tuple[Profile, Optional[Any]]:
    """The sizes the engine will take, and TensorRT's profile for them (None for a fixed graph)."""
    if network.num_inputs != 1 or network.num_outputs != 1:
        raise BadDeployment(
            f"{graph} has {network.num_inputs} inputs and {network.num_outputs} outputs",
            "one of each",
            "export it again",
        )
    tensor = network.get_input(0)
    shape = tuple(tensor.shape)
    # UINT8 came with TensorRT 8.5.
    kind = trt.uint8 if hasattr(trt, "uint8") and tensor.dtype == trt.uint8 else trt.float32
    layout = layout_of_shape(shape) if kind != trt.float32 else "NCHW" if len(shape) == 4 and shape[1] == 3 else ""
    if not layout or shape[0] not in (1, -1) or tensor.dtype != kind:
        raise BadDeployment(
            f"the input {tensor.name!r} of {graph} is {tensor.dtype.name} {shape}",
            "FLOAT (1, 3, height, width), UINT8 (1, height, width, 3) or the planes of a video",
            "export the network with srdeploy export",
        )
    have = size_in(layout, shape)
    if wanted is None and None in have:
        raise UsageError(
            f"{graph} takes any size",
            "the size to build for",
            "give --size HxW, or --min-size … --opt-size … --max-size …",
        )
    if wanted is None:
        wanted = ((have[0] or 0, have[1] or 0),) * 3
    for size in wanted:
        if any(fixed not in (None, asked) for fixed, asked in zip(have, size)):
            shown = "x".join("any" if value is None else str(value) for value in have)
            raise BadDeployment(
                f"{graph} takes an input of {shown} only, not {format_size(size)}",
                "a dynamic graph, or one of this size",
                f"export it again with --dynamic or --size {format_size(size)}",
            )
    if wanted[0] == wanted[2]:
        # One size: the network itself becomes static, and what follows from the size is computed by the builder.
        tensor.shape = shape_in(layout, wanted[0])
        return wanted, None
    shapes = builder.create_optimization_profile()
    shapes.set_shape(tensor.name, *(shape_in(layout, size) for size in wanted))
    return wanted, shapes


def _memory_of_plan(trt: Any, flavour: str, plan: bytes) -> Optional[int]:
    """Activation memory from the engine itself, for a builder that did not tell; needs the GPU it was built on."""
    engine = trt.Runtime(logger_of(flavour)).deserialize_cuda_engine(plan)
    for attribute in ("device_memory_size_v2", "device_memory_size"):
        if engine is not None and hasattr(engine, attribute):
            return int(getattr(engine, attribute))
    return None
