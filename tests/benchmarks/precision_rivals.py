"""This tool's INT8 without training against ONNX Runtime's quantiser and NVIDIA ModelOpt: dB lost, time, INT8 share.

    python tests/benchmarks/precision_rivals.py --tool srdeploy --results rivals.json
    python tests/benchmarks/precision_rivals.py --tool onnxruntime --results rivals.json
    python tests/benchmarks/precision_rivals.py --tool modelopt --results rivals.json --python MODELOPT_VENV/bin/python
    python tests/benchmarks/precision_rivals.py --results rivals.json --print         the table, best settings only
    python tests/benchmarks/precision_rivals.py --results rivals.json --print --all   every row that was measured

    --only NAME …    checkpoints            --variants NAME …   see VARIANTS            --deployments DIR   exports

What is missing in the results is measured. ModelOpt wants other versions of onnx and onnxruntime than this project:
make it an environment of its own (torch 2.13.0 for the CPU, then ``nvidia-modelopt[onnx]`` 0.47.0). Only its command
runs there; all graphs are judged here, by precision/evaluate.py in ONNX Runtime, node by node as they are written.

All start from the same exported float32 graph (one for any size) and the same 96x96 squares, one from each of the 100
calibration photographs. Symmetric activations, one scale a tensor; symmetric weights, one scale an output channel.

ONNX Runtime: ``quantize_static``, Q/DQ, signed 8 bits; MinMax, Entropy, and Percentile with 99.999 (its default) and
99.99. Entropy gets 2048 bins: with its default of 128 there is nothing to search, and it is MinMax. The graphs need no
``quant_pre_process``: the exporter folded them, and their shapes are inferred.
ModelOpt: its command, ``max`` and ``entropy``, with ``--high_precision_dtype fp32``.

"same" quantises exactly the convolutions that this tool quantises by default, and nothing else: ``Conv`` only, with the
head, the tail, depthwise and small ones in nodes_to_exclude. That is the strongest placement of both tools here.
"own" is the placement of each tool, with its default operator types: head, tail and element-wise operators too.
Fourier units are excluded in both. The rivals compute everything else in float32, this tool in float16.

Rows of this tool: "fitted" is ``srdeploy build --precision int8``, "plain" the same with --no-fit. Its time includes
the proof on pictures that ends every plan. Times are CPU seconds of the whole command and its children, with threads as
each tool takes them; wall seconds and peak memory are in the results too. The best of a rival's settings is the one
that loses least on Set5 and Set14 together: chosen after the fact, in the rival's favour.
Data is found through SRDEPLOY_ASSETS (default ../shared).
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Dict, Iterator, List, Tuple

import numpy as np
import onnx

from sr_deploy.core.artifact import write_json
from sr_deploy.core.deployment.manifest import Deployment, open_deployment
from sr_deploy.core.media.image import find_images, read_picture, to_network
from sr_deploy.graph.census import work_by_node
from sr_deploy.pipeline.export import CENSUS_SIZE, ExportOptions, export_deployment
from sr_deploy.precision.calibrate.collect import PATCH, patches
from sr_deploy.precision.choose.islands import Kinds, kinds_of
from sr_deploy.precision.evaluate import Scene, computing, judge, scenes_of

ASSETS = Path(os.environ.get("SRDEPLOY_ASSETS", Path(__file__).resolve().parents[3] / "shared"))
CHECKPOINTS = (
    "span_ch26_x4.pth", "dsclora_x4.pth", "efdn_x4.pth", "light_f2srgan_x4_whole_module.pt", "f2srgan_x4_student.pt",
    "f2srgan_x4.pt",
)  # fmt: skip
VARIANTS = {
    "srdeploy": ("fitted", "plain"),
    "onnxruntime": tuple(f"{scope}/{m}" for scope in ("same", "own")
                         for m in ("minmax", "entropy", "percentile-99.999", "percentile-99.99")),
    "modelopt": tuple(f"{scope}/{method}" for scope in ("same", "own") for method in ("max", "entropy")),
}  # fmt: skip
SETS = ("Set5", "Set14")
#: Squares that ONNX Runtime's calibrators hold in memory at a time, with all that the network computes from them.
CHUNK = 10
#: Bins of ONNX Runtime's entropy calibrator.
BINS = 2048


@dataclass(frozen=True)
class Subject:
    """One checkpoint: its float32 graph, what may be quantised in it, and the pictures it is judged on."""

    deployment: Deployment
    model: onnx.ModelProto
    macs: Dict[str, int]
    kinds: Kinds
    scenes: Dict[str, Tuple[Scene, ...]]

    @property
    def path(self) -> Path:
        """The float32 graph's file."""
        return self.deployment.folder / "model.onnx"

    def excluded(self, scope: str) -> List[str]:
        """Nodes that a rival must leave alone: the Fourier units, and for "same" what this tool leaves alone too."""
        return sorted({**self.kinds.pinned, **(self.kinds.wide if scope == "same" else {})})


