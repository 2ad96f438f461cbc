"""Networks made narrower by ``srdeploy compress``: cost, time, fidelity to the whole network, PSNR-Y, and what else is
measured, beside the whole network, other ways to choose channels, and published networks of the same cost.

    python tests/benchmarks/compress_table.py WORK                          every row that is not there yet
    python tests/benchmarks/compress_table.py WORK --only student --steps 50
    python tests/benchmarks/compress_table.py WORK --dry-run                which rows there are

A row's deployment is kept in WORK and is not made again; an interrupted distillation goes on where it stopped.
Channels, weights and training see the calibration photographs only; Set5 and Set14 only judge. Training is bounded by
steps, so that a busy machine changes nothing but the time that it takes; one thread. Data is found through
SRDEPLOY_ASSETS (default ../shared).
"""

from __future__ import annotations

import argparse
import json
import os
import re
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Dict, Iterator, List, Optional, Tuple

import torch

from sr_deploy.core.artifact import write_json
from sr_deploy.core.deployment.manifest import Deployment, open_deployment
from sr_deploy.core.quality.metrics import METRICS
from sr_deploy.pipeline.compress.compress import compress_deployment
from sr_deploy.pipeline.compress.request import CompressRequest
from sr_deploy.pipeline.compress.unfinished import RECORD_NAME, folder_of
from sr_deploy.pipeline.export import ExportOptions, export_deployment
from sr_deploy.pipeline.verify import VerifyOptions, verify_quality

ASSETS = Path(os.environ.get("SRDEPLOY_ASSETS", Path(__file__).resolve().parents[3] / "shared"))
SETS = ("Set5", "Set14")
#: Steps of distillation; rows of others are made with --steps.
STEPS = {"f2srgan_x4_student.pt": 600, "span_ch26_x4.pth": 1000, "efdn_x4.pth": 500, "f2srgan_x4.pt": 150}
#: Metrics in the table.
SHOWN = ("psnr_y", "grid", "niqe")


@dataclass(frozen=True)
class Row:
    """One network narrowed in one way; without a budget the whole network.

    Attributes:
        network: a file of weights/.
        label: of the row, unique for a network.
        options: of CompressRequest.
        trained: whether distillation follows, of so many steps as STEPS has for the network.
    """

    network: str
    label: str
    options: Tuple[Tuple[str, Any], ...] = ()
    trained: bool = False

    @property
    def name(self) -> str:
        """Of its folder."""
        return "-".join(re.findall("[a-z0-9._]+", f"{self.network.split('.')[0]} {self.label}".lower()))


def _rows() -> Iterator[Row]:
    student, span, efdn, whole = "f2srgan_x4_student.pt", "span_ch26_x4.pth", "efdn_x4.pth", "f2srgan_x4.pt"
    yield Row(student, "whole")
    yield Row("light_f2srgan_x4_whole_module.pt", "whole")
    light = (("macs", 0.599),)
    yield Row(student, "Light's MACs", light)
    yield Row(student, "Light's MACs trained", light, True)
    for method in ("l1", "lamp", "random"):
        yield Row(student, f"{method} as published", (*light, ("importance", method), ("refit", False)))
        yield Row(student, f"{method} fitted", (*light, ("importance", method)))
        yield Row(student, f"{method} trained", (*light, ("importance", method), ("refit", False)), True)
    yield Row(student, "85,000 MACs", (("macs", 0.494),))
    yield Row(student, "85,000 MACs trained", (("macs", 0.494),), True)
    for network in (span, efdn):
        yield Row(network, "whole")
        yield Row(network, "70 % of MACs", (("macs", 0.7),))
        yield Row(network, "70 % of MACs trained", (("macs", 0.7),), True)
        yield Row(network, "75 % of time", (("time", 0.75), ("threads", 1)))
    yield Row(whole, "whole")
    # 0.552 of its time is the student's, by the estimate that compress makes.
    for share in (0.8, 0.6, 0.55, 0.4):
        options = (("time", share), ("device_for", "xavier-nx"), ("size", (360, 360)))
        yield Row(whole, f"{share:g} of time on a Xavier NX", options)
        if share == 0.55:
            yield Row(whole, f"{share:g} of time on a Xavier NX trained", options, True)


