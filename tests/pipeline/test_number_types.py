"""BF16 and FP8 from ``build``: engines for the GPUs that have them, a reason where not, a simulation on the CPU."""

from __future__ import annotations

import importlib.util
import json

import numpy as np
import onnx
import pytest

from sr_deploy.core.deployment.manifest import open_deployment
from sr_deploy.core.deployment.plan import open_plan
from sr_deploy.core.errors import CheckFailed
from sr_deploy.core.media.sample import sample_input
from sr_deploy.engine.layers import NetworkLayer, check_network
from sr_deploy.engine.listing import Layer, Listing, Tensor
from sr_deploy.engine.read_back import read_back
from sr_deploy.precision.float16_rounding import rounded_graph, rounding_session

needs_rtx = pytest.mark.skipif(importlib.util.find_spec("tensorrt_rtx") is None, reason="no TensorRT-RTX")
GPUS = "8.9,12.0,12.1"


def rtx(capabilities):
    return ("--backend", "tensorrt-rtx", "--compute-capability", capabilities, "--size", "24x32")


def built(srdeploy, *arguments):
    done = srdeploy("build", *arguments, "--json")
    assert done.code == 0, done.err
    return json.loads(done.out)[0], done


@pytest.mark.parametrize(("precision", "options"), [("bf16", ()), ("fp8", ("--no-fit", "--images"))])
def test_onnx_runtime_runs_what_the_plan_was_judged_by(plain, photographs, srdeploy, precision, options):
    engine, _ = built(srdeploy, plain, "--precision", precision, *options, *([photographs] if options else []))
    assert engine["file"] == f"onnxruntime_dynamic_{precision}.onnx"
    folder = plain / "precision" / precision
    assert (folder / "simulated.onnx").is_file() == (precision == "bf16")
    assert not (folder / "legacy.onnx").exists()
    assert "which TensorRT 8 does not" in json.loads((folder / "report.json").read_text())["legacy"]
    manifest = open_deployment(plain).manifest
    lr = sample_input((24, 32), manifest.contract.value_range)
    simulated = rounding_session(rounded_graph(onnx.load(folder / "model.onnx")), 1).run(None, {"lr": lr})[0]
    session = rounding_session(onnx.load(plain / "engines" / engine["file"]), 1)
    found = session.run(None, {session.get_inputs()[0].name: lr})[0]
    exact = rounding_session(onnx.load(plain / manifest.graphs[0].file), 1).run(None, {"lr": lr})[0]
    # Optimised, it adds up in another order, and what then lies in the middle is rounded to the other side.
    apart, lost = (np.sqrt(np.mean((found - other) ** 2)) for other in (simulated, exact))
    assert apart < 0.6 * lost and lost > 0


@needs_rtx
def test_bf16_is_built_from_ampere_on(plain, srdeploy):
    for capability in ("8.0", GPUS):
        engine, done = built(srdeploy, plain, *rtx(capability), "--precision", "bf16", "--force")
        assert engine["settings"]["built"].startswith("bfloat16 ") and "," not in engine["settings"]["built"]
        assert engine["file"].endswith("_bf16.engine") and engine["compute_capabilities"] == capability.split(",")
    refused = srdeploy("build", plain, *rtx("7.5"), "--precision", "bf16")
    assert refused.code == 2 and "BF16 needs compute capability 8.0 or later, not 7.5" in refused.err


@needs_rtx
def test_fp8_is_built_from_ada_on_and_refused_before_a_plan_is_made(plain, photographs, srdeploy):
    refused = srdeploy("build", plain, *rtx("8.6"), "--precision", "fp8", "--images", photographs)
    assert refused.code == 2 and "FP8 needs compute capability 8.9 or later, not 8.6" in refused.err
    assert not (plain / "precision").exists()
    images = ("--images", photographs, "--no-fit")
    engine, done = built(srdeploy, plain, *rtx(GPUS), "--precision", "fp8", *images)
    plan, _ = open_plan(plain / "precision" / "fp8")
    assert plan.precision == "fp8" and str(plan.target).startswith("tensorrt-rtx 1.")
    count = len(plan.nodes_of("float8"))
    assert count > 10 and f"float8 {count}" in engine["settings"]["built"]
    assert "FP8 does not pay on this backend: at 24x32 the FP8 engine" in " ".join(engine["warnings"])
    # The plan that is there, and one that is given, are not for every GPU either.
    for given in (("--precision", "fp8", *images), ("--plan", plain / "precision" / "fp8")):
        refused = srdeploy("build", plain, *rtx("8.6,8.9"), *given)
        assert refused.code == 2 and "not 8.6" in refused.err and "type that the target has: INT8" in refused.err


@needs_rtx
def test_auto_takes_of_the_types_that_the_target_has(plain, photographs, srdeploy):
    auto = ("--precision", "auto", "--psnr-budget", "0.02", "--no-fit", "--images", photographs)
    _, done = built(srdeploy, plain, *rtx("8.9"), *auto)
    plan, _ = open_plan(plain / "precision" / "auto")
    assert plan.nodes_of("float8") and plan.target is not None and plan.target.compute_capabilities == ("8.9",)
    note = next(note for note in plan.notes if "for a budget of 0.02 dB" in note)
    assert "FP8" in note and "all layers in one type would lose: INT8 " in note
    refused = srdeploy("build", plain, *rtx("8.6"), *auto, "--force")
    assert refused.code == 2 and "FP8 needs compute capability 8.9" in refused.err and "--remake-plan" in refused.err
    built(srdeploy, plain, *rtx("8.6"), *auto, "--force", "--remake-plan")
    assert not open_plan(plain / "precision" / "auto")[0].nodes_of("float8")


def product(kind):
    """A listing and the layers of a network with one product that reads this type."""
    picture, weight = Tensor("x", (1, 8, 4, 4), kind), Tensor("w", (8, 8, 3, 3), kind)
    layer = Layer("conv", "correlation", ("conv",), (picture,), (weight,), (Tensor("y", (1, 8, 4, 4), "float32"),))
    return Listing("builder's log", (layer,), ("conv",))


@pytest.mark.parametrize(
    ("planned", "runs", "refused"),
    [
        ("float8", "float8", False), ("float8", "int8", True), ("int8", "float8", True), ("float8", "float16", True),
        ("bfloat16", "bfloat16", False), ("bfloat16", "float16", True), ("float16", "bfloat16", True),
        ("bfloat16", "float32", False), ("bfloat16", "float8", True),
    ],
)  # fmt: skip
def test_an_engine_in_another_type_than_planned_is_refused(planned, runs, refused):
    """Narrower, or of the same width; a wider one is as exact, but of 8 bits something must run in them."""
    layers = (NetworkLayer("conv", "CONVOLUTION", ("conv",), planned, True, True),)
    found = read_back(product(runs), layers, {"conv": planned}, True, "x.onnx")
    assert found.settings["built"] == f"{runs} 1" and isinstance(found.refusal, CheckFailed) == refused
    if refused:
        assert f"planned {planned}, runs in {runs}" in str(found.refusal)
        layers = (NetworkLayer("conv", "CONVOLUTION", ("conv",), runs, True, True),)
        with pytest.raises(CheckFailed, match=f"planned {planned}, runs in {runs}"):
            check_network(layers, "auto", {"conv": planned}, "x.onnx")
