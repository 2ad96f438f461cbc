"""Commands on boards over SSH: remote."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Callable, Dict, List, Optional, Tuple

import typer

from sr_deploy.cli import deploy, measure, run
from sr_deploy.cli.shared import JSON_FLAG, print_json, render, say
from sr_deploy.core.errors import UsageError

#: What a board may be asked for, as the command line knows it: its options are checked here, before anything is copied.
ON_BOARD: Dict[str, Callable[..., None]] = {
    "build": deploy.build,
    "bench": measure.bench,
    "verify": deploy.verify,
    "run": run.run,
}
#: Options that take pictures of this machine along: parameter → option.
PICTURES = {"images": "-i", "lr": "--lr", "hr": "--hr"}
#: Options without a meaning on a board, and why.
REFUSED = {
    "checkpoint": "PyTorch has no place on a board; compare with it here: srdeploy verify",
    "keep": "every job there begins with an empty folder; pictures that are home are yours to sort out",
    "raw": "a pipe does not reach a board; run srdeploy there, between ffmpeg's",
    "y4m": "a pipe does not reach a board; run srdeploy there, between ffmpeg's",
    "dry_run": "nothing would come home; srdeploy build --dry-run says it here",
}
#: What the board's command is given besides.
ALWAYS = {"build": ("--json",), "verify": ("--json", "--no-torch"), "bench": (), "run": ()}
#: Bytes of what a command printed on the board that are shown; all of it is in the file.
MOST_SHOWN = 1 << 18
#: Options that this file does not know belong to the command on the board.
PASS_ON = {"ignore_unknown_options": True, "allow_extra_args": True}


def remote(
    words: List[str] = typer.Argument(
        ...,
        metavar="BOARD… COMMAND [BUNDLE] [OPTIONS]",
        help="Boards: user@host:port, a name of the inventory, or all. Commands: build, bench, verify and run with a "
        "deployment (a folder or a .srd) and their own options; attach and stop with a job's id, or without.",
        show_default=False,
    ),
    out: Path = typer.Option(Path("boards"), "-o", "--out", help="Results go to OUT/BOARD/."),
    inventory: Optional[Path] = typer.Option(None, "--inventory", help="TOML with a table \\[boards.NAME] for each."),
    key: Optional[Path] = typer.Option(None, "--key", help="Private key. Default: the agent's, and those in ~/.ssh."),
    workdir: Optional[str] = typer.Option(None, "--workdir", help="Folder on the board, before the inventory's."),
    patience: float = typer.Option(300.0, "--patience", help="Seconds to try again when the connection drops.", min=0),
    as_json: bool = JSON_FLAG,
) -> None:
    """Run build, bench, verify or run on boards over SSH and bring the results home.

    The same command again, or attach, finds a job that is still running or has ended meanwhile.

    srdeploy remote nvidia@192.0.2.10 bench net --size 144,1080 -o results
    """
    import dataclasses

    from sr_deploy.pipeline.ship.remote import RemoteOptions, run_remote, stop_jobs, worst
    from sr_deploy.remote.inventory import boards_of
    from sr_deploy.remote.table import states_table

    hosts, command, rest = _split(words)
    boards = boards_of(hosts, inventory, key)
    if workdir is not None:
        boards = tuple(dataclasses.replace(board, workdir=workdir) for board in boards)
    if command in ("attach", "stop"):
        if len(rest) > 1 or any(word.startswith("-") for word in rest):
            raise UsageError(f"{command} takes a job's id at most, not {' '.join(rest)}", f"… {command} [JOB]")
        options = RemoteOptions(boards, out, wanted=rest[0] if rest else "", patience=patience)
    else:
        bundle, arguments, pictures, force = board_command(command, rest)
        options = RemoteOptions(boards, out, bundle, command, arguments, pictures, "", patience, force)
    if command == "stop":
        stopped = stop_jobs(options)
        if as_json:
            print_json([{"board": name, "done": done} for name, done in stopped])
            return
        for name, done in stopped:
            typer.echo(f"{name}: {done}")
        return
    outcomes = run_remote(options, say)
    if as_json:
        print_json([outcome.to_dict() for outcome in outcomes])
    else:
        for outcome in outcomes:
            _show(outcome.progress.files, outcome.board.name if len(boards) > 1 else "")
        if len(boards) > 1:
            render(states_table([outcome.to_dict() for outcome in outcomes]))
    error = worst(outcomes)
    if error is not None and as_json:
        # The JSON above has it; a second document would make both unreadable.
        raise typer.Exit(error.exit_code)
    if error is not None:
        raise error


def _split(words: List[str]) -> Tuple[List[str], str, List[str]]:
    """(hosts, command, what follows it)."""
    commands = (*ON_BOARD, "attach", "stop")
    at = next((index for index, word in enumerate(words) if word in commands), None)
    if not at:
        raise UsageError(
            f"{' '.join(words)!r} names no {'command' if at is None else 'board'}",
            "boards, then one of " + ", ".join(commands),
            "srdeploy remote user@192.0.2.7 bench net -o results",
        )
    odd = [word for word in words[:at] if word.startswith("-")]
    if odd:
        raise UsageError(
            f"no option {odd[0]} here", f"options of {words[at]} after its bundle; --help lists the others"
        )
    return words[:at], words[at], words[at + 1 :]


def board_command(
    command: str, words: List[str]
) -> Tuple[Path, Tuple[str, ...], Tuple[Tuple[str, Tuple[Path, ...]], ...], bool]:
    """Check the words as the command itself would, and take the pictures out.

    Returns:
        (bundle, arguments for the board, pictures by option, --force was given). Arguments stand in the command's own
        order, so that the same request is the same job however it was typed.

    Raises:
        UsageError: an option that does nothing on a board. click's own errors for what the command does not take.
    """
    single = typer.Typer(add_completion=False)
    single.command()(ON_BOARD[command])
    # ``run`` insists on -o, which is ours here.
    context = typer.main.get_command(single).make_context(command, [*words, *(["-o", "."] if command == "run" else [])])
    given: Dict[str, Any] = {
        name: value
        for name, value in context.params.items()
        if getattr(context.get_parameter_source(name), "name", "") == "COMMANDLINE"
    }
    for parameter in context.command.params:
        if parameter.name in REFUSED and parameter.name in given:
            raise UsageError(f"{parameter.opts[-1]} has no meaning on a board", REFUSED[parameter.name])
    arguments: List[str] = []
    pictures = []
    for parameter in context.command.params:
        name = parameter.name
        if name not in given or name in ("deployment", "out"):
            continue
        value = given[name]
        if name in PICTURES:
            paths = value if isinstance(value, (list, tuple)) else [value]
            pictures.append((PICTURES[name], tuple(map(Path, paths))))
        elif getattr(parameter, "is_flag", False):
            arguments.append((parameter.opts if value else parameter.secondary_opts)[-1])
        else:
            for item in value if isinstance(value, (list, tuple)) else [value]:
                arguments += [parameter.opts[-1], str(item)]
    arguments += [flag for flag in ALWAYS[command] if flag not in arguments]
    return Path(given["deployment"]), tuple(arguments), tuple(pictures), bool(given.get("force"))


def _show(files: Tuple[Path, ...], name: str) -> None:
    """What the command printed on the board, as it would have looked there, and where its files are."""
    from sr_deploy.core.text import log_line

    if name:
        typer.echo(f"{name}:")
    for path in sorted(files, key=lambda path: path.name != "output"):
        if path.name == "output" and path.parent.parent.name == "jobs":
            with open(path, "rb") as stream:
                _show_output(stream.read(MOST_SHOWN).decode("utf-8", "replace"))
        elif path.name != "log":
            typer.echo(log_line(str(path)))


def _show_output(text: str) -> None:
    """Tables where it is what a command prints with --json, else its lines, none of which can do more than be read."""
    import dataclasses

    from sr_deploy.core.errors import BadInput
    from sr_deploy.core.schema import value_from
    from sr_deploy.core.text import log_line
    from sr_deploy.remote.replies import CommandFault, EngineRow, QualityReport
    from sr_deploy.report.table import engine_table, quality_table

    # Any: to a type checker a tuple of engines is no class, though pydantic reads it as one.
    kinds: Tuple[Any, ...] = (Tuple[EngineRow, ...], QualityReport, CommandFault)
    for kind in kinds:
        try:
            told = value_from(kind, text, "output")
        except BadInput:
            continue
        if isinstance(told, tuple):
            render(engine_table([dataclasses.asdict(engine) for engine in told]))
        elif isinstance(told, QualityReport):
            render(quality_table(dataclasses.asdict(told)))
        # What failed is an error, which the log has shown.
        return
    for line in text.splitlines():
        # The paths that bench and run print are the board's.
        if not line.startswith("/"):
            typer.echo(log_line(line.expandtabs()))
