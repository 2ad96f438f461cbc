"""What first contact runs, made on a machine with PyTorch and ONNX: deployments with plans, expected pictures, plans of
TensorRT-RTX for GPUs that are not here. The machine with the GPU needs none of those packages."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Callable, Optional, Sequence, Tuple

import numpy as np

from sr_deploy.core.contract import IOContract, Size
from sr_deploy.core.deployment.manifest import open_deployment
from sr_deploy.core.media.sample import sample_for

ROOT = Path(__file__).resolve().parents[2]
ASSETS = Path(os.environ.get("SRDEPLOY_ASSETS", ROOT.parent / "shared"))
CHECKPOINTS = {"span": "span_ch26_x4.pth", "efdn": "efdn_x4.pth", "f2srgan": "f2srgan_x4.pt"}
DEMO = ROOT / "sr_deploy/demo/demo_x2.safetensors"
SIZES: Tuple[Size, ...] = ((144, 144), (360, 360))
#: Name → GPUs of a TensorRT-RTX plan; "portable" runs on all that it knows.
RTX_PLANS = {"sm80": ("8.0",), "sm86": ("8.6",), "sm120": ("12.0",), "portable": ()}
#: Pixels a side of an expected picture that is kept, about.
KEPT = 576


def checkpoints() -> Sequence[Tuple[str, Path]]:
    """(name, file) of the networks: the shared checkpoints where they are, else the one that ships."""
    found = [(name, ASSETS / "weights" / file) for name, file in CHECKPOINTS.items()]
    return [(name, path) for name, path in found if path.is_file()] or [("demo", DEMO)]


def prepare(
    folder: Path,
    networks: Sequence[Tuple[str, Path]],
    precisions: Sequence[str] = ("fp16", "int8"),
    sizes: Sequence[Size] = SIZES,
    images: Optional[Path] = None,
    say: Callable[[str], None] = print,
) -> None:
    """Write the material. Takes minutes for int8: its plans are fitted on the CPU.

    Args:
        folder: does not exist yet.
        networks: (name, checkpoint).
        precisions: plans to make besides float32.
        sizes: inputs (height, width) to keep expected pictures of.
        images: photographs to calibrate on, for int8.
        say: told of each step.
    """
    from sr_deploy.pipeline.engines.plans import planned_for
    from sr_deploy.pipeline.export import ExportOptions, export_deployment
    from sr_deploy.pipeline.precision.deployed_plan import precision_options

    folder.mkdir(parents=True)
    for name, checkpoint in networks:
        say(f"{name}: export")
        deployment = export_deployment(ExportOptions(checkpoint, folder / name))
        keep_expected(folder / name, sizes)
        for precision in precisions:
            say(f"{name}: plan for {precision}")
            # What is painted is judged beside photographs; without any, a float16 plan has the picture that ships.
            pictures = {"images": images if precision == "int8" else None, "content": "any" if images else "photo"}
            options = precision_options(precision, None, **pictures)
            planned_for(deployment, options, say)
    name, checkpoint = networks[0]
    export_deployment(ExportOptions(checkpoint, folder / f"{name}-uint8", io="uint8"))
    keep_expected(folder / f"{name}-uint8", sizes[:1])
    write_island(folder)
    write_rtx_plans(folder, folder / name / "model.onnx", sizes[0], say)
    (folder / "material.json").write_text(
        json.dumps({"networks": [name for name, _ in networks], "precisions": ["fp32", *precisions], "sizes": sizes})
    )


def keep_expected(deployment: Path, sizes: Sequence[Size]) -> None:
    """What ONNX Runtime on the CPU makes of the sample pictures, thinned to about KEPT pixels a side, in 16 bits."""
    from sr_deploy.engine.onnxruntime_cuda import CPU
    from sr_deploy.run.base import upscale
    from sr_deploy.run.onnxruntime import runner_from_graph

    manifest = open_deployment(deployment).manifest
    runner = runner_from_graph(deployment / "model.onnx", manifest.contract, manifest.scale, provider=CPU)
    kept = {
        f"{size[0]}x{size[1]}": in_16_bits(upscale(runner, sample_for(manifest.contract, size)), manifest.contract)
        for size in sizes
    }
    runner.close()
    np.savez_compressed(deployment / "expected.npz", **kept)


def in_16_bits(picture: np.ndarray, contract: IOContract) -> np.ndarray:
    """A picture of the contract, thinned, white = 65280: 256 steps are one of 8 bits."""
    rows, columns = (1, 2) if contract.layout == "NHWC" else (2, 3)
    step = max(1, picture.shape[rows] // KEPT)
    thinned = picture[:, ::step, ::step] if rows == 1 else picture[:, :, ::step, ::step]
    assert thinned.shape[columns] > 0
    white = 255.0 if picture.dtype == np.uint8 else contract.value_range
    return np.rint(np.clip(thinned.astype(np.float64) / white, 0, 1) * 65280).astype(np.uint16)


def largest_step(picture: np.ndarray, deployment: Path, contract: IOContract, size: Size) -> float:
    """Largest difference from the expected picture, in 8-bit steps."""
    with np.load(deployment / "expected.npz") as kept:
        expected = kept[f"{size[0]}x{size[1]}"].astype(np.int64)
    return float(np.abs(in_16_bits(picture, contract).astype(np.int64) - expected).max() / 256)


def write_island(folder: Path) -> None:
    """A float16 graph with a LayerNorm over channels in float32 between two convolutions, and its plan."""
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    generator = np.random.default_rng(0)
    half, single = TensorProto.FLOAT16, TensorProto.FLOAT
    weights = {
        "w1": generator.normal(0, 0.2, (16, 3, 3, 3)).astype(np.float16),
        "w2": generator.normal(0, 0.1, (3, 16, 3, 3)).astype(np.float16),
        "epsilon": np.float32(1e-5),
    }
    make = helper.make_node
    nodes = [
        make("Cast", ["lr"], ["lr16"], name="in", to=half),
        make("Conv", ["lr16", "w1"], ["a"], name="conv1", pads=[1, 1, 1, 1]),
        make("Cast", ["a"], ["a32"], name="widen", to=single),
        make("ReduceMean", ["a32"], ["mean"], name="mean", axes=[1], keepdims=1),
        make("Sub", ["a32", "mean"], ["centred"], name="sub"),
        make("Mul", ["centred", "centred"], ["squares"], name="square"),
        make("ReduceMean", ["squares"], ["variance"], name="variance", axes=[1], keepdims=1),
        make("Add", ["variance", "epsilon"], ["safe"], name="add"),
        make("Sqrt", ["safe"], ["deviation"], name="sqrt"),
        make("Div", ["centred", "deviation"], ["normal"], name="div"),
        make("Cast", ["normal"], ["b"], name="narrow", to=half),
        make("Conv", ["b", "w2"], ["c"], name="conv2", pads=[1, 1, 1, 1]),
        make("Cast", ["c"], ["sr"], name="out", to=single),
    ]
    ends = [helper.make_tensor_value_info(name, single, [1, 3, 144, 144]) for name in ("lr", "sr")]
    constants = [numpy_helper.from_array(np.asarray(value), name) for name, value in weights.items()]
    graph = helper.make_graph(nodes, "island", ends[:1], ends[1:], constants)
    (folder / "island").mkdir()
    onnx.save(
        helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8),
        str(folder / "island/model.onnx"),
    )
    wide = ("mean", "sub", "square", "variance", "add", "sqrt", "div")
    types = {node.name: "float32" if node.name in wide else "float16" for node in nodes}
    (folder / "island/nodes.json").write_text(json.dumps(types))


def write_rtx_plans(folder: Path, graph: Path, size: Size, say: Callable[[str], None]) -> None:
    """Plans for GPUs that are not here, where TensorRT-RTX imports."""
    from sr_deploy.core.errors import MissingPackage
    from sr_deploy.core.host.rtx import rtx_capabilities
    from sr_deploy.engine.tensorrt import engine_from_graph

    (folder / "rtx").mkdir()
    for name, capabilities in RTX_PLANS.items():
        try:
            built = engine_from_graph("tensorrt-rtx", graph, (size,) * 3, capabilities or rtx_capabilities())
        except MissingPackage as error:
            say(f"no TensorRT-RTX plans: {error.found}")
            return
        (folder / "rtx" / f"{name}.engine").write_bytes(built.plan)