def say(text: str) -> None:
    """Progress to stderr: the table alone goes to stdout."""
    print(text, file=sys.stderr, flush=True)


def subject_of(folder: Path, name: str) -> Subject:
    """The checkpoint exported for the Xavier NX, as in precision_quality.py, with float32's answers to the pictures."""
    place = folder / name.split(".")[0]
    if not place.exists():
        export_deployment(ExportOptions(ASSETS / "weights" / name, place, target="xavier-nx"), say)
    deployment = open_deployment(place)
    manifest, path = deployment.manifest, deployment.folder / "model.onnx"
    model = onnx.load(str(path))
    macs = {node: work.macs for node, work in work_by_node(path, CENSUS_SIZE).items()}
    exact = computing(model)
    images = ASSETS / "images"
    scenes = {
        one: scenes_of(
            images / one / "LR_bicubic" / f"X{manifest.scale}", images / one / "HR", manifest.scale,
            manifest.contract, exact,
        )
        for one in SETS
    }  # fmt: skip
    return Subject(deployment, model, macs, kinds_of(model, macs), scenes)


def squares(folder: Path) -> Iterator[np.ndarray]:
    """What this tool calibrates with: the same squares in the same order, as the deployment's graph takes them."""
    manifest = open_deployment(folder).manifest
    files = find_images([ASSETS / "images" / "calibration" / "DIV2K_test_LRx4"])
    arrays = (to_network(read_picture(file), manifest.contract) for file in files)
    return patches(arrays, PATCH, multiple=manifest.sizes.multiple)


def int8_share(model: onnx.ModelProto, subject: Subject) -> float:
    """Share of the MACs outside the Fourier units in products whose two inputs come out of Q/DQ."""
    maker = {name: node for node in model.graph.node for name in node.output}

    def narrow(name: str) -> bool:
        node = maker.get(name)
        while node is not None and node.op_type in ("Cast", "Identity"):
            node = maker.get(node.input[0])
        return node is not None and node.op_type == "DequantizeLinear"

    products = [node for node in model.graph.node if node.op_type in ("Conv", "ConvTranspose", "MatMul", "Gemm")]
    unknown = [node.name for node in products if node.name not in subject.macs]
    if unknown:
        raise SystemExit(f"the quantised graph has products that float32 does not have: {unknown[:4]}")
    done = sum(subject.macs[node.name] for node in products if all(narrow(name) for name in node.input[:2]))
    return done / subject.kinds.macs


