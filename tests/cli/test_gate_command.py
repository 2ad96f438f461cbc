"""srdeploy gate: exit codes, files, refusals, baselines, and two real deployments in turn."""

from __future__ import annotations

import dataclasses
import json
import shutil

import numpy as np
import pytest

from sr_deploy.bench.interleave import opened_first
from sr_deploy.bench.measure import summary
from sr_deploy.bench.result import Point, Result, load_result, save_result
from sr_deploy.core.deployment.default import Default, save_default
from sr_deploy.core.schema import value_from
from sr_deploy.report.gate import GateReport


def written(path, median_s, spread=0.001, device="AMD EPYC", **environment):
    """A result of one size in five processes."""
    random = np.random.default_rng(int(median_s * 1e9))
    samples = tuple(float(median_s * (1 + 0.001 * value)) for value in random.standard_normal(300))
    medians = [median_s * (1 + spread * step) for step in (-2, -1, 0, 1, 2)]
    told = {"version": "1"}
    point = Point((8, 8), "compute", "onnxruntime", device, told, samples_s=samples, **summary(samples))
    table = {"size": [8, 8], "scope": "compute", "median_s": median_s, "builds": 1, "processes": 5, "runs": 10,
             "run_s": 1e-5, "process_s": None, "build_s": None, "process_medians_s": medians,
             "left_out": []}  # fmt: skip
    facts = {"cpu": "x", **environment}
    save_result(path, Result("net", facts, {"scope": "compute"}, (point,), "2026-05-01T00:00:00+00:00", (table,)))
    return path


@pytest.mark.parametrize(
    "median_s, spread, code, verdict",
    [(0.01, 0.001, 0, "PASS"), (0.012, 0.001, 1, "REGRESSION"), (0.0104, 0.03, 5, "INCONCLUSIVE")],
)
def test_exit_codes_and_files(tmp_path, srdeploy, median_s, spread, code, verdict):
    old, new = written(tmp_path / "old.json", 0.01), written(tmp_path / "new.json", median_s, spread)
    junit, page = tmp_path / "gate.xml", tmp_path / "gate.md"
    outcome = srdeploy("gate", old, new, "--json", "--junit", junit, "--markdown", page, "--github")
    assert outcome.code == code
    assert value_from(GateReport, outcome.out, "stdout").verdict == verdict
    assert f"## srdeploy gate: {verdict}" in page.read_text()
    assert junit.read_text().startswith("<?xml")
    assert "::" in outcome.err


def test_of_several_precisions_the_deployments_default_is_judged(tmp_path, srdeploy):
    folder = tmp_path / "net"
    (folder / "results").mkdir(parents=True)
    for precision, median_s in (("fp16", 0.01), ("int8", 0.02)):
        written(folder / "results" / f"bench_onnxruntime_{precision}_compute.json", median_s)
    old = written(tmp_path / "old.json", 0.01)
    refused = srdeploy("gate", old, folder)
    assert refused.code == 4 and "has 2 results of the scope compute" in refused.err
    save_default(folder, Default("int8", "int8"))
    report = srdeploy("gate", old, folder, "--json")
    assert report.code == 1
    assert f"{folder}: int8, the deployment's default, of 2 results" in json.loads(report.out)["notes"]
    assert srdeploy("gate", old, folder, "--precision", "fp16").code == 0


def test_people_read_a_table(tmp_path, srdeploy):
    old = written(tmp_path / "old.json", 0.01)
    outcome = srdeploy("gate", old, old)
    assert outcome.code == 0
    assert "PASS" in outcome.out and "limit +3.00 %" in outcome.out


def test_unlike_machines_are_refused_with_the_difference(tmp_path, srdeploy):
    old, new = written(tmp_path / "old.json", 0.01), written(tmp_path / "new.json", 0.01, cpu="y")
    outcome = srdeploy("gate", old, new)
    assert outcome.code == 4
    assert "cpu: 'x' and 'y'" in outcome.err


def test_budget_and_quality_are_judged_in_the_same_call(tmp_path, srdeploy):
    old = written(tmp_path / "old.json", 0.01)
    budget, quality = tmp_path / "b.toml", tmp_path / "q.json"
    budget.write_text('[quality]\nmin_psnr_y = 30\n[devices."AMD EPYC".sizes.8x8]\nmax_median_ms = 9\n')
    head = {"schema": 2, "convention": "Y", "ran": [], "images": []}
    quality.write_text(json.dumps({**head, "mean": {"psnr_y": 29.0}}))
    outcome = srdeploy("gate", old, old, "--budget", budget, "--quality", quality, "--json")
    found = {finding["what"]: finding["verdict"] for finding in json.loads(outcome.out)["findings"]}
    assert found == {"latency": "PASS", "median budget": "REGRESSION", "PSNR-Y against HR": "REGRESSION"}
    assert outcome.code == 1
    # A floor that nothing is held against must not pass, and a report that nothing asks for is not looked at.
    outcome = srdeploy("gate", old, old, "--budget", budget, "--json")
    assert outcome.code == 2 and "has quality floors" in json.loads(outcome.out)["error"]
    assert srdeploy("gate", old, old, "--quality", quality).code == 2
    quality.write_text(json.dumps({**head, "precision": "int8", "mean": {"psnr_y": 31.0}}))
    timed = dataclasses.replace(load_result(old).points[0], description={"precision": "fp32"})
    save_result(old, dataclasses.replace(load_result(old), points=(timed,)))
    outcome = srdeploy("gate", old, old, "--budget", budget, "--quality", quality)
    assert outcome.code == 4 and "is of int8, and fp32 was timed" in outcome.err
    quality.write_text("[]")
    assert srdeploy("gate", old, old, "--budget", budget, "--quality", quality).code == 4


