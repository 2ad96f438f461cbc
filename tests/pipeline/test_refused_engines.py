"""Which engine is not used, and why, in the words of the message."""

from __future__ import annotations

import json
import shutil

import cv2
import numpy as np
import pytest


@pytest.fixture(scope="module")
def built(exported, tmp_path_factory):
    from sr_deploy.cli import main

    net = shutil.copytree(exported, tmp_path_factory.mktemp("refused") / "net")
    main_arguments = ["build", str(net), "--backend", "onnxruntime", "--size", "24"]
    with pytest.raises(SystemExit):
        main(main_arguments)
    return net


@pytest.fixture
def net(built, tmp_path):
    shutil.copytree(built, tmp_path / "net")
    return tmp_path / "net"


def change(net, **changes):
    (record,) = (net / "engines").glob("*.json")
    record.write_text(json.dumps({**json.loads(record.read_text()), **changes}))


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"precision": "int8", "sha256": "0" * 64}, "is not the file that was built"),
        ({"precision": "int8", "graph_sha256": "0" * 64}, "graph: built from model.onnx 000000000000"),
        ({"precision": "int8", "runtime_version": "0.1"}, "built with onnxruntime 0.1"),
        ({"precision": "int8"}, "takes 24x24"),
        ({"scale": 0}, "scale is 0"),
    ],
)
def test_an_engine_that_was_asked_for_is_named_with_its_fault(net, tmp_path, srdeploy, changes, words):
    change(net, **changes)
    cv2.imwrite(str(tmp_path / "a.png"), np.zeros((30, 30, 3), np.uint8))
    outcome = srdeploy("run", net, "-i", tmp_path / "a.png", "-o", tmp_path / "out", "--precision", "int8")
    assert outcome.code == 4 and "has no int8 engine for 30x30 that fits this machine" in outcome.err
    assert "not used: onnxruntime_24x24" in outcome.err and words in outcome.err


def test_the_graph_in_the_place_of_a_damaged_engine_is_said(net, tmp_path, srdeploy):
    change(net, sha256="0" * 64)
    cv2.imwrite(str(tmp_path / "a.png"), np.zeros((24, 24, 3), np.uint8))
    outcome = srdeploy("run", net, "-i", tmp_path / "a.png", "-o", tmp_path / "out")
    assert outcome.code == 0 and "not used: onnxruntime_24x24" in outcome.err


def test_pack_refuses_a_plan_of_another_graph(net, tmp_path, srdeploy):
    from sr_deploy.core.deployment.plan import Plan, save_plan

    (net / "precision" / "int8").mkdir(parents=True)
    save_plan(net / "precision" / "int8", Plan("int8", "0" * 64, {"/a": "int8"}))
    outcome = srdeploy("pack", net, "-o", tmp_path / "net.srd")
    assert outcome.code == 4 and "was made for another graph" in outcome.err
    assert not (tmp_path / "net.srd").exists()
