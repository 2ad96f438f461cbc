"""One page on one or several deployments: what their folders hold, and quality where pictures are given."""

from __future__ import annotations

import datetime
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Callable, Dict, List, Optional, Sequence, Tuple

from sr_deploy import __version__
from sr_deploy.bench.result import Result, load_result
from sr_deploy.core.artifact import atomic_file, check_free
from sr_deploy.core.contract import Size, format_size
from sr_deploy.core.deployment.manifest import Deployment, open_deployment
from sr_deploy.core.errors import BadImage, BadInput, UsageError
from sr_deploy.core.media.image import Picture, read_picture
from sr_deploy.core.quality.metrics import CRITERION, figures_of, means_of
from sr_deploy.core.quality.pairing import pair_images
from sr_deploy.core.quality.psnr_ssim import CONVENTION, crop_like
from sr_deploy.core.temporary import is_temporary
from sr_deploy.engine.index import EngineIndex
from sr_deploy.pipeline.fitting import fitting_engine
from sr_deploy.pipeline.kept_quality import PREFIX, kept_quality
from sr_deploy.pipeline.measure import all_precisions
from sr_deploy.pipeline.pictures.stages import upscale_picture
from sr_deploy.pipeline.precision.plan_facts import plan_facts
from sr_deploy.pipeline.runner import Resolved, check_backend, resolve, runners
from sr_deploy.pipeline.verify import VerifyOptions, verify_resolved
from sr_deploy.report.content import Content, Deployed, PictureRow, Quality
from sr_deploy.report.numbers import precision_label
from sr_deploy.report.plots import check_axis
from sr_deploy.report.precisions import precision_table

#: A picture and its original: (name, low-resolution file, original).
Pair = Tuple[str, Path, Path]


@dataclass(frozen=True)
class ReportOptions:
    """What ``srdeploy report`` is asked for.

    Attributes:
        deployments: the folders.
        out: the HTML file.
        lr, hr: folders of low- and high-resolution pictures; None leaves quality out.
        backend: which runtime judges quality; see pipeline/runner.py.
        pictures: so many are shown.
        title: None makes one from the names.
        axis: of the latency plots, see ``latency_plot``.
        force: replace an existing file.
    """

    deployments: Tuple[Path, ...]
    out: Path
    lr: Optional[Path] = None
    hr: Optional[Path] = None
    backend: Optional[str] = None
    pictures: int = 3
    title: Optional[str] = None
    force: bool = False
    axis: str = "size"


@dataclass(frozen=True)
class Way:
    """One way to run a deployment: the best engine for each size, or one engine."""

    label: str
    precision: str
    engine: Optional[Path]


def write_report(options: ReportOptions, say: Callable[[str], None] = lambda _: None) -> Path:
    """Gather everything, judge quality where pictures are given, write the page whole or not at all.

    Returns:
        The file written.

    Raises:
        UsageError: one of --lr and --hr without the other, a folder twice, or the file exists.
        BadDeployment: a folder is not a deployment.
        BadImage: the pictures cannot be used, for any of the deployments.
    """
    from sr_deploy.report.page import report_page

    _check(options)
    opened = [open_deployment(folder) for folder in options.deployments]
    asked = [resolve(EngineIndex(deployment), options.backend, precision="fp32") for deployment in opened]
    names = _names([deployment.folder for deployment in opened])
    pictures_of = {scale: _pairs(options, scale, opened, say) for scale in {d.manifest.scale for d in opened}}
    deployed, ways = [], []
    for name, resolved in zip(names, asked):
        pairs = pictures_of[resolved.deployment.manifest.scale]
        chosen, problems = _ways(resolved, pairs) if isinstance(pairs, tuple) else ((), ())
        ways.append(chosen)
        deployed.append(_deployed(name, resolved, pairs, chosen, problems, options, say))
    bicubic, rows = [], []
    for scale, pairs in pictures_of.items():
        if isinstance(pairs, tuple):
            report = _bicubic(pairs, scale)
            bicubic.append((scale, report))
            shown = _shown([d for d in deployed if d.manifest.scale == scale], pairs, options.pictures)
            members = [(d.name, a, w) for d, a, w in zip(deployed, asked, ways) if d.manifest.scale == scale]
            rows += _rows(shown, members, report, deployed)
    title = options.title or f"Super-resolution report: {', '.join(names)}"
    made = f"Made {datetime.date.today().isoformat()} by srdeploy {__version__}"
    page = report_page(Content(title, made, tuple(deployed), tuple(bicubic), tuple(rows), options.axis))
    with atomic_file(options.out) as temporary:
        temporary.write_text(page, encoding="utf-8")
    return options.out


