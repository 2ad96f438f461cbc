"""INT8 against float16 on TensorRT-RTX, by what the builder lists; and the listing in build, inspect and report."""

from __future__ import annotations

import dataclasses
import json
import re

import pytest

from sr_deploy.core.deployment.manifest import open_deployment
from sr_deploy.core.errors import BadDeployment, CheckFailed
from sr_deploy.engine.built import BuiltEngine
from sr_deploy.engine.listing import Layer, Listing, Tensor, listing_path, open_listing
from sr_deploy.engine.manifest import open_engine
from sr_deploy.pipeline.engines.build import build_engines
from sr_deploy.pipeline.engines.payoff import Payoff, weighed
from sr_deploy.pipeline.engines.plans import planned_for
from sr_deploy.pipeline.engines.request import BuildOptions
from sr_deploy.pipeline.precision.deployed_plan import PrecisionOptions, find_planned
from tests.pipeline.test_precision_use import on_a_board

RTX = ("--backend", "tensorrt-rtx", "--compute-capability", "8.6")
#: Plans are made and judged on photographs alone: painted pictures take longer, and no engine depends on them.
PHOTO = ("--content", "photo")
FIXED = ((24, 32),) * 3
FIGURES = re.compile(
    r"at 24x32 the INT8 engine reads and writes ([\d.]+) MB in (\d+) kernels, the float16 engine ([\d.]+) MB in (\d+)"
)


@pytest.fixture(autouse=True)
def rtx():
    pytest.importorskip("tensorrt_rtx", reason="tensorrt-rtx is not installed")


def figures_of(deployment, name):
    engine = deployment / "engines" / name
    listing = open_listing(engine, open_engine(engine).sha256)
    return f"{listing.bytes_moved / 1e6:.1f}", str(listing.kernels)


def test_int8_is_built_with_a_warning_that_holds_the_figures(net, srdeploy):
    done = srdeploy("build", net, *RTX, "--size", "24x32", "--precision", "int8", *PHOTO, "--json")
    assert done.code == 0, done.err
    (engine,) = json.loads(done.out)
    found = FIGURES.search(" ".join(engine["warnings"]))
    assert any(warning.startswith("INT8 does not pay on this backend: at ") for warning in engine["warnings"])
    assert "warning: INT8 does not pay" in done.err
    assert engine["listing"]["products"]["int8 → float32"] > 0
    assert found.groups()[:2] == figures_of(net, "tensorrt-rtx_24x32_sm86_int8.engine")
    # The float16 figures are those of the engine that fp16 builds of the same graph, size and targets.
    assert srdeploy("build", net, *RTX, "--size", "24x32", "--precision", "fp16", *PHOTO).code == 0
    assert found.groups()[2:] == figures_of(net, "tensorrt-rtx_24x32_sm86_fp16.engine")
    assert float(found.group(1)) >= float(found.group(3))


def test_auto_takes_float16_where_int8_does_not_pay_and_says_so(net, photographs):
    deployment = open_deployment(net)
    asked = PrecisionOptions("auto", budget=5.0, images=photographs, improve=False, content="photo")
    planned = planned_for(deployment, asked, lambda _: None)
    assert planned.plan.nodes_of("int8"), "the plan itself stays as it is, for other backends"
    told = []
    options = BuildOptions(
        net, "tensorrt-rtx", sizes=((24, 32),), compute_capabilities=("8.6",), precision=asked, force=True
    )
    (engine,) = build_engines(options, told.append)
    assert engine.file == "tensorrt-rtx_24x32_sm86_auto.engine" and engine.precision == "auto"
    assert FIGURES.search(engine.settings["against_float16"]) and engine.settings["left_out"]
    assert engine.settings["plan"] == "fp16" and "int8" not in engine.settings["built"]
    assert any("INT8 moves no fewer bytes here, so float16 is taken" in line for line in told)
    assert find_planned(deployment, "auto").plan.nodes_of("int8")


def test_an_engine_for_a_range_of_sizes_is_weighed_at_its_best_one(net, srdeploy):
    sizes = ("--min-size", "16", "--opt-size", "24x32", "--max-size", "64")
    done = srdeploy("build", net, *RTX, *sizes, "--precision", "int8", *PHOTO, "--json")
    assert done.code == 0, done.err
    (engine,) = json.loads(done.out)
    assert FIGURES.search(engine["settings"]["against_float16"])
    assert engine["listing"]["bytes_moved"] is None and engine["listing"]["kernels"] > 0


def test_without_onnx_int8_is_weighed_only_where_a_float16_plan_lies(net, srdeploy):
    arguments = ("build", net, *RTX, "--size", "24x32", "--precision", "int8", "--json", "--force")
    done = on_a_board(*arguments)
    assert done.returncode == 0 and "warning: INT8 was not weighed against float16" in done.stderr, done.stderr
    planned_for(open_deployment(net), PrecisionOptions("fp16", content="photo"), lambda _: None)
    done = on_a_board(*arguments)
    assert done.returncode == 0 and FIGURES.search(done.stderr), done.stderr


# What is chosen, from given figures.


