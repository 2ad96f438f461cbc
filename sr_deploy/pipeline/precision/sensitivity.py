"""What each layer costs in dB when it alone runs in INT8: a table, a plot, JSON."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Callable, Dict, List, Optional

from sr_deploy.core.artifact import write_json
from sr_deploy.core.deployment.manifest import open_deployment
from sr_deploy.core.number_formats import INT8
from sr_deploy.pipeline.precision.deployed_plan import CONTENT, PrecisionOptions
from sr_deploy.precision.calibrate.ranges import METHOD

TABLE_NAME, PLOT_NAME = "sensitivity.json", "sensitivity.png"


@dataclass(frozen=True)
class SensitivityOptions:
    """What ``srdeploy sensitivity`` is asked for.

    Attributes:
        deployment: the folder.
        images: photographs to calibrate with and, shrunk, to judge on.
        lr, hr: pairs to judge on instead.
        method: of calibration.
        content: one of deployed_plan.CONTENTS.
    """

    deployment: Path
    images: Path
    lr: Optional[Path] = None
    hr: Optional[Path] = None
    method: str = METHOD
    content: str = CONTENT


@dataclass(frozen=True)
class Sensitivity:
    """The files written, and the facts in them."""

    table: Path
    plot: Path
    facts: Dict[str, Any]


def measure_sensitivity(options: SensitivityOptions, say: Callable[[str], None] = lambda _: None) -> Sensitivity:
    """Quantise every convolution by itself, everything else in float32, and look at the pictures.

    Plain rounding is judged, without fitted weights: what a layer costs before anything is done about it.

    Raises:
        BadInput: no pictures, none large enough, or a deployment without a graph for any size.
        UsageError: ``lr`` without ``hr``, or no such method.
    """
    from sr_deploy.pipeline.precision.int8 import gather, layer_costs
    from sr_deploy.pipeline.precision.plan_inputs import workbench
    from sr_deploy.pipeline.precision.plan_needs import check_needs, plannable
    from sr_deploy.report.plots_precision import sensitivity_plot

    asked = PrecisionOptions("int8", None, options.images, options.lr, options.hr, options.method, improve=False)
    asked = dataclasses.replace(asked, content=options.content)
    deployment = open_deployment(options.deployment)
    check_needs(deployment, asked)
    graph = plannable(deployment)
    bench = workbench(deployment, graph, asked, say)
    material = gather(deployment, bench, asked, say)
    costs = layer_costs(bench, material, dict.fromkeys(bench.kinds.candidates, INT8.name), {}, say)
    layers: List[Dict[str, Any]] = [
        {
            "name": one.name,
            "default": "float16" if one.why_wide else "int8",
            "why_wide": one.why_wide,
            "loss_db": round(one.loss, 5),
            "noise": round(one.noise, 6),
            "macs_share": round(one.macs_share, 5),
        }
        for one in costs
    ]
    facts = {
        "schema": 1,
        "graph_sha256": graph.sha256,
        "pictures": [scene.name for scene in bench.scenes],
        "calibration": material.calibration,
        "pinned_float32": dict(bench.kinds.pinned),
        "layers": layers,
    }
    folder = deployment.precision_folder
    table, plot = folder / TABLE_NAME, folder / PLOT_NAME
    write_json(table, facts)
    sensitivity_plot(layers, plot, f"{deployment.manifest.architecture} in INT8, layer by layer")
    return Sensitivity(table, plot, facts)
