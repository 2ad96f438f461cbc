"""The report page: what all deployments share first, then each of them. Content in, HTML out."""

from __future__ import annotations

import math
from typing import Any, List, Mapping, Optional, Sequence, Tuple

from sr_deploy.core.contract import format_size
from sr_deploy.core.quality.metrics import CRITERION, METRICS, Metric
from sr_deploy.core.text import xml
from sr_deploy.report import html
from sr_deploy.report.content import Comparison, Content, Deployed, Quality, comparisons
from sr_deploy.report.numbers import NONE, figures, fixed, milliseconds, precision_label
from sr_deploy.report.page_compression import compression_section, fidelity_drawing
from sr_deploy.report.page_deployment import deployment_section, drawing
from sr_deploy.report.pictures import ERROR_LIMIT, error_scale
from sr_deploy.report.plots import latency_plot
from sr_deploy.report.plots_bench import Candidate, pareto_plot
from sr_deploy.report.quality_file import ran_text

#: So many comparisons are shown; more than a few (runtime, device, scope) are rarely wanted on one page.
MOST_COMPARISONS = 3
#: A figure of each metric by key.
Means = Mapping[str, Optional[float]]


def report_page(content: Content) -> str:
    """The page as text: one file, complete in itself."""
    compared = comparisons(content.deployments)[:MOST_COMPARISONS]
    several = len(content.deployments) > 1
    body = "".join(
        (
            f"<header>\n<h1>{xml(content.title)}</h1>\n{html.paragraph(content.made, 'small')}</header>\n",
            _glance(content, compared),
            "".join(_comparison(index, comparison, content.axis) for index, comparison in enumerate(compared)),
            html.paragraph(_why_not_compared(content.deployments), "note") if several and not compared else "",
            _quality(content),
            compression_section(content.deployments),
            _pictures(content),
            "".join(
                deployment_section(deployed, f"deployment-{index + 1}", several, content.axis)
                for index, deployed in enumerate(content.deployments)
            ),
        )
    )
    return html.page(content.title, body)


def _glance(content: Content, compared: Sequence[Comparison]) -> str:
    """One row a deployment."""
    headings = ["", "network", "scale", "parameters", "GMACs", "at input"]
    numbers = [len({d.manifest.scale for d in content.deployments}) and 2, 3, 4]
    judged = any(deployed.qualities for deployed in content.deployments)
    firsts = [deployed.qualities[0] if deployed.qualities else None for deployed in content.deployments]
    metrics = _taken([first.report["mean"] for first in firsts if first])
    rows = []
    for deployed, first in zip(content.deployments, firsts):
        manifest, graph = deployed.manifest, deployed.manifest.graphs[0]
        row = [deployed.name, manifest.architecture, f"×{manifest.scale}", f"{graph.parameters:,}"]
        row += [figures(graph.macs / 1e9), format_size(graph.macs_size).replace("x", "×")]
        if judged:
            row += [
                precision_label(first.precision) if first else NONE,
                *_figures(metrics, first.report["mean"] if first else {}),
            ]
        rows.append(row)
    headings += ["judged in", *_headings(metrics)] if judged else []
    caption = "The deployments: weights and multiply-accumulates (in thousand millions) are of the exported graph"
    return html.section("At a glance", html.table(caption, headings, rows, min(numbers)), "glance")


