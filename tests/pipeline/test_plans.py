"""What inspect and report say of a deployment's plans."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest

from sr_deploy.core.deployment.manifest import open_deployment
from sr_deploy.core.deployment.plan import open_plan, save_plan
from sr_deploy.pipeline.engines.plans import planned_for
from sr_deploy.pipeline.export import ExportOptions, export_deployment
from sr_deploy.pipeline.precision.deployed_plan import PrecisionOptions
from sr_deploy.pipeline.precision.plan_facts import islands_of, plan_facts
from sr_deploy.report.page_precision import plan_lines, precision_section

DEMO = Path(__file__).resolve().parents[2] / "sr_deploy" / "demo"


@pytest.fixture(scope="module")
def net(tmp_path_factory):
    """A deployment with an FP16 plan, a changed copy of it, one of another graph, and one that is damaged."""
    folder = tmp_path_factory.mktemp("plans") / "net"
    deployment = export_deployment(ExportOptions(DEMO / "demo_x2.safetensors", folder))
    planned = planned_for(deployment, PrecisionOptions("fp16", content="photo"), lambda _: None)
    report = json.loads((planned.folder / "report.json").read_text())
    for name, change in (("mine", {"notes": ("by hand",)}), ("other", {"graph_sha256": "0" * 64}), ("bare", {})):
        copy = folder / "precision" / name
        copy.mkdir()
        save_plan(copy, dataclasses.replace(planned.plan, **change))
        if name != "bare":
            given_back = {f"layer {n}": "noise" for n in range(20)}
            (copy / "report.json").write_text(json.dumps({**report, "gave_up": given_back}))
    (folder / "precision" / "torn").mkdir()
    (folder / "precision" / "torn" / "plan.json").write_text("{")
    return folder


def test_the_facts(net):
    facts = {one["name"]: one for one in plan_facts(open_deployment(net))}
    assert list(facts) == ["bare", "fp16", "mine", "other", "torn"]
    half = facts["fp16"]
    assert half["precision"] == "fp16" and half["macs_share"]["float16"] == 1 and "problem" not in half
    assert half["not_fusing"] == [] and half["casts"] >= 2 and abs(half["loss_db"]) <= 0.01
    assert "changed after" in facts["mine"]["problem"] and facts["mine"]["notes"] == ["by hand"]
    assert "another graph" in facts["other"]["problem"]
    assert "report" in facts["bare"]["problem"] and facts["bare"]["nodes"]["float16"] > 10
    assert "torn/plan.json" in facts["torn"]["problem"] and str(net) not in facts["torn"]["problem"]


def test_islands_are_counted_by_kind(net):
    plan = open_plan(net / "precision" / "fp16")[0]
    reasons = {
        "a": "small: 0.10% of the multiply-accumulates", "b": "small: 0.20% of the multiply-accumulates",
        "c": "it gives values up to 9e4, beyond 8188", "d": "it gives values up to 7e4, beyond 8188",
        "e": "head: it reads the picture",
    }  # fmt: skip
    assert islands_of(dataclasses.replace(plan, reasons=reasons)) == {"small": 2, "it gives": 2, "head": 1}


def test_inspect_and_report_show_them(net, tmp_path, srdeploy):
    shown = srdeploy("inspect", net, "--json")
    plans = json.loads(shown.out)["plans"]
    assert shown.code == 0 and plans["fp16"]["casts"] >= 2 and "problem" in plans["torn"]
    assert "macs share" in srdeploy("inspect", net).out
    done = srdeploy("report", net, "-o", tmp_path / "page.html")
    assert done.code == 0, done.err
    page = (tmp_path / "page.html").read_text()
    assert "Precision" in page and "will not fuse" not in page and "and 8 more" in page
    assert "was made for another graph" in page


def test_the_section_without_plans_and_with_all():
    assert "No plan has been made" in precision_section(())
    plan = {
        "name": "int8", "islands": {"head": 1, "<b>": 2}, "not_fusing": ["skip: /add"], "notes": ["fitted"],
        "not_for_tensorrt_8": "opset 19", "loss_db": 0.0123, "macs_share": {"int8": 0.9}, "pictures": 10,
    }  # fmt: skip
    text = precision_section([plan])
    assert "+0.0123" in text and "90.0" in text and "<b>" not in text and "&lt;b&gt;" in text
    assert len(plan_lines(plan)) == 4
