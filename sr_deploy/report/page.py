"""The report page: what all deployments share first, then each of them. Content in, HTML out."""

from __future__ import annotations

import math
from typing import Any, Dict, List, Sequence, Tuple

from sr_deploy.core.contract import format_size
from sr_deploy.core.text import xml
from sr_deploy.report import html
from sr_deploy.report.content import Comparison, Content, Deployed, comparisons
from sr_deploy.report.numbers import NONE, figures, fixed, milliseconds
from sr_deploy.report.page_deployment import deployment_section, drawing
from sr_deploy.report.pictures import ERROR_LIMIT, error_scale
from sr_deploy.report.plots import latency_plot
from sr_deploy.report.plots_bench import Candidate, pareto_plot

#: So many comparisons are shown; more than a few (runtime, device, scope) are rarely wanted on one page.
MOST_COMPARISONS = 3


def report_page(content: Content) -> str:
    """The page as text: one file, complete in itself."""
    compared = comparisons(content.deployments)[:MOST_COMPARISONS]
    several = len(content.deployments) > 1
    body = "".join(
        (
            f"<header>\n<h1>{xml(content.title)}</h1>\n{html.paragraph(content.made, 'small')}</header>\n",
            _glance(content, compared),
            "".join(_comparison(index, comparison) for index, comparison in enumerate(compared)),
            html.paragraph(_why_not_compared(content.deployments), "note") if several and not compared else "",
            _quality(content),
            _pictures(content),
            "".join(
                deployment_section(deployed, f"deployment-{index + 1}", several)
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
    rows = []
    for deployed in content.deployments:
        manifest, graph = deployed.manifest, deployed.manifest.graphs[0]
        row = [deployed.name, manifest.architecture, f"×{manifest.scale}", f"{graph.parameters:,}"]
        row += [figures(graph.macs / 1e9), format_size(graph.macs_size).replace("x", "×")]
        if judged:
            mean = deployed.qualities[0].report["mean"] if deployed.qualities else {}
            row += [fixed(mean.get("psnr_y"), 3), fixed(mean.get("ssim_y"), 4)]
        rows.append(row)
    headings += ["PSNR-Y dB", "SSIM-Y"] if judged else []
    caption = "The deployments: weights and multiply-accumulates (in thousand millions) are of the exported graph"
    return html.section("At a glance", html.table(caption, headings, rows, min(numbers)), "glance")


def _comparison(index: int, comparison: Comparison) -> str:
    """Quality against latency of one group, as a plot and as numbers."""
    shared = f"{comparison.runtime} on {comparison.device}, {comparison.scope}"
    size = format_size(comparison.size).replace("x", "×")
    rows: List[Sequence[html.Cell]] = []
    for i, entry in enumerate(comparison.entries):
        best = i in comparison.front
        verdict = ("on the front", "best good") if best else ("beaten" if entry.psnr_y is not None else NONE)
        rows.append([entry.name, milliseconds(entry.point.median_s), milliseconds(entry.point.p90_s),
                     fixed(entry.psnr_y, 3), fixed(entry.ssim_y, 4), verdict])  # fmt: skip
    parts: List[str] = []
    judged = [i for i, e in enumerate(comparison.entries) if e.psnr_y is not None and math.isfinite(e.psnr_y)]
    drawn = [comparison.entries[i] for i in judged]
    candidates = [Candidate(e.name, e.point.median_s or 0.0, e.psnr_y or 0.0) for e in drawn]
    front = [judged.index(i) for i in comparison.front if i in judged]
    if comparison.differences:
        text = "These sweeps were not taken in one environment; these facts differ: "
        parts.append(html.paragraph(text + ", ".join(comparison.differences), "warn"))
    if len({entry.scale for entry in comparison.entries}) > 1:
        rows = [[*row[:-1], NONE] for row in rows]
        text = "The scales differ, so quality is not compared: an enlargement by 2 is an easier task than one by 4."
        parts.append(html.paragraph(text, "note"))
    elif len(candidates) > 1:
        words = "; ".join(f"{c.name}: {c.psnr_y:.2f} dB at {figures(1e3 * c.latency_s)} ms" for c in candidates)
        parts.append(
            drawing(
                lambda path: pareto_plot(candidates, front, f"{shared}, input {size}", path),
                f"Mean PSNR-Y against median latency. {words}",
                "Filled: on the Pareto front, that is, no other one here is as fast and as good by PSNR-Y, or better.",
                ".svg",
            )
        )
    else:
        parts.append(html.paragraph("Without --lr and --hr there is no quality to set against the latency.", "note"))
    headings = ["", "median ms", "p90 ms", "PSNR-Y dB", "SSIM-Y", "Pareto front"]
    parts.append(html.table(f"{shared}; input {size}", headings, rows))
    words = f"Median latency over input size of {', '.join(entry.name for entry in comparison.entries)}; {shared}"
    parts.append(drawing(lambda path: latency_plot(comparison.results, path), words, f"All sizes: {shared}.", ".svg"))
    return html.section(f"Quality against latency: {shared}", "".join(parts), f"comparison-{index + 1}")


def _why_not_compared(deployments: Sequence[Deployed]) -> str:
    """What keeps the deployments from being compared, and how to change it."""
    missing = [deployed.name for deployed in deployments if not deployed.results]
    text = "Latency is not compared: no two deployments have a sweep with the same runtime, device, scope and size."
    if missing:
        text += f" Without any sweep: {', '.join(missing)}."
    return text + " srdeploy bench DEPLOYMENT --sizes … with the same sizes makes them comparable."


def _quality(content: Content) -> str:
    """One table a scale: pictures down, ways to run across; or why there is none."""
    parts = []
    for scale in dict.fromkeys(deployed.manifest.scale for deployed in content.deployments):
        columns = [(f"{d.name} {q.label}".strip(), q.report) for d in content.deployments for q in d.qualities
                   if d.manifest.scale == scale]  # fmt: skip
        bicubic = dict(content.bicubic).get(scale)
        if columns:
            parts.append(_quality_table(scale, ([("bicubic", bicubic)] if bicubic else []) + columns))
    reasons = {d.no_quality: d.name for d in content.deployments if not d.qualities}
    for reason in reasons:
        names = [d.name for d in content.deployments if not d.qualities and d.no_quality == reason]
        whose = f"{', '.join(names)}: " if len(content.deployments) > 1 else ""
        parts.append(html.paragraph(whose + reason, "note"))
    return html.section("Quality", "".join(parts), "quality")


def _quality_table(scale: int, columns: Sequence[Tuple[str, Dict[str, Any]]]) -> str:
    headings = ["", *(["PSNR-Y dB", "SSIM-Y"] * len(columns))]
    names = [image["name"] for image in columns[-1][1]["images"]]
    rows: List[Sequence[html.Cell]] = []
    for index, name in enumerate(names):
        cells = [report["images"][index] for _, report in columns]
        rows.append(_marked(name, [(cell["psnr_y"], cell["ssim_y"]) for cell in cells]))
    rows.append(_marked("mean", [(report["mean"]["psnr_y"], report["mean"]["ssim_y"]) for _, report in columns]))
    # What follows the colon is why it was chosen, once a size: for the terminal, not for a page.
    ran = {name: dict.fromkeys(part.split(": ")[0] for part in report["runtime"].split("; "))
           for name, report in columns if report.get("runtime")}  # fmt: skip
    words = "; ".join(f"{name}: {', '.join(parts)}" for name, parts in ran.items())
    convention = columns[-1][1]["convention"]
    caption = f"Against the originals, ×{scale} ({convention}); the best of each row is bold"
    table = html.table(caption, headings, rows, 1, 1, [(name, 2) for name, _ in columns])
    return table + html.paragraph(f"What ran. {words}", "small")


def _marked(name: str, values: Sequence[Tuple[float, float]]) -> List[html.Cell]:
    """A row with the best figure of each kind marked, unless all are equal at the shown digits."""
    out: List[html.Cell] = [name]
    shown = [(fixed(psnr, 3), fixed(ssim, 4)) for psnr, ssim in values]
    best = [shown[max(range(len(values)), key=[pair[k] for pair in values].__getitem__)][k] for k in (0, 1)]
    for texts in shown:
        for k in (0, 1):
            apart = len({pair[k] for pair in shown}) > 1
            out.append((texts[k], "best") if apart and texts[k] == best[k] else texts[k])
    return out


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