ROWS = tuple(_rows())


class Table:
    """Rows as they are measured, kept in a folder."""

    def __init__(self, work: Path, steps: Optional[int], niqe_params: Optional[Path]) -> None:
        self.work, self.steps, self.niqe_params = work, steps, niqe_params

    def of(self, row: Row) -> Dict[str, Any]:
        """What is known of a row: measured, or read where it was before."""
        file = self.work / f"{row.name}.json"
        if file.is_file():
            found: Dict[str, Any] = json.loads(file.read_text())
            return found
        deployment = self._deployment(row)
        found = {"record": (deployment.manifest.compression or (None,))[-1], "macs": deployment.manifest.graphs[0].macs}
        for name in SETS:
            folder = ASSETS / "images" / name
            options = VerifyOptions(
                deployment.folder, folder / "LR_bicubic" / f"X{deployment.manifest.scale}", folder / "HR",
                "onnxruntime", against_torch=False, keep=False, niqe_params=self.niqe_params,
            )  # fmt: skip
            found[name] = verify_quality(options).to_dict()["mean"]
        write_json(file, found)
        return found

    def _deployment(self, row: Row) -> Deployment:
        folder = self.work / row.name
        if not row.options:
            return self._whole(row.network)
        if (folder / "manifest.json").is_file():
            return open_deployment(folder)
        request = CompressRequest(
            self._whole(row.network).folder,
            folder,
            ASSETS / "images" / "calibration" / "DIV2K_test_LRx4",
            steps=(self.steps or STEPS[row.network]) if row.trained else None,
            **({"device": "cpu"} if row.trained else {}),
            **dict(row.options),
        )
        resume = row.trained and (folder_of(request) / RECORD_NAME).is_file()
        if resume:
            request = CompressRequest(**{**request.__dict__, "resume": True})
        return compress_deployment(request, lambda text: print(f"  {text}", file=sys.stderr)).deployment

    def _whole(self, network: str) -> Deployment:
        folder = self.work / Row(network, "whole").name
        if (folder / "manifest.json").is_file():
            return open_deployment(folder)
        return export_deployment(ExportOptions(ASSETS / "weights" / network, folder))


def main(arguments: Optional[List[str]] = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("work", type=Path)
    parser.add_argument("--only", default="", help="rows whose name has this in it")
    parser.add_argument("--steps", type=int, help="of rows that are trained, instead of the table's")
    parser.add_argument("--niqe-params", type=Path, help="niqe_pris_params.npz of BasicSR: NIQE too")
    parser.add_argument("--dry-run", action="store_true")
    asked = parser.parse_args(arguments)
    torch.set_num_threads(1)
    chosen = [row for row in ROWS if asked.only in row.name]
    if asked.dry_run:
        print("\n".join(row.name for row in chosen))
        return
    asked.work.mkdir(parents=True, exist_ok=True)
    table = Table(asked.work, asked.steps, asked.niqe_params)
    shown = [metric for metric in METRICS if metric.key in SHOWN]
    print("| network | MACs a pixel | parameters | time | steps | dB to the whole |"
          + "".join(f" {name} {metric.title} |" for metric in shown for name in SETS))  # fmt: skip
    print("|---|" + "---|" * (5 + len(shown) * len(SETS)))
    for row in chosen:
        print("| " + " | ".join(_cells(row, table.of(row))) + " |", flush=True)


def _cells(row: Row, found: Dict[str, Any]) -> List[str]:
    record = found["record"]
    cells = [f"{row.network.split('.')[0]}, {row.label}"]
    if record is None or not row.options:
        cells += [""] * 5
    else:
        share = record.get("time_share")
        cells += [
            f"{record['macs'][1]:,.0f} ({record['macs'][1] / record['macs'][0]:.3f})",
            f"{record['parameters'][1]:,}",
            "" if share is None else f"{share:.2f}",
            f"{record['steps']:,}",
            f"{record['fidelity_db']:.2f}",
        ]
    for metric in (metric for metric in METRICS if metric.key in SHOWN):
        values = [found[name].get(metric.key) for name in SETS]
        cells += ["" if value is None else f"{value:.{metric.decimals}f}" for value in values]
    return cells


if __name__ == "__main__":
    main()
