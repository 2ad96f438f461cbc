"""How TensorRT 8.5 and 8.6 are told precisions: flags, held layers, and a calibrator that only reads its file.

From TensorRT 10 on networks are strongly typed and none of this exists or is needed. Not run on a board here: the calls
were checked against the lists of names in tests/engine/bindings and a stand-in of 8.5.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import AbstractSet, Any, Callable, Dict, List, Mapping, Optional, Tuple

from sr_deploy.core.deployment.calibration_cache import cache_text, parsed_version, read_cache
from sr_deploy.core.deployment.target import Target, check_formats
from sr_deploy.core.errors import BadInput, CheckFailed, EnvironmentFault, UsageError
from sr_deploy.core.number_formats import FLOAT16, FLOAT32, FORMATS
from sr_deploy.engine.options import EngineOptions

#: Layers whose precision must not be set: they hold shapes or constants, or types of their own (Q/DQ).
_FREE = frozenset({"SHAPE", "CONSTANT", "QUANTIZE", "DEQUANTIZE", "ASSERTION", "CONDITION"})
_HELD_TYPES = (FLOAT16.name, FLOAT32.name)


def set_precision(
    trt: Any,
    builder: Any,
    network: Any,
    config: Any,
    options: EngineOptions,
    nodes: AbstractSet[str] = frozenset(),
) -> Tuple[Dict[str, str], Callable[[], None]]:
    """Set flags, hold layers and attach the calibrator for one build.

    Args:
        trt: the module.
        builder, network, config: of this build; the network is parsed.
        options: precision, rest, layer_types and calibration_cache are obeyed here.
        nodes: names of all nodes of the graph; a layer that is called as one of them was made from that one.

    Returns:
        What was set, by name, for the manifest; and what to call after the build: it raises CheckFailed when TensorRT
        did not take the calibration cache. It also keeps the calibrator alive as long as the build.

    Raises:
        EnvironmentFault: the GPU has no fast FP16 or INT8.
        UsageError: options that contradict each other or the graph, or a type that this TensorRT does not have.
        BadInput: the cache is not one for this TensorRT.
        CheckFailed: none of the layers to hold exists.
    """
    if hasattr(trt.NetworkDefinitionCreationFlag, "STRONGLY_TYPED"):
        raise UsageError(f"TensorRT {trt.__version__} takes its types from the graph", "no flags or layer precisions")
    asked = [one.name for one in FORMATS if one.precision == options.precision]
    check_formats(Target("tensorrt", trt.__version__), asked, f"--precision {options.precision}")
    precision, layer_types, calibration_cache = options.precision, options.layer_types or {}, options.calibration_cache
    layers = [network.get_layer(index) for index in range(network.num_layers)]
    quantised = sum(layer.type.name == "DEQUANTIZE" for layer in layers)
    int8 = precision in ("int8", "auto")
    half = precision == "fp16" or int8 and options.rest == "float16"
    _check_request(precision, int8, quantised, layer_types, calibration_cache)
    settings: Dict[str, str] = {}
    if half:
        if not builder.platform_has_fast_fp16:
            raise _slow("FP16")
        config.set_flag(trt.BuilderFlag.FP16)
        settings["fp16"] = "on"
    if int8:
        if not builder.platform_has_fast_int8:
            raise _slow("INT8")
        config.set_flag(trt.BuilderFlag.INT8)
        settings["int8"] = "on"
    if layer_types:
        settings["held_layers"] = str(_hold_layers(trt, network, layer_types, nodes))
        config.set_flag(trt.BuilderFlag.OBEY_PRECISION_CONSTRAINTS)
    if calibration_cache is None:
        return settings, lambda: None
    settings["calibration_cache"] = Path(calibration_cache).name
    return settings, _calibrate_from(trt, config, calibration_cache)


def _slow(kind: str) -> EnvironmentFault:
    return EnvironmentFault(
        f"this GPU has no fast {kind}, so TensorRT would leave it out",
        f"a GPU that computes in {kind}",
        "build with --precision fp32 on this machine",
    )


def _check_request(
    precision: str, int8: bool, quantised: int, layer_types: Mapping[str, str], cache: Optional[Path]
) -> None:
    """Refuse what contradicts itself, instead of an engine that silently is something else."""
    if precision == "fp32" and (layer_types or cache or quantised):
        raise UsageError(
            f"an engine of precision fp32 was given {_given(layer_types, cache, quantised)}",
            "none of them, or another precision",
        )
    if int8 and not quantised and cache is None:
        raise UsageError(
            f"precision {precision} needs scales, and the graph has no Q/DQ",
            "a graph with Q/DQ, or a calibration cache",
            "srdeploy build DIR --precision int8 writes both",
        )
    if cache is not None and quantised:
        raise UsageError(f"the graph has Q/DQ, so TensorRT would not read {cache}", "one of the two")
    if cache is not None and not int8:
        raise UsageError(f"a calibration cache was given to an engine of precision {precision}", "int8 or auto")
    if quantised and not int8:
        raise UsageError(f"the graph has Q/DQ, and precision {precision} was asked for", "int8 or auto")


def _given(layer_types: Mapping[str, str], cache: Optional[Path], quantised: int) -> str:
    parts = [f"{len(layer_types)} layer types"] if layer_types else []
    parts += [f"the calibration cache {cache}"] if cache else []
    parts += [f"a graph with {quantised} DequantizeLinear"] if quantised else []
    return ", ".join(parts)


def _hold_layers(trt: Any, network: Any, layer_types: Mapping[str, str], nodes: AbstractSet[str]) -> int:
    """Set precision and output types of the layers made from the nodes named; gives the number of layers held.

    Shapes, constants and integers are left alone: TensorRT refuses a floating-point precision for them. A node that
    the parser has computed itself has no layer, so single ones may be missing.

    Raises:
        UsageError: a type that does not exist.
        CheckFailed: no node at all has a layer.
    """
    wrong = sorted(set(layer_types.values()) - set(_HELD_TYPES))
    if wrong:
        raise UsageError(f"layer types {', '.join(wrong)} do not exist", "one of " + ", ".join(_HELD_TYPES))
    held = 0
    for index in range(network.num_layers):
        layer = network.get_layer(index)
        node = node_to_hold(layer.name, layer_types, nodes)
        outputs = range(layer.num_outputs)
        if node is None or layer.type.name in _FREE or not all(_floats(trt, layer.get_output(i)) for i in outputs):
            continue
        wanted = trt.float16 if layer_types[node] == "float16" else trt.float32
        layer.precision = wanted
        for output in outputs:
            layer.set_output_type(output, wanted)
        held += 1
    if not held:
        raise CheckFailed(
            f"none of the {len(layer_types)} nodes to hold has a layer, such as {sorted(layer_types)[0]!r}",
            "names of nodes of the graph that is built",
            "make the plan again for this graph",
        )
    return held


def node_to_hold(layer_name: str, layer_types: Mapping[str, str], nodes: AbstractSet[str]) -> Optional[str]:
    """The node of ``layer_types`` that a layer was made from, or None.

    The importer calls a layer as its node; where one node makes several layers, or names repeat, the name gets "_" and
    a number (ImporterContext.hpp of onnx-tensorrt). An exporter numbers nodes in the same way, so a name that a node
    of the graph has is that node's and never a second layer of another.

    Args:
        layer_name: of TensorRT's network.
        layer_types: ONNX node name → type, of the nodes to hold.
        nodes: names of all nodes of the graph.
    """
    if layer_name in layer_types:
        return layer_name
    if layer_name in nodes:
        return None
    found = re.fullmatch(r"(.+)_\d+", layer_name)
    return found.group(1) if found and found.group(1) in layer_types else None


def _floats(trt: Any, tensor: Any) -> bool:
    return tensor is not None and tensor.dtype in (trt.float32, trt.float16) and not tensor.is_shape_tensor


def _calibrate_from(trt: Any, config: Any, path: Path) -> Callable[[], None]:
    """Attach a calibrator that gives TensorRT the file and nothing else.

    Returns:
        Raises CheckFailed, when called after the build, if TensorRT asked for pictures: it did not accept the file.

    Raises:
        BadInput: the file is no calibration cache, or one for another TensorRT.
    """
    cache = read_cache(path)
    here = parsed_version(trt.__version__)
    if cache.version != here:
        raise BadInput(
            f"the calibration cache {path} is for TensorRT {'.'.join(map(str, cache.version))}, here is "
            f"{trt.__version__}",
            "one for this version: TensorRT would not say that it ignores another's",
            "write it again for this version; the scales are in plan.json",
        )
    entropy = cache.algorithm == "EntropyCalibration2"
    base = trt.IInt8EntropyCalibrator2 if entropy else trt.IInt8MinMaxCalibrator
    data = cache_text(cache).encode()

    asked: List[str] = []

    class FromFile(base):  # type: ignore[misc, valid-type]
        """TensorRT asks for batches when it does not accept the cache; there are none."""

        def __init__(self) -> None:
            base.__init__(self)

        def get_batch_size(self) -> int:
            """One picture."""
            return 1

        def get_batch(self, names: List[str]) -> None:
            """No pictures; remembers for which inputs they were asked for."""
            asked.extend(names)

        def read_calibration_cache(self) -> bytes:
            """The file."""
            return data

        def write_calibration_cache(self, scales: bytes) -> None:
            """Nothing is written: the file is made from the plan."""

    calibrator = FromFile()
    config.int8_calibrator = calibrator

    def check(held: object = calibrator) -> None:
        if asked:
            raise CheckFailed(
                f"TensorRT did not accept the calibration cache {path} and asked for pictures of {asked[0]!r}",
                "a cache for the tensors of this graph",
                "write it again from the plan of this graph",
            )

    return check