def _comparison(index: int, comparison: Comparison, axis: str) -> str:
    """Quality against latency of one group, as a plot and as numbers."""
    shared = f"{comparison.runtime} on {comparison.device}, {comparison.scope}"
    size = format_size(comparison.size).replace("x", "×")
    rows: List[Sequence[html.Cell]] = []
    metrics = _taken([entry.means for entry in comparison.entries])
    for i, entry in enumerate(comparison.entries):
        best = i in comparison.front
        verdict = ("on the front", "best good") if best else ("beaten" if entry.quality is not None else NONE)
        rows.append([entry.name, milliseconds(entry.point.median_s), milliseconds(entry.point.p90_s),
                     *_figures(metrics, entry.means), verdict])  # fmt: skip
    parts: List[str] = []
    judged = [i for i, e in enumerate(comparison.entries) if e.quality is not None and math.isfinite(e.quality)]
    drawn = [comparison.entries[i] for i in judged]
    candidates = [Candidate(e.name, e.point.median_s or 0.0, e.quality or 0.0) for e in drawn]
    front = [judged.index(i) for i in comparison.front if i in judged]
    if comparison.differences:
        text = "These sweeps were not taken in one environment; these facts differ: "
        parts.append(html.paragraph(text + ", ".join(comparison.differences), "warn"))
    if len({entry.scale for entry in comparison.entries}) > 1:
        rows = [[*row[:-1], NONE] for row in rows]
        text = "The scales differ, so quality is not compared: an enlargement by 2 is an easier task than one by 4."
        parts.append(html.paragraph(text, "note"))
    elif len(candidates) > 1:
        words = "; ".join(
            f"{c.name}: {c.quality:.2f} {CRITERION.unit} at {figures(1e3 * c.latency_s)} ms" for c in candidates
        )
        parts.append(
            drawing(
                lambda path: pareto_plot(candidates, front, f"{shared}, input {size}", path),
                f"Mean {CRITERION.title} against median latency. {words}",
                "Filled: on the Pareto front, that is, no other one here is as fast and as good "
                f"by {CRITERION.title}, or better.",
                ".svg",
            )
        )
    else:
        known = f"only of {candidates[0].name}" if candidates else "of none of these"
        text = f"Quality is known {known}: srdeploy verify … --precision keeps it in the deployment."
        parts.append(html.paragraph(text, "note"))
    parts.append(fidelity_drawing(comparison, f"{shared}, input {size}"))
    headings = ["", "median ms", "p90 ms", *_headings(metrics), "Pareto front"]
    parts.append(html.table(f"{shared}; input {size}", headings, rows))
    words = f"Median latency over input size of {', '.join(entry.name for entry in comparison.entries)}; {shared}"
    caption = f"All sizes: {shared}."
    parts.append(drawing(lambda path: latency_plot(comparison.results, path, axis), words, caption, ".svg"))
    return html.section(f"Quality against latency: {shared}", "".join(parts), f"comparison-{index + 1}")


def _why_not_compared(deployments: Sequence[Deployed]) -> str:
    """What keeps the deployments from being compared, and how to change it."""
    missing = [deployed.name for deployed in deployments if not deployed.results]
    text = "Latency is not compared: no two deployments have a sweep with the same runtime, device, scope and size."
    if missing:
        text += f" Without any sweep: {', '.join(missing)}."
    return text + " srdeploy bench DEPLOYMENT --size … with the same sizes makes them comparable."


def _quality(content: Content) -> str:
    """One table a scale: pictures down, ways to run across; or why there is none."""
    parts = []
    for scale in dict.fromkeys(deployed.manifest.scale for deployed in content.deployments):
        every = [(f"{d.name} {q.label}".strip(), q) for d in content.deployments for q in d.qualities
                 if d.manifest.scale == scale]  # fmt: skip
        bicubic = dict(content.bicubic).get(scale)
        # What was judged on other pictures has a table of its own.
        for chosen in dict.fromkeys(_pictures_of(quality.report) for _, quality in every):
            columns = [(name, quality) for name, quality in every if _pictures_of(quality.report) == chosen]
            first = [("bicubic", Quality("", "", bicubic))] if bicubic else []
            parts.append(_quality_table(scale, first + columns))
    reasons = {d.no_quality: d.name for d in content.deployments if not d.qualities}
    for reason in reasons:
        names = [d.name for d in content.deployments if not d.qualities and d.no_quality == reason]
        whose = f"{', '.join(names)}: " if len(content.deployments) > 1 else ""
        parts.append(html.paragraph(whose + reason, "note"))
    return html.section("Quality", "".join(parts), "quality")


def _pictures_of(report: Mapping[str, Any]) -> str:
    """Which pictures a report is of, as their hash; "" where it does not say."""
    return str((report.get("pictures") or {}).get("sha256", ""))


