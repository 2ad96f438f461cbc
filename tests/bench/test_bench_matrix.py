"""Many sweeps as one command: cells, progress, resume, and two Dask workers that never measure at the same time."""

from __future__ import annotations

import dataclasses
import json
import resource
import shutil
import subprocess

import pytest

from sr_deploy.bench.result import load_result
from sr_deploy.core.errors import BadInput, CheckFailed, EnvironmentFault
from sr_deploy.pipeline.measure.matrix import measure_cell, read_matrix, run_matrix
from sr_deploy.pipeline.measure.subprocess_bench import request_from_dict, request_to_dict

QUICK = {"runs": 10, "backends": ["onnxruntime"]}


@pytest.fixture(scope="module")
def nets(exported, tmp_path_factory):
    """Two networks: one at other/net too, so that names clash."""
    folder = tmp_path_factory.mktemp("matrix")
    for place in ("net", "other/net"):
        shutil.copytree(exported, folder / place)
    return folder


def matrix(nets, **entries):
    file = nets / "matrix.json"
    file.write_text(json.dumps({"deployments": ["net"], "sizes": ["16", 20], **QUICK, **entries}))
    return file


def test_cells_are_all_combinations(nets, tmp_path):
    file = tmp_path / "m.toml"
    file.write_text(
        'deployments = ["a", "b"]\nsizes = ["144", "360x640"]\nbackends = ["onnxruntime", "tensorrt"]\n'
        'precisions = ["fp32", "fp16"]\nscopes = ["compute", "end-to-end"]\nseconds = 2\n'
    )
    cells = read_matrix(file, tmp_path / "out")
    assert len(cells) == len({cell.request.result_file for cell in cells}) == 16
    assert cells[0].label == "a_onnxruntime_fp32_compute"
    request = cells[-1].request
    assert (request.deployment, request.backend, request.precision) == (tmp_path / "b", "tensorrt", "fp16")
    assert (request.scope, request.seconds, request.sizes) == ("end-to-end", 2, ((144, 144), (360, 640)))
    assert request_from_dict(json.loads(json.dumps(request_to_dict(request)))) == request


def test_two_folders_of_one_name_do_not_share_a_file(nets, tmp_path):
    cells = read_matrix(matrix(nets, deployments=["net", "other/net"]), tmp_path)
    assert len({cell.request.result_file for cell in cells}) == 2


@pytest.mark.parametrize(
    ("entries", "word"),
    [
        ({"colour": ["red"]}, "colour"),
        ({"sizes": []}, "sizes"),
        ({"sizes": ["12y"]}, "12y"),
        ({"deployments": "net"}, "deployments is 'net'"),
        ({"backends": ["openvino"]}, "openvino"),
        ({"scopes": ["latency"]}, "latency"),
        ({"seconds": "long"}, "long"),
        ({"runs": 2.5}, "2.5"),
        ({"cuda_graph": 1}, "cuda_graph"),
        ({"threads": ["two"]}, "two"),
    ],
)
def test_a_wrong_matrix_is_refused(nets, tmp_path, entries, word):
    with pytest.raises(BadInput, match=word):
        read_matrix(matrix(nets, **entries), tmp_path)


def test_what_is_no_matrix_is_refused(tmp_path):
    with pytest.raises(BadInput, match="cannot read"):
        read_matrix(tmp_path / "none.toml", tmp_path)
    for name, text in (("a.toml", "sizes = ["), ("a.json", "["), ("b.json", "[]")):
        (tmp_path / name).write_text(text)
        with pytest.raises(BadInput, match=name):
            read_matrix(tmp_path / name, tmp_path)


def test_a_failing_cell_does_not_end_the_others_and_resume_goes_on(nets, tmp_path, srdeploy):
    out = tmp_path / "out"
    file = matrix(nets, deployments=["missing", "net"])
    first = srdeploy("sweep", file, "-o", out)
    assert first.code == 1
    assert "[1/2] missing_onnxruntime_compute" in first.err and "missing does not exist" in first.err
    assert "[2/2] net_onnxruntime_compute: 2 points, 0 failed, 0 invalid" in first.err
    saved = load_result(out / "net_onnxruntime_compute.json")
    assert [len(point.samples_s) for point in saved.points] == [10, 10]
    assert srdeploy("sweep", file, "-o", out).code == 2
    shutil.copytree(nets / "net", nets / "missing")
    again = srdeploy("sweep", file, "-o", out, "--resume")
    assert again.code == 0, again.err
    assert load_result(out / "net_onnxruntime_compute.json").points == saved.points
    assert len(load_result(out / "missing_onnxruntime_compute.json").points) == 2