def quantise(tool: str, variant: str, subject: Subject, output: Path, python: Path) -> Dict[str, float]:
    """Run the tool in a process of its own, and measure that process."""
    scope, _, method = variant.rpartition("/")
    work = output.with_suffix("")
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir(parents=True)
    # ModelOpt writes inferred shapes back into the very file that it is given, so it gets a copy.
    source = work / "float32.onnx"
    shutil.copyfile(subject.path, source)
    if tool == "modelopt":
        stacked = work / "squares.npz"
        name = subject.deployment.manifest.contract.input_name
        np.savez(stacked, **{name: np.concatenate(list(squares(subject.deployment.folder)))})
        command = [
            str(python), "-m", "modelopt.onnx.quantization", "--onnx_path", str(source),
            "--quantize_mode", "int8", "--calibration_data", str(stacked), "--calibration_method", method,
            "--calibration_eps", "cpu",
            "--calibration_shapes", f"{name}:1x3x{PATCH}x{PATCH}", "--high_precision_dtype", "fp32",
            "--output_path", str(output),
        ]  # fmt: skip
        excluded = [f"^{re.escape(name)}$" for name in subject.excluded(scope)]
        command += ["--op_types_to_quantize", "Conv"] if scope == "same" else []
        command += ["--nodes_to_exclude", *excluded] if excluded else []
    else:
        job = {
            "tool": tool, "scope": scope, "method": method, "deployment": str(subject.deployment.folder),
            "source": str(source), "output": str(output), "work": str(work), "excluded": subject.excluded(scope),
        }  # fmt: skip
        write_json(work / "job.json", job)
        command = [sys.executable, __file__, "--worker", str(work / "job.json")]
    started = time.perf_counter()
    with open(work / "log.txt", "wb") as log:
        process = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT, cwd=work)
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode or not output.is_file():
        raise SystemExit(f"{tool} {variant} ended with {process.returncode}: see {work / 'log.txt'}")
    return {
        "cpu_seconds": usage.ru_utime + usage.ru_stime,
        "wall_seconds": time.perf_counter() - started,
        "peak_mib": usage.ru_maxrss / 1024,
    }


def srdeploy_worker(job: Dict[str, Any]) -> None:
    """What ``srdeploy build --precision int8`` does up to the engine, in a copy of the deployment without any plan."""
    from sr_deploy.pipeline.precision.deployed_plan import PrecisionOptions
    from sr_deploy.pipeline.precision.make_plan import plan_for

    copy, source = Path(job["work"]) / "deployment", Path(job["deployment"])
    copy.mkdir()
    for name in ("manifest.json", "model.onnx"):
        shutil.copy2(source / name, copy / name)
    images = ASSETS / "images" / "calibration" / "DIV2K_test_LRx4"
    options = PrecisionOptions("int8", images=images, improve=job["method"] == "fitted")
    shutil.copy2(plan_for(open_deployment(copy), options, say).typed, job["output"])


def onnxruntime_worker(job: Dict[str, Any]) -> None:
    """ONNX Runtime's quantiser."""
    from importlib import import_module

    from onnxruntime.quantization import CalibrationDataReader, CalibrationMethod, QuantFormat, QuantType

    deployment = Path(job["deployment"])
    name = open_deployment(deployment).manifest.contract.input_name
    arrays = list(squares(deployment))

    class Reader(CalibrationDataReader):
        """The squares, some at a time as ``CalibStridedMinMax`` asks: it works for every method."""

        def __init__(self) -> None:
            self.set_range(0, len(arrays))

        def __len__(self) -> int:
            return len(arrays)

        def set_range(self, start_index: int, end_index: int) -> None:
            self.left = iter(arrays[start_index:end_index])

        def get_next(self) -> Any:
            array = next(self.left, None)
            return None if array is None else {name: array}

    method, _, percentile = job["method"].partition("-")
    options: Dict[str, Any] = {"ActivationSymmetric": True, "WeightSymmetric": True, "CalibStridedMinMax": CHUNK}
    if percentile:
        options["CalibPercentile"] = float(percentile)
    if method == "entropy":
        # quantize_static has no option for the bins, and its calibrator has.
        module = import_module("onnxruntime.quantization.quantize")
        made = module.create_calibrator
        module.create_calibrator = lambda *given, extra_options, **named: made(
            *given, extra_options={**extra_options, "num_bins": BINS, "symmetric": True}, **named
        )
    import_module("onnxruntime.quantization").quantize_static(
        job["source"],
        job["output"],
        Reader(),
        quant_format=QuantFormat.QDQ,
        op_types_to_quantize=["Conv"] if job["scope"] == "same" else None,
        per_channel=True,
        activation_type=QuantType.QInt8,
        weight_type=QuantType.QInt8,
        nodes_to_exclude=job["excluded"],
        calibrate_method={
            "minmax": CalibrationMethod.MinMax,
            "entropy": CalibrationMethod.Entropy,
            "percentile": CalibrationMethod.Percentile,
        }[method],
        extra_options=options,
    )


