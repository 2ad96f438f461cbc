"""The part of a report page on one deployment: facts, latency, memory, folds, proofs, environment."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Callable, Dict, List, Sequence, Tuple

from sr_deploy.bench.result import Point, Result
from sr_deploy.core.contract import format_size
from sr_deploy.core.deployment.manifest import Manifest
from sr_deploy.core.deployment.records import FoldRecord
from sr_deploy.core.temporary import temporary_folder
from sr_deploy.core.tolerance import GRAPH_FP32
from sr_deploy.report import html, precisions
from sr_deploy.report.content import Deployed
from sr_deploy.report.dark import dark_svg
from sr_deploy.report.loads import CAPTION, HEADINGS, load_rows
from sr_deploy.report.numbers import (
    NONE,
    SCOPE_WORDS,
    doubts,
    fixed,
    half_width,
    layer_cells,
    listing_text,
    mebibytes,
    milliseconds,
    profile_text,
    rate_cells,
    result_title,
    streaming_text,
)
from sr_deploy.report.page_precision import precision_section
from sr_deploy.report.plots import latency_plot
from sr_deploy.report.plots_bench import distribution_plot, throughput_plot

#: What the half-width beside a median says, and what it does not.
INTERVAL = (
    "± is half the interval of the median, by how many independent samples the samples are worth; – where that is too "
    "few. It speaks of the time that was measured: what the machine does at other times is not in it."
)
#: Peak memory of a point: key and heading.
MEMORY = {"rss_bytes": "process MiB", "gpu_used_bytes": "GPU MiB"}
#: So many layers of a profile are listed.
MOST_LAYERS = 15


def deployment_section(deployed: Deployed, anchor: str, several: bool, axis: str) -> str:
    """Everything about one deployment; ``several`` puts its name into the heading, ``axis`` is of its latency plots."""
    manifest = deployed.manifest
    parts = (
        html.facts(_identity(manifest)),
        html.items(manifest.notes, "small"),
        html.items(deployed.problems, "warn"),
        html.section("Precisions", _precisions(deployed), f"{anchor}-precisions", 3),
        html.section("Latency", _latency(deployed, axis), f"{anchor}-latency", 3),
        html.section("Engines and memory", _engines(deployed), f"{anchor}-memory", 3),
        html.section("Precision", precision_section(deployed.plans), f"{anchor}-precision", 3),
        html.section("Proofs", _proofs(manifest) + _folds(manifest.fold), f"{anchor}-proofs", 3),
        html.section("Versions", _versions(deployed), f"{anchor}-versions", 3),
    )
    heading = deployed.name if several else "The deployment"
    return html.section(heading, "".join(parts), anchor)


def drawing(draw: Callable[[Path], None], alt: str, caption: str, suffix: str) -> str:
    """A figure of a plot, for light pages and for dark ones; ``suffix`` chooses SVG for lines and PNG for thousands of
    dots."""
    with temporary_folder() as folder:
        path = folder / f"plot{suffix}"
        draw(path)
        light = path.read_bytes()
    if suffix == ".svg":
        shown = html.image("image/svg+xml", light, alt, dark=dark_svg(light.decode("utf-8")).encode("utf-8"))
    else:
        # Dots take ten times the bytes of lines: the browser turns their colours itself.
        shown = html.image("image/png", light, alt, "turned")
    return html.figure(shown, caption, "plot")


def _identity(manifest: Manifest) -> List[Tuple[str, str]]:
    graph, contract = manifest.graphs[0], manifest.contract
    given = ", ".join(f"{name} {value}" for name, value in manifest.hyperparameters.items())
    takes = f"at least {manifest.sizes.minimum}×{manifest.sizes.minimum}"
    takes += f", multiples of {manifest.sizes.multiple}" if manifest.sizes.multiple > 1 else ""
    sizes = [format_size(g.size).replace("x", "×") for g in manifest.graphs if g.size]
    return [
        ("network", f"{manifest.architecture} ×{manifest.scale}"),
        ("before compression" if manifest.compression else "hyper-parameters", given or NONE),
        ("checkpoint", str(manifest.source.get("file", NONE))),
        ("its sha256", f"{str(manifest.source.get('sha256', ''))[:12]}…"),
        ("parameters as trained", f"{manifest.parameters:,}"),
        ("parameters of the graph", f"{graph.parameters:,}"),
        ("inputs", ", ".join(sizes) or takes),
        ("tensors", f"{contract.colour} {contract.layout} {contract.dtype}, white = {contract.value_range:g}"),
        ("target", manifest.target),
        ("opset", str(graph.opset)),
        ("kept in FP32", str(len(manifest.pinned_fp32)) + " nodes"),
    ]


def _precisions(deployed: Deployed) -> str:
    """FP32, FP16, INT8 and auto in one table, for each place where they were timed; nothing where nothing was."""
    table = deployed.precisions
    if table is None or not table.rows:
        return ""
    parts = []
    for shared, rows in precisions.groups(table).items():
        shown = [[cells[0].replace("x", "×"), *cells[1:]] for cells in map(precisions.cells, rows)]
        caption = f"{deployed.name}: {shared}. {precisions.CAPTION}"
        parts.append(html.table(caption, precisions.HEADINGS, shown, 2))
    return "".join(parts) + html.items(table.remarks, "warn")


def _latency(deployed: Deployed, axis: str) -> str:
    """One table and its plots a sweep; or the command that makes one."""
    if not deployed.results:
        text = f"Nothing has been measured: {deployed.name}/results has no sweep. This command makes one:"
        return html.paragraph(text, "note") + html.command(f"srdeploy bench {deployed.name}")
    return "".join(_sweep(name, result, axis) for name, result in deployed.results)


def _sweep(file: str, result: Result, axis: str) -> str:
    scope = str(result.options.get("scope", ""))
    told = result_title(result)
    title = f"{told}: {SCOPE_WORDS.get(scope, scope)}"
    confidence = result.options.get("confidence")
    with_interval = any(p.median_low_s is not None for p in result.points) and confidence is not None
    memory = [key for key in MEMORY if any(p.peak_memory.get(key) for p in result.points)]
    headings = ["input", "median ms"]
    headings += [f"± % ({100 * confidence:g} %)"] if with_interval and confidence is not None else []
    headings += ["p90 ms", "p99 ms", "pictures/s", "output MP/s", "samples"]
    headings += [MEMORY[key] for key in memory]
    rows = [_row(point, with_interval, memory) for point in result.points]
    table = html.table(f"{title} ({file}, {result.created})", headings, rows)
    notes = [f"{format_size(p.size).replace('x', '×')}: {doubts(p)}" for p in result.points if doubts(p)]
    worked = [p for p in result.points if p.usable and p.median_s]
    plots = []
    if worked:
        words = ", ".join(f"{format_size(p.size)} {milliseconds(p.median_s)} ms" for p in worked)
        if len(worked) > 1:
            over = {"size": "input size, both axes logarithmic", "area": "input area, both axes from 0"}[axis]
            caption = f"{told}. Median latency over {over}; the band reaches up to p90."
            alt = f"{told}. Median latency: {words}"
            plots.append(drawing(lambda path: latency_plot([result], path, axis), alt, caption, ".svg"))
        if len([p for p in worked if p.output_pixels]) > 1:
            alt = f"{told}. Throughput over input size, from the medians in the table"
            caption = f"{told}. Output megapixels per second. Where the line is flat, the device is full."
            plots.append(drawing(lambda path: throughput_plot([result], path), alt, caption, ".svg"))
        alt = f"{told}. Distribution of the samples around their median, and the samples in the order taken"
        caption = (
            f"{told}. Left: which part of the samples is at most so slow; a step is a second mode. Right: any drift."
        )
        plots.append(drawing(lambda path: distribution_plot(result, path), alt, caption, ".png"))
    meaning = html.paragraph(INTERVAL, "note") if with_interval else ""
    under = load_rows(result)
    table += html.table(f"Load on {told}: {CAPTION}", HEADINGS, under, 2) if under else ""
    conditions = html.details("How it was measured", conditions_of(result) + _layers(worked))
    return table + meaning + html.items(notes, "warn") + "".join(plots) + conditions


def _row(point: Point, with_interval: bool, memory: Sequence[str]) -> List[html.Cell]:
    good = point.failure is None and bool(point.median_s)
    row: List[html.Cell] = [format_size(point.size).replace("x", "×")]
    row.append(milliseconds(point.median_s) if good else NONE)
    if with_interval:
        row.append(half_width(point) if good else NONE)
    row += [milliseconds(point.p90_s), milliseconds(point.p99_s), *rate_cells(point), str(len(point.samples_s))]
    return row + [mebibytes(point.peak_memory.get(key)) for key in memory]


def conditions_of(result: Result) -> str:
    """Everything that a number depends on: settings, what ran, where."""
    points = [point for point in result.points if point.runtime]
    pairs: List[Tuple[str, str]] = []
    for name, value in {**result.options, **(points[0].settings if points else {})}.items():
        pairs.append((name.replace("_", " "), _text(value)))
    pairs.append(("timer", ", ".join(dict.fromkeys(point.timer for point in points)) or NONE))
    described = {k: v for k, v in (points[0].description if points else {}).items() if k != "layers"}
    pairs += [(name.replace("_", " "), _text(value)) for name, value in described.items()]
    return html.facts(pairs) + html.facts(_environment(result.environment))


def _environment(environment: Dict[str, Any]) -> List[Tuple[str, str]]:
    """Facts of an environment, nested ones each on a line of its own."""
    pairs = []
    for name, value in environment.items():
        if name.endswith("_bytes") and isinstance(value, int):
            pairs.append((name[: -len("_bytes")].replace("_", " "), f"{value / 2**30:.1f} GiB"))
        elif isinstance(value, dict):
            pairs += [(f"{name} {key}" if name != "packages" else key, text) for key, text in _environment(value)]
        elif name == "sha256":
            pairs.append((name, f"{str(value)[:12]}…"))
        elif value not in (None, [], ""):
            pairs.append((name.replace("_", " "), _text(value)))
    return pairs


def _layers(points: Sequence[Point]) -> str:
    """The slowest layers of a profile, where one was imported."""
    layers = [layer for point in points for layer in point.description.get("layers", ())]
    slowest = sorted(layers, key=lambda layer: -layer["mean_s"])[:MOST_LAYERS]
    rows = [[x["name"], milliseconds(x["mean_s"]), fixed(100 * x["share"], 1)] for x in slowest]
    caption = f"The slowest {len(rows)} of {len(layers)} layers, profiled one by one"
    return html.table(caption, ["layer", "mean ms", "% of the whole"], rows) if rows else ""


def _engines(deployed: Deployed) -> str:
    graph = deployed.manifest.graphs[0]
    size = format_size(graph.macs_size).replace("x", "×")
    text = f"Counted over the graph, at most {mebibytes(graph.peak_activation_bytes)} MiB of activations are alive at "
    text += f"once in FP32 at {size}, and the weights take {mebibytes(4 * graph.parameters)} MiB."
    if not deployed.engines:
        return html.paragraph(text) + html.paragraph("No engine has been built: srdeploy build makes one.", "note")
    headings = ["engine", "backend", "inputs", "precision", "GPUs", "activations MiB", "weights MiB", "built in s"]
    rows = [
        [e["file"], f"{e['backend']} {e['runtime_version']}", profile_text(e["profile"]).replace("x", "×"),
         e["precision"], ", ".join(e["compute_capabilities"]) or NONE, mebibytes(e["activation_bytes"]),
         mebibytes(e["weights_bytes"]), fixed(e["build_seconds"], 1)]
        for e in deployed.engines
    ]  # fmt: skip
    warnings = [f"{e['file']}: {warning}" for e in deployed.engines for warning in e["warnings"]]
    streamed = [f"{e['file']} {told}." for e in deployed.engines for told in [streaming_text(e)] if told]
    told = any(e[key] is not None for e in deployed.engines for key in ("activation_bytes", "weights_bytes"))
    caption = "Engines; memory as their builder reports it, – where it reports none" if told else "Engines"
    table = html.table(caption, headings, rows, 5)
    listed = "".join(map(_built, deployed.engines))
    return html.paragraph(text) + table + listed + html.items([*streamed, *warnings], "small")


def _built(engine: Dict[str, Any]) -> str:
    """What the builder made of the graph: a sentence, and folded away the layers that move most."""
    layers = engine.get("layers") or []
    if not layers:
        return ""
    shown = layers[:MOST_LAYERS]
    caption = f"The {len(shown)} of {len(layers)} layers that read and write most, weights left out"
    rows = [layer_cells(layer) for layer in shown]
    body = html.table(caption, ["MB", "kind", "types", "output", "computes"], rows, 5)
    return html.details(f"{engine['file']}: {listing_text(engine['listing'])}", body)


def _proofs(manifest: Manifest) -> str:
    if not manifest.proofs:
        return html.paragraph("The exported graph was not compared with PyTorch.", "warn")
    rows = [[name, f"{value:.5f}"] for name, value in manifest.proofs.items()]
    caption = f"Largest difference of the graph from PyTorch, in 8-bit steps (at most {GRAPH_FP32.steps:g} is allowed)"
    return html.table(caption, ["", "of 255"], rows)


def _folds(fold: FoldRecord) -> str:
    blocks = fold.get("blocks") or []
    if not blocks:
        return html.paragraph("No block was folded.")
    before = sum(block.get("macs_before") or 0 for block in blocks)
    after = sum(block.get("macs_after") or 0 for block in blocks)
    text = f"{len(blocks)} blocks were folded, {before:,} to {after:,} multiply-accumulates a pixel in them."
    if fold.get("network_error") is not None:
        text += f" The whole network differs by {fold['network_error']:.1e} of its largest output in float32"
        wide = fold.get("network_error_float64")
        text += f", and by {wide:.1e} in float64." if wide is not None else "."
    rows = [
        [b.get("name", ""), b.get("was", ""), b.get("became", ""), f"{b.get('macs_before') or 0:,}",
         f"{b.get('macs_after') or 0:,}", f"{b['error_float64']:.1e}" if b.get("error_float64") is not None else NONE]
        for b in blocks
    ]  # fmt: skip
    headings = ["block", "was", "became", "MACs a pixel before", "after", "error, float64"]
    kept = [f"{k.get('name', '')} ({k.get('was', '')}): {k.get('reason', '')}" for k in fold.get("kept") or []]
    body = html.table("Folded blocks; the error is relative to the largest output", headings, rows, 3)
    listed = html.paragraph("Kept as they were:") + html.items(kept, "small") if kept else ""
    return html.paragraph(text) + html.details("Each block", body + listed)


def _versions(deployed: Deployed) -> str:
    pairs = [(f"exported with {name}", version) for name, version in deployed.manifest.tools.items()]
    pairs += [(g.file, f"sha256 {g.sha256[:12]}…") for g in deployed.manifest.graphs]
    pairs += [(e["file"], f"sha256 {e['sha256'][:12]}…") for e in deployed.engines]
    return html.facts(pairs)


def _text(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, dict):
        return ", ".join(f"{key} {_text(entry)}" for key, entry in value.items())
    if isinstance(value, (list, tuple)):
        return ", ".join(map(_text, value)) or NONE
    if isinstance(value, float):
        return f"{value:g}"
    return NONE if value is None else str(value)
