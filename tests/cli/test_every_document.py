"""Commands as people read them and as JSON: tables in 80 columns, documents and files as published.

One small network, made and measured once for all.
"""

from __future__ import annotations

import contextlib
import io
import json

import numpy as np
import pytest

from sr_deploy.bench.result import Result
from sr_deploy.cli import main
from sr_deploy.core.deployment.default import Default
from sr_deploy.core.deployment.manifest import Manifest
from sr_deploy.core.deployment.plan import Plan
from sr_deploy.core.media.image import Picture, write_picture
from sr_deploy.core.schema import value_from
from sr_deploy.engine.manifest import EngineManifest
from sr_deploy.precision.calibrate.ranges import RangesFile
from sr_deploy.report.gate import GateReport
from sr_deploy.report.precisions import PrecisionTable
from sr_deploy.report.quality_file import QualityFile
from tests.graph.given.given_graphs import given, saved

#: What is typed with ``--json``, in this order, in a folder that holds given.onnx, lr/ and hr/. The page of a report is
#: no document of its own.
DOCUMENTS = (
    "export given.onnx -o net",
    "inspect net",
    "calibrate net --images hr",
    "sensitivity net --images hr",
    "build net --backend onnxruntime --size 20x24",
    "build net --backend onnxruntime --size 20x24 --precision int8 --images hr --no-fit",
    "inspect net/engines/onnxruntime_20x24_int8.onnx",
    "verify net --lr lr --hr hr --precision int8",
    "run net -i lr -o up --precision int8",
    "bench net --size 20x24 --seconds 0 --iterations 3 --precision int8",
    "bench net --size 20x24 --seconds 0 --iterations 3 --all",
    "gate net net --precision int8",
    "pack net -o net.srd --backend onnxruntime --size 20x24",
    "unpack net.srd -o board",
    "doctor",
)
#: What is typed then, as people read it.
TABLES = (
    "inspect net",
    "inspect net/engines/onnxruntime_20x24_int8.onnx",
    "inspect net --roofline orin-nx",
    "sensitivity net --images hr",
    "verify net --lr lr --hr hr --precision int8",
    "bench net --size 20x24 --seconds 0 --iterations 3 --precision int8",
    "bench net --size 20x24 --seconds 0 --iterations 3 --all",
    "gate net net --precision int8",
    "unpack net.srd -o again",
    "doctor",
)
#: Documents whose format is published, by the beginning of the command.
PUBLISHED = {
    "export": Manifest,
    "verify": QualityFile,
    "bench net --size 20x24 --seconds 0 --iterations 3 --precision": Result,
    "bench net --size 20x24 --seconds 0 --iterations 3 --all": PrecisionTable,
    "gate": GateReport,
}
#: Files that a deployment then holds, and what they are.
FILES = {
    "manifest.json": Manifest,
    "default.json": Default,
    "engines/onnxruntime_20x24.json": EngineManifest,
    "precision/int8/plan.json": Plan,
    "precision/calibration/*.json": RangesFile,
    "results/bench_*.json": Result,
    "results/verify_*.json": QualityFile,
    "results/precisions_*.json": PrecisionTable,
}


def run(words: str) -> str:
    stdout, code = io.StringIO(), 0
    with contextlib.redirect_stdout(stdout), contextlib.redirect_stderr(io.StringIO()) as stderr:
        try:
            main(words.split())
        except SystemExit as stop:
            code = int(stop.code or 0)
    assert code in (0, 5), f"{words}: {stderr.getvalue()}"  # three runs may leave the gate undecided
    return stdout.getvalue()


@pytest.fixture(scope="module")
def printed(tmp_path_factory):
    """(the folder, command → its document, command → its table)."""
    folder = tmp_path_factory.mktemp("documents")
    saved(folder, given()).rename(folder / "given.onnx")
    pixels = np.random.default_rng(0).integers(60, 190, (72, 80, 3)).astype(np.uint8)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setenv("COLUMNS", "80")
        for name, step in (("hr", 1), ("lr", 2)):
            (folder / name).mkdir()
            write_picture(Picture(np.ascontiguousarray(pixels[::step, ::step])), folder / name / "a.png")
        documents = {one: run(f"{one} --json") for one in DOCUMENTS}
        return folder, documents, {one: run(one) for one in TABLES}


def test_every_table_fits_80_columns(printed):
    _, _, tables = printed
    wide = {one: [line for line in table.splitlines() if len(line) > 80] for one, table in tables.items()}
    assert not {one: lines for one, lines in wide.items() if lines}


def test_every_document_is_json_as_published(printed):
    _, documents, _ = printed
    for one, document in documents.items():
        json.loads(document)
        kind = next((kind for begin, kind in PUBLISHED.items() if one.startswith(begin)), None)
        if kind is not None:
            value_from(kind, document, one)


def test_every_file_is_as_published(printed):
    folder, _, _ = printed
    for pattern, kind in FILES.items():
        files = list((folder / "net").glob(pattern))
        assert files, pattern
        for file in files:
            value_from(kind, file.read_text(encoding="utf-8"), str(file))
