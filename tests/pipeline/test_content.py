"""``--content``: what is painted beside the user's pictures, where it is told, and what is asked for again."""

from __future__ import annotations

import inspect
import json
import shutil

import numpy as np
import pytest

from sr_deploy.cli.shared import CONTENT_OPTION, METHOD_OPTION
from sr_deploy.core.deployment.manifest import open_deployment
from sr_deploy.core.errors import BadInput, UsageError
from sr_deploy.core.tolerance import COLOUR_SHIFT, LOUD_LOSS, STRUCTURE
from sr_deploy.pipeline.demo import ASSETS
from sr_deploy.pipeline.engines.plans import planned_for
from sr_deploy.pipeline.precision.calibrate import open_calibration
from sr_deploy.pipeline.precision.content import JUDGED, LEAST, MOST, graphics_to_fit, graphics_to_judge, spread
from sr_deploy.pipeline.precision.deployed_plan import CONTENT, CONTENTS, PrecisionOptions, check_options, request_of
from sr_deploy.pipeline.precision.make_plan import warnings_of
from sr_deploy.precision.calibrate.ranges import METHOD, METHODS
from sr_deploy.precision.evaluate import GRAPHICS, SHRUNK, Judged, PictureJudged
from sr_deploy.train.patches import JUDGED as JUDGED_SQUARES
from sr_deploy.train.patches import KEPT_BACK


@pytest.fixture(scope="module")
def prepared(export_once, photographs, tmp_path_factory):
    """The network that ships, for 32x32, with a plan of photographs and of painted pictures: those are as small."""
    fixed = export_once(ASSETS / "demo_x2.safetensors", sizes=((32, 32),))
    folder = shutil.copytree(fixed, tmp_path_factory.mktemp("planned") / "net")
    planned_for(open_deployment(folder), PrecisionOptions("int8", images=photographs, improve=False), lambda _: None)
    return folder


def test_how_many_graphics_a_set_of_pictures_gets(exported):
    deployment = open_deployment(exported)
    graph = deployment.manifest.graphs[0]

    def count(content, photographs):
        return graphics_to_fit(content, photographs, deployment, graph).count

    assert [count("any", number) for number in (0, 4, 60, 100, 1000)] == [LEAST, LEAST, 2 * LEAST, MOST, MOST]
    assert count("photo", 100) == 0 and count("graphics", 4) == MOST
    fitted, judged = graphics_to_fit("any", 4, deployment, graph), graphics_to_judge("any", deployment, 96)
    assert judged.count == JUDGED and graphics_to_judge("photo", deployment, 96).count == 0
    kinds = [name.rpartition("_")[0] for name, _, _ in judged.pairs()]
    assert len(set(kinds[::2])) == JUDGED // 2 and set(kinds[::2]) == set(kinds), "evenly spaced ones are of all kinds"
    assert fitted.seed != judged.seed and (fitted.side, fitted.scale) == (96, deployment.manifest.scale)


def test_what_a_training_keeps_back_has_both_kinds():
    photographs, graphics = [np.zeros(1)] * 100, [np.ones(1)] * 48
    both = spread(photographs, graphics)
    assert len(both) == 148 and sum(float(one[0]) for one in both) == 48
    assert 2 <= sum(float(one[0]) for one in both[::KEPT_BACK][:JUDGED_SQUARES]) <= 4
    assert spread(photographs, []) == photographs


def test_a_calibration_says_what_was_painted_and_is_asked_for_it(net, photographs):
    deployment = open_deployment(net)
    graph = deployment.manifest.graphs[0]
    known = open_calibration(deployment, METHOD, (photographs,), graph, "any").provenance["graphics"]
    assert known == graphics_to_fit("any", 4, deployment, graph).record() and known["count"] == LEAST
    for other in ("photo", "graphics"):
        with pytest.raises(BadInput, match="of other graphics"):
            open_calibration(deployment, METHOD, (photographs,), graph, other)


def test_a_plan_of_photographs_is_judged_on_photographs(net, photographs, srdeploy):
    done = srdeploy("build", net, "--precision", "int8", "--no-fit", "--content", "photo", "--images", photographs)
    assert done.code == 0, done.err
    assert "made before" not in done.err and "of other graphics" in done.err and "graphics" not in done.out
    report = json.loads((net / "precision" / "int8" / "report.json").read_text())
    assert {one["kind"] for one in report["judged"]} == {"shrunk photograph"} and report["pictures"] == 4
    assert report["request"]["content"] == "photo"


def test_a_content_that_does_not_exist_is_refused(net, srdeploy):
    with pytest.raises(UsageError, match="no content 'film'"):
        check_options(PrecisionOptions("int8", content="film"))
    for command in (("calibrate", net, "--images", net), ("qat", net, "--images", net)):
        refused = srdeploy(*command, "--content", "film")
        assert refused.code == 2 and "there is no content 'film'" in refused.err
    assert srdeploy("build", net, "--content", "photo").code == 2, "float32 has no use for it"


def test_budgets_hold_for_the_mean_and_for_the_worst(net, srdeploy):
    report = {"loss_db": 0.05, "worst_loss_db": 0.4}
    for asked, kept in (
        ({}, True),
        ({"budget": 0.3}, False),
        ({"mean_budget": 0.1}, True),
        ({"mean_budget": 0}, False),
    ):
        assert PrecisionOptions("int8", **asked).kept_by(report) == kept
    assert request_of(PrecisionOptions("auto", mean_budget=0.1))["mean_budget"] == 0.1
    refused = srdeploy("build", net, "--precision", "auto")
    assert refused.code == 2 and "--mean-budget" in refused.err


def test_what_will_be_seen_is_warned_of():
    def judged(*each):
        return Judged(30.0, 30.0, 0.0, 0.0, 0.0, 0.0, 0, len(each), each)

    quiet = PictureJudged("a", SHRUNK, LOUD_LOSS, 0.0, COLOUR_SHIFT.steps, 0.5, STRUCTURE.steps)
    assert warnings_of(judged(quiet)) == []
    loud = PictureJudged("flat_0", GRAPHICS, LOUD_LOSS + 0.2, 0.0, COLOUR_SHIFT.steps + 1, 0.5, STRUCTURE.steps + 7)
    lost, shifted, seen = warnings_of(judged(quiet, loud))
    assert "1 of 2 pictures lose more than 0.3 dB (flat_0 0.50)" in lost
    assert "by 1.25 in flat_0" in shifted and "by 23 in flat_0" in seen


def test_the_commands_offer_what_there_is():
    assert CONTENT_OPTION.default == CONTENT and METHOD_OPTION.default == METHOD
    assert tuple(CONTENT_OPTION.autocompletion()) == CONTENTS and all(one in METHOD_OPTION.help for one in METHODS)
    assert inspect.signature(PrecisionOptions).parameters["method"].default == METHOD