def _quality_table(scale: int, columns: Sequence[Tuple[str, Quality]]) -> str:
    reports = [quality.report for _, quality in columns]
    metrics = _taken([report["mean"] for report in reports])
    headings = ["", *(_headings(metrics) * len(columns))]
    rows: List[Sequence[html.Cell]] = []
    for index, image in enumerate(reports[-1]["images"]):
        rows.append(_marked(metrics, image["name"], [report["images"][index] for report in reports]))
    rows.append(_marked(metrics, "mean", [report["mean"] for report in reports]))
    words = "; ".join(
        f"{name} in {precision_label(quality.precision)}: {ran_text(quality.report['ran'])}"
        for name, quality in columns
        if quality.report["ran"]
    )
    pictures = reports[-1].get("pictures")
    on = f"{pictures['count']} pictures of {pictures['name']}, " if pictures else ""
    caption = f"Against the originals, {on}×{scale} ({reports[-1]['convention']}); the best of each row is bold"
    table = html.table(caption, headings, rows, 1, 1, [(name, len(metrics)) for name, _ in columns])
    return table + html.paragraph(f"What ran. {words}", "small")


def _taken(every: Sequence[Means]) -> Tuple[Metric, ...]:
    """The metrics that were taken of any of them; of none: the criterion, whose place stays empty."""
    taken = tuple(metric for metric in METRICS if any(means.get(metric.key) is not None for means in every))
    return taken or (CRITERION,)


def _headings(metrics: Sequence[Metric]) -> List[str]:
    return [metric.heading for metric in metrics]


def _figures(metrics: Sequence[Metric], means: Means) -> List[str]:
    """A cell for each metric."""
    return [fixed(means.get(metric.key), metric.decimals) for metric in metrics]


def _marked(metrics: Sequence[Metric], name: str, ways: Sequence[Means]) -> List[html.Cell]:
    """A row with the best figure of each metric marked, unless all are equal at the shown digits."""
    shown = [_figures(metrics, way) for way in ways]
    best = [_best(metric, [way.get(metric.key) for way in ways]) for metric in metrics]
    out: List[html.Cell] = [name]
    for texts in shown:
        for k, text in enumerate(texts):
            apart = len({other[k] for other in shown}) > 1
            out.append((text, "best") if apart and text == best[k] else text)
    return out


def _best(metric: Metric, values: Sequence[Optional[float]]) -> Optional[str]:
    """The best figure as it is shown; None where there is none."""
    known = [value for value in values if value is not None]
    if not known:
        return None
    return fixed(max(known) if metric.higher_is_better else min(known), metric.decimals)


def _pictures(content: Content) -> str:
    """Each picture in all its versions, with an enlarged detail below and the error maps after."""
    if not content.pictures:
        return ""
    parts = [html.paragraph("Below each picture, the part with the most fine detail, one square a pixel.", "small")]
    for row in content.pictures:
        for error in (False, True):
            panels = [panel for panel in row.panels if panel.error == error]
            figures_ = "".join(
                html.figure(
                    html.image(*panel.whole, panel.alt)
                    + "\n"
                    + html.image("image/png", panel.detail, f"Enlarged detail: {panel.alt}", "detail"),
                    panel.title,
                )
                for panel in panels
            )
            heading = f"<h3>{xml(row.name)}</h3>\n" if not error else ""
            kind = "panels errors" if error else "panels"
            parts.append(f'{heading}<div class="{kind}">\n{figures_}</div>\n' if figures_ else "")
        parts.append(_scale() if any(panel.error for panel in row.panels) else "")
    return html.section("Pictures", "".join(parts), "pictures")


def _scale() -> str:
    alt = f"Colours of the error maps, from dark for 0 to pale yellow for {ERROR_LIMIT} or more"
    bar = html.image("image/png", error_scale(), alt)
    ends = f'<div class="ends"><span>0</span><span>error of luma, of 255</span><span>≥ {ERROR_LIMIT}</span></div>'
    return f'<div class="scale">{bar}{ends}</div>\n'