def engine(moved, built="int8 1"):
    side = Tensor("x", (moved // 8,), "float32")
    layer = Layer("c", "correlation", ("c",), (side,), (), (side,))
    return BuiltEngine(
        "tensorrt-rtx", b"", FIXED, "auto", ("8.6",), None, "1", None, None, 0.0, {"built": built}, (),
        Listing("builder's log", (layer,), ("c",)),
    )  # fmt: skip


def choose(net, int8, half, precision="auto", budget=1.0, loss=0.0):
    deployment = open_deployment(net)
    planned = find_planned(deployment, "int8")
    planned = dataclasses.replace(planned, plan=dataclasses.replace(planned.plan, precision=precision))
    other = dataclasses.replace(planned.plan, precision="fp16")
    rival = dataclasses.replace(planned, report={"loss_db": loss}, plan=other)
    options = PrecisionOptions(precision, budget=budget)
    given = engine(int8)
    kept, plan = weighed(
        deployment, planned, given, options, lambda plan, _: engine(half, "float16 1"), lambda *_: rival, lambda _: None
    )
    return ("half" if plan is rival else "int8" if plan is planned else "?"), kept


def test_the_choice(net):
    assert choose(net, 800, 8000)[0] == "int8" and choose(net, 800, 8000)[1].warnings == ()
    assert choose(net, 8000, 800)[0] == "half"
    assert choose(net, 8000, 8000)[0] == "half", "as many bytes, and a larger error: INT8 does not pay"
    taken, kept = choose(net, 8000, 800, budget=0.01, loss=0.2)
    assert taken == "int8" and "float16 loses 0.2 dB, and is not taken" in kept.warnings[0]
    taken, kept = choose(net, 8000, 800, "int8", budget=None)
    assert taken == "int8" and "INT8 does not pay on this backend" in kept.warnings[0]
    assert kept.settings["against_float16"] == Payoff((24, 32), "INT8", (1, 8000), (1, 800)).text()


def test_what_cannot_be_weighed_is_said(net):
    deployment = open_deployment(net)
    planned = find_planned(deployment, "int8")

    def fails(*_):
        raise CheckFailed("float16 breaks the picture")

    arguments = (deployment, planned, engine(80), PrecisionOptions("int8"))
    kept, plan = weighed(*arguments, lambda *_: engine(80), fails, lambda _: None)
    assert plan is planned and kept.warnings == ("INT8 was not weighed against float16: float16 breaks the picture",)
    unlisted = dataclasses.replace(engine(80), listing=None)
    kept, _ = weighed(*arguments, lambda *_: unlisted, lambda *_: planned, lambda _: None)
    assert kept.warnings == ("INT8 was not weighed against float16: the builder lists no layers",)


# The listing for people.


def test_build_inspect_and_report_show_the_listing(plain, srdeploy, tmp_path, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    done = srdeploy("build", plain, *RTX, "--size", "24x32")
    assert done.code == 0, done.err
    path = plain / "engines" / "tensorrt-rtx_24x32_sm86.engine"
    listing = open_listing(path, open_engine(path).sha256)
    row = next(line for line in done.out.splitlines() if "float32 → float32" in line)
    assert row.split()[:2] == [path.name, str(listing.kernels)]
    assert row.split()[-1] == f"{listing.bytes_moved / 1e6:.1f}" and max(map(len, done.out.splitlines())) <= 80
    shown = srdeploy("inspect", path)
    assert shown.code == 0 and max(map(len, shown.out.splitlines())) <= 80
    table = [line.split() for line in shown.out.splitlines() if re.match(r" *\d+\.\d  ", line)]
    moved = [float(cells[0]) for cells in table]
    assert len(moved) == listing.kernels and moved == sorted(moved, reverse=True)
    facts = json.loads(srdeploy("inspect", path, "--json").out)
    assert facts["listing"]["kernels"] == listing.kernels == len(facts["layers"])
    assert {node for one in facts["layers"] for node in one["products"]} == set(listing.products)
    page = tmp_path / "page.html"
    assert srdeploy("report", plain, "-o", page).code == 0
    text = page.read_text()
    assert f"{path.name}: {listing.kernels} kernels, " in text and "that read and write most" in text
    assert str(plain.parent) not in text


def test_a_damaged_listing_is_named_and_force_replaces_it(plain, srdeploy, tmp_path):
    options = BuildOptions(plain, "tensorrt-rtx", sizes=((24, 32),), compute_capabilities=("8.6",))
    (engine,) = build_engines(options)
    path = plain / "engines" / engine.file
    listing_path(path).write_text("{")
    shown = srdeploy("inspect", path)
    assert shown.code == 4 and ".layers.json" in shown.err and "--force" in shown.err
    assert srdeploy("report", plain, "-o", tmp_path / "page.html").code == 0
    assert f"engine {path.name} is left out" in (tmp_path / "page.html").read_text()
    build_engines(dataclasses.replace(options, force=True))
    assert open_listing(path, open_engine(path).sha256) is not None


def test_a_refused_engine_can_be_looked_at_and_not_run(net, photographs, srdeploy):
    """For SM75 nothing is computed in the INT8 that was planned."""
    done = srdeploy("build", net, "--backend", "tensorrt-rtx", "--compute-capability", "7.5", "--size", "24x32",
                    "--precision", "int8", *PHOTO)  # fmt: skip
    assert done.code == 1 and "planned int8, runs in float16" in done.err and "kept for a look at it" in done.err
    refused = net / "engines" / "tensorrt-rtx_24x32_sm75_int8.engine.refused"
    shown = srdeploy("inspect", refused)
    assert shown.code == 0 and "float16 → float16" in shown.out and "refused" in shown.out
    assert json.loads(srdeploy("inspect", net, "--json").out)["engines"] == []
    run = srdeploy("run", net, "-i", photographs, "-o", net / "out", "--engine", refused)
    assert run.code == BadDeployment.exit_code and "was refused after its build" in run.err
