"""Ranges and scales of a deployment's tensors, from photographs that go through its real pre-processing."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any, Callable, Dict, Iterable, Iterator, Mapping, Optional, Sequence, Tuple

import numpy as np

from sr_deploy.core.artifact import check_free
from sr_deploy.core.deployment.manifest import CALIBRATION_FOLDER, Deployment, GraphFile, open_deployment
from sr_deploy.core.errors import BadImage, BadInput, CheckFailed, SrDeployError, UsageError
from sr_deploy.core.media.image import find_images, read_picture, to_network
from sr_deploy.core.names import check_name
from sr_deploy.pipeline.precision.content import graphics_to_fit
from sr_deploy.pipeline.precision.deployed_plan import CONTENT, check_content
from sr_deploy.precision.calibrate.collect import PATCH, PATCHES, patches, ranges_of
from sr_deploy.precision.calibrate.picture_set import (
    CalibrationSet,
    Crop,
    files_of,
    hashes_of,
    images_sha256,
    open_set,
    save_set,
    set_of,
    set_text,
)
from sr_deploy.precision.calibrate.ranges import METHOD, METHODS, PERCENTILE, Ranges, open_ranges, save_ranges, scale_of

#: A picture must be at least this high and wide, whatever the network takes: less shows nothing.
LEAST_SIDE = 16


@dataclass(frozen=True)
class CalibrateOptions:
    """What ``srdeploy calibrate`` is asked for.

    Attributes:
        deployment: the folder.
        images: pictures and folders of pictures.
        method: see precision/calibrate/ranges.py.
        percentile: for that method.
        count: so many of the pictures, chosen by ``seed``; None takes all.
        seed: of the choice and of the places of the patches; None is 0, or the manifest's.
        manifest: a calibration set; only its pictures are used, and they must be the same files.
        write_manifest: write a set of the pictures used to this file.
        force: replace an existing calibration, or manifest.
        graph: file name of the deployment's graph; None takes the first.
        content: one of deployed_plan.CONTENTS: whether graphics made here are calibrated with too.
    """

    deployment: Path
    images: Tuple[Path, ...]
    method: str = METHOD
    percentile: float = PERCENTILE
    count: Optional[int] = None
    seed: Optional[int] = None
    manifest: Optional[Path] = None
    write_manifest: Optional[Path] = None
    force: bool = False
    graph: Optional[str] = None
    content: str = CONTENT


@dataclass(frozen=True)
class Calibration:
    """Ranges of one graph, and the scales that a method makes of them.

    Attributes:
        path: the file.
        ranges: of every float tensor that follows from the picture.
        scales: tensor name → scale, by the method.
        provenance: method, graph, hash over the pictures, their names, crop, versions.
    """

    path: Path
    ranges: Ranges
    scales: Dict[str, float]
    provenance: Dict[str, Any]

    def summary(self) -> Dict[str, Any]:
        """What a user wants to see of it, JSON-able."""
        stats = list(self.ranges.tensors.values())
        return {
            "kind": "calibration",
            "path": str(self.path),
            **{key: value for key, value in self.provenance.items() if key not in ("files", "graphics")},
            "graphics": (self.provenance.get("graphics") or {}).get("count", 0),
            "tensors": len(stats),
            "largest_magnitude": max((one.amax for one in stats), default=0.0),
            "always_zero": sum(one.amax == 0.0 for one in stats),
        }


def calibrate_deployment(options: CalibrateOptions, say: Callable[[str], None] = lambda _: None) -> Calibration:
    """Run the pictures through the deployment's graph and write ``DIR/precision/calibration/METHOD.json``.

    Ranges that another method's file holds for the same graph and pictures are taken from there.

    Raises:
        UsageError: contradicting options, or a calibration that is there already, without ``force``.
        BadImage: no pictures, unreadable or too small ones, or not those of the manifest.
        CheckFailed: the graph gives NaN or infinite values.
    """
    from sr_deploy.report.progress import track

    deployment, graph, files, hashes, provenance = _prepared(options)
    path = calibration_path(deployment, options.method, graph)
    known = _same_pictures(path, provenance)
    if known is not None:
        say(f"the ranges of {known[1]} are of the same graph and pictures")
        ranges = known[0]
    else:
        crop = _crop(provenance)
        graphics = graphics_to_fit(options.content, len(files), deployment, graph)
        painted = _cut(graphics.inputs(deployment.manifest.contract), deployment, graph, crop)
        inputs = chain(_inputs(deployment, graph, track(files, "calibrating"), crop), painted)
        ranges = ranges_of(deployment.path_of(graph), inputs)
    scales = _scales(ranges, options)
    if options.write_manifest is not None:
        # First, so that a command that was interrupted between the two can be given again.
        save_set(options.write_manifest, _set(files, hashes, _crop(provenance)))
        say(f"wrote {options.write_manifest}: fill in its licence and source")
    save_ranges(path, ranges, {**provenance, "scales": scales})
    return Calibration(path, ranges, scales, provenance)


def plan_calibration(options: CalibrateOptions) -> Dict[str, Any]:
    """What ``calibrate_deployment`` would do, after all its checks: the file it would write, and from what."""
    deployment, graph, _, _, provenance = _prepared(options)
    path = calibration_path(deployment, options.method, graph)
    known = _same_pictures(path, provenance)
    shown = Calibration(path, Ranges({}, graph.sha256, 0), {}, provenance).summary()
    return {
        **{key: shown[key] for key in ("path", *provenance) if key != "files"},
        "ranges_from": str(known[1]) if known else "the pictures",
    }


def open_calibration(
    deployment: Deployment,
    method: str = METHOD,
    images: Sequence[Path] = (),
    graph: Optional[GraphFile] = None,
    content: Optional[str] = None,
) -> Calibration:
    """The calibration that is there for a method.

    Args:
        deployment: opened.
        method: see precision/calibrate/ranges.py.
        images: when given, it must be of these pictures (after the choice of ``count`` that it was made with).
        graph: one of the deployment's; None is ``model.onnx``.
        content: when given, with ``images``, its graphics must have been calibrated with too.

    Raises:
        UsageError: an unknown method.
        BadInput: there is none, or it is damaged, of another graph, or of other pictures; the message says which.
    """
    _check_method(method)
    graph = graph or deployment.manifest.graphs[0]
    path = calibration_path(deployment, method, graph)
    again = f"srdeploy calibrate {deployment.folder} --images D --method {method} --force"
    if not path.is_file():
        raise BadInput(f"{deployment.folder} has no {method} calibration", str(path), again.replace(" --force", ""))
    ranges, provenance = open_ranges(path)
    if ranges.graph_sha256 != graph.sha256:
        raise BadInput(
            f"{path} is of another graph: {ranges.graph_sha256[:12]}…", f"{graph.file}, {graph.sha256[:12]}…", again
        )
    scales = provenance.pop("scales", None)
    if not isinstance(scales, dict) or set(scales) != set(ranges.tensors) or provenance.get("method") != method:
        raise BadInput(f"{path} has no scales of the method {method}", "one for every tensor", again)
    if images:
        files = _chosen(find_images(images), provenance["count"], provenance["seed"])
        found = images_sha256(list(hashes_of(files).values()))
        if found != provenance["images_sha256"]:
            raise BadInput(
                f"{path} is of other pictures: {provenance['images_sha256'][:12]}…",
                f"the {len(files)} pictures given, {found[:12]}…",
                again,
            )
        if content is not None:
            wanted = _graphics_record(content, len(files), deployment, graph)
            if provenance.get("graphics") != wanted:
                raise BadInput(f"{path} is of other graphics", f"{wanted} for --content {content}", again)
    return Calibration(path, ranges, {name: float(scale) for name, scale in scales.items()}, provenance)


def calibration_path(deployment: Deployment, method: str, graph: Optional[GraphFile] = None) -> Path:
    """Where the calibration of a graph lies: ``DIR/precision/calibration/METHOD.json``, or METHOD_GRAPH.json."""
    stem = Path(graph.file).stem if graph is not None else "model"
    name = method if stem == "model" else f"{method}_{stem}"
    return deployment.precision_folder / CALIBRATION_FOLDER / f"{name}.json"


def _prepared(
    options: CalibrateOptions,
) -> Tuple[Deployment, GraphFile, Tuple[Path, ...], Dict[Path, str], Dict[str, Any]]:
    """Everything that is checked before any work: the pictures, their hashes, and the record to be written."""
    from sr_deploy.pipeline.export import tool_versions

    _check_method(options.method)
    check_content(options.content)
    if not 0 < options.percentile <= 100:
        raise UsageError(f"--percentile {options.percentile:g} does not exist", "a number above 0, at most 100")
    deployment = open_deployment(options.deployment)
    graphs = deployment.manifest.graphs
    graph = next((one for one in graphs if one.file == options.graph), graphs[0])
    path = calibration_path(deployment, options.method, graph)
    check_free(path, options.force, "a new calibration", "replace it with --force")
    files, crop = _pictures(options)
    crop = _fitting(crop, deployment)
    check_sizes(files, deployment, graph)
    hashes = hashes_of(files)
    if options.write_manifest is not None:
        same = options.force or _holds(options.write_manifest, set_text(_set(files, hashes, crop)))
        check_free(options.write_manifest, same, "a new calibration set", "replace it with --force")
    provenance: Dict[str, Any] = {
        "method": options.method,
        "graph": graph.file,
        "graph_sha256": graph.sha256,
        "images_sha256": images_sha256([hashes[file] for file in files]),
        "pictures": len(files),
        "count": options.count,
        "seed": crop.seed,
        "crop": dataclasses.asdict(crop),
        "set": options.manifest.name if options.manifest else None,
        "tools": {**tool_versions(), "onnxruntime": _onnxruntime_version(), "numpy": np.__version__},
        "files": [file.name for file in files],
        "graphics": _graphics_record(options.content, len(files), deployment, graph),
    }
    if options.method == "percentile":
        provenance["percentile"] = options.percentile
    return deployment, graph, files, hashes, provenance


def _set(files: Sequence[Path], hashes: Mapping[Path, str], crop: Crop) -> CalibrationSet:
    """The calibration set of the pictures used."""
    return set_of(hashes, crop, int(np.iinfo(read_picture(files[0]).pixels.dtype).max))


def _holds(path: Path, text: str) -> bool:
    """Whether a file is there and has this content."""
    return path.is_file() and path.read_bytes() == text.encode("utf-8")


def _check_method(method: str) -> None:
    check_name("calibration method", method, METHODS)


def _pictures(options: CalibrateOptions) -> Tuple[Tuple[Path, ...], Crop]:
    """The files to use, in order, and how to cut them."""
    found = find_images(options.images)
    if options.manifest is None:
        seed = options.seed or 0
        return _chosen(found, options.count, seed), Crop(PATCH, PATCHES, seed)
    chosen = open_set(options.manifest)
    if options.seed is not None and options.seed != chosen.crop.seed:
        raise UsageError(
            f"--seed {options.seed} contradicts {options.manifest}, which has {chosen.crop.seed}",
            "one seed",
            "leave out --seed",
        )
    files = files_of(chosen, found, options.manifest)
    return _chosen(files, options.count, chosen.crop.seed), chosen.crop


def _chosen(files: Sequence[Path], count: Optional[int], seed: int) -> Tuple[Path, ...]:
    """So many of the files, the same ones for the same seed, in their order."""
    if count is None:
        return tuple(files)
    if not 1 <= count <= len(files):
        raise UsageError(f"--count {count} of {len(files)} pictures cannot be taken", f"1 to {len(files)}")
    picked = np.sort(np.random.default_rng(seed).choice(len(files), count, replace=False))
    return tuple(files[index] for index in picked)


def _fitting(crop: Crop, deployment: Deployment) -> Crop:
    """The crop with a side that the network takes."""
    return dataclasses.replace(crop, side=deployment.manifest.sizes.fit(crop.side))


def check_sizes(files: Sequence[Path], deployment: Deployment, graph: GraphFile) -> None:
    """Read every picture once, so that a bad one is found before the work.

    Raises:
        BadImage: one that cannot be read, or is too small to calibrate the graph with.
    """
    least = deployment.manifest.sizes.fit(LEAST_SIDE)
    wanted = graph.size or (least, least)
    for file in files:
        size = read_picture(file).size
        if size[0] < wanted[0] or size[1] < wanted[1]:
            raise BadImage(
                f"{file} is {size[0]}x{size[1]} pixels: too small to calibrate with",
                f"at least {wanted[0]}x{wanted[1]}",
                "take it out of the folder, or give larger photographs",
            )


def _crop(provenance: Mapping[str, Any]) -> Crop:
    return Crop(**provenance["crop"])


def _inputs(deployment: Deployment, graph: GraphFile, files: Iterable[Path], crop: Crop) -> Iterator[np.ndarray]:
    """Patches of the pictures as the graph takes them; of a graph of fixed size, patches of that size."""
    contract = deployment.manifest.contract
    return _cut((to_network(read_picture(file), contract) for file in files), deployment, graph, crop)


def _cut(arrays: Iterable[np.ndarray], deployment: Deployment, graph: GraphFile, crop: Crop) -> Iterator[np.ndarray]:
    """Patches of pictures that are as the graph takes them."""
    return patches(arrays, graph.size or crop.side, crop.each, crop.seed, deployment.manifest.sizes.multiple)


def _graphics_record(
    content: str, photographs: int, deployment: Deployment, graph: GraphFile
) -> Optional[Dict[str, Any]]:
    """What a calibration says of the graphics that it was made with; None without."""
    graphics = graphics_to_fit(content, photographs, deployment, graph)
    return graphics.record() if graphics.count else None


def _scales(ranges: Ranges, options: CalibrateOptions) -> Dict[str, float]:
    """Tensor → scale; an error names the tensor."""
    scales: Dict[str, float] = {}
    for name, stats in ranges.tensors.items():
        try:
            scales[name] = scale_of(stats, options.method, options.percentile)
        except SrDeployError as error:
            raise CheckFailed(f"{name}: {error.found}", error.wanted, error.todo) from error
    return scales


def _same_pictures(target: Path, provenance: Mapping[str, Any]) -> Optional[Tuple[Ranges, Path]]:
    """Ranges that another method's file has for the same graph, pictures, crop and versions."""
    keys = ("graph_sha256", "images_sha256", "crop", "graphics", "tools")
    for path in sorted(target.parent.glob("*.json")):
        if path == target:
            continue
        try:
            ranges, other = open_ranges(path)
        except BadInput:
            continue  # damaged, or of another version: nothing is lost by measuring again
        if all(other.get(key) == provenance[key] for key in keys):
            return ranges, path
    return None


def _onnxruntime_version() -> str:
    import onnxruntime

    return str(onnxruntime.__version__)
