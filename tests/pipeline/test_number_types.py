"""BF16 and FP8 from ``build``: engines for the GPUs that have them, a reason where not, a simulation on the CPU."""

from __future__ import annotations

import dataclasses
import importlib.util
import json
import math
import re

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from sr_deploy.core.contract import IOContract
from sr_deploy.core.deployment.manifest import GraphFile, open_deployment
from sr_deploy.core.deployment.plan import open_plan
from sr_deploy.core.deployment.target import Target
from sr_deploy.core.errors import CheckFailed
from sr_deploy.core.media.image import Picture
from sr_deploy.core.media.sample import sample_input
from sr_deploy.core.quality.psnr_ssim import psnr_y
from sr_deploy.engine.layers import NetworkLayer, check_network
from sr_deploy.engine.listing import Layer, Listing, Tensor
from sr_deploy.engine.options import EngineOptions
from sr_deploy.engine.read_back import read_back
from sr_deploy.engine.tensorrt import engine_from_graph
from sr_deploy.graph.census import Work
from sr_deploy.pipeline.precision.auto import chosen_plan
from sr_deploy.pipeline.precision.deployed_plan import PrecisionOptions
from sr_deploy.pipeline.precision.int8 import Material
from sr_deploy.pipeline.precision.judged_sets import that_16_bits_keep
from sr_deploy.pipeline.precision.layer_savings import savings_of
from sr_deploy.pipeline.precision.plan_inputs import Workbench, scan
from sr_deploy.precision.calibrate.collect import ranges_of
from sr_deploy.precision.calibrate.float8_scale import float8_scale
from sr_deploy.precision.calibrate.ranges import scale_of
from sr_deploy.precision.choose.budget import Budget
from sr_deploy.precision.choose.islands import kinds_of
from sr_deploy.precision.choose.plan_from_ranges import Scales
from sr_deploy.precision.evaluate import GRAPHICS, SHRUNK, computing, scenes_from_photographs
from sr_deploy.precision.float16_rounding import rounded_graph, rounding_session
from sr_deploy.precision.lower.typed_graph import typed_graph
from tests.precision import small_plans

needs_rtx = pytest.mark.skipif(importlib.util.find_spec("tensorrt_rtx") is None, reason="no TensorRT-RTX")
GPUS = "8.9,12.0,12.1"


def rtx(capabilities):
    return ("--backend", "tensorrt-rtx", "--compute-capability", capabilities, "--size", "24x32")


def built(srdeploy, *arguments):
    done = srdeploy("build", *arguments, "--json")
    assert done.code == 0, done.err
    return json.loads(done.out)[0], done


@pytest.mark.parametrize(
    ("precision", "options"), [("bf16", ()), ("fp8", ("--no-fit", "--content", "photo", "--images"))]
)
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
        assert re.fullmatch(r"bfloat16 \d\d, float32 2", engine["settings"]["built"]), "both ends are wider"
        assert engine["file"].endswith("_bf16.engine") and engine["compute_capabilities"] == capability.split(",")
    refused = srdeploy("build", plain, *rtx("7.5"), "--precision", "bf16")
    assert refused.code == 2 and "BF16 needs compute capability 8.0 or later, not 7.5" in refused.err


@needs_rtx
def test_fp8_is_built_from_ada_on_and_refused_before_a_plan_is_made(plain, photographs, srdeploy):
    refused = srdeploy("build", plain, *rtx("8.6"), "--precision", "fp8", "--images", photographs)
    assert refused.code == 2 and "FP8 needs compute capability 8.9 or later, not 8.6" in refused.err
    assert not (plain / "precision").exists()
    images = ("--images", photographs, "--no-fit", "--content", "photo")
    engine, done = built(srdeploy, plain, *rtx(GPUS), "--precision", "fp8", *images)
    plan, _ = open_plan(plain / "precision" / "fp8")
    assert plan.precision == "fp8" and str(plan.target).startswith("tensorrt-rtx 1.")
    count = len(plan.nodes_of("float8"))
    assert count > 10 and f"float8 {count}" in engine["settings"]["built"]
    assert "FP8 does not pay on this backend: at 24x32 the FP8 engine" in " ".join(engine["warnings"])
    packed = srdeploy("pack", plain, "-o", plain / "x.bundle", "--target", "orin", "--precision", "fp8")
    assert packed.code == 2 and "FP8 needs compute capability 8.9 or later, not 8.7" in packed.err
    # The plan that is there, and one that is given, are not for every GPU either.
    for given in (("--precision", "fp8", *images), ("--plan", plain / "precision" / "fp8")):
        refused = srdeploy("build", plain, *rtx("8.6,8.9"), *given)
        assert refused.code == 2 and "not 8.6" in refused.err and "type that the target has: INT8" in refused.err


