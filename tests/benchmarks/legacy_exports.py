"""Every checkpoint as the Jetson Xavier NX gets it, held against the rules of the 8.5 importer, float32 and INT8.

    python tests/benchmarks/legacy_exports.py ../shared/weights [--only efdn_x4]

For each file: ``export --target xavier-nx``, the check of the graph, then the check of its Q/DQ form with every
candidate convolution in INT8. The scales of that form are 1/127: the rules do not depend on them.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

import onnx

from sr_deploy.core.errors import SrDeployError
from sr_deploy.graph.census import work_by_node
from sr_deploy.pipeline.export import ExportOptions, export_deployment
from sr_deploy.precision.choose.islands import floating_nodes, kinds_of
from sr_deploy.precision.choose.plan_from_ranges import Scales, narrow_plan
from sr_deploy.precision.lower.lint import lint
from sr_deploy.precision.lower.tensorrt8 import legacy_graph
from sr_deploy.precision.lower.tensorrt8_importer import check_legacy

SIZE = (32, 32)


def row(checkpoint: Path, folder: Path) -> str:
    """One line of the table."""
    try:
        deployment = export_deployment(ExportOptions(checkpoint, folder / checkpoint.stem, target="xavier-nx"))
    except SrDeployError as error:
        return f"| {checkpoint.name} | not exported: {error.lines()[0]} | | | |"
    path = deployment.path_of(deployment.manifest.graphs[0])
    model = onnx.load(str(path))
    found = check_legacy(model)
    macs = {name: work.macs for name, work in work_by_node(path, SIZE).items()}
    floating = floating_nodes(model)
    tensors = {name for node in model.graph.node if node.name in floating for name in node.output}
    scales = dict.fromkeys(tensors | {value.name for value in model.graph.input}, 1 / 127)
    plan = narrow_plan(model, kinds_of(model, macs), "", Scales(scales))
    quantised = legacy_graph(model, plan, {})
    report = lint(quantised)
    broken = len(found) + len(check_legacy(quantised))
    return (
        f"| {checkpoint.name} | {model.opset_import[0].version} | {broken} | {report.narrow_products} | "
        f"{report.reformats} |"
    )


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("weights", type=Path)
    parser.add_argument("--only", action="append", default=[])
    options = parser.parse_args()
    print("| checkpoint | opset | violations | INT8 convolutions | conversions outside them |\n|---|---|---|---|---|")
    with tempfile.TemporaryDirectory() as folder:
        for checkpoint in sorted(options.weights.iterdir()):
            if not options.only or checkpoint.stem in options.only:
                print(row(checkpoint, Path(folder)), flush=True)


if __name__ == "__main__":
    main()
