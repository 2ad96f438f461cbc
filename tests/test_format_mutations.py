"""A seeded part of tests/benchmarks/format_mutations.py: no traceback, exit 4, the key named."""

from __future__ import annotations

import json

import pytest

from sr_deploy.bench.result import Result
from sr_deploy.bundle.layout import IndexFile
from sr_deploy.bundle.recipe import RecipeFile
from sr_deploy.core.deployment.manifest import Manifest
from sr_deploy.core.deployment.plan import Plan
from sr_deploy.core.schema import json_schema
from sr_deploy.engine.manifest import EngineManifest
from sr_deploy.pipeline.measure.matrix import Matrix
from sr_deploy.precision.calibrate.picture_set import CalibrationSet
from sr_deploy.precision.calibrate.ranges import RangesFile
from sr_deploy.remote.inventory import Inventory
from sr_deploy.report.budget import BudgetFile
from sr_deploy.report.quality_file import QualityFile
from tests.benchmarks.format_mutations import attack, formats, run, sweep_result

TIMES = 12
NAMES = ("manifest", "engine record", "plan", "result", "quality", "budget", "matrix", "inventory", "recipe",
         "bundle index")  # fmt: skip


@pytest.fixture(scope="module")
def attacked(tmp_path_factory):
    return {one.name: one for one in formats(tmp_path_factory.mktemp("formats"))}


@pytest.mark.parametrize("name", NAMES)
def test_mutations_are_refused_with_their_key_or_do_no_harm(attacked, name):
    tally = attack(attacked[name], TIMES, 7)
    assert tally.wrong == []
    assert tally.refused >= TIMES // 2 and tally.named >= 0.6 * tally.refused


@pytest.mark.parametrize(
    ("name", "changes", "words"),
    [
        ("manifest", {"sizes": {"minimum": 1, "multiple": 0}}, "sizes.multiple is 0"),
        ("manifest", {"graphs": []}, "graphs is []"),
        ("manifest", {"scale": "four"}, "scale is 'four'"),
        ("manifest", {"scale": 0}, "scale is 0"),
        ("manifest", {"scale": 10**9}, "scale is 1000000000 (input should be less than or equal to 64)"),
        ("engine record", {"settings": []}, "settings is []"),
        ("engine record", {"contract": {"value_range": float("nan")}}, "contract.value_range is nan"),
        ("quality", {"mean": {"psnr_y": "30"}}, "mean.psnr_y is '30'"),
        ("quality", {"largest_difference": float("nan")}, "largest_difference is nan"),
    ],
)
def test_values_that_were_found_by_hand(attacked, name, changes, words):
    one = attacked[name]
    one.write({**one.good, **changes}, "")
    code, printed, trace = run(one.command)
    one.write(one.good, "")
    assert (code, trace) == (4, "") and words in printed


@pytest.mark.parametrize("file", ["../model.onnx", "/etc/passwd", "a/b.onnx", ".hidden", "manifest.json", "a\nb", ""])
def test_a_graph_lies_in_the_folder(attacked, file):
    one = attacked["manifest"]
    graph = {**one.good["graphs"][0], "file": file}
    one.write({**one.good, "graphs": [graph]}, "")
    code, printed, trace = run(one.command)
    one.write(one.good, "")
    assert (code, trace) == (4, "") and "graphs" in printed


@pytest.mark.parametrize("sample", [0.0, -1e-3, "0.1", None, float("nan"), 1e300])
def test_samples_that_no_clock_gives(attacked, sample):
    one, raw = attacked["result"], sweep_result()
    raw["points"][1]["samples_s"][3] = sample
    one.write(raw, "")
    code, printed, trace = run(one.command)
    one.write(one.good, "")
    assert (code, trace) == (4, "") and "points[1].samples_s[3]" in printed


@pytest.mark.parametrize(
    "kind",
    [Manifest, EngineManifest, Plan, Result, QualityFile, BudgetFile, Matrix, Inventory, RecipeFile, IndexFile,
     CalibrationSet, RangesFile],
)  # fmt: skip
def test_every_description_is_a_json_schema(kind):
    schema = json_schema(kind)
    assert schema["additionalProperties"] is False and json.dumps(schema)


@pytest.mark.parametrize("command", [
    ("export", "NET", "-o", "/proc/x"), ("export", "NET", "-o", "/proc/x/y"), ("unpack", "SRD", "-o", "/proc/x"),
    ("run", "DIR", "-i", "PNG", "-o", "/proc/x"), ("pack", "DIR", "-o", "/proc/x.srd"),
    ("report", "DIR", "-o", "/proc/r.html"), ("bench", "DIR", "--size", "24", "--out", "/proc/r.json"),
])  # fmt: skip
def test_a_place_that_cannot_be_written_is_the_environments_fault(attacked, tmp_path, command):
    import cv2
    import numpy as np

    from sr_deploy.pipeline.demo import ASSETS

    folder = attacked["manifest"].command[1]
    cv2.imwrite(str(tmp_path / "a.png"), np.zeros((24, 24, 3), np.uint8))
    words = {"NET": str(ASSETS / "demo_x2.safetensors"), "DIR": folder, "PNG": str(tmp_path / "a.png"),
             "SRD": attacked["bundle index"].command[1]}  # fmt: skip
    code, printed, trace = run(tuple(words.get(word, word) for word in command))
    assert trace == "" and code == 3 and "cannot write" in printed