def test_a_baseline_is_updated_by_hand_and_shows_the_difference(tmp_path, srdeploy):
    new, folder = written(tmp_path / "new.json", 0.01), tmp_path / "baselines"
    target = folder / "amd-epyc" / "net_onnxruntime_fp32_compute.json"
    outcome = srdeploy("gate", new, "--update-baseline", "--baselines", folder)
    assert outcome.code == 0
    assert outcome.out.startswith(f"+ 8x8: median {1e3 * load_result(new).points[0].median_s:.3f} ms\n")
    assert load_result(target) == load_result(new)
    slower = written(tmp_path / "slower.json", 0.012, cpu="y")
    outcome = srdeploy("gate", target, slower, "--update-baseline", "--baselines", folder)
    assert "! cpu: 'x' and 'y'" in outcome.out
    assert "→ 12.0" in outcome.out or "→ 11.9" in outcome.out
    bad = load_result(new)
    save_result(new, dataclasses.replace(bad, points=(dataclasses.replace(bad.points[0], invalid="throttled"),)))
    outcome = srdeploy("gate", target, new, "--update-baseline", "--baselines", folder)
    assert outcome.code == 4 and "throttled" in outcome.err
    assert load_result(target) == load_result(slower)


def test_a_candidate_finds_its_own_baseline(tmp_path, srdeploy):
    new, folder = written(tmp_path / "new.json", 0.01), tmp_path / "baselines"
    missing = srdeploy("gate", new, "--baselines", folder)
    assert missing.code == 4 and "amd-epyc/net_onnxruntime_fp32_compute.json" in missing.err
    srdeploy("gate", new, "--update-baseline", "--baselines", folder)
    slow = written(tmp_path / "slow.json", 0.012)
    for result, code in ((new, 0), (slow, 1)):
        outcome = srdeploy("gate", result, "--baselines", folder, "--threshold", "3", "--json")
        report = json.loads(outcome.out)
        assert outcome.code == code and report["baseline"].endswith("amd-epyc/net_onnxruntime_fp32_compute.json")


def test_the_place_of_a_baseline_is_not_a_placeholder(tmp_path, srdeploy):
    """What README writes in capitals, pasted as it stands, made a baseline elsewhere without a word."""
    new, folder = written(tmp_path / "new.json", 0.01), tmp_path / "baselines"
    named = folder / "DEVICE" / "NAME.json"
    outcome = srdeploy("gate", named, new, "--update-baseline", "--baselines", folder)
    assert outcome.code == 2 and str(folder / "amd-epyc" / "net_onnxruntime_fp32_compute.json") in outcome.err
    assert not folder.exists()


def test_too_few_processes_are_no_baseline(tmp_path, srdeploy):
    new = written(tmp_path / "new.json", 0.01)
    few = load_result(new)
    table = {**few.variance[0], "processes": 3, "process_medians_s": few.variance[0]["process_medians_s"][:3]}
    save_result(new, dataclasses.replace(few, variance=(table,)))
    outcome = srdeploy("gate", new, "--update-baseline", "--baselines", tmp_path / "baselines")
    assert outcome.code == 4 and "--processes 5" in outcome.err
    refused = srdeploy("bench", tmp_path, "--processes", 3)
    assert refused.code == 2 and "--processes 5" in refused.err, "said before three were measured"


