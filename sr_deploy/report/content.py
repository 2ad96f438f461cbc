"""What a report page is made of, gathered by the pipeline; and what of it can be compared. Pure data."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Dict, List, Mapping, Optional, Sequence, Tuple

from sr_deploy.bench.result import Point, Result
from sr_deploy.core.contract import Size
from sr_deploy.core.deployment.manifest import Manifest
from sr_deploy.core.host.device import environment_identity
from sr_deploy.core.number_formats import ENGINE_PRECISIONS
from sr_deploy.core.quality.metrics import CRITERION
from sr_deploy.report.numbers import precision_label
from sr_deploy.report.pareto import pareto_front
from sr_deploy.report.pictures import Panel
from sr_deploy.report.precisions import PrecisionTable


@dataclass(frozen=True)
class Quality:
    """One way to run a deployment, judged on all pictures.

    Attributes:
        label: how the page calls it: "", or the engine where there are several ways.
        precision: such as "fp32".
        report: the dict form of a QualityReport: "images", "mean", "convention", "ran".
    """

    label: str
    precision: str
    report: Dict[str, Any]


@dataclass(frozen=True)
class Deployed:
    """One deployment.

    Attributes:
        name: its folder's name; longer where two are alike.
        manifest: of the deployment.
        engines: the dict forms of its engines' manifests.
        results: (file name, sweep) of its results folder.
        qualities: each way to run it that was judged.
        no_quality: why there is none; empty where there is.
        problems: files that could not be read, engines that could not be judged, and why.
        plans: its precision plans, see pipeline/precision/plan_facts.py.
        precisions: its sweeps side by side.
    """

    name: str
    manifest: Manifest
    engines: Tuple[Dict[str, Any], ...] = ()
    results: Tuple[Tuple[str, Result], ...] = ()
    qualities: Tuple[Quality, ...] = ()
    no_quality: str = ""
    problems: Tuple[str, ...] = ()
    plans: Tuple[Dict[str, Any], ...] = ()
    precisions: Optional[PrecisionTable] = None


@dataclass(frozen=True)
class PictureRow:
    """One picture in all its versions, side by side."""

    name: str
    panels: Tuple[Panel, ...]


@dataclass(frozen=True)
class Content:
    """The whole page.

    Attributes:
        title: plain text.
        made: when, and by which version.
        deployments: at least one.
        bicubic: what bicubic enlargement reaches on the same pictures, by scale, in the form of Quality.report.
        pictures: rows of panels.
        axis: of the latency plots, see ``latency_plot``.
    """

    title: str
    made: str
    deployments: Tuple[Deployed, ...]
    bicubic: Tuple[Tuple[int, Dict[str, Any]], ...] = ()
    pictures: Tuple[PictureRow, ...] = ()
    axis: str = "size"


@dataclass(frozen=True)
class Entry:
    """One deployment in a comparison: its point, and the means of what was timed by metric, empty where not judged.

    ``fidelity`` is of a compressed network in float32: PSNR of its output to that of the network it was made from, dB.
    """

    name: str
    scale: int
    result: Result
    point: Point
    means: Mapping[str, Optional[float]]
    fidelity: Optional[float] = None

    @property
    def quality(self) -> Optional[float]:
        """The mean that fronts are drawn by, None where not judged."""
        return self.means.get(CRITERION.key)


@dataclass(frozen=True)
class Comparison:
    """Sweeps that may stand beside each other: one runtime, device, scope and size.

    Attributes:
        runtime, device, scope, size: what they share.
        entries: at least two.
        front: indices of those with quality that no other one beats.
        differences: names of environment facts that are not equal in all of them.
    """

    runtime: str
    device: str
    scope: str
    size: Size
    entries: Tuple[Entry, ...]
    front: Tuple[int, ...]
    differences: Tuple[str, ...]

    @property
    def results(self) -> Tuple[Result, ...]:
        """The sweeps that the entries are from."""
        return tuple(entry.result for entry in self.entries)


def comparisons(deployments: Sequence[Deployed]) -> Tuple[Comparison, ...]:
    """What can be compared, the widest comparison first.

    Of several sweeps of one deployment with the same runtime, device, scope and precision the newest is taken. The size
    is the largest that most of the sweeps have. Quality is paired with latency by precision: all engines of one
    precision compute the same picture, within the tolerance that ``srdeploy verify`` holds them to.
    """
    groups: Dict[Tuple[str, str, str], Dict[Tuple[int, str], Result]] = {}
    for index, deployed in enumerate(deployments):
        for _, result in deployed.results:
            worked = [point for point in result.points if point.usable and point.median_s]
            if not worked:
                continue
            first = worked[0]
            member = (index, str(first.description.get("precision", "")))
            group = groups.setdefault((first.runtime, first.device, first.scope), {})
            if member not in group or group[member].created <= result.created:
                group[member] = result
    found = [_comparison(key, members, deployments) for key, members in groups.items() if len(members) > 1]
    return tuple(sorted(filter(None, found), key=lambda comparison: -len(comparison.entries)))


def _comparison(
    key: Tuple[str, str, str], members: Dict[Tuple[int, str], Result], deployments: Sequence[Deployed]
) -> Optional[Comparison]:
    """One group at one size; None when no size is in two of its sweeps."""
    sizes = [point.size for result in members.values() for point in result.points if point.usable and point.median_s]
    size = max(sizes, key=lambda size: (sizes.count(size), size[0] * size[1]))
    if sizes.count(size) < 2:
        return None
    entries: List[Entry] = []
    widest = {name: place for place, name in enumerate(ENGINE_PRECISIONS)}
    for (index, precision), result in sorted(members.items(), key=lambda one: (one[0][0], widest.get(one[0][1], 9))):
        point = result.point_for(size)
        if point is None or not point.usable or not point.median_s:
            continue
        deployed = deployments[index]
        name = f"{deployed.name} {precision_label(precision)}".strip()
        name += " (launch-bound)" if point.launch_bound else ""
        mean: Dict[str, float] = next((q.report["mean"] for q in deployed.qualities if q.precision == precision), {})
        steps = deployed.manifest.compression if precision in ("", "fp32") else ()
        fidelity = steps[-1]["fidelity_db"] if steps else None
        entries.append(Entry(name, deployed.manifest.scale, result, point, mean, fidelity))
    # Pictures of another scale are another task: quality is compared within one scale only. What the page does not
    # show, less than a thousandth of a dB, does not put anything on the front.
    one_scale = len({entry.scale for entry in entries}) == 1
    judged = [i for i, entry in enumerate(entries) if one_scale and entry.quality is not None]
    front = pareto_front([(entries[i].point.median_s or 0.0, _shown_quality(entries[i])) for i in judged])
    return Comparison(*key, size, tuple(entries), tuple(judged[i] for i in front), _differing(entries))


def _shown_quality(entry: Entry) -> float:
    """Rounded as the page shows it, and so that more is better."""
    value = round(entry.quality or 0.0, CRITERION.decimals)
    return value if CRITERION.higher_is_better else -value


def _differing(entries: Sequence[Entry]) -> Tuple[str, ...]:
    """Names of environment facts that are not the same in all sweeps."""
    facts = []
    for entry in entries:
        fact = environment_identity(entry.result.environment)
        packages = fact.pop("packages", None) or {}
        facts.append({**fact, **{f"version of {name}": version for name, version in packages.items()}})
    names = dict.fromkeys(name for fact in facts for name in fact)
    return tuple(name for name in names if any(fact.get(name) != facts[0].get(name) for fact in facts))