def _check(options: ReportOptions) -> None:
    check_backend(options.backend)
    check_axis(options.axis)
    if (options.lr is None) != (options.hr is None):
        raise UsageError("one of --lr and --hr is missing", "both, or none to leave quality out")
    folders = [folder.resolve() for folder in options.deployments]
    if len(set(folders)) < len(folders):
        raise UsageError("a deployment is given twice", "different folders")
    check_page(options.out, options.force)


def check_page(out: Path, force: bool) -> None:
    """Refuse a place for a page that is taken, cannot be written, or would not open as what it is.

    Raises:
        UsageError, EnvironmentFault: naming it.
    """
    if out.suffix.lower() not in (".html", ".htm"):
        raise UsageError(f"-o {out} is no page", "a name that ends in .html", f"-o {out.with_suffix('.html')}")
    check_free(out, force and not out.is_dir(), "a new file", "choose another -o, or replace it with --force")


def _names(folders: Sequence[Path]) -> List[str]:
    """The folders' names, with as many parents as it takes to tell them apart."""
    parts = [folder.resolve().parts for folder in folders]
    names = []
    for own in parts:
        depth = 1
        while depth < len(own) and [other[-depth:] for other in parts].count(own[-depth:]) > 1:
            depth += 1
        names.append("/".join(own[-depth:]))
    return names


def _pairs(options: ReportOptions, scale: int, opened: Sequence[Deployment], say: Callable[[str], None]) -> Any:
    """The pairs for a scale, or why there are none. Paths of this machine are said, not put on the page.

    With deployments of one scale, unfit pictures are an error. With several, they fit one of them at best, and the page
    says so.
    """
    if options.lr is None or options.hr is None:
        return (
            "Quality was not judged, because no pictures were given: srdeploy report … --lr FOLDER --hr FOLDER, or "
            "srdeploy verify, whose result stays in the deployment."
        )
    try:
        pairs = pair_images(options.lr, options.hr, scale)
        name, low, high = pairs[0]
        lr, hr = read_picture(low), read_picture(high)
        crop_like(hr.pixels, lr.pixels.repeat(scale, 0).repeat(scale, 1), str(high))
        return pairs
    except BadImage as error:
        if len({deployment.manifest.scale for deployment in opened}) == 1:
            raise
        say(f"no quality for scale {scale}: {error.found}")
        return f"Quality was not judged, because the pictures that were given are not of scale {scale}."


def _ways(resolved: Resolved, pairs: Sequence[Pair]) -> Tuple[Tuple[Way, ...], Tuple[str, ...]]:
    """How to run it: in float32, and each other engine that fits; with why others do not."""
    index, backend = resolved.index, resolved.backend
    sizes = sorted({read_picture(low).size for _, low, _ in pairs})
    best = {fitting_engine(resolved, size) for size in sizes}
    precisions = {index.proved(path).precision if path else "fp32" for path in best}
    ways, problems = [Way("", " and ".join(sorted(precisions)), None)], []
    for path in index.paths:
        try:
            manifest = index.proved(path)
            if best == {path} or (backend is not None and manifest.backend != backend):
                continue
            index.check_fits(manifest)
            refused = [size for size in sizes if not manifest.takes(size)]
            if refused:
                # A fixed engine of the same precision as the graph says nothing new; any other one is missed.
                if manifest.precision not in precisions:
                    found = f"{path.name} was not judged: it does not take {format_size(refused[0])}"
                    problems.append(f"{found}, only {manifest.allowed_sizes()}")
                continue
            ways.append(Way(path.stem, manifest.precision, path))
        except BadInput as error:
            problems.append(f"{path.name} was not judged: {_without_folder(error, path)}")
    return tuple(ways), tuple(problems)


