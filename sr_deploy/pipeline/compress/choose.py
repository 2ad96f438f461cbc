"""Which channels go: the widths that a budget leaves, and the weights that make up for the rest."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Callable, Dict, List, Mapping, Optional, Tuple

from sr_deploy.core.deployment.records import CompressRecord
from sr_deploy.core.errors import BadInput, CheckFailed
from sr_deploy.core.host.gpu_rates import gpu_named
from sr_deploy.core.text import counted, decibels_lost
from sr_deploy.pipeline.compress.ground import Ground, subject_on
from sr_deploy.pipeline.compress.request import CompressRequest
from sr_deploy.pipeline.compress.timed import Target, fitting_share

if TYPE_CHECKING:
    import onnx

    from sr_deploy.compress.allocate import Allocation, Widths
    from sr_deploy.compress.cost import Work
    from sr_deploy.compress.subject import Subject

#: Shares of the cost that ``--dry-run`` shows.
SHOWN = (0.9, 0.8, 0.7, 0.6, 0.5, 0.4, 0.3)
#: What is left at most when a PSNR budget is searched, and how often.
_LEAST, _SEARCHES = 0.25, 5
#: A share that is this much more than asked for is a share that could not be reached.
_NEARLY = 1e-9
_TABLE = "the same command with --dry-run shows what budgets leave"


@dataclass(frozen=True)
class Narrow:
    """A narrower graph, and how it came about: its record is complete but for distillation."""

    model: onnx.ModelProto
    record: CompressRecord


def chosen(request: CompressRequest, ground: Ground, say: Callable[[str], None]) -> Narrow:
    """The narrower graph with its weights fitted.

    Raises:
        BadDeployment: nothing may become narrower.
        CheckFailed: the budget is out of reach; the message says the nearest.
        BadInput: a PSNR budget, and photographs too small to judge on.
    """
    subject = subject_on(ground, request, say)
    target = target_of(request, ground)
    way = Way(request, ground, subject, target)
    name, amount = request.budget
    if name == "macs":
        widths = way.at(amount)
    elif name == "time":
        widths = way.at(way.share_for_time(amount, say))
    else:
        widths = way.for_psnr(amount, say)
    model = subject.narrowed(widths, request.refit)
    time_share = None if name == "macs" else target.share(ground.model, model, widths.cost)
    fidelity = ground.fidelity(model)
    say(
        f"{widths.cost:.3f} of the cost: {subject.costs.macs(widths.of):,.0f} multiply-accumulates for a pixel, "
        f"{subject.costs.parameters(widths.of):,} parameters, {fidelity:.2f} dB to the whole network, not trained"
    )
    return Narrow(model, _record(request, ground, subject, widths, (time_share, target.kind, fidelity)))


def target_of(request: CompressRequest, ground: Ground) -> Target:
    """Where the time counts."""
    manifest = ground.deployment.manifest
    gpu = None if request.device_for is None else gpu_named(request.device_for, "--for")
    size = (manifest.sizes.fit(request.size[0]), manifest.sizes.fit(request.size[1]))
    return Target(manifest.contract, manifest.scale, size, request.threads, gpu)


def allocation_of(request: CompressRequest, subject: Subject, target: Target) -> Allocation:
    """Widths chosen by multiply-accumulates where they are the budget, else by time."""
    from sr_deploy.compress.cost import Spending, cpu_seconds, gpu_seconds, macs_of

    of_work: Callable[[Work, Mapping[str, int]], float] = macs_of
    if request.macs is None:
        larger = target.size[0] * target.size[1] / subject.costs.pixels
        of_work = cpu_seconds if target.gpu is None else gpu_seconds(target.gpu, larger)
    return subject.allocation(Spending(subject.costs, of_work), request.step)


class Way:
    """The way down of one allocation, with what is asked on it."""

    def __init__(self, request: CompressRequest, ground: Ground, subject: Subject, target: Target) -> None:
        from sr_deploy.compress.allocate import path_down

        self.request, self.ground, self.subject, self.target = request, ground, subject, target
        self.allocation = allocation_of(request, subject, target)
        least = request.macs if request.macs is not None else _LEAST * (request.time or 1.0)
        self.path = path_down(self.allocation, least)

    def at(self, share: float) -> Widths:
        """The widths of a share of the cost; raises CheckFailed where there are none."""
        from sr_deploy.compress.allocate import at_most

        nearest = self.path[-1].cost
        if nearest > share + _NEARLY:
            raise CheckFailed(
                f"{self.request.asked} cannot be reached: with {counted(self.request.step, 'channel')} in every group "
                f"{nearest:.3f} of the cost is left",
                self._more(nearest),
                _TABLE,
            )
        return at_most(self.allocation, self.path, share)

    def _more(self, nearest: float) -> str:
        """What can be asked for instead, where a share of ``nearest`` is the least."""
        ways = [f"{_rounded_up(nearest):g} or more"] if _rounded_up(nearest) < 1 else []
        ways += ["--multiple 1"] if self.request.step > 1 else []
        return ", or ".join(ways) or "another network: this one has nothing to spare"

    def share_for_time(self, asked: float, say: Callable[[str], None]) -> float:
        """The share of the modelled cost that takes the asked share of the time."""
        seen: Dict[Tuple[int, ...], float] = {}

        def measured(share: float) -> float:
            widths = self.at(max(share, self.path[-1].cost))
            key = tuple(widths.of.values())
            if key not in seen:
                narrow = self.subject.narrowed(widths, refit=False)
                seen[key] = self.target.share(self.ground.model, narrow, widths.cost)
                say(f"{widths.cost:.3f} of the modelled time: {seen[key]:.3f} ({self.target.kind})")
            return seen[key]

        share = fitting_share(measured, asked)
        if min(seen.values()) > 1.02 * asked and self.path[-1].cost >= share:
            raise CheckFailed(
                f"{self.request.asked} cannot be reached: the narrowest takes {min(seen.values()):.3f} of the time",
                self._more(min(seen.values())),
                _TABLE,
            )
        return max(share, self.path[-1].cost)

    def for_psnr(self, allowed: float, say: Callable[[str], None]) -> Widths:
        """The cheapest widths that were found to lose no more, by halving the range of shares."""
        if not self.ground.scenes:
            raise BadInput(
                "none of the photographs kept back is large enough to judge a loss of PSNR on",
                f"photographs of at least {16 * self.target.scale} pixels each way",
                "give larger ones, or --macs or --time",
            )
        low, high = self.path[-1].cost, 1.0
        best: Optional[Widths] = None
        nearest = float("inf")
        for _ in range(_SEARCHES):
            share = (low + high) / 2
            widths = self.at(share)
            lost = self.ground.lost(self.subject.narrowed(widths, self.request.refit)) or 0.0
            nearest = min(nearest, lost)
            say(f"{widths.cost:.3f} of the cost: {decibels_lost(lost, 3)} on shrunk photographs")
            if lost <= allowed:
                best, high = widths, share
            else:
                low = share
        if best is None:
            raise CheckFailed(
                f"{self.request.asked} cannot be kept: {nearest:.3f} dB are lost at the least",
                f"{_rounded_up(nearest):g} or more, or --macs or --time with distillation",
                _TABLE,
            )
        return best


def _rounded_up(value: float) -> float:
    return -(-int(1000 * value + 1) // 10) / 100


def pareto_rows(request: CompressRequest, ground: Ground, say: Callable[[str], None]) -> List[Dict[str, Any]]:
    """What budgets would leave: the cost and what is predicted, one row a share. Nothing is fitted.

    Returns:
        JSON-able rows: ``cost`` as a share, ``macs`` for a pixel, ``parameters``, ``predicted_db`` to the whole network
        after least squares (None where the method predicts none), and ``channels``.
    """
    from sr_deploy.compress.allocate import at_most, path_down

    subject = subject_on(ground, request, say)
    allocation = allocation_of(request, subject, target_of(request, ground))
    path = path_down(allocation, SHOWN[-1])
    rows = []
    for share in (1.0, *SHOWN):
        if share < path[-1].cost:
            break
        widths = at_most(allocation, path, share)
        predicted = subject.predicted(widths, ground.white)
        known = predicted == predicted and widths.harm > 0
        rows.append(
            {
                "cost": round(widths.cost, 4),
                "macs": round(subject.costs.macs(widths.of)),
                "parameters": subject.costs.parameters(widths.of),
                "channels": sum(widths.of.values()),
                "predicted_db": round(predicted, 2) if known else None,
            }
        )
    return rows


def _record(
    request: CompressRequest,
    ground: Ground,
    subject: Subject,
    widths: Widths,
    found: Tuple[Optional[float], str, float],
) -> CompressRecord:
    manifest = ground.deployment.manifest
    full, costs = subject.network.widths, subject.costs
    time_share, kind, fidelity = found
    return {
        "source_sha256": manifest.graphs[0].sha256,
        "source": manifest.source["file"][:1000],
        "asked": request.asked,
        "importance": request.importance,
        "widths": {name: (full[name], width) for name, width in widths.of.items() if width < full[name]},
        "groups": len(full),
        "parameters": (costs.parameters(full), costs.parameters(widths.of)),
        "macs": (round(costs.macs(full), 2), round(costs.macs(widths.of), 2)),
        "time_share": None if time_share is None else round(time_share, 4),
        "time_kind": kind,
        "refitted": request.refit,
        "fitted_db": round(fidelity, 3),
        "steps": 0,
        "fidelity_db": round(fidelity, 3),
        "lost_db": None,
        "seed": request.seed,
        "pictures": len(ground.files),
        "pictures_sha256": ground.pictures_sha256,
    }