def bench_of(model, spoilt):
    """A small network, its scales after ``spoilt``, and pictures to judge on."""
    macs = {
        "head/Conv": 10,
        "one.a/Conv": 100,
        "one.b/Conv": 100,
        "two.a/Conv": 100,
        "two.b/Conv": 100,
        "tail/Conv": 20,
    }
    tensors = ranges_of(model, small_plans.pictures(2)).tensors
    int8 = {name: scale_of(stats) for name, stats in tensors.items()}
    float8 = {name: float8_scale(stats) for name, stats in tensors.items()}
    contract = IOContract(1.0)
    pictures = [(str(n), Picture(np.rint(255 * one[0].transpose(1, 2, 0)).astype(np.uint8))) for n, one in
                enumerate(small_plans.pictures(2, (48, 48)))]  # fmt: skip
    scenes = scenes_from_photographs(pictures, 2, contract, computing(model, 1), 24)
    work = {name: Work(count, 1000) for name, count in macs.items()}
    graph = GraphFile("model.onnx", None, "0" * 64, 17, 0, 0, 0, (48, 48))
    made = Workbench(model, graph, contract, 2, work, kinds_of(model, macs), scenes)
    return made, Material([], spoilt(int8, float8), scan(made, lambda _: None), {})


@pytest.fixture(scope="module")
def bench():
    """The small network, of which one tensor suits INT8 alone and one FP8 alone: the other's scale is far off."""

    def spoilt(int8, float8):
        return Scales({**int8, "two.r": 30 * int8["two.r"]}, {**float8, "one.r": float8["one.r"] / 300})

    return bench_of(small_plans.network(), spoilt)


@pytest.fixture(scope="module")
def far():
    """The small network with values beyond 65504 inside its first block, which computes what it did before."""
    model = small_plans.network()
    for tensor in model.graph.initializer:
        factor = {"one.a.weight": 1e6, "one.a.bias": 1e6, "one.b.weight": 1e-6}.get(tensor.name)
        if factor is not None:
            tensor.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(tensor) * np.float32(factor), tensor.name))
    made, material = bench_of(model, Scales)
    # Originals that the network nearly gives, so that all noise costs.
    grain = np.random.default_rng(0).integers(-1, 2, made.scenes[0].hr.shape)
    scenes = []
    for scene in made.scenes:
        near = np.clip(scene.reference + grain, 0, 255).astype(np.uint8)
        scenes.append(dataclasses.replace(scene, hr=near, reference_psnr=psnr_y(scene.reference, near, 2)))
    return dataclasses.replace(made, scenes=tuple(scenes)), material


def auto(bench, target, budget):
    options = PrecisionOptions("auto", mean_budget=budget, improve=False, target=target)
    return chosen_plan(
        *bench, savings_of(bench[0].work, bench[0].kinds.candidates, None, None), options, lambda _: None
    )


ADA, AMPERE = (Target("tensorrt-rtx", "1.7.1", (capability,)) for capability in ("8.9", "8.6"))


def test_a_painted_picture_that_16_bits_alone_break_judges_nothing_and_is_named(far):
    """One that is its own float32 picture: nothing keeps it. A user's own picture is judged all the same."""
    made, material = far
    exact = dataclasses.replace(made.scenes[0], hr=made.scenes[0].reference, reference_psnr=math.inf, name="bars_0")
    painted, own = (dataclasses.replace(exact, kind=kind) for kind in (GRAPHICS, SHRUNK))
    both = dataclasses.replace(made, scenes=(*made.scenes, painted, own))
    said = []
    bench, note = that_16_bits_keep(both, material, Budget(worst=3.0), said.append)
    assert bench.scenes == (*made.scenes, own) and note == said and "bars_0 (inf dB): float16 alone" in said[0]
    for budget, asked in ((Budget(mean=0.1), both), (Budget(worst=3.0), made)):
        assert that_16_bits_keep(asked, material, budget, said.append) == (asked, [])


