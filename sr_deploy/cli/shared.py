"""What every command needs: its output, its sizes, the options that several commands share."""

from __future__ import annotations

import json
import shlex
from typing import Any, Dict, List, Sequence

import typer

from sr_deploy.core.contract import parse_bytes
from sr_deploy.core.number_formats import ENGINE_PRECISIONS
from sr_deploy.core.text import log_lines
from sr_deploy.engine.runtimes import named, names

DEPLOYMENT = typer.Argument(..., help="A deployment folder made by srdeploy export.", show_default=False)
JSON_FLAG = typer.Option(False, "--json", help="Print JSON for machines instead of a table.")
PRECISION = typer.Option(
    None,
    "--precision",
    help="Take the engine of this precision: fp32, bf16, fp16, fp8, int8 or auto. Default: what was built last.",
    autocompletion=lambda: list(ENGINE_PRECISIONS),
)
#: The defaults are those of pipeline/precision/deployed_plan.py, which only the commands that make plans import.
CONTENT_OPTION = typer.Option(
    "any",
    "--content",
    help="What the network will see: photo, graphics (text, drawings, …) or any. The tool paints graphics of its own.",
    autocompletion=lambda: ["photo", "graphics", "any"],
)
METHOD_OPTION = typer.Option("sqnr", "--method", help="Calibration: minmax, entropy, percentile, mse or sqnr.")
#: NumPy takes no less, and its older generators no more.
SEEDS: Dict[str, Any] = {"min": 0, "max": 2**32 - 1}
SEED = typer.Option(0, "--seed", help="Of all that is random.", **SEEDS)
QUALITY = typer.Option(None, "--quality", help="Of JPEG, 1 to 100 (default 95), and of WebP (default: lossless).")
CHROMA = typer.Option(None, "--chroma", help="Of JPEG: 444 (default: colour for every pixel), 422 or 420.")
STRIP = typer.Option(False, "--strip", help="Leave EXIF and XMP out. Colour profiles always stay.")
BACKENDS = named()
BACKEND = typer.Option(
    None,
    "--backend",
    help=f"{BACKENDS}. Default: the best this machine has.",
    autocompletion=lambda: list(names()),
)
MEMORY = typer.Option(
    None,
    "--memory",
    help="What may be used, such as 2GB; larger pictures are made in tiles. Default: half of what is free.",
    parser=parse_bytes,
    metavar="SIZE",
)
INEXACT = typer.Option(
    False, "--allow-inexact", help="Tiles of a network that is not local too; how far they differ is measured and said."
)


#: The JSON documents that this command has printed: of one command there is one, whatever happens after it.
_printed: List[Any] = []


def target_names() -> List[str]:
    """Names that --target takes, for the shell's completion."""
    from sr_deploy.graph.target import TARGETS

    return [target.name for target in TARGETS]


def architecture_names() -> List[str]:
    """Names that --arch takes, for the shell's completion; none where PyTorch is not installed."""
    try:
        from sr_deploy.models.registry import ARCHITECTURES
    except ImportError:
        return []
    return [architecture.name for architecture in ARCHITECTURES]


def say(text: str) -> None:
    """Progress goes to stderr, so that stdout holds results only."""
    typer.echo(log_lines(text), err=True)


def say_next(*command: Any) -> None:
    """Say the srdeploy command that a result is for; words in capitals are the user's to fill in."""
    say("next: srdeploy " + " ".join(shlex.quote(str(word)) for word in command))


def print_line(text: Any) -> None:
    """Print a result for people or scripts on stdout: a path, a line of a plan."""
    typer.echo(log_lines(str(text)))


def print_json(value: Any) -> None:
    """Print a value as indented JSON on stdout: the command's one document."""
    _printed.append(value)
    typer.echo(json.dumps(value, indent=2))


def begin_document() -> None:
    """A command begins: nothing is printed yet."""
    _printed.clear()


def document_is_printed() -> bool:
    """Whether the command has printed its JSON, so that a failure is told by the exit code and on stderr only."""
    return bool(_printed)


def print_plan(lines: Sequence[str], as_json: bool) -> None:
    """Print what a command would do, as --dry-run asks: one line each, or {"would": [line, …]}."""
    if as_json:
        print_json({"would": list(lines)})
        return
    for line in lines:
        print_line(line)


def render(renderable: Any) -> None:
    """Print a rich table on stdout."""
    from rich.console import Console

    Console(emoji=False).print(renderable)
