"""``config.pbtxt`` of one Triton model, in protobuf text format.

Fields and their meaning: protobuf/model_config.proto of triton-inference-server/common, message ModelConfig.
"""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Dict, List, Optional, Tuple

from sr_deploy.core.contract import IOContract, Size
from sr_deploy.engine.manifest import Profile

#: Triton's backend of that name, which loads TensorRT's plans.
TENSORRT = "tensorrt"


@dataclass(frozen=True)
class Model:
    """One model of a repository.

    Attributes:
        name: its folder.
        backend: "onnxruntime" or "tensorrt".
        size: the fixed input (height, width); None for a range.
        scale: output size over input size.
        contract: the tensors at both ends.
        files: name in the version folder → the file to copy.
        profile: smallest, best and largest input; None: not known (ONNX only).
        capabilities: TensorRT: compute capability → file.
        captured: TensorRT: the inputs that a CUDA graph is captured for.
        cache: ONNX: folder on the server for the engines that its TensorRT builds.
        origin: what it was made of, for a comment.
    """

    name: str
    backend: str
    size: Optional[Size]
    scale: int
    contract: IOContract
    files: Dict[str, Path]
    profile: Optional[Profile] = None
    capabilities: Dict[str, str] = dataclasses.field(default_factory=dict)
    captured: Tuple[Size, ...] = ()
    cache: Optional[str] = None
    origin: str = ""


def config_text(model: Model) -> str:
    """The configuration. ``max_batch_size`` is 0: the batch of 1 is part of the shape, and requests are not batched."""
    contract = model.contract
    high = (model.size[0] * model.scale, model.size[1] * model.scale) if model.size else None
    lines = [
        f"# {' '.join(model.origin.split())}",
        f"# {contract.colour}, {contract.layout}, 0 to {contract.value_range:g}; output: {model.scale} times as large",
        f"name: {_quoted(model.name)}",
        f"backend: {_quoted(model.backend)}",
        "max_batch_size: 0",
        *_tensor("input", contract.input_name, contract, model.size),
        *_tensor("output", contract.output_name, contract, high),
    ]
    # KIND_AUTO lets a server without a GPU run the graph on its processor.
    kind = "KIND_GPU" if model.backend == TENSORRT else "KIND_AUTO"
    lines.append(f"instance_group [ {{ count: 1 kind: {kind} }} ]")
    if model.backend == TENSORRT:
        default = next(iter(model.files))
        lines.append(f"default_model_filename: {_quoted(default)}")
        lines += [
            f"cc_model_filenames {{ key: {_quoted(capability)} value: {_quoted(file)} }}"
            for capability, file in sorted(model.capabilities.items())
        ]
        lines += _cuda_graphs(model)
    else:
        lines.append('default_model_filename: "model.onnx"')
        lines += _accelerator(model)
    return "\n".join(lines) + "\n"


def _tensor(field: str, name: str, contract: IOContract, size: Optional[Size]) -> List[str]:
    dims = _dims(contract, size or (-1, -1))
    kind = {"float32": "TYPE_FP32", "uint8": "TYPE_UINT8"}[contract.dtype]
    return [f"{field} [ {{ name: {_quoted(name)} data_type: {kind} dims: [ {dims} ] }} ]"]


def _dims(contract: IOContract, size: Size) -> str:
    return ", ".join(map(str, contract.shape(size)))


def _cuda_graphs(model: Model) -> List[str]:
    """``batch_size: 0`` is what the protobuf asks for where ``max_batch_size`` is 0; the shape is then whole."""
    key = _quoted(model.contract.input_name)
    specs = [
        f"      {{ batch_size: 0 input {{ key: {key} value {{ dim: [ {_dims(model.contract, size)} ] }} }} }}"
        for size in model.captured
    ]
    graphs = ",\n".join(specs)
    return ["optimization {", "  cuda {", "    graphs: true", "    graph_spec [", graphs, "    ]", "  }", "}"]


def _accelerator(model: Model) -> List[str]:
    """TensorRT inside ONNX Runtime, in float32: what was proved of the graph was proved in float32."""
    parameters = {"precision_mode": "FP32"}
    if model.cache is not None:
        parameters["trt_engine_cache_enable"] = "1"
        parameters["trt_engine_cache_path"] = model.cache
    if model.profile is not None and model.size is None:
        for word, size in zip(("min", "opt", "max"), model.profile):
            shape = "x".join(map(str, model.contract.shape(size)))
            parameters[f"trt_profile_{word}_shapes"] = f"{model.contract.input_name}:{shape}"
    rows = [f"      parameters {{ key: {_quoted(k)} value: {_quoted(v)} }}" for k, v in parameters.items()]
    head = ["optimization {", "  execution_accelerators {", "    gpu_execution_accelerator [ {"]
    return [*head, '      name: "tensorrt"', *rows, "    } ]", "  }", "}"]


def _quoted(text: str) -> str:
    """A string of the text format; JSON's escapes of ASCII are a part of it."""
    return json.dumps(text, ensure_ascii=False)