def _running(resolved: Resolved, way: Way) -> Resolved:
    """What runs in a way: an engine that is named brings its own precision."""
    return resolved if way.engine is None else replace(resolved, engine=way.engine, precision=None)


def _deployed(
    name: str,
    resolved: Resolved,
    pairs: Any,
    ways: Sequence[Way],
    problems: Sequence[str],
    options: ReportOptions,
    say: Callable[[str], None],
) -> Deployed:
    """All about one deployment."""
    deployment, qualities = resolved.deployment, []
    for way in ways:
        assert options.lr is not None and options.hr is not None, "there are ways where there are pictures"
        say(f"{name}: judging {way.label or 'the network'} on {len(pairs)} pictures")
        asked = VerifyOptions(deployment.folder, options.lr, options.hr, options.backend, way.engine, None, False)
        report = verify_resolved(_running(resolved, way), asked, say)
        qualities.append(Quality(way.label, way.precision, report.to_dict()))
    if options.lr is None:
        kept, unkept = _kept(resolved.index)
        qualities, problems = [*kept], [*problems, *unkept]
    engines, unread = _engines(resolved.index)
    results, unread_results = _results(deployment)
    return Deployed(
        name=name,
        manifest=deployment.manifest,
        engines=engines,
        results=results,
        qualities=tuple(qualities),
        no_quality="" if qualities else str(pairs),
        plans=tuple(plan_facts(deployment)),
        precisions=precision_table(
            name,
            [result for _, result in results],
            {quality.precision: quality.report for quality in qualities},
            all_precisions.file_sizes(resolved.index),
        ),
        problems=(*problems, *unread, *unread_results),
    )


def _kept(index: EngineIndex) -> Tuple[Tuple[Quality, ...], Tuple[str, ...]]:
    """What ``srdeploy verify`` kept of the files that are here, by precision, and what is left out."""
    found, problems = kept_quality(index)
    several = len({report.precision for _, report in found}) > 1
    ordered = sorted((report for _, report in found), key=lambda report: report.created)
    return tuple(
        Quality(precision_label(report.precision) if several else "", report.precision, asdict(report))
        for report in ordered
    ), problems


def _engines(index: EngineIndex) -> Tuple[Tuple[Dict[str, Any], ...], Tuple[str, ...]]:
    """The engines' manifests, with their ``listing`` and ``layers`` as ``inspect`` gives them, and what could not be
    read."""
    from sr_deploy.pipeline.inspect import engine_facts

    engines, problems = [], []
    for path in index.paths:
        try:
            engines.append(engine_facts(path, index.proved(path, refused_too=True)))
        except BadInput as error:
            problems.append(f"engine {path.name} is left out: {_without_folder(error, path)}")
    return tuple(engines), tuple(problems)


def _results(deployment: Deployment) -> Tuple[Tuple[Tuple[str, Result], ...], Tuple[str, ...]]:
    """The sweeps in the results folder by name, and what could not be read."""
    results, problems = [], []
    folder = deployment.results_folder
    files = sorted(folder.glob("*.json")) if folder.is_dir() else []
    others = (PREFIX, all_precisions.PREFIX)
    for path in (file for file in files if not is_temporary(file.name) and not file.name.startswith(others)):
        try:
            results.append((path.name, load_result(path)))
        except BadInput as error:
            problems.append(f"{path.name} is left out: {_without_folder(error, path)}")
    return tuple(results), tuple(problems)