def test_precision_without_an_engine_is_a_failure_that_says_so(nets, tmp_path):
    cells = read_matrix(matrix(nets, precisions=["fp16"]), tmp_path)
    with pytest.raises(CheckFailed, match="1 of 1"):
        run_matrix(cells, tmp_path, False, lambda text: None)
    assert "no fp16 onnxruntime engine" in load_result(cells[0].request.result_file).points[0].failure


def test_devices_need_dask(nets, tmp_path, srdeploy):
    outcome = srdeploy("sweep", matrix(nets, devices=["xavier-nx"]), "-o", tmp_path / "out")
    assert outcome.code == 2 and "--dask" in outcome.err
    listed = srdeploy("sweep", matrix(nets, devices=["xavier-nx"]), "-o", tmp_path / "out", "--dry-run")
    assert listed.code == 0 and "net_onnxruntime_compute_xavier-nx.json" in listed.out
    assert not (tmp_path / "out").exists()


def test_a_killed_process_is_an_outcome(nets, tmp_path, monkeypatch):
    """The kernel ends it after two seconds of CPU time, as it would end one that takes too much memory."""
    plain = subprocess.Popen

    def limited(*arguments, **more):
        return plain(*arguments, preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_CPU, (2, 2)), **more)

    monkeypatch.setattr(subprocess, "Popen", limited)
    (cell,) = read_matrix(matrix(nets), tmp_path)
    endless = dataclasses.replace(cell.request, runs=None, seconds=60.0, threads=1)
    outcome = measure_cell(cell.label, request_to_dict(endless))
    assert "was killed by SIG" in outcome["error"] and outcome["label"] == cell.label


@pytest.fixture(scope="module")
def cluster():
    distributed = pytest.importorskip("distributed", reason="dask is not installed (the extra scale)")
    with distributed.LocalCluster(
        n_workers=2, threads_per_worker=1, processes=True, dashboard_address=None, resources={"device": 1, "board": 1}
    ) as running:
        yield running.scheduler_address


def test_two_workers_share_a_matrix_and_never_measure_at_once(nets, tmp_path, srdeploy, cluster):
    out = tmp_path / "out"
    file = matrix(nets, scopes=["compute", "end-to-end"], threads=[1, 2], devices=["board"])
    outcome = srdeploy("sweep", file, "-o", out, "--dask", cluster)
    assert outcome.code == 0, outcome.err
    assert "2 workers: board+device, board+device" in outcome.err
    assert "[4/4]" in outcome.err
    results = [load_result(path) for path in sorted(out.glob("*.json"))]
    assert len(results) == 4
    assert all(len(result.points) == 2 and all(point.usable for point in result.points) for result in results)
    spans = sorted((point.began, point.ended) for result in results for point in result.points)
    assert len(spans) == 8
    assert all(end <= begin for (_, end), (begin, _) in zip(spans, spans[1:])), "two were measured at once"


def test_a_worker_that_nobody_offers_is_an_error_and_not_an_endless_wait(nets, tmp_path, srdeploy, cluster):
    outcome = srdeploy("sweep", matrix(nets, devices=["h200"]), "-o", tmp_path / "out", "--dask", cluster)
    assert outcome.code == 3 and "no worker" in outcome.err and "device=1 h200=1" in outcome.err


def test_no_scheduler(nets, tmp_path):
    pytest.importorskip("distributed", reason="dask is not installed (the extra scale)")
    from sr_deploy.pipeline.measure.cluster import run_on_dask

    cells = read_matrix(matrix(nets), tmp_path)
    with pytest.raises(EnvironmentFault, match="no Dask scheduler"):
        run_matrix(cells, tmp_path, False, lambda text: None, run_on_dask("tcp://127.0.0.1:9", lambda text: None))
