"""``--help`` in 80 columns: every command under a heading, every option by its whole name."""

from __future__ import annotations

import re

import pytest
import typer

from sr_deploy.cli import COMMANDS, app

GROUP = typer.main.get_command(app)


@pytest.fixture(autouse=True)
def narrow(monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")


def test_commands_stand_under_headings_with_their_whole_first_sentence(srdeploy):
    told = srdeploy("--help").out
    assert max(map(len, told.splitlines())) <= 80 and "..." not in told.split("Boards:")[0].split("picture:")[1]
    headings = [line[:-1] for line in told.splitlines() if re.match(r"[A-Z].*:$", line)]
    assert headings[1:] == list(COMMANDS), "after the options"
    assert set(GROUP.commands) == set(re.findall(r"^  ([a-z]+)  ", told, re.MULTILINE))


@pytest.mark.parametrize("name", sorted(set(GROUP.commands) - {"remote"}))
def test_no_option_is_cut(srdeploy, name):
    told = srdeploy(name, "--help").out
    assert max(map(len, told.splitlines())) <= 80
    for parameter in GROUP.commands[name].params:
        for option in parameter.opts:
            if option.startswith("--"):
                assert re.search(rf"{option}\b", told), option


@pytest.mark.parametrize("name", sorted(set(GROUP.commands) - {"remote"}))
def test_every_command_prints_json(name):
    (found,) = [one for one in GROUP.commands[name].params if "--json" in one.opts]
    assert found.is_flag, "a file is written with --out"


@pytest.mark.parametrize(
    ("option", "command", "some"),
    [
        ("precision", "run", "int8"),
        ("backend", "build", "onnxruntime"),
        ("target", "export", "xavier-nx"),
        ("arch", "export", "EFDN"),
        ("target", "pack", "orin"),
    ],
)
def test_options_of_names_are_completed(option, command, some):
    (parameter,) = [one for one in GROUP.commands[command].params if f"--{option}" in one.opts]
    with typer.Context(GROUP.commands[command]) as context:
        assert some in [item.value for item in parameter.shell_complete(context, "")]
        assert [item.value for item in parameter.shell_complete(context, some[:3])] == [some]
