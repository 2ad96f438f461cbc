"""A deployment → one of a narrower network: channels chosen, weights fitted, then taught by the whole one."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Callable, Dict, List, Optional, Tuple

from sr_deploy.core.contract import round_up
from sr_deploy.core.deployment.manifest import Deployment, open_deployment
from sr_deploy.core.deployment.records import CompressRecord
from sr_deploy.core.temporary import temporary_folder
from sr_deploy.pipeline.compress.choose import Narrow, chosen, pareto_rows
from sr_deploy.pipeline.compress.ground import Ground, ground_of
from sr_deploy.pipeline.compress.request import CompressRequest
from sr_deploy.pipeline.compress.source import check_compressible, plain_graph
from sr_deploy.pipeline.compress.unfinished import keep, kept, make_room
from sr_deploy.pipeline.compress.write import write_compressed
from sr_deploy.pipeline.training import torch_device

if TYPE_CHECKING:
    from sr_deploy.compress.distil import Distilled, DistilOptions
    from sr_deploy.precision.fit.graph_learner import Point


@dataclass(frozen=True)
class Compressed:
    """What came out: the deployment, and its step's record."""

    deployment: Deployment
    record: CompressRecord


def compress_deployment(request: CompressRequest, say: Callable[[str], None] = lambda _: None) -> Compressed:
    """Make a deployment of a narrower network.

    Ctrl-C while it is distilled writes the best state so far; --resume goes on all the same.

    Raises:
        BadDeployment: of 8-bit pictures or fixed sizes, or nothing in its graph may become narrower.
        BadInput: no, too few or too small pictures.
        UsageError: options that cannot be, nothing to resume.
        CheckFailed: a budget out of reach, and the message says the nearest; or training diverged.
        KeyboardInterrupt, SystemExit: it was interrupted.
    """
    request.check()
    assert request.out is not None, "check refuses it"
    device = torch_device(request.device)
    deployment = open_deployment(request.deployment)
    check_compressible(deployment)
    folder = make_room(request)
    with temporary_folder() as work:
        ground = ground_of(request, deployment, plain_graph(deployment, work, say))
        options = _options(request, ground, device)
        if request.trains:
            ground.pool(options.patch, options.judged_patch)  # squares larger than the pictures are refused now
        narrow = kept(folder, request, ground) if request.resume else chosen(request, ground, say)
        if not request.trains:
            return _written(request, ground, narrow, None, say)
        if not request.resume:
            keep(folder, narrow)
        return _distilled(request, ground, narrow, options, (folder, say))


def compress_table(request: CompressRequest, say: Callable[[str], None] = lambda _: None) -> List[Dict[str, Any]]:
    """What budgets would leave, one row each; see ``pareto_rows``. Nothing is written.

    Raises:
        As ``compress_deployment``.
    """
    request.check(dry_run=True)
    deployment = open_deployment(request.deployment)
    check_compressible(deployment)
    with temporary_folder() as work:
        return pareto_rows(request, ground_of(request, deployment, plain_graph(deployment, work, say)), say)


def _distilled(
    request: CompressRequest,
    ground: Ground,
    narrow: Narrow,
    options: DistilOptions,
    place: Tuple[Path, Callable[[str], None]],
) -> Compressed:
    from sr_deploy.compress.distil import STATE_NAME, Distiller, distilled, interrupted

    folder, say = place
    begun = (folder / STATE_NAME).is_file()
    if request.resume and not begun:
        say("interrupted before a step of distillation was kept: it begins with the first one")
    distiller = Distiller(narrow.model, ground.model, ground.pool(options.patch, options.judged_patch), ground.white,
                          options)  # fmt: skip
    graphs = [model.SerializeToString(deterministic=True) for model in (narrow.model, ground.model)]
    try:
        done = distilled(distiller, graphs, folder, request.resume and begun, say)
    except KeyboardInterrupt:
        if distiller.steps:
            best = interrupted(distiller)
            say(f"the best so far, of step {best.best.step}, goes to {request.out}")
            _written(request, ground, narrow, (best, options), say)
        raise
    made = _written(request, ground, narrow, (done, options), say)
    shutil.rmtree(folder, ignore_errors=True)
    return made


def _options(request: CompressRequest, ground: Ground, device: str) -> DistilOptions:
    from sr_deploy.compress.distil import DistilOptions

    multiple = ground.deployment.manifest.sizes.multiple
    return DistilOptions(
        steps=request.steps,
        minutes=request.minutes,
        batch=request.batch,
        patch=round_up(request.patch, multiple),
        rate=request.rate,
        judged_patch=round_up(DistilOptions.judged_patch, multiple),
        seed=request.seed,
        device=device,
    )


def _written(
    request: CompressRequest,
    ground: Ground,
    narrow: Narrow,
    taught: Optional[Tuple[Distilled, DistilOptions]],
    say: Callable[[str], None],
) -> Compressed:
    """Judge and write; ``taught`` is what distillation gave."""
    from sr_deploy.compress.distil import with_weights

    assert request.out is not None, "check refuses it"
    model, record = narrow.model, narrow.record
    points: List[Point] = []
    if taught is not None:
        done, options = taught
        model, points = with_weights(model, done.weights), list(done.points)
        record = {
            **record, "steps": done.steps, "best_step": done.best.step, "rate": options.rate, "device": options.device,
        }  # fmt: skip
    record = {**record, "fidelity_db": round(ground.fidelity(model), 3), "lost_db": _rounded(ground.lost(model))}
    deployment = write_compressed(ground.deployment, model, record, request.out, points, say)
    return Compressed(deployment, record)


def _rounded(value: Optional[float]) -> Optional[float]:
    return None if value is None else round(value, 4)
