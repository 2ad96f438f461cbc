"""What stays wider than asked for, and why, on small networks of every family."""

from __future__ import annotations

import warnings
from collections import Counter

import numpy as np
import pytest
import torch

from sr_deploy.core.media.sample import sample_input
from sr_deploy.graph.census import work_by_node
from sr_deploy.graph.specialise import load_graph
from sr_deploy.pipeline.export import ExportOptions, export_deployment
from sr_deploy.pipeline.load import LoadOptions
from sr_deploy.precision.calibrate.collect import ranges_of
from sr_deploy.precision.calibrate.ranges import scale_of
from sr_deploy.precision.choose.float32_patterns import global_skips
from sr_deploy.precision.choose.islands import kinds_of
from sr_deploy.precision.choose.plan_from_ranges import NarrowChoice, Scales, floating_plan, narrow_plan, narrow_share
from sr_deploy.precision.lower.typed_graph import typed_graph
from tests import synthetic_checkpoints as synthetic
from tests.models import test_swinir
from tests.models.test_edsr import head_body_tail_tensors
from tests.precision.small_graphs import graph, node


def exported(folder, tensors, size=(32, 32), **options):
    """Model, kinds and multiply-accumulates of a deployment of these tensors, and its manifest."""
    torch.save(tensors, folder / "net.pth")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        deployment = export_deployment(ExportOptions(folder / "net.pth", folder / "net", **options))
    path = deployment.folder / "model.onnx"
    model = load_graph(path)
    macs = {name: work.macs for name, work in work_by_node(path, size).items()}
    return model, kinds_of(model, macs), macs, deployment.manifest


def plan_of(model, kinds, manifest, size=(32, 32), **options):
    ranges = ranges_of(model, [sample_input(size, manifest.contract.value_range)])
    scales = {name: scale_of(stats) for name, stats in ranges.tensors.items()}
    return narrow_plan(model, kinds, manifest.graphs[0].sha256, Scales(scales), NarrowChoice(**options))


def reasons_of(kinds):
    return Counter(why.split(":")[0] for why in kinds.wide.values())


def check(model, kinds, macs, manifest, least=0.85):
    """Every wider node has a reason, the share is reached, and the plan can be lowered."""
    plan = plan_of(model, kinds, manifest)
    assert narrow_share(plan, macs, kinds) >= least
    for name in kinds.candidates:
        assert (plan.nodes[name] == "int8") != bool(plan.reasons.get(name)), name
    for name in plan.nodes_of("float32"):
        assert plan.reasons[name]
    assert set(plan.nodes) == set(kinds.computing)
    typed_graph(model, plan, {})
    half = floating_plan(kinds, "0" * 64, {})
    assert set(half.nodes_of("float32")) == set(kinds.pinned) == set(half.reasons) and not half.nodes_of("int8")
    return plan


FAMILIES = {
    "efdn": lambda: synthetic.efdn_training(24, 2, 0),
    "span": lambda: synthetic.span_folded(26, 2, 0),
    "dsclora": lambda: synthetic.dsclora(26, 2, 4, 0),
    "student": lambda: synthetic.f2srgan(32, 2, 2, 0, [16, 24, 16, 24]),
    "f2srgan": lambda: synthetic.f2srgan(32, 2, 4, 0),
}


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """Each family once, when it is first asked for."""
    kept = {}

    def get(name):
        if name not in kept:
            options = {"load": LoadOptions(lora_alpha="2r")} if name == "dsclora" else {}
            kept[name] = exported(tmp_path_factory.mktemp(name), FAMILIES[name](), **options)
        return kept[name]

    return get


@pytest.mark.parametrize("name", list(FAMILIES))
def test_the_share_in_8_bits_and_a_reason_for_every_other(made, name):
    check(*made(name))


def test_span_keeps_its_head_wide(made):
    model, kinds, _, _ = made("span")
    convolutions = [n.name for n in model.graph.node if n.op_type == "Conv"]
    assert kinds.wide[convolutions[0]] == "head: it reads the picture"
    assert not kinds.pinned and set(convolutions) == set(kinds.candidates)


def test_efdn_keeps_its_small_convolutions_wide(made):
    _, kinds, _, _ = made("efdn")
    assert reasons_of(kinds)["small"] > 4, "the attention's convolutions are small"
    assert sum(kinds.candidates[n] for n, why in kinds.wide.items() if why.startswith("small")) <= 0.03 * kinds.macs
    assert not kinds.pinned