def measured(tool: str, variant: str, subject: Subject, output: Path, python: Path) -> Dict[str, Any]:
    """One row."""
    row: Dict[str, Any] = quantise(tool, variant, subject, output, python)
    model = onnx.load(str(output))
    row["int8_share"] = int8_share(model, subject)
    compute, manifest = computing(model), subject.deployment.manifest
    for name, scenes in subject.scenes.items():
        found = judge(scenes, compute, manifest.scale, manifest.contract)
        row[name] = {
            "float32": found.reference_psnr, "psnr": found.psnr, "loss": found.loss, "shift": found.mean_shift,
            "sick": found.sick,
        }  # fmt: skip
    return row


def mean_loss(row: Dict[str, Any]) -> float:
    """Over the pictures' sets."""
    return float(np.mean([row[name]["loss"] for name in SETS]))


def table(results: Dict[str, Dict[str, Any]], everything: bool) -> str:
    """Markdown: of each rival's placements the best method, or every row."""
    lines = [
        "| checkpoint | tool | quantised | method | INT8 MACs | Set5, dB lost | Set14, dB lost | CPU seconds |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for name in CHECKPOINTS:
        rows = results.get(name, {})
        for tool, variants in VARIANTS.items():
            found = [(variant, rows[f"{tool} {variant}"]) for variant in variants if f"{tool} {variant}" in rows]
            if tool != "srdeploy" and not everything:
                scopes = {variant.split("/")[0]: [] for variant, _ in found}
                for one in found:
                    scopes[one[0].split("/")[0]].append(one)
                found = [min(ones, key=lambda one: mean_loss(one[1])) for ones in scopes.values()]
            for variant, row in found:
                scope, _, method = variant.rpartition("/")
                lines.append(
                    f"| {name} | {tool} | {scope or 'default'} | {method} | {row['int8_share']:.1%} "
                    f"| {row['Set5']['loss']:.3f} | {row['Set14']['loss']:.3f} | {row['cpu_seconds']:.0f} |"
                )
    return "\n".join(lines)


def main() -> None:
    """See the top of the file."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tool", choices=tuple(VARIANTS))
    parser.add_argument("--results", type=Path, default=Path("rivals.json"))
    parser.add_argument("--deployments", type=Path, help="where exports are kept; default beside the results")
    parser.add_argument("--python", type=Path, help="of the environment that has ModelOpt")
    parser.add_argument("--only", nargs="*", default=CHECKPOINTS)
    parser.add_argument("--variants", nargs="*")
    parser.add_argument("--print", action="store_true")
    parser.add_argument("--all", action="store_true")
    parser.add_argument("--worker", type=Path, help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.worker:
        job = json.loads(asked.worker.read_text())
        {"srdeploy": srdeploy_worker, "onnxruntime": onnxruntime_worker}[job["tool"]](job)
        return
    results = json.loads(asked.results.read_text()) if asked.results.is_file() else {}
    if not asked.print:
        if asked.tool is None or (asked.tool == "modelopt" and asked.python is None):
            parser.error("--tool is needed, and --python with --tool modelopt")
        place = asked.results.resolve().with_suffix("")
        for name in asked.only:
            wanted = asked.variants or VARIANTS[asked.tool]
            variants = [one for one in wanted if f"{asked.tool} {one}" not in results.get(name, {})]
            if not variants:
                continue
            subject = subject_of(asked.deployments or place / "deployments", name)
            for variant in variants:
                say(f"{name} {asked.tool} {variant}")
                output = place / name.split(".")[0] / f"{asked.tool}_{variant.replace('/', '_')}.onnx"
                row = measured(asked.tool, variant, subject, output, asked.python)
                # Another tool's run may have written meanwhile.
                results = json.loads(asked.results.read_text()) if asked.results.is_file() else {}
                results.setdefault(name, {})[f"{asked.tool} {variant}"] = row
                write_json(asked.results, results)
    print(table(results, asked.all))


if __name__ == "__main__":
    main()
