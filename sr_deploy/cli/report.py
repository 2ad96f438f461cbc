"""Commands that show: report, and import of what other tools measured."""

from __future__ import annotations

from pathlib import Path
from typing import List, Optional

import typer

from sr_deploy.cli.shared import BACKEND, JSON_FLAG, print_json, print_line, render, say
from sr_deploy.core.contract import parse_size
from sr_deploy.core.errors import UsageError


def report(
    deployments: Optional[List[Path]] = typer.Argument(
        None, help="Deployment folders; several are compared.", show_default=False
    ),
    out: Path = typer.Option(..., "-o", "--out", help="The HTML file to write."),
    lr: Optional[Path] = typer.Option(None, "--lr", help="Folder of low-resolution pictures (babyx4.png or baby.png)."),
    hr: Optional[Path] = typer.Option(None, "--hr", help="Folder of high-resolution pictures (baby.png)."),
    backend: Optional[str] = BACKEND,
    pictures: int = typer.Option(3, "--pictures", help="So many pictures are shown; all are judged.", min=0),
    title: Optional[str] = typer.Option(None, "--title", help="The page's title."),
    axis: str = typer.Option("size", "--axis", help="Of latency plots: size (logarithmic), or area (linear, from 0)."),
    catalogue: Optional[Path] = typer.Option(
        None, "--catalogue", help="Instead: all entries of bench --submit below this folder, on one page."
    ),
    force: bool = typer.Option(False, "--force", help="Replace an existing file."),
    as_json: bool = JSON_FLAG,
) -> None:
    """One self-contained HTML page: pictures, quality, latency, memory, proofs, environment."""
    from sr_deploy.pipeline.report import ReportOptions, write_report

    if catalogue is not None:
        from sr_deploy.pipeline.measure.submit import write_catalogue

        if deployments or lr or hr or backend or pictures != 3 or axis != "size":
            raise UsageError("--catalogue shows entries only", "it with -o, --title and --force")
        _print_page(write_catalogue(catalogue, out, title or "Super-resolution, measured", force), as_json)
        return
    if not deployments:
        raise UsageError("there is nothing to report on", "deployment folders, or --catalogue FOLDER")
    options = ReportOptions(tuple(deployments), out, lr, hr, backend, pictures, title, force, axis)
    _print_page(write_report(options, say), as_json)


def _print_page(page: Path, as_json: bool) -> None:
    if as_json:
        print_json({"page": str(page)})
        return
    print_line(page)


def import_(
    times: Path = typer.Argument(..., help="The file of trtexec --exportTimes, 8.5 to 11.", show_default=False),
    size: str = typer.Option(..., "--size", help="Input HxW that was timed; the file does not say."),
    device: str = typer.Option(..., "--device", help="The GPU's name; the file does not say."),
    out: Path = typer.Option(..., "-o", "--out", help="The result to write, such as DEPLOYMENT/results/trtexec.json."),
    profile: Optional[Path] = typer.Option(None, "--profile", help="The file of trtexec --exportProfile."),
    scope: str = typer.Option("compute", "--scope", help="compute (computeMs) or end-to-end (latencyMs)."),
    version: Optional[str] = typer.Option(None, "--trtexec-version", help="Such as 8.5.2. Default: unknown."),
    scale: Optional[int] = typer.Option(None, "--scale", help="Output size over input size, for megapixels a second."),
    precision: Optional[str] = typer.Option(None, "--precision", help="Such as fp16. Default: unknown."),
    name: Optional[str] = typer.Option(None, "--name", help="What was timed. Default: the name of the file."),
    force: bool = typer.Option(False, "--force", help="Replace an existing file."),
    as_json: bool = JSON_FLAG,
) -> None:
    """Times of NVIDIA's trtexec as a result that the report and the gate take."""
    from sr_deploy.bench.result import save_result
    from sr_deploy.bench.trtexec import TrtexecRun, result_from_trtexec
    from sr_deploy.core.artifact import check_free
    from sr_deploy.report.table import latency_table

    run = TrtexecRun(parse_size(size), device, scope, version, scale, precision, name or times.stem)
    result = result_from_trtexec(times, run, profile)
    check_free(out, force, "a new file", "choose another -o, or replace it with --force")
    save_result(out, result)
    if not as_json:
        render(latency_table(result))
    if version is None:
        say("note: CUDA graph, wait and streams are recorded as unknown; --trtexec-version says what its defaults were")
    if as_json:
        print_json(result.to_dict())
        return
    print_line(out)