def test_f2srgan_pins_its_fourier_units_and_keeps_depthwise_wide(made):
    model, kinds, _, manifest = made("f2srgan")
    assert set(kinds.pinned) >= set(manifest.pinned_fp32) & set(kinds.computing) and kinds.pinned
    assert all("Fourier" in why or "Fourier" in manifest.pinned_fp32.get(n, "") for n, why in kinds.pinned.items())
    assert reasons_of(kinds)["depthwise or grouped"] > 4
    assert not set(kinds.candidates) & set(kinds.pinned)
    groups = {n.name: next((a.i for a in n.attribute if a.name == "group"), 1) for n in model.graph.node}
    narrow = set(kinds.candidates) - set(kinds.wide)
    assert narrow and all(groups[name] == 1 for name in narrow)


def test_the_student_has_no_pins(made):
    _, kinds, _, _ = made("student")
    assert not kinds.pinned and reasons_of(kinds)["depthwise or grouped"]


def test_edsr_fuses_its_residual_adds_but_not_its_global_skip(tmp_path):
    tensors = head_body_tail_tensors(width=16, blocks=4, scale=2)
    model, kinds, macs, manifest = exported(tmp_path, tensors, load=LoadOptions(res_scale=1.0))
    plan = check(model, kinds, macs, manifest, least=0.8)
    adds = [n.name for n in model.graph.node if n.op_type == "Add" and n.name in kinds.computing]
    fused = [name for name in adds if plan.nodes[name] == "int8"]
    assert len(fused) == 4 and set(fused) == set(kinds.fusing_adds), "one for each residual block"
    skips = global_skips(model)
    assert len(skips) == 1 and plan.nodes[next(iter(skips))] == "float16", "the global skip is never in 8 bits"
    without = plan_of(model, kinds, manifest, skips=False)
    assert not set(without.nodes_of("int8")) & set(adds)


def test_swinir_keeps_layernorm_and_attention_in_float32(tmp_path, torchvision_operators):
    model, kinds, macs, manifest = exported(tmp_path, test_swinir.small_tensors(), size=(16, 16))
    operators = {n.name: n.op_type for n in model.graph.node}
    pinned = {operators[name] for name in kinds.pinned}
    assert {"Softmax", "MatMul"} <= pinned and (pinned >= {"ReduceMean", "Sqrt"} or "LayerNormalization" in pinned)
    assert {why.split(":")[0] for why in kinds.pinned.values()} == {"LayerNorm", "softmax", "attention"}
    assert {operators[name] for name in kinds.candidates} == {"Conv"}
    half = floating_plan(kinds, "0" * 64, {})
    assert half.nodes_of("float16") and set(half.nodes_of("float32")) == set(kinds.pinned)
    typed_graph(model, half, {})
    typed_graph(model, plan_of(model, kinds, manifest, (16, 16)), {})


@pytest.mark.parametrize("depthwise, tail", [(20, "float16"), (130, "int8")])
def test_the_tail_stays_wide_only_where_enough_runs_in_8_bits(depthwise, tail):
    rng = np.random.default_rng(0)
    constants = {
        "head_w": rng.normal(0, 0.3, (8, 4, 3, 3)), "deep_w": rng.normal(0, 0.3, (8, 1, 3, 3)),
        "body_w": rng.normal(0, 0.3, (8, 8, 3, 3)), "sr_w": rng.normal(0, 0.3, (3, 8, 3, 3)),
    }  # fmt: skip
    model = graph(
        [
            node("Conv", "lr head_w", "head", pads=[1] * 4),
            node("Conv", "head deep_w", "deep", pads=[1] * 4, group=8),
            node("Conv", "deep body_w", "body", pads=[1] * 4),
            node("Conv", "body sr_w", "sr", pads=[1] * 4),
        ],
        constants,
    )
    macs = {"head_node": 10, "deep_node": depthwise, "body_node": 920 - depthwise, "sr_node": 70}
    kinds = kinds_of(model, macs)
    assert {"head_node", "deep_node"} <= set(kinds.wide) and "body_node" not in kinds.wide
    assert ("sr_node" in kinds.wide) == (tail == "float16")