def _without_folder(error: BadInput, path: Path) -> str:
    """What was found, on one line and without the folders of this machine: a page is mailed."""
    return "; ".join(line.strip() for line in error.found.replace(f"{path.parent}/", "").splitlines())


def _bicubic(pairs: Sequence[Pair], scale: int) -> Dict[str, Any]:
    """What bicubic enlargement reaches on the same pictures, in the form of a quality report."""
    from sr_deploy.report.pictures import bicubic_of

    images: List[Dict[str, Any]] = []
    for name, low, high in pairs:
        lr = read_picture(low).pixels
        enlarged = bicubic_of(lr, (lr.shape[0] * scale, lr.shape[1] * scale))
        hr = crop_like(read_picture(high).pixels, enlarged, str(high))
        images.append({"name": name, **figures_of(enlarged, hr, scale)})
    mean = means_of([{key: value for key, value in image.items() if key != "name"} for image in images])
    return {"images": images, "mean": mean, "convention": CONVENTION, "ran": ()}


def _shown(deployed: Sequence[Deployed], pairs: Sequence[Pair], count: int) -> Tuple[Pair, ...]:
    """Which pictures to show: spread from the hardest to the easiest, by the first deployment's PSNR."""
    order = {image["name"]: image[CRITERION.key] for image in deployed[0].qualities[0].report["images"]}
    ranked = sorted(pairs, key=lambda pair: order[pair[0]])
    if count >= len(ranked):
        return tuple(ranked)
    places = [round(k * (len(ranked) - 1) / max(count - 1, 1)) for k in range(count)]
    return tuple(ranked[place] for place in places)


def _rows(
    shown: Sequence[Pair],
    members: Sequence[Tuple[str, Resolved, Sequence[Way]]],
    bicubic: Dict[str, Any],
    deployed: Sequence[Deployed],
) -> List[PictureRow]:
    """The panels of each picture: low resolution, bicubic, each way of each deployment, original; then error maps."""
    from sr_deploy.report.pictures import DETAIL, bicubic_of, error_panel, picture_panel
    from sr_deploy.report.plots import busiest_square

    by_name = {one.name: one for one in deployed}
    rows = []
    for name, low, high in shown:
        lr = read_picture(low)
        scale = members[0][1].deployment.manifest.scale
        size: Size = (lr.size[0] * scale, lr.size[1] * scale)
        versions = [("bicubic", bicubic_of(lr.pixels, size), _psnr(bicubic, name))]
        for label, resolved, ways in members:
            for way, quality in zip(ways, by_name[label].qualities):
                pixels = _upscaled(resolved, way, lr).pixels
                versions.append((f"{label} {way.label}".strip(), pixels, _psnr(quality.report, name)))
        hr = crop_like(read_picture(high).pixels, versions[0][1], str(high))
        crop = busiest_square(_three(hr), size, DETAIL)
        panels = [picture_panel("low resolution", f"{name}, the low-resolution input", lr.pixels, size, crop)]
        for label, pixels, psnr in versions:
            panels.append(picture_panel(f"{label}, {psnr:.2f} dB", f"{name}, {label}", pixels, size, crop))
        panels.append(picture_panel("original", f"{name}, the original", hr, size, crop))
        for label, pixels, psnr in versions:
            alt = f"{name}, error map of {label}: {psnr:.2f} dB"
            panels.append(error_panel(f"error of {label}", alt, pixels, hr, crop))
        rows.append(PictureRow(name, tuple(panels)))
    return rows


def _upscaled(resolved: Resolved, way: Way, lr: Picture) -> Picture:
    with runners(_running(resolved, way), lambda _: None) as runner_at:
        return upscale_picture(resolved.deployment, runner_at(lr.size), lr)


def _psnr(report: Dict[str, Any], name: str) -> float:
    return next(image[CRITERION.key] for image in report["images"] if image["name"] == name)


def _three(pixels: Any) -> Any:
    return pixels.repeat(3, axis=2) if pixels.shape[2] == 1 else pixels