def test_auto_gives_each_layer_the_type_of_less_noise_that_the_target_has(bench):
    lost = {}
    for target in (ADA, AMPERE):
        # A budget that all keep, to see what all layers lose.
        plan, _, facts = auto(bench, target, 99.0)
        assert facts["sets_tried"] == (2 if target is ADA else 1)
        lost[target] = bench[0].judged(plan, {}).loss
    plan, _, facts = auto(bench, ADA, 0.9 * min(lost.values()))
    assert plan.nodes["one.b/Conv"] == "int8" and plan.nodes["two.b/Conv"] == "float8"
    # All in INT8, all in FP8, 16 bits alone, and the mix.
    assert len(plan.quantised) >= 4 and facts["sets_tried"] == 4
    assert "INT8 and FP8 for a budget of" in plan.notes[-1] and "all layers in one type: INT8 " in plan.notes[-1]
    assert bench[0].judged(plan, {}).loss < min(lost.values())
    older, _, _ = auto(bench, AMPERE, 0.9 * lost[AMPERE])
    assert older.nodes["two.b/Conv"] == "float16" and older.nodes["one.b/Conv"] == "int8"
    assert "given back for the PSNR budget" in older.reasons["two.b/Conv"] and not older.nodes_of("float8")


def test_where_16_bits_alone_break_the_budget_no_set_is_searched_for(bench):
    plan, _, facts = auto(bench, AMPERE, 1e-9)
    assert not plan.quantised and facts["sets_tried"] == 2 and "16 bits alone do not keep" in plan.notes[-1]
    assert facts["gave_up"].keys() >= {"two.b/Conv", "one.b/Conv"} <= plan.reasons.keys()


def saved_by(bench, plan):
    """Microseconds that a plan's layers of 8 bits save."""
    savings = savings_of(bench[0].work, bench[0].kinds.candidates, None, None).microseconds
    return sum(savings[name] for name in plan.quantised if name in savings)


def test_a_mix_saves_no_less_than_int8_would_with_the_same_budget(bench):
    for share in (0.8, 0.5, 0.25, 0.1):
        lost = 0.0
        saved = {}
        for target in (AMPERE, ADA):
            whole, _, _ = auto(bench, target, 99.0)
            lost = lost or bench[0].judged(whole, {}).loss
            plan, _, _ = auto(bench, target, share * lost)
            assert bench[0].judged(plan, {}).loss <= share * lost
            saved[target] = saved_by(bench, plan)
        assert saved[ADA] >= saved[AMPERE] >= 0


def test_bfloat16_is_where_float16_overflows_if_the_budget_bears_it_and_float32_else(far):
    made, material = far
    beyond = ["one.a/Conv", "one/PRelu", "one.b/Conv"]
    assert list(material.wide) == beyond
    for budget, kind in ((4.0, "bfloat16"), (0.2, "float32")):
        plan, _, facts = auto(far, ADA, budget)
        floating = [name for name in beyond if name not in plan.quantised]
        assert floating and {plan.nodes[name] for name in floating} == {kind}
        assert all("beyond" in plan.reasons[name] for name in floating if plan.rest == "float16")
        found = made.judged(plan, {})
        assert found.sick == 0 and found.loss <= budget
    older = Target("tensorrt-rtx", "1.7.1", ("7.5",))
    assert "bfloat16" not in auto(far, older, 4.0)[0].formats


@needs_rtx
def test_a_mix_with_bfloat16_is_built(far, tmp_path):
    """Layers of 8 bits that give bfloat16 beside float16: every product in its planned type."""
    made, _ = far
    plan, weights, _ = auto(far, ADA, 20.0)
    assert plan.rest == "bfloat16" and plan.nodes["head/Conv"] == "float16" and plan.nodes["one.b/Conv"] == "int8"
    path = tmp_path / "model.onnx"
    onnx.save(typed_graph(made.model, plan, weights), str(path))
    options = EngineOptions(precision="auto", planned=plan.nodes)
    engine = engine_from_graph("tensorrt-rtx", path, [(24, 24)] * 3, ("8.9",), options)
    assert engine.refusal is None and "int8" in engine.settings["built"]


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
