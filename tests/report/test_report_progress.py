"""The progress bar passes items through, on a terminal and off it."""

from __future__ import annotations

import io
import sys

from sr_deploy.report.progress import track


class Terminal(io.StringIO):
    def isatty(self):
        return True


def test_silent_when_stderr_is_not_a_terminal(monkeypatch):
    stream = io.StringIO()
    monkeypatch.setattr(sys, "stderr", stream)
    assert list(track([1, 2, 3], "working")) == [1, 2, 3]
    assert stream.getvalue() == ""


def test_bar_on_a_terminal_and_nothing_on_stdout(monkeypatch, capsys):
    stream = Terminal()
    monkeypatch.setattr(sys, "stderr", stream)
    monkeypatch.setenv("TERM", "xterm")
    assert list(track(iter([1, 2, 3]), "working", total=3)) == [1, 2, 3]
    assert "working" in stream.getvalue()
    assert capsys.readouterr().out == ""
