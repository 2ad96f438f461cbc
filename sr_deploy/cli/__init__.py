"""The command line: parse, call one function of the pipeline, print. The only folder that knows typer.

Heavy imports happen inside the commands, so that ``srdeploy --help`` is quick.
"""

from __future__ import annotations

import io
import sys
from typing import Any, Callable, Dict, List, Optional, Tuple

import typer
from typer.core import TyperGroup

from sr_deploy import __version__
from sr_deploy.cli import board, compress, deploy, gate, measure, precision, qat, remote, report, run, train
from sr_deploy.cli.shared import begin_document, document_is_printed, print_json
from sr_deploy.core.errors import MissingPackage, SrDeployError, UsageError
from sr_deploy.core.host.install import pip_install
from sr_deploy.core.host.l4t import check_container
from sr_deploy.core.signals import ended_by_signals, name_of
from sr_deploy.core.text import log_lines

#: The exit code after Ctrl-C, as shells count it.
INTERRUPTED = 130
#: Every command under the heading that ``--help`` shows it under, in its order.
COMMANDS: Dict[str, Tuple[Callable[..., None], ...]] = {
    "From checkpoint to picture": (
        deploy.demo, deploy.inspect, deploy.export, deploy.build, run.run, deploy.verify,
    ),
    "Smaller networks": (compress.compress, train.distill, train.density),
    "Lower precision": (precision.calibrate, precision.sensitivity, qat.qat),
    "Time, compare, guard": (
        measure.bench, measure.sweep, measure.tune, gate.gate, report.report, report.import_,
    ),
    "Boards": (board.pack, board.unpack, remote.remote, deploy.doctor),
}  # fmt: skip


def _name_of(command: Callable[..., None]) -> str:
    # A trailing underscore keeps a name that is a word of Python, such as import.
    return command.__name__.rstrip("_").replace("_", "-")


#: Letters of a command's help in the list of commands: its first sentence, over as many lines as it takes.
_HELP_LETTERS = 200


class Grouped(TyperGroup):
    """The commands under their headings."""

    def format_commands(self, ctx: Any, formatter: Any) -> None:
        """Write one list a heading; names and their help are never cut, however narrow the terminal is."""
        for heading, commands in COMMANDS.items():
            with formatter.section(heading):
                found = [(name, self.get_command(ctx, name)) for name in map(_name_of, commands)]
                formatter.write_dl(
                    [(name, one.get_short_help_str(_HELP_LETTERS)) for name, one in found if one is not None]
                )


app = typer.Typer(
    name="srdeploy",
    cls=Grouped,
    no_args_is_help=True,
    # The plain form: tables of the rich one cut the names of options in 80 columns.
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    help="Put a trained or compressed PyTorch super-resolution network on a GPU or a Jetson, "
    "with its quality and its latency proved.\n\n"
    "Start with `srdeploy demo`, then `srdeploy export net.pth -o net`, `srdeploy build net`, "
    "`srdeploy run net -i picture.png -o out`.\n\n"
    "Exit codes: 0 good, 1 a check failed, 2 usage, 3 environment, 4 bad input, 5 measurement inconclusive.",
)


def _version(value: bool) -> None:
    if value:
        typer.echo(f"srdeploy {__version__}")
        raise typer.Exit()


@app.callback()
def _root(
    version: bool = typer.Option(False, "--version", callback=_version, is_eager=True, help="Print the version."),
) -> None:
    pass


for command in (command for commands in COMMANDS.values() for command in commands):
    settings = remote.PASS_ON if command is remote.remote else None
    app.command(_name_of(command), context_settings=settings)(command)


def _failure(error: SrDeployError) -> Dict[str, Any]:
    return {"error": error.found, "wanted": error.wanted, "next": error.todo, "exit_code": error.exit_code}


def _missing_package(error: ModuleNotFoundError) -> SrDeployError:
    """The error of an extra that is not installed; a module of ours that is missing is a bug and is raised again."""
    package = (error.name or "").split(".")[0]
    if package in ("", "sr_deploy"):
        raise error
    wanted = "what exporting needs (Python 3.10 or newer)"
    return MissingPackage(f"the package {package} is not installed", wanted, pip_install("export"))


def _wants_json(arguments: List[str]) -> bool:
    """Whether stdout still wants its one JSON document."""
    return "--json" in arguments and not document_is_printed()


def _not_understood(message: str, command: str) -> UsageError:
    """The error of a command line that typer refused, with typer's words."""
    return UsageError(message, "a command and options that srdeploy has", f"srdeploy {command} --help")


def main(arguments: Optional[List[str]] = None) -> None:
    """Entry point: every error of ours becomes a message and an exit code, never a traceback."""
    arguments = sys.argv[1:] if arguments is None else arguments
    begin_document()
    # A file name that is not UTF-8 never ends a command.
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="surrogateescape")
    try:
        with ended_by_signals():
            if not {"doctor", "-h", "--help", "--version"} & set(arguments[:1]):
                check_container()
            app(args=arguments)
    except (SrDeployError, ModuleNotFoundError) as raised:
        error = raised if isinstance(raised, SrDeployError) else _missing_package(raised)
        if isinstance(error, UsageError):
            error.todo = error.todo or f"srdeploy {arguments[0]} --help"
        if _wants_json(arguments):
            print_json(_failure(error))
        lines = error.lines()
        typer.secho(log_lines(f"error: {lines[0]}"), fg="red", err=True)
        for line in lines[1:]:
            typer.echo(log_lines(f"  {line}"), err=True)
        sys.exit(error.exit_code)
    except SystemExit as ended:
        refused = getattr(ended.__context__, "format_message", None)  # typer ends so after it has said it on stderr
        if refused is not None and _wants_json(arguments):
            print_json(_failure(_not_understood(refused(), arguments[0])))
        elif ended.code == INTERRUPTED:  # typer turns Ctrl-C into it without a word
            typer.echo("interrupted; what was complete is kept", err=True)
        elif name_of(ended.code):
            typer.echo(f"ended by {name_of(ended.code)}; what was complete is kept", err=True)
        raise