def test_one_result_against_a_budget(tmp_path, srdeploy):
    new, budget = written(tmp_path / "new.json", 0.01), tmp_path / "b.toml"
    junit, page = tmp_path / "gate.xml", tmp_path / "gate.md"
    for bound, code, verdict in ((11, 0, "PASS"), (9, 1, "REGRESSION")):
        budget.write_text(f'[devices."AMD EPYC".sizes.8x8]\nmax_median_ms = {bound}\n')
        asked = ("gate", "--budget", budget, new, "--json", "--junit", junit, "--markdown", page)
        outcome = srdeploy(*asked)
        report = json.loads(outcome.out)
        assert (outcome.code, report["verdict"]) == (code, verdict)
        assert [finding["what"] for finding in report["findings"]] == ["median budget"]
        assert "slower by more than" not in page.read_text() and str(budget.name) in page.read_text().replace("\\", "")
    budget.write_text('[devices."AMD EPYC".sizes.16x16]\nmax_median_ms = 9\n')
    outcome = srdeploy("gate", "--budget", budget, new)
    assert outcome.code == 5 and "8x8: no bound in the budget, not judged" in " ".join(outcome.out.split())
    # Nothing to hold it against is no pass.
    budget.write_text("threshold_percent = 5.0\n")
    assert "has no bound" in srdeploy("gate", "--budget", budget, new).err
    assert srdeploy("gate", new).code == 2


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (("OLD", "NEW", "--size", "16"), "--size has no effect with two results"),
        (("OLD", "NEW", "--threads", "1"), "--threads has no effect"),
        (("OLD", "NEW", "--max-seconds", "1"), "--max-seconds has no effect"),
        (("OLD", "NEW", "--seed", "1"), "--seed has no effect"),
        (("OLD", "NEW", "--scope", "compute"), "--scope has no effect on result files"),
        (("OLD", "NEW", "--baselines", "x"), "--baselines has no effect"),
        (("NEW", "--threshold", "1", "--budget", "b.toml"), "--threshold has no effect with one result"),
        (("NEW", "--update-baseline", "--junit", "x.xml"), "--junit has no effect with --update-baseline"),
        (("OLD", "NEW", "--update-baseline", "--interleave"), "judges nothing"),
        (("OLD", "NEW", "NEW"), "3 results"),
    ],
)
def test_an_option_without_effect_is_refused(tmp_path, srdeploy, options, says):
    files = {"OLD": written(tmp_path / "old.json", 0.01), "NEW": written(tmp_path / "new.json", 0.01)}
    outcome = srdeploy("gate", *(files.get(option, option) for option in options))
    assert outcome.code == 2 and says in outcome.err


def test_deployment_folders_give_their_one_result(tmp_path, srdeploy):
    for name in ("a", "b"):
        (tmp_path / name / "results").mkdir(parents=True)
        written(tmp_path / name / "results" / "bench_best_fp32_compute.json", 0.01)
    assert srdeploy("gate", tmp_path / "a", tmp_path / "b").code == 0
    outcome = srdeploy("gate", tmp_path / "a", tmp_path / "b", "--scope", "end-to-end")
    assert outcome.code == 4 and "no results" in outcome.err
    written(tmp_path / "a" / "results" / "bench_tensorrt_fp32_compute.json", 0.01)
    outcome = srdeploy("gate", tmp_path / "a", tmp_path / "b")
    assert outcome.code == 4 and "bench_tensorrt_fp32_compute.json" in outcome.err


def test_in_turn_takes_deployments(tmp_path, srdeploy):
    old = written(tmp_path / "old.json", 0.01)
    outcome = srdeploy("gate", old, old, "--interleave")
    assert outcome.code == 2 and "not a deployment" in outcome.err
    assert srdeploy("gate", old, old, "--threshold", "-1").code == 2


def test_two_deployments_run_in_turn(tmp_path, srdeploy, assets):
    srdeploy("export", assets / "weights" / "efdn_x2.pth", "-o", tmp_path / "a", "--size", "16")
    shutil.copytree(tmp_path / "a", tmp_path / "b")
    common = ("--interleave", "--size", "16", "--threads", "1", "--max-seconds", "60", "--json")
    # A threshold of 1000 % passes whatever else this machine does.
    outcome = srdeploy("gate", tmp_path / "a", tmp_path / "b", *common, "--threshold", "1000")
    report = json.loads(outcome.out)
    assert (outcome.code, report["verdict"]) == (0, "PASS"), outcome.err
    assert report["findings"][0]["size"] == "16x16"
    assert report["method"].startswith("in turn")
    # What was drawn is in the report, and drawn anew by every run that is not given a seed.
    size, side = (16, 16), ("baseline", "candidate")
    assert f"opened first was the {side[opened_first(report['seed'], size, 0)]} at 16x16" in report["notes"][0]
    # Whatever the verdict of so short a measurement is.
    common = (*common, "--max-seconds", "0.5")
    again = srdeploy("gate", tmp_path / "a", tmp_path / "b", *common, "--threshold", "1000")
    assert json.loads(again.out)["seed"] != report["seed"]
    given = srdeploy("gate", tmp_path / "a", tmp_path / "b", *common, "--threshold", "1000", "--seed", "7")
    assert json.loads(given.out)["seed"] == 7
    outcome = srdeploy("gate", tmp_path / "a", tmp_path / "b", *common, "--size", "24")
    assert outcome.code == 4 and "no graph for 24x24" in outcome.err


@pytest.mark.parametrize("deployment", ["../../../victim", "/tmp/victim", "a/../../b"])
def test_a_baseline_stays_in_its_folder(tmp_path, srdeploy, deployment):
    new, folder = written(tmp_path / "new.json", 0.01), tmp_path / "deep" / "er" / "baselines"
    save_result(new, dataclasses.replace(load_result(new), deployment=deployment))
    outcome = srdeploy("gate", new, "--update-baseline", "--baselines", folder)
    assert outcome.code == 4 and "deployment" in outcome.err
    assert [path.name for path in tmp_path.rglob("*.json")] == ["new.json"]
