"""Facts in the terminal: named as they are, and each figure with its unit."""

from __future__ import annotations

import typing

import pytest
import typing_extensions

from sr_deploy.core.deployment.manifest import GraphFile, Manifest
from sr_deploy.core.deployment.plan_report import PlanReport
from sr_deploy.core.deployment.records import CompressRecord, CountsRecord, FoldedRecord, FoldRecord
from sr_deploy.core.reach import Reach
from sr_deploy.engine.manifest import EngineManifest
from sr_deploy.report.facts import facts_table, unit_of
from tests.report.test_report_table import text_of

#: Figures that have no unit.
PLAIN = {"rate"}


def test_facts_are_flattened_in_order():
    facts = {
        "kind": "deployment",
        "path": "/x[y]",
        "parameters": 276192,
        "clamped": True,
        "empty": [],
        "nothing": None,
        "zero": 0,
        "contract": {"value_range": 255.0},
        "graphs": [{"file": "model.onnx", "macs_size": [180, 320]}, {"file": "b.onnx"}],
        "notes": ["dead weights: two", "another"],
        "ops": ["Conv", "Relu"],
    }
    lines = [" ".join(line.split()) for line in text_of(facts_table(facts)).splitlines()]
    wanted = [
        "deployment /x[y]", "parameters 276,192", "clamped yes", "zero 0", "contract", "value range 0…255", "graphs 1",
        "file model.onnx", "macs size 180x320", "graphs 2", "file b.onnx", "notes dead weights: two", "another",
        "ops Conv, Relu",
    ]  # fmt: skip
    assert [line for line in lines if line in wanted] == wanted
    assert not [line for line in lines if line.startswith(("empty", "nothing", "kind"))]


def test_facts_table_changes_no_name_of_a_tensor_a_file_or_a_port() -> None:
    facts = {"kind": "checkpoint", "keys": {"block_1.c1_r.weight": [3, 3]}, "inputs": {"lr_image": "float32"}}
    shown = text_of(facts_table({**facts, "value_range": 1}))
    assert "block_1.c1_r.weight" in shown and "lr_image" in shown
    assert "value range" in shown  # our own words are words


def test_facts_table_shows_the_profile_of_an_engine_as_sizes() -> None:
    assert "16x16, 24x32, 64x64" in text_of(facts_table({"kind": "engine", "profile": [[16, 16], [24, 32], [64, 64]]}))


def holds(kind, wanted) -> bool:
    return kind is wanted or any(holds(part, wanted) for part in typing.get_args(kind))


@pytest.mark.parametrize(
    "record",
    [FoldRecord, FoldedRecord, CompressRecord, CountsRecord, PlanReport, Manifest, GraphFile, Reach, EngineManifest],
)
def test_every_figure_of_a_record_has_its_unit(record):
    """What is no whole number is no count; of whole numbers those that are no count say so in their name."""
    kinds = typing_extensions.get_type_hints(record)
    figures = [name for name, kind in kinds.items() if holds(kind, float) and name not in PLAIN]
    figures += [name for name in kinds if "bytes" in name or "macs" in name and name != "macs_size"]
    # Of a dict the parts have one unit.
    without = [name for name in figures if not unit_of(name) and not unit_of("part", name)]
    assert not without


def test_figures_are_shown_with_their_units_and_blocks_in_lines():
    block = {"was": "Conv3XC", "became": "Conv2d 3→12", "macs_before": 1638, "macs_after": 324}
    facts = {
        "build_seconds": 0.25,
        "settings": {"memory_budget_bytes": "20000000", "tf32": "off"},
        "macs_share": {"int8": 0.5315},
        "worst_loss_db": -0.01,
        "macs": (36864.0, 4096.0),
        "widths": {"/a/Conv": (16, 12)},
        "blocks": [{**block, "name": "a", "error_float64": 1e-16}, {**block, "name": "b", "error_float64": 2e-16}],
        "kept": [{"name": "up", "was": "Sequential", "reason": "not affine"}],
        "gave_up": {"/body_1/Conv": "loud"},
        "proofs": {"model.onnx at 40x56": 0.0005},
    }
    lines = [" ".join(line.split()) for line in text_of(facts_table(facts), 200).splitlines()]
    for line in (
        "build 0.25 s", "memory budget 20,000,000 bytes", "tf32 off", "int8 53.15 %", "worst loss 0.0100 dB gained",
        "macs 36,864 → 4,096 multiply-accumulates", "/a/Conv 16 → 12",
        "kept 1 × Sequential: not affine", "/body_1/Conv loud",
        "blocks 2 × Conv3XC → Conv2d 3→12, 1,638 → 324 multiply-accumulates a pixel, off by 2.0e-16 of the largest "
        "value", "model.onnx at 40x56 0.0005 of 255",
    ):  # fmt: skip
        assert line in lines, lines
